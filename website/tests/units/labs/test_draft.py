"""Checking a draft: the figure accepts, draws again and counts as `speculative.verify` does."""

import math
import random

import pytest
import torch

from dsnotes.model import speculative

STATES = 200


def some_distribution(rng: random.Random) -> list[float]:
    weights = [rng.choice([0.0, rng.random(), rng.random() ** 4]) for _ in range(5)]
    weights[rng.randrange(5)] += 0.1
    return [w / sum(weights) for w in weights]


def tensor(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def verified(p: list[float], q: list[float], draft: int, u: float, monkeypatch):
    """Whether `verify` accepts a draft at this uniform number, and what it then draws from."""
    asked = []

    def multinomial(weights, count, **options):
        asked.append(weights[0] / weights[0].sum())
        return torch.zeros(len(weights), count, dtype=torch.long)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda shape, **o: torch.full(shape, u, dtype=o["dtype"]))
        patch.setattr(torch, "multinomial", multinomial)
        both = tensor(p).expand(1, 2, 5)
        kept, _ = speculative.verify(torch.tensor([[draft]]), tensor(q).expand(1, 1, 5), both)
    return bool(kept), asked[0].tolist()


def test_the_rule_is_that_of_verify(lab, monkeypatch) -> None:
    draft, rng = lab("draft"), random.Random(0)
    for _ in range(STATES):
        p, q = some_distribution(rng), some_distribution(rng)
        found = draft.call("DraftLab.outcome", p, q, "r")
        for v in range(5):  # accepted with kept / q: a little less is accepted, a little more not
            if q[v] > 0:
                keep = found["kept"][v] / q[v]
                assert keep < 1e-9 or verified(p, q, v, keep - 1e-9, monkeypatch)[0]
                assert keep > 1 - 1e-9 or not verified(p, q, v, keep + 1e-9, monkeypatch)[0]
        assert found["a"] == pytest.approx(torch.minimum(tensor(p), tensor(q)).sum().item())
        _, residual = verified(p, q, 0, math.inf, monkeypatch)  # refused whatever it is
        assert found["residual"] == pytest.approx(residual, abs=1e-9)
        assert found["written"] == pytest.approx(p, abs=1e-12)  # nothing is lost
        assert found["off"] < 1e-12


def test_drawn_again_from_p_it_is_off_as_in_the_trap(lab) -> None:
    draft, rng = lab("draft"), random.Random(1)
    for _ in range(STATES):
        p, q = some_distribution(rng), some_distribution(rng)
        found = draft.call("DraftLab.outcome", p, q, "p")
        keep = torch.minimum(tensor(p), tensor(q))
        wrong = keep + (1 - keep.sum()) * tensor(p)
        assert found["written"] == pytest.approx(wrong.tolist(), abs=1e-12)
        assert found["off"] == pytest.approx((wrong - tensor(p)).abs().sum().item() / 2, abs=1e-12)
    # the numbers of exercise 4 and of the test of the trap
    found = draft.call("DraftLab.outcome", [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], "p")
    assert found["written"] == pytest.approx([0.40, 0.32, 0.28])
    assert found["off"] == pytest.approx(0.10)


def test_what_is_sampled_is_what_the_figure_writes(lab) -> None:
    state = lab("draft").state()
    p, q = tensor(state["p"]), tensor(state["q"])
    n, generator = 200_000, torch.Generator().manual_seed(0)
    drafts = torch.multinomial(q, n, replacement=True, generator=generator)[:, None]
    kept, extra = speculative.verify(
        drafts, q.expand(n, 1, 5), p.expand(n, 2, 5), generator=generator
    )
    drawn = torch.where(kept == 1, drafts[:, 0], extra).bincount(minlength=5) / n
    found = lab("draft").call("DraftLab.outcome", state["p"], state["q"], "r")
    assert drawn.tolist() == pytest.approx(found["written"], abs=0.005)
    assert kept.double().mean().item() == pytest.approx(found["a"], abs=0.005)


def test_a_handle_leaves_a_distribution(lab) -> None:
    draft, rng = lab("draft"), random.Random(2)
    for _ in range(STATES):
        p, index, value = some_distribution(rng), rng.randrange(5), round(rng.random(), 2)
        before = {**draft.state(), "p": p}
        if abs(value - p[index]) < 1e-3:
            continue  # less than a handle moves: left as it is
        after = {**before, "p": [*p[:index], value, *p[index + 1 :]]}
        found = draft.call(f"{draft.spec}.tidy", after, None, before)
        assert found["q"] == before["q"]
        assert found["p"][index] == value
        assert sum(found["p"]) == pytest.approx(1, abs=4e-4)  # four decimals, for the address
        others = [v for v in range(5) if v != index]
        rest = sum(p[v] for v in others)
        for v in others:
            share = p[v] / rest if rest > 1e-9 else 1 / 4
            assert found["p"][v] == pytest.approx((1 - value) * share, abs=1e-4)
        assert draft.call(f"{draft.spec}.tidy", found, None, None) == found  # from an address
    raw = {**draft.state(), "q": [1, 1, 0, 0, 0]}
    assert draft.call(f"{draft.spec}.tidy", raw, None, None)["q"] == [0.5, 0.5, 0, 0, 0]


def test_expected_tokens_are_those_of_the_library(lab) -> None:
    draft, rng = lab("draft"), random.Random(3)
    for _ in range(STATES):
        a, depth = rng.choice([0.0, 1.0, rng.random()]), rng.randint(1, 6)
        with_bonus = draft.call("DraftLab.expected", a, depth)
        assert with_bonus == speculative.expected_tokens_per_step(a, depth=depth)
        without = draft.call("DraftLab.expected", a, depth, False)
        assert without == speculative.expected_tokens_per_step(a, depth=depth - 1)


def test_a_step_accepts_what_verify_accepts(lab, monkeypatch) -> None:
    """The same uniform numbers: q is sure of token 0, and p gives it the probability a."""
    draft, rng = lab("draft"), random.Random(4)
    for _ in range(STATES):
        a, depth = round(rng.random(), 2), rng.randint(1, 6)
        u = [rng.random() for _ in range(depth)]
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", lambda shape, u=u, **o: tensor(u)[None])
            q = tensor([1, 0]).expand(1, depth, 2)
            p = tensor([a, 1 - a]).expand(1, depth + 1, 2)
            kept, _ = speculative.verify(torch.zeros(1, depth, dtype=torch.long), q, p)
        assert draft.call("DraftLab.accepted", u, a) == kept.item()


@pytest.mark.parametrize("bonus", [True, False])
def test_the_tape(lab, bonus) -> None:
    """Every token is written once; counted over many steps, the mean is the expected one."""
    draft, rng = lab("draft"), random.Random(5)
    for _ in range(100):
        a, depth, seed = round(rng.random(), 2), rng.randint(1, 6), rng.randint(1, 9999)
        flag = str(bonus).lower()
        steps = draft.eval(f"DraftLab.decode(Kit.random({seed}), {a}, {depth}, {flag}, 20)")
        assert [s["start"] for s in steps] == [
            sum(s["count"] for s in steps[:i]) for i in range(len(steps))
        ]
        assert sum(s["count"] for s in steps) == 20
        for step in steps:
            assert step["count"] == step["kept"] + step["own"] >= 1
            assert step["kept"] <= depth
            assert step["own"] or not step["refused"]
        for step in steps[:-1]:  # the last one may be cut
            assert step["refused"] == (step["kept"] < depth)
            assert step["own"] == (bonus or step["kept"] < depth)
        reach = draft.eval(f"DraftLab.measured(Kit.random({seed}), {a}, {depth}, {flag}, 4000)")
        expected = [a**k for k in range(depth)] + [a**depth if bonus else 0.0]
        assert reach == pytest.approx(expected, abs=0.04)
        assert sum(reach) == pytest.approx(
            draft.call("DraftLab.expected", a, depth, bonus), abs=0.15
        )


def test_presets_and_goals(lab) -> None:
    draft = lab("draft")
    presets = draft.eval(f"{draft.spec}.presets.map((preset) => preset.state)")
    for state in (draft.state(**preset) for preset in presets):
        assert draft.call(f"{draft.spec}.tidy", state, None, None) == state
    greedy = draft.state(**presets[2])
    found = draft.call("DraftLab.outcome", greedy["p"], greedy["q"], "r")
    assert (found["a"], found["residual"]) == (0, greedy["p"])
    same = draft.state()["p"]
    reached = [
        {"q": same},
        {"redraw": "p", "p": [0.5, 0.5, 0, 0, 0], "q": [0, 0, 0.2, 0.3, 0.5]},
        {"view": "tape", "a": 0.5, "depth": 6},
    ]
    for index, fields in enumerate(reached):
        assert draft.goal(index, draft.state(**fields))
        assert not draft.goal(index, draft.state())
    assert draft.goal(1, draft.state(redraw="p", q=same))
    half = draft.state(redraw="p", p=[0.5, 0.5, 0, 0, 0], q=[0.2, 0.2, 0.6, 0, 0])
    assert draft.goal(1, half)  # what is accepted has the shape of p
    assert not draft.goal(2, draft.state(view="tape", a=0.5, depth=6, bonus=False))
    assert "0.12" in draft.say(draft.state(redraw="p"))
    assert "<b>1</b> 个" in draft.say(draft.state(view="tape", bonus=False))
