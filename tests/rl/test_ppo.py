"""ppo: equations term by term, where it meets GRPO, and what a critic changes."""

import math
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from dsnotes.rl.grpo import group_advantages, grpo_loss
from dsnotes.rl.objective import Objective
from dsnotes.rl.ppo import gae, ppo_loss, token_rewards, value_loss

MASK = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]]).bool()


def noise(*, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 5, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (1.0, 0.0), (0.9, 0.95), (0.5, 0.3)])
def test_gae_is_the_sum_it_stands_for(gamma: float, lam: float) -> None:
    """PPO eq 11-12 with the sum over l written out; prompt and padding hold rubbish."""
    rewards, values = noise(seed=1), noise(seed=2)
    for x in (rewards, values):
        x[~MASK] = math.nan
    found = gae(rewards, values, MASK, gamma=gamma, lam=lam)
    for i, mask in enumerate(MASK.tolist()):
        places = [t for t, inside in enumerate(mask) if inside]
        r, v = ([x[i, t].item() for t in places] for x in (rewards, values))
        v.append(0.0)
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(places))]
        for t, place in enumerate(places):
            sums = [(gamma * lam) ** n * d for n, d in enumerate(delta[t:])]
            assert found[i, place].item() == pytest.approx(sum(sums), abs=1e-12)
    assert found[~MASK].abs().max() == 0


def test_gae_at_both_ends() -> None:
    """lam = 1: what came minus V_t, whatever the critic said later; lam = 0: one step."""
    rewards, values = noise(seed=1).masked_fill(~MASK, 0), noise(seed=2).masked_fill(~MASK, 0)
    came = rewards.flip(1).cumsum(1).flip(1)
    assert torch.allclose(gae(rewards, values, MASK, lam=1.0)[MASK], (came - values)[MASK])
    values[1] = came[1]  # a critic that knew everything
    assert gae(rewards, values, MASK, lam=0.0)[1].abs().max() < 1e-12


def test_token_rewards() -> None:
    """DeepSeekMath eq 2: the score on the last token, the KL on each; summed, all of the KL."""
    pi, ref = noise(seed=1), noise(seed=2)
    scores = torch.tensor([1.0, 0.0, -2.0]).double()
    found = token_rewards(scores, pi, ref, MASK, beta=0.1)
    kl = (pi - ref).masked_fill(~MASK, 0)
    assert torch.allclose(found.sum(1), scores - 0.1 * kl.sum(1))
    assert found[0, 1].item() == pytest.approx(-0.1 * kl[0, 1].item())
    assert found[0, 3].item() == pytest.approx(1 - 0.1 * kl[0, 3].item())
    assert found[2, 3].item() == pytest.approx(-2 - 0.1 * kl[2, 3].item())
    assert found[~MASK].abs().max() == 0


def test_kl_in_the_reward_adds_up_over_an_output_and_in_the_loss_does_not() -> None:
    """Why GRPO moved it (R1 v2 A.3): the first token of a long output pays for all that follows."""
    ones = torch.ones(2, 10, dtype=torch.bool)
    ones[0, 2:] = False  # outputs of 2 and of 10 tokens, each token 0.3 nat above the reference
    pi = torch.full((2, 10), -1.0)
    rewards = token_rewards(torch.zeros(2), pi, pi - 0.3, ones, beta=0.1)
    first = gae(rewards, torch.zeros(2, 10), ones, lam=1.0)[:, 0]
    assert first.tolist() == pytest.approx([-0.06, -0.3])
    losses = [
        grpo_loss(pi[i : i + 1], pi[i : i + 1], torch.zeros(1), ones[i : i + 1],
                  objective=Objective(beta=0.1), ref_log_probs=pi[i : i + 1] - 0.3)
        for i in (0, 1)
    ]  # fmt: skip
    assert losses[0].item() == pytest.approx(losses[1].item())


def test_value_loss_and_its_minimum() -> None:
    values = noise(seed=1).requires_grad_()
    targets = noise(seed=2)
    loss = value_loss(values, targets, MASK)
    square = (values - targets).square()
    expected = (square[0, 1:4].mean() + square[1].mean() + square[2, 3]) / 3
    assert loss.item() == pytest.approx(expected.item())
    (gradient,) = torch.autograd.grad(loss, values)
    assert gradient[~MASK].abs().max() == 0
    assert value_loss(targets, targets, MASK) == 0


def data() -> dict[str, Tensor]:
    pi = noise(seed=1) - 2
    return {
        "log_probs": pi,
        "old_log_probs": pi + 0.4 * noise(seed=2),
        "advantages": noise(seed=3),
        "values": noise(seed=4),
        "targets": noise(seed=5),
        "mask": MASK,
    }


def test_objective_term_by_term() -> None:
    """PPO eq 9: each term moves only its own network."""
    inputs = data()
    for name in ("log_probs", "values"):
        inputs[name].requires_grad_()
    entropy = noise(seed=6).square().requires_grad_()
    loss = ppo_loss(**inputs, value_weight=0.5, entropy=entropy, entropy_weight=0.01)
    policy = grpo_loss(
        *(inputs[n] for n in ("log_probs", "old_log_probs", "advantages")), MASK
    )  # DeepSeekMath eq 1 is eq 3 with other advantages
    value = value_loss(inputs["values"], inputs["targets"], MASK)
    bonus = torch.stack([row[m].mean() for row, m in zip(entropy, MASK, strict=True)]).mean()
    assert loss.item() == pytest.approx((policy + 0.5 * value - 0.01 * bonus).item())
    found = torch.autograd.grad(loss, [inputs["log_probs"], inputs["values"], entropy])
    alone = [
        torch.autograd.grad(policy, inputs["log_probs"])[0],
        0.5 * torch.autograd.grad(value, inputs["values"])[0],
        -0.01 * torch.autograd.grad(bonus, entropy)[0],
    ]
    for a, b in zip(found, alone, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
        assert b.abs().max() > 1e-4


def test_gradient_by_finite_differences() -> None:
    inputs = data()
    names = ("log_probs", "values")

    def loss(log_probs: Tensor, values: Tensor) -> Tensor:
        return ppo_loss(**inputs | {"log_probs": log_probs, "values": values}, value_weight=0.5)

    assert torch.autograd.gradcheck(loss, [inputs[n].requires_grad_() for n in names])


def test_a_critic_that_says_the_group_mean_is_grpo() -> None:
    """lam = 1, V = mean of the group on every token: GRPO without std, to the bit of rounding."""
    rewards = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).double()
    mask = torch.arange(5) < torch.tensor([2, 5, 3, 1, 4, 5])[:, None]
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros(6, 1, dtype=torch.bool)], dim=1)
    per_token = torch.where(last, rewards.flatten()[:, None], 0)
    values = rewards.mean(1).repeat_interleave(3)[:, None].expand(6, 5)
    a = gae(per_token, values, mask, lam=1.0)
    expected = group_advantages(rewards, scale=False).flatten()[:, None].expand(6, 5)
    assert torch.allclose(a, expected.masked_fill(~mask, 0))
    pi = -torch.rand(6, 5).double()
    old = pi + 0.3 * torch.randn(6, 5).double()
    ppo = ppo_loss(pi, old, a, values, values, mask, value_weight=0.5)
    grpo = grpo_loss(pi, old, expected[:, 0], mask)
    assert ppo.item() == pytest.approx(grpo.item(), abs=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.95, 1.0])
def test_only_lam_1_forgives_a_wrong_critic(lam: float) -> None:
    """Two tokens, four outputs, enumerated: the expected gradient with a critic that is wrong at
    the second token. At lam = 1 it is the true one; below, the first token is misled."""
    logits = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)  # of a 1, each
    p = logits.sigmoid()
    outcomes = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    log_probs = torch.where(outcomes == 1, p, 1 - p).log()
    weights = log_probs.sum(1).exp()
    reward = outcomes.prod(1).double()  # both must be 1
    (true,) = torch.autograd.grad((weights * reward).sum(), logits, retain_graph=True)
    wrong = torch.tensor([[0.5, 0.9], [0.5, 0.9], [0.5, 0.1], [0.5, 0.1]]).double()
    mask = torch.ones(4, 2, dtype=torch.bool)
    per_token = torch.stack([torch.zeros(4).double(), reward], dim=1)
    a = gae(per_token, wrong, mask, lam=lam)
    (found,) = torch.autograd.grad((weights.detach() * (a * log_probs).sum(1)).sum(), logits)
    assert found[1].item() == pytest.approx(true[1].item())
    if lam == 1:
        assert found[0].item() == pytest.approx(true[0].item())
    else:
        assert abs(found[0] - true[0]) > 0.005


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value_weight": -1.0}, "value_weight must be at least 0"),
        ({"clip": -0.2}, "clip must be at least 0"),
        ({"entropy_weight": 0.1}, r"entropy must be given, got entropy_weight 0\.1 alone"),
        ({"targets": torch.zeros(3, 5, requires_grad=True)}, "targets must be detached"),
        (
            {"advantages": torch.zeros(3, 1)},
            r"advantages must be .* = \(3, 5\) \(sizes as in log_probs\), got",
        ),
        (
            {"values": torch.zeros(3, 1)},
            r"values must be .* = \(3, 5\) \(sizes as in log_probs\), got",
        ),
        ({"mask": ~torch.ones(3, 5).bool()}, "mask must mark at least one token"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        ppo_loss(**data() | {"value_weight": 0.5} | change)


def test_bad_spans_and_factors() -> None:
    x = torch.zeros(2, 4)
    holes = torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0]]).bool()
    with pytest.raises(ValueError, match=r"one piece in each row, got \[2, 1\] pieces"):
        gae(x, x, holes)
    with pytest.raises(ValueError, match=r"one piece in each row, got \[0, 1\] pieces"):
        token_rewards(x[:, 0], x, x, holes & torch.tensor([[False], [True]]), beta=0.1)
    with pytest.raises(ValueError, match=r"lam must lie in 0 \.\. 1, got 1\.5"):
        gae(x, x, holes, lam=1.5)
    with pytest.raises(ValueError, match=r"gamma must lie in 0 \.\. 1, got -0\.5"):
        gae(x, x, holes, gamma=-0.5)
    with pytest.raises(ValueError, match="beta must be at least 0"):
        token_rewards(x[:, 0], x, x, holes, beta=-1.0)
