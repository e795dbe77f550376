"""The exercises of the section on GRPO, solved with the library: differentiated and enumerated."""

import itertools
import math
import statistics
import tomllib
from importlib.resources import files

import pytest
import torch

from dsnotes.rl import shellgame
from dsnotes.rl.grpo import group_advantages, grpo_loss
from dsnotes.rl.objective import Objective, clipped_surrogate, k3, token_log_probs

from .notebook import NOTEBOOKS, answers
from .page import exercise, solution


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


def test_grpo_7() -> None:
    """Simulated: complete thoughts of the base text, from the right place and from anywhere."""
    generator = torch.Generator().manual_seed(0)
    given = shellgame.problems(40_000, generator=generator)
    written = shellgame.completions(given, error=0.1, generator=generator)
    last = written[:, -2] - shellgame.encode("1")[0]
    assert (last == given.path[:, -1]).float().mean().item() == pytest.approx(0.56, abs=0.01)
    assert r"$\frac15+\frac45\times0.875^6\approx0.56$" in solution("grpo-7")

    right = torch.full((5,), 0.2, dtype=torch.float64)  # as a chain over the five places
    wrong_step = torch.full((5, 5), 0.1 / 4, dtype=torch.float64).fill_diagonal_(0.9)
    torch.testing.assert_close(right @ torch.linalg.matrix_power(wrong_step, 6), right)


def test_grpo_8() -> None:
    """The command leaves blank what the exercise names, and the solution shows where it stands."""
    assert "`python -m dsnotes.practice grpo`" in exercise("grpo-8")
    folder = files("dsnotes.practice") / "mechanisms"
    blanks = tomllib.loads((folder / "grpo.toml").read_text("utf8"))["blanks"]
    named = {  # as the exercise calls it: the function
        "优势": "_normalise",
        "对数概率": "token_log_probs",
        "掩码": "completion_mask",
        "截断": "clipped_surrogate",
        "损失": "grpo_loss",
    }
    assert [word for word in named if word not in exercise("grpo-8")] == []
    assert set(named.values()) <= {blank["function"] for blank in blanks}
    for name in ("grpo.group_advantages", "objective.clipped_surrogate", "grpo.grpo_loss"):
        assert f"{{code}}`dsnotes.rl.{name}`" in solution("grpo-8")


def test_grpo_9() -> None:
    """Each of the three lines alone makes a difference, and the last line none."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 6, 5, generator=generator)
    tokens = torch.randint(5, (4, 6), generator=generator)
    mask = torch.arange(5) < torch.tensor([[5], [3], [2], [4]])
    rewards = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    found = token_log_probs(logits, tokens)
    old = found - torch.tensor([[0.5], [0.5], [0.0], [0.0]])
    a = group_advantages(rewards).flatten()[:, None]

    def loss(log_probs: torch.Tensor, a: torch.Tensor, *, keep_min: bool = True) -> torch.Tensor:
        rho = (log_probs - old).exp()
        terms = rho.clamp(0.8, 1.2) * a
        terms = torch.min(rho * a, terms) if keep_min else terms
        return -((terms * mask).sum(1) / mask.sum(1)).mean()

    right = loss(found, a)
    torch.testing.assert_close(right, grpo_loss(found, old, a.flatten(), mask))
    shifted = logits.log_softmax(-1).gather(-1, tokens[..., None])[:, 1:, 0]
    over_all = ((rewards - rewards.mean()) / rewards.std()).flatten()[:, None]
    for wrong in (loss(shifted, a), loss(found, over_all), loss(found, a, keep_min=False)):
        assert abs(wrong - right).item() > 1e-2
    lines = exercise("grpo-9").partition("```python\n")[2].splitlines()
    assert [n for n in "124" if f"第 {n} 行" in solution("grpo-9")] == ["1", "2", "4"]
    assert "rewards.mean()" in lines[0]
    assert "gather" in lines[1]
    assert "clamp" in lines[3]


def test_grpo_10() -> None:
    rewards = torch.tensor([[1.1, 0.1, 0.1, 0.0]])
    same, larger = (
        group_advantages(10 * rewards + 3, scale=scale) / group_advantages(rewards, scale=scale)
        for scale in (True, False)
    )
    torch.testing.assert_close(same, torch.ones(1, 4))
    torch.testing.assert_close(larger, torch.full((1, 4), 10.0))
    assert "GRPO 的优势不变" in solution("grpo-10")
    assert "10 倍" in solution("grpo-10")


def test_grpo_11() -> None:
    """Enumerated: the term has the right mean, and as a loss no gradient on average."""
    assert "log_probs - ref_log_probs" in exercise("grpo-11")
    generator = torch.Generator().manual_seed(0)
    logits, ref = torch.randn(2, 5, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    policy, ref = logits.log_softmax(0), ref.log_softmax(0)
    weight = policy.detach().exp()
    assert (weight * (policy - ref)).sum().item() > 0
    (gradient,) = torch.autograd.grad((weight * (policy - ref)).sum(), logits)
    assert gradient.abs().max().item() < 1e-12


def test_grpo_12() -> None:
    """The sum of (PPO-11), written out, is what the solution computes from the end."""
    names: dict = {}
    exec(answers(NOTEBOOKS / "grpo.ipynb")["grpo-12"].right, names)
    rewards, values, gamma, lam = [0.0, -0.1, 0.0, 1.0], [0.4, 0.5, 0.3, 0.8], 0.9, 0.95
    after = [*values[1:], 0.0]
    delta = [r + gamma * v1 - v for r, v1, v in zip(rewards, after, values, strict=True)]
    summed = [
        sum((gamma * lam) ** (later - t) * delta[later] for later in range(t, 4)) for t in range(4)
    ]
    assert names["advantages_of"](rewards, values, gamma, lam) == pytest.approx(summed)
