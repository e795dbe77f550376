"""The figure of stale samples: gradients by autograd, the mask of the library, both mistakes."""

import random

import pytest
import torch

from dsnotes.after.offpolicy import off_policy_mask, unbiased_kl
from dsnotes.rl.grpo import group_advantages
from dsnotes.rl.objective import k3


def detached(pi, old, ref):
    return (pi - old).exp().detach() * k3(pi, ref)


WAYS = {"k3": lambda pi, old, ref: k3(pi, ref), "unbiased": unbiased_kl, "detached": detached}


def logits(seed: int) -> list[list[float]]:
    draw = random.Random(seed)
    return [[draw.uniform(-3, 3) for _ in range(5)] for _ in range(3)]


@pytest.mark.parametrize("way", WAYS)
def test_value_and_gradient_of_every_way(lab, way: str) -> None:
    figure = lab("offpolicy")
    for seed in range(100):
        now, old, ref = logits(seed)
        leaf = torch.tensor(now).double().requires_grad_()
        log_old, log_ref = (torch.tensor(x).double().log_softmax(-1) for x in (old, ref))
        mean = (log_old.exp() * WAYS[way](leaf.log_softmax(-1), log_old, log_ref)).sum()
        (slope,) = torch.autograd.grad(mean, leaf)
        found = figure.call("OffpolicyLab.written", way, now, old, ref)
        assert found["value"] == pytest.approx(mean.item(), rel=1e-6, abs=1e-6)
        assert found["gradient"] == pytest.approx(slope.tolist(), rel=1e-6, abs=1e-6)


def test_the_true_gradient(lab) -> None:
    figure = lab("offpolicy")
    for seed in range(100):
        now, _, ref = logits(seed)
        leaf = torch.tensor(now).double().requires_grad_()
        log_p, log_ref = leaf.log_softmax(-1), torch.tensor(ref).double().log_softmax(-1)
        value = (log_p.exp() * (log_p - log_ref)).sum()
        (slope,) = torch.autograd.grad(value, leaf)
        found = figure.call("OffpolicyLab.exact", now, ref)
        assert found["value"] == pytest.approx(value.item(), rel=1e-6)
        assert found["gradient"] == pytest.approx(slope.tolist(), rel=1e-6, abs=1e-6)


def test_the_mask_and_its_mistakes(lab) -> None:
    """Trap 2 sees each gap without the part of the engine; trap 3 does not ask for the sign."""
    figure, draw = lab("offpolicy"), random.Random(0)
    right = torch.tensor([[1, 0, 0, 1, 0, 1, 0, 0]]).double()
    advantages = group_advantages(right, scale=False)[0]
    assert figure.call("OffpolicyLab.advantages") == pytest.approx(advantages.tolist())
    engine, mask = figure.eval("OffpolicyLab.ENGINE"), torch.ones(8, 1, dtype=torch.bool)
    for _ in range(100):
        drift = [draw.uniform(-0.5, 1.5) for _ in range(8)]
        delta = draw.uniform(0, 1.5)
        gap, now = torch.tensor(drift).double()[:, None], torch.full((8, 1), -2.0).double()
        for wrong, sampled, a in (
            ("none", now + gap, advantages),
            ("trap2", now + gap - engine, advantages),
            ("trap3", now + gap, -torch.ones(8).double()),
        ):
            expected = off_policy_mask(now, sampled, a, mask, delta=delta)
            found = figure.call("OffpolicyLab.keeps", drift, delta, wrong)
            assert found == expected.tolist()


def test_goals_and_sentences(lab) -> None:
    figure = lab("offpolicy")
    ref = figure.eval("OffpolicyLab.REF")
    near = [x + 0.02 * (-1) ** i for i, x in enumerate(ref)]
    reaching = [
        {"stale": 0},
        {"stale": 0, "now": near},
        {"view": "mask", "drift": [0, 1, 1, 0, 1, 1, 1, 1]},
    ]
    for i, fields in enumerate(reaching):
        assert not figure.goal(i, figure.state())
        assert figure.goal(i, figure.state(**fields))
    presets = figure.eval("OffpolicyLab.presets.map(({ state }) => state)")
    assert len({figure.say(figure.state(**p)) for p in presets}) == len(presets) == 6
    assert "记号全在柱顶" in figure.say(figure.state(way="unbiased", stale=1.5))
    assert "2 份是好的" in figure.say(figure.state(view="mask", wrong="trap3"))
