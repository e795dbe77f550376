"""objective: the clip in every quadrant, log-probs, masks by hand, estimators of KL enumerated."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dsnotes.rl.objective import (
    check_mask,
    clipped_surrogate,
    completion_mask,
    k1,
    k2,
    k3,
    token_log_probs,
)

# --- the clip ---


@pytest.mark.parametrize(
    ("advantage", "ratio", "value", "slope"),
    [  # PPO eq 7 with 0.8 .. 1.2: the slope is 0 only where moving on would be moving too far
        (+2.0, 0.5, +1.0, +2.0),
        (+2.0, 0.9, +1.8, +2.0),
        (+2.0, 1.1, +2.2, +2.0),
        (+2.0, 1.5, +2.4, 0.0),
        (-2.0, 0.5, -1.6, 0.0),
        (-2.0, 0.9, -1.8, -2.0),
        (-2.0, 1.1, -2.2, -2.0),
        (-2.0, 1.5, -3.0, -2.0),
        (0.0, 1.5, 0.0, 0.0),
    ],
)
def test_trap_1_clip_in_every_quadrant(
    advantage: float, ratio: float, value: float, slope: float
) -> None:
    """A common way to write it, clip(rho) A for both signs, would give -2.4 for -3.0."""
    rho = torch.tensor(ratio, requires_grad=True)
    found = clipped_surrogate(rho, torch.tensor(advantage))
    found.backward()
    assert found.item() == pytest.approx(value)
    assert rho.grad is not None
    assert rho.grad.item() == slope


def test_trap_1_max_for_negative_advantages() -> None:
    """A sum of losses max(rho, clip(rho)) |A| turns it round: there the penalty for going back up
    is cut off. The right one is a lower bound of rho A everywhere."""
    rho, a = torch.linspace(0.2, 2.0, 50), torch.tensor(-1.0)
    right = clipped_surrogate(rho, a)
    wrong = torch.max(rho * a, rho.clamp(0.8, 1.2) * a)
    assert (right <= rho * a).all()
    assert (wrong > rho * a).any()


def test_two_clip_widths() -> None:
    """DAPO: 0.8 .. 1.28. R1 prints 10: no lower bound in effect, 11 above."""
    rho = torch.tensor([0.1, 0.79, 1.25, 1.3, 10.0, 12.0])
    up, down = torch.ones(6), -torch.ones(6)
    found = clipped_surrogate(rho, up, clip_low=0.2, clip_high=0.28)
    assert torch.allclose(found, torch.tensor([0.1, 0.79, 1.25, 1.28, 1.28, 1.28]))
    found = clipped_surrogate(rho, down, clip_low=0.2, clip_high=0.28)
    assert torch.allclose(-found, torch.tensor([0.8, 0.8, 1.25, 1.3, 10.0, 12.0]))
    assert torch.equal(clipped_surrogate(rho, down, clip_low=10.0), -rho)
    assert clipped_surrogate(rho, up, clip_low=10.0).tolist()[-1] == 11.0


# --- log-probs and masks ---


def test_token_log_probs_are_about_the_next_token() -> None:
    logits, tokens = torch.randn(2, 5, 7), torch.randint(7, (2, 5))
    found = token_log_probs(logits, tokens, temperature=0.7)
    for b in range(2):
        for j in range(4):
            weights = [math.exp(x / 0.7) for x in logits[b, j].tolist()]
            expected = math.log(weights[tokens[b, j + 1]] / sum(weights))
            assert found[b, j].item() == pytest.approx(expected, abs=1e-5)


def test_trap_2_log_probs_not_shifted() -> None:
    """A model sure that each token is one more than the last: right it costs 0, unshifted 50."""
    tokens = torch.arange(6)[None]
    logits = 50.0 * torch.nn.functional.one_hot((tokens + 1) % 8, 8).float()
    assert token_log_probs(logits, tokens).abs().max() < 1e-6
    unshifted = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    assert unshifted.max() < -49


def test_completion_mask() -> None:
    """Prompts of 2, 3, 1 and 6 tokens; eos is 0, and one in a prompt ends nothing."""
    tokens = torch.tensor(
        [[5, 6, 7, 8, 0, 0], [0, 5, 0, 7, 8, 9], [5, 0, 6, 0, 6, 0], [5, 6, 7, 8, 9, 9]]
    )
    found = completion_mask(tokens, torch.tensor([2, 3, 1, 6]), eos=0)
    assert found.long().tolist() == [
        [0, 1, 1, 1, 0],  # o = 7 8 eos
        [0, 0, 1, 1, 1],  # never ended
        [1, 0, 0, 0, 0],  # o = eos
        [0, 0, 0, 0, 0],  # nothing was written
    ]


def test_several_end_tokens() -> None:
    """The first of any ends the output; what is no end of it stands in the way of nothing."""
    tokens, lengths = torch.tensor([[5, 6, 7, 1, 9, 2, 0, 0]]), torch.tensor([2])
    for eos, length in (([1, 2], 2), ([2, 1], 2), ([2], 4), (2, 4), ([0, 2], 4), ([], 6)):
        assert completion_mask(tokens, lengths, eos=eos).sum() == length


# --- estimators of KL ---

ESTIMATORS = {"k1": k1, "k2": k2, "k3": k3}
Estimator = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture
def two_policies() -> tuple[Tensor, Tensor]:
    """Logits of pi and pi_ref over seven outcomes, float64."""
    return torch.randn(7).double(), torch.randn(7).double()


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum()


def mean(estimator: Estimator, logits: Tensor, ref: Tensor, *, fixed: bool) -> Tensor:
    """Expectation over samples from pi, by enumeration; `fixed`: the sampling carries no gradient,
    as in a loss over samples that are already drawn."""
    log_p = logits.log_softmax(-1)
    weights = log_p.exp().detach() if fixed else log_p.exp()
    return (weights * estimator(log_p, ref.log_softmax(-1))).sum()


def test_expected_values(two_policies: tuple[Tensor, Tensor]) -> None:
    logits, ref = two_policies
    true = kl(logits.log_softmax(-1), ref.log_softmax(-1)).item()
    found = {name: mean(k, logits, ref, fixed=True).item() for name, k in ESTIMATORS.items()}
    assert found["k1"] == pytest.approx(true, abs=1e-12)
    assert found["k3"] == pytest.approx(true, abs=1e-12)
    assert abs(found["k2"] - true) > 0.005


def test_trap_4_expected_gradients(two_policies: tuple[Tensor, Tensor]) -> None:
    """As a loss k1 does nothing, k2 is KL(pi || ref), k3 is KL(ref || pi)."""
    logits, ref = two_policies
    logits.requires_grad_()
    log_p, log_ref = logits.log_softmax(-1), ref.log_softmax(-1)
    (forward,) = torch.autograd.grad(kl(log_p, log_ref), logits, retain_graph=True)
    (reverse,) = torch.autograd.grad(kl(log_ref, log_p), logits)
    found = {
        name: torch.autograd.grad(mean(k, logits, ref, fixed=True), logits)[0]
        for name, k in ESTIMATORS.items()
    }
    assert found["k1"].abs().max() < 1e-12
    assert torch.allclose(found["k2"], forward, atol=1e-12)
    assert torch.allclose(found["k3"], reverse, atol=1e-12)
    assert (forward - reverse).abs().max() > 0.05


def test_k3_is_never_negative_and_0_where_policies_agree() -> None:
    log_p, log_ref = torch.randn(2, 1000)
    assert (k3(log_p, log_ref) >= 0).all()
    assert (k2(log_p, log_ref) >= 0).all()
    assert (k1(log_p, log_ref) < 0).any()
    for estimator in ESTIMATORS.values():
        assert estimator(log_p, log_p).abs().max() == 0


def test_gaussian_table() -> None:
    """KL of N(0,1) from N(m,1) is m^2/2; bias and spread as Schulman's note has them, m = 1."""
    x = torch.randn(400_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    log_p, log_ref = -x.square() / 2, -(x - 1).square() / 2
    for name, bias, spread in (("k1", 0.0, 2.0), ("k2", 0.25, 1.73), ("k3", 0.0, 1.70)):
        found = ESTIMATORS[name](log_p, log_ref)
        assert found.mean().item() / 0.5 - 1 == pytest.approx(bias, abs=0.015)
        assert found.std().item() / 0.5 == pytest.approx(spread, abs=0.06)


# --- bad input ---


def test_bad_input() -> None:
    tokens, logits = torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"temperature must be positive, got 0\.0"):
        token_log_probs(logits, tokens, temperature=0.0)
    with pytest.raises(
        ValueError, match=r"temperature must exceed 2\.94e-39 for gradients, got 1e-39"
    ):
        token_log_probs(logits.requires_grad_(), tokens, temperature=1e-39)
    with pytest.raises(ValueError, match="tokens must lie in 0 to 2, got 0 to 3"):
        token_log_probs(logits, tokens + torch.tensor([0, 0, 0, 3]))
    with pytest.raises(ValueError, match="a log-prob does not fit"):
        token_log_probs(torch.tensor([[[3e38, -3e38], [0, 0]]]), torch.tensor([[0, 1]]))
    with pytest.raises(ValueError, match=r"prompt_lengths must lie in 1 \.\. 4, got \[0, 3\]"):
        completion_mask(tokens, torch.tensor([0, 3]), eos=0)
    with pytest.raises(ValueError, match=r"prompt_lengths must lie in 1 \.\. 4, got \[2, 5\]"):
        completion_mask(tokens, torch.tensor([2, 5]), eos=0)
    with pytest.raises(ValueError, match=r"clip_low must be at least 0, got -0\.1"):
        clipped_surrogate(logits, logits, clip_low=-0.1)
    with pytest.raises(ValueError, match="clip_high must be a finite number or None, got nan"):
        clipped_surrogate(logits, logits, clip_high=math.nan)
    mask = torch.ones(2, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="old must be detached, got one that requires grad"):
        check_mask(mask, old=torch.zeros(2, 4, requires_grad=True))
    with pytest.raises(ValueError, match="mask must mark at least one token, got none"):
        check_mask(~mask)
