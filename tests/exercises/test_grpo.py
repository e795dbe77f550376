"""The exercises of the section on GRPO, solved with the library: differentiated and enumerated."""

import itertools
import math
import statistics

import pytest
import torch

from dsnotes.rl.grpo import group_advantages, grpo_loss
from dsnotes.rl.objective import Objective, clipped_surrogate, k3

from .page import solution


def test_grpo_1() -> None:
    rewards = (torch.arange(16) < 4).double()[None]
    for correction, right, wrong in ((0, 1.732, -0.577), (1, 1.677, -0.559)):
        advantages = group_advantages(rewards, correction=correction)[0]
        assert advantages[0].item() == pytest.approx(right, abs=5e-4)
        assert advantages[-1].item() == pytest.approx(wrong, abs=5e-4)
        for stated in (right, wrong):
            assert str(stated).replace("-", "−") in solution("grpo-1").replace("-", "−")


def test_grpo_2() -> None:
    for width, rho, value, slope in (
        (0.2, 0.5, -0.8, 0.0), (0.2, 1.5, -1.5, -1.0),
        (10.0, 0.5, -0.5, -1.0), (10.0, 1.5, -1.5, -1.0),
    ):  # fmt: skip
        ratio = torch.tensor([rho], requires_grad=True)
        objective = clipped_surrogate(ratio, torch.tensor([-1.0]), clip_low=width, clip_high=width)
        (gradient,) = torch.autograd.grad(objective.sum(), ratio)
        assert (objective.item(), gradient.item()) == pytest.approx((value, slope))
    assert "$\\rho=0.5$ 时 −0.8、斜率 0；1.5 时 −1.5、斜率 −1" in solution("grpo-2")
    assert "−0.5 与 −1.5，斜率都是 −1" in solution("grpo-2")


def test_grpo_3() -> None:
    mask = torch.arange(500) < torch.tensor([[50], [500]])
    for options, short, long in (
        ({"average": "sequence"}, -1 / 100, -1 / 1000),
        ({"average": "token"}, -1 / 550, -1 / 550),
        ({"average": "constant", "max_length": 1000}, -1 / 2000, -1 / 2000),
    ):
        log_probs = torch.full((2, 500), -1.0, requires_grad=True)
        loss = grpo_loss(
            log_probs,
            log_probs.detach(),
            torch.tensor([-1.0, -1.0]),
            mask,
            objective=Objective(**options),
        )
        (gradient,) = torch.autograd.grad(-loss, log_probs)
        assert gradient[:, 0].tolist() == pytest.approx([short, long])
    for stated in (r"$-1/(2\times50)$ 与 $-1/(2\times500)$", "都是 $-1/550$", "都是 $-1/2000$"):
        assert stated in solution("grpo-3")


def test_grpo_4() -> None:
    """Enumerated: the old policy's samples give another mean of k3; times the ratio, the KL."""
    generator = torch.Generator().manual_seed(0)
    policy, old, ref = torch.randn(3, 7, generator=generator, dtype=torch.float64).log_softmax(-1)
    kl = (policy.exp() * (policy - ref)).sum()
    assert (policy.exp() * k3(policy, ref)).sum().item() == pytest.approx(kl.item())
    assert abs((old.exp() * k3(policy, ref)).sum() - kl).item() > 0.05
    weighted = (old.exp() * (policy - old).exp() * k3(policy, ref)).sum()
    assert weighted.item() == pytest.approx(kl.item())


def test_grpo_5() -> None:
    """The identity, and the expected gradient over all groups of three answers among three."""
    rewards = [0.3, -1.0, 2.0, 0.5]
    for i, reward in enumerate(rewards):
        others = rewards[:i] + rewards[i + 1 :]
        shrunk = 4 / 3 * (reward - statistics.mean(rewards))
        assert shrunk == pytest.approx(reward - statistics.mean(others))
    assert r"=\frac{G}{G-1}(r_i-\operatorname{mean})" in solution("grpo-5")
    assert r"$\frac{G-1}G$ 倍" in solution("grpo-5")

    logits = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    value = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    (true,) = torch.autograd.grad((logits.softmax(0) * value).sum(), logits)
    size, expected = 3, torch.zeros(3, dtype=torch.float64)
    for group in itertools.product(range(3), repeat=size):
        log_probs = logits.log_softmax(0)[list(group)]
        advantages = group_advantages(value[list(group)][None], scale=False)[0]
        (gradient,) = torch.autograd.grad((advantages * log_probs).sum() / size, logits)
        expected += log_probs.sum().exp().detach() * gradient
    torch.testing.assert_close(expected, true * (size - 1) / size)


def test_grpo_6() -> None:
    """Sixteen answers in groups of 2 to 16, leave-one-out: the variance of the gradient falls with
    the size of the group, from 8 to 16 the least. Exact, for one question answered right or not."""
    p, answers = 0.3, 16
    variance = {}
    for size in (2, 4, 8, 16):
        mean = second = 0.0
        for right in range(size + 1):  # the score function of a right answer is 1 - p, else -p
            chance = math.comb(size, right) * p**right * (1 - p) ** (size - right)
            baseline_right = (right - 1) / (size - 1) if right else 0.0
            baseline_wrong = right / (size - 1) if right < size else 0.0
            gradient = (
                right * (1 - baseline_right) * (1 - p) + (size - right) * baseline_wrong * p
            ) / size
            mean += chance * gradient
            second += chance * gradient**2
        assert mean == pytest.approx(p * (1 - p))  # unbiased: the derivative of p by its logit
        variance[size] = (second - mean**2) / (answers / size)
    falls = [variance[n] - variance[2 * n] for n in (2, 4, 8)]
    assert falls[0] > falls[1] > falls[2] > 0
