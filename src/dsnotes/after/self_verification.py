"""Rewards of DeepSeekMath-V2: a verifier that must point at real errors, a prover that must admit.

A proof has no final answer to compare with. A verifier scores it 0, 1/2 or 1 and lists what is
wrong; a meta-verifier checks that the listed issues exist; and the prover, who scores its own
proof, is paid for being right about it.

Equations (DeepSeekMath-V2, report of 2025-11-27)
    R_score(s', s) = 1 - |s' - s|
    R_V = R_format R_score R_meta
    R = R_format (alpha R_Y + beta R_Z), R_Z = R_score(s', s) R_meta(Z), alpha 0.76, beta 0.24

The toy is ours, not the report's: a proof is a column of additions in which errors are planted, so
that the true score and the true issues are known. It runs the algebra and says nothing of training.
"""

from collections.abc import Sequence
from typing import NamedTuple

from dsnotes.checks.arguments import checked

SCORES = (0.0, 0.5, 1.0)
ALPHA, BETA = 0.76, 0.24


class Review(NamedTuple):
    """A score in `SCORES`, and the steps that it holds to be wrong."""

    score: float
    issues: frozenset[int]


@checked
def score_reward(claimed: float, true: float) -> float:
    """R_score(s', s) = 1 - |s' - s|. ValueError unless both are 0, 1/2 or 1.

    >>> score_reward(0.5, 1.0)
    0.5
    """
    for name, value in (("claimed", claimed), ("true", true)):
        if value not in SCORES:
            raise ValueError(f"{name} must be 0, 0.5 or 1, got {value!r}")
    return 1 - abs(claimed - true)


@checked
def verifier_reward(claimed: float, true: float, *, meta: float, formatted: bool = True) -> float:
    """R_V: `meta` in 0 .. 1 says how far the listed issues exist; badly formatted is 0.

    >>> verifier_reward(0.0, 0.0, meta=0.0)  # the right score for invented reasons
    0.0
    """
    return formatted * score_reward(claimed, true) * _share(meta)


@checked
def prover_reward(claimed: float, true: float, *, meta: float, formatted: bool = True) -> float:
    """R: alpha for the proof, whose score is `true`, and beta for the review of it by its author.

    >>> round(prover_reward(0.0, 0.0, meta=1.0), 2), prover_reward(1.0, 0.0, meta=1.0)
    (0.24, 0.0)
    """
    review = score_reward(claimed, true) * _share(meta)
    return formatted * (ALPHA * true + BETA * review)


@checked
def automatic_label(
    scores: Sequence[float], confirmed: Sequence[bool], *, at_least: int
) -> float | None:
    """The lowest score that `at_least` confirmed verifications of a proof give, or None.

    `confirmed` says which of the verifications stood the meta checks. ValueError for different
    numbers of them, a score that is none, or `at_least` below 1.

        >>> automatic_label([0.0, 0.5, 0.5, 1.0], [False, True, True, True], at_least=2)
        0.5
    """
    if len(scores) != len(confirmed):
        raise ValueError(f"confirmed must be one a score ({len(scores)}), got {len(confirmed)}")
    if at_least < 1:
        raise ValueError(f"at_least must be at least 1, got {at_least}")
    for score in scores:
        score_reward(score, score)
    standing = [s for s, ok in zip(scores, confirmed, strict=True) if ok]
    return min((s for s in standing if standing.count(s) >= at_least), default=None)


@checked
def review_additions(totals: Sequence[int], summands: Sequence[int]) -> Review:
    """The true review of a toy proof: running totals of `summands`, one step each.

    A step is judged by the total before it as written, so that one slip is one issue. One issue
    leaves 1/2, more leave 0. ValueError unless there are as many totals as summands, at least one.

        >>> review_additions([3, 8, 10], [3, 4, 2])
        Review(score=0.5, issues=frozenset({1}))
    """
    if len(totals) != len(summands) or not totals:
        raise ValueError(f"totals must be one a summand ({len(summands)}), got {len(totals)}")
    before = [0, *totals[:-1]]
    steps = zip(before, summands, totals, strict=True)
    issues = frozenset(i for i, (a, b, total) in enumerate(steps) if a + b != total)
    return Review(max(0.0, 1 - len(issues) / 2), issues)


@checked
def meta_score(review: Review, true: Review) -> float:
    """R_meta of the toy: the share of the listed issues that exist; 1 where none is listed.

    >>> meta_score(Review(0.5, frozenset({0, 1})), Review(0.5, frozenset({1})))
    0.5
    """
    if not review.issues:
        return 1.0
    return len(review.issues & true.issues) / len(review.issues)


def _share(meta: float) -> float:
    if not 0 <= meta <= 1:
        raise ValueError(f"meta must lie in 0 .. 1, got {meta!r}")
    return meta
