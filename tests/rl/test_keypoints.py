"""keypoints: the quality by hand and by counting, the judge, and a policy that chases a score."""

import json
import statistics
from pathlib import Path

import pytest
import torch

from dsnotes.rl.keypoints import (
    CLEAR,
    END,
    LETTERS,
    LONGEST,
    POINTS,
    PROMPT,
    SEP,
    agreement,
    base_policy,
    careless_answers,
    chase,
    fit_reward_model,
    judged_pairs,
    lengths,
    new_prompts,
    quality,
    recall,
    respond,
    show,
    written,
)


def rows(*answers: str, points: str = "ABC") -> torch.Tensor:
    return torch.tensor(
        [[*map(LETTERS.find, points), SEP, *map(LETTERS.find, a), *[END] * (LONGEST + 1 - len(a))]
         for a in answers]
    )  # fmt: skip


@pytest.fixture(scope="module")
def base():
    return base_policy(seed=0, steps=60)


def test_quality_by_hand() -> None:
    tokens = rows("ABC", "AAA", "ABCD", "D", "", "CAB", "ABCABCA")
    assert quality(tokens).tolist() == pytest.approx([1, 1 / 3, 6 / 7, 0, 0, 1, 0.6])
    assert recall(tokens).tolist() == pytest.approx([1, 1 / 3, 1, 0, 0, 1, 1])
    assert lengths(tokens).tolist() == [PROMPT + n + 1 for n in (3, 3, 4, 1, 0, 3, 7)]
    assert show(tokens[2]) == ("ABC", "ABCD")


def test_quality_is_f1_of_precision_and_recall() -> None:
    """A letter repeated is not a second hit: 1.0 only for each point once and nothing else."""
    generator = torch.Generator().manual_seed(0)
    tokens = careless_answers(new_prompts(300, generator=generator), generator=generator)
    for row, q in zip(tokens, quality(tokens).tolist(), strict=True):
        points, answer = show(row)
        hits = len(set(points) & set(answer))
        precision, share = hits / len(answer), hits / POINTS
        expected = 2 * precision * share / (precision + share) if hits else 0.0
        assert q == pytest.approx(expected)


def test_careless_answers_are_as_described() -> None:
    generator = torch.Generator().manual_seed(0)
    prompts = new_prompts(20_000, generator=generator)
    assert all(len(set(row)) == POINTS for row in prompts[:, :POINTS].tolist())
    tokens = careless_answers(prompts, generator=generator)
    counts = written(tokens).sum(dim=1).bincount(minlength=8) / len(tokens)
    assert counts.tolist() == pytest.approx([0, 0.2, 0.2, 0.2, 0.2, 0.2, 0, 0], abs=0.02)
    is_point = (tokens[:, PROMPT:, None] == tokens[:, None, :POINTS]).any(2)[written(tokens)]
    assert is_point.float().mean().item() == pytest.approx(0.6 + 0.4 * 0.3, abs=0.01)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        new_prompts(0, generator=generator)


def test_the_judge_prefers_by_the_sigmoid_of_the_difference(base) -> None:
    chosen, rejected = judged_pairs(base, 4000, generator=torch.Generator().manual_seed(1))
    difference = quality(chosen) - quality(rejected)
    assert difference.abs().min() > CLEAR
    for low, high in ((0.15, 0.25), (0.25, 0.4)):
        near = (difference.abs() > low) & (difference.abs() < high)
        expected = torch.sigmoid(8 * difference[near].abs()).mean().item()
        found = (difference[near] > 0).float().mean().item()
        assert found == pytest.approx(expected, abs=0.04)


def test_same_seed_same_policy(base) -> None:
    again = base_policy(seed=0, steps=60)
    assert all(
        torch.equal(a, b) for a, b in zip(base.parameters(), again.parameters(), strict=True)
    )


def test_a_policy_that_chases_the_rule_gets_better_and_leaves_its_start_alone(base) -> None:
    generator = torch.Generator().manual_seed(2)
    before = [p.clone() for p in base.parameters()]
    policy, history = chase(base, quality, generator=generator, steps=12)
    assert len(history) == 12
    assert all(r == q for r, q in history)  # the rule is the quality
    fresh = new_prompts(300, generator=generator)
    ends = [quality(respond(p, fresh, generator=generator)).mean() for p in (base, policy)]
    assert ends[1] > ends[0] + 0.1
    assert all(torch.equal(a, b) for a, b in zip(base.parameters(), before, strict=True))


def test_a_reward_model_learns_the_pairs(base) -> None:
    generator = torch.Generator().manual_seed(3)
    model = fit_reward_model(
        base, *judged_pairs(base, 1500, generator=generator), generator=generator, steps=100
    )
    assert agreement(model, *judged_pairs(base, 500, generator=generator)) > 0.55
    assert not any(p.requires_grad for p in model.parameters())


# --- the recorded runs: what the page says of all seeds ---

RECORD = json.loads(
    (Path(__file__).parents[2] / "book" / "data" / "runs" / "reward.json").read_text("utf-8")
)
SEEDS = range(8)


def of(variant: str, key: str) -> list:
    found = {r["seed"]: r[key] for r in RECORD["runs"] if r["variant"] == variant}
    assert sorted(found) == list(SEEDS)
    return [found[seed] for seed in SEEDS]


@pytest.mark.parametrize("variant", ["few", "even"])
def test_the_reward_model_is_fooled_on_every_seed(variant: str) -> None:
    before, after = of(variant, "before"), of(variant, "after")
    assert all(b - a > 0.1 for b, a in zip(before, after, strict=True))
    assert min(of(variant, "rise")) > 0.5
    assert min(of(variant, "agreement")) > 0.6


def test_all_small_reward_models_have_as_many_pairs() -> None:
    assert set(of("few", "pairs")) == set(of("even", "pairs")) == {RECORD["settings"]["few"]}
    assert set(of("many", "pairs")) == {RECORD["settings"]["many"]}


def test_the_rule_helps_on_every_seed_and_half_a_rule_stops_halfway() -> None:
    before, half, rule = of("rule", "before"), of("recall", "after"), of("rule", "after")
    for b, h, r in zip(before, half, rule, strict=True):
        assert r > 0.8 > 0.7 > h
        assert r > b + 0.3
    assert min(of("recall", "longest")) > 0.8


def test_with_twenty_times_the_pairs_it_turns_on_the_seed() -> None:
    changes = [a - b for b, a in zip(of("many", "before"), of("many", "after"), strict=True)]
    assert min(changes) < 0 < max(changes)
    assert statistics.median(of("many", "after")) > max(
        statistics.median(of(v, "after")) for v in ("few", "even")
    )
