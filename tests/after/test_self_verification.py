"""self_verification: the rewards by hand, what honesty pays, the label, the toy proofs."""

import itertools

import pytest

from dsnotes.after.self_verification import (
    ALPHA,
    BETA,
    SCORES,
    Review,
    automatic_label,
    meta_score,
    prover_reward,
    review_additions,
    score_reward,
    verifier_reward,
)


def test_score_reward_table() -> None:
    assert [[score_reward(c, s) for s in SCORES] for c in SCORES] == [
        [1, 0.5, 0],
        [0.5, 1, 0.5],
        [0, 0.5, 1],
    ]


def test_rewards_by_hand() -> None:
    assert verifier_reward(0.5, 1.0, meta=0.5) == 0.25
    assert verifier_reward(1.0, 1.0, meta=1.0, formatted=False) == 0
    assert prover_reward(1.0, 1.0, meta=1.0) == pytest.approx(ALPHA + BETA) == pytest.approx(1)
    assert prover_reward(0.0, 0.0, meta=1.0) == pytest.approx(0.24)
    assert prover_reward(1.0, 0.0, meta=1.0) == 0
    assert prover_reward(0.5, 0.5, meta=1.0) == pytest.approx(0.62)
    assert prover_reward(1.0, 1.0, meta=1.0, formatted=False) == 0


def test_for_every_true_score_the_honest_claim_pays_most() -> None:
    for true in SCORES:
        pay = {claim: prover_reward(claim, true, meta=1.0) for claim in SCORES}
        assert max(pay, key=pay.__getitem__) == true


def test_a_better_proof_pays_more_than_honesty_about_a_worse_one() -> None:
    """alpha > beta: admitting a flaw is never worth leaving it in."""
    for better, worse in itertools.combinations(reversed(SCORES), 2):
        worst_review = min(prover_reward(c, better, meta=1.0) for c in SCORES)
        if better - worse == 1:
            assert worst_review > prover_reward(worse, worse, meta=1.0)
        assert prover_reward(better, better, meta=1.0) > prover_reward(worse, worse, meta=1.0)


def test_the_best_claim_of_an_unsure_prover_is_the_median() -> None:
    """E|s' - s| is least at the median of what it believes, not at the mean."""
    for p in (0.1, 0.4, 0.6, 0.9):  # right or wrong, nothing between
        pay = {
            claim: p * score_reward(claim, 1.0) + (1 - p) * score_reward(claim, 0.0)
            for claim in SCORES
        }
        assert max(pay, key=pay.__getitem__) == (1.0 if p > 0.5 else 0.0)
        assert pay[0.5] == 0.5


def test_invented_issues_pay_nothing_once_they_are_checked() -> None:
    true = review_additions([3, 8, 10], [3, 4, 2])
    invented = Review(true.score, frozenset({0, 2}))
    assert score_reward(invented.score, true.score) == 1
    assert verifier_reward(invented.score, true.score, meta=meta_score(invented, true)) == 0
    assert verifier_reward(true.score, true.score, meta=meta_score(true, true)) == 1


def test_toy_proofs() -> None:
    assert review_additions([3, 7, 9], [3, 4, 2]) == Review(1.0, frozenset())
    assert review_additions([4, 7, 9], [3, 4, 2]) == Review(0.0, frozenset({0, 1}))
    assert review_additions([4, 8, 10], [3, 4, 2]) == Review(0.5, frozenset({0}))
    assert review_additions([1, 2, 3], [3, 4, 2]).score == 0
    assert meta_score(Review(1.0, frozenset()), Review(0.0, frozenset({0}))) == 1


def test_automatic_label() -> None:
    scores = [0.0, 0.0, 0.5, 1.0]
    assert automatic_label(scores, [True, True, True, True], at_least=2) == 0.0
    assert automatic_label(scores, [True, False, True, True], at_least=1) == 0.0
    assert automatic_label(scores, [False, False, True, True], at_least=1) == 0.5
    assert automatic_label(scores, [True, False, True, True], at_least=2) is None


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"claimed must be 0, 0\.5 or 1, got 0\.7"):
        score_reward(0.7, 1.0)
    with pytest.raises(ValueError, match=r"true must be 0, 0\.5 or 1, got 2\.0"):
        score_reward(1.0, 2.0)
    with pytest.raises(ValueError, match=r"meta must lie in 0 \.\. 1, got 1\.5"):
        verifier_reward(1.0, 1.0, meta=1.5)
    with pytest.raises(ValueError, match=r"confirmed must be one a score \(2\), got 1"):
        automatic_label([0.0, 1.0], [True], at_least=1)
    with pytest.raises(ValueError, match="at_least must be at least 1, got 0"):
        automatic_label([0.0], [True], at_least=0)
    with pytest.raises(ValueError, match=r"totals must be one a summand \(2\), got 1"):
        review_additions([1], [1, 2])
