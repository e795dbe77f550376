"""V3.2's objective against TRL's GRPOTrainer, its support against transformers; distillation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dsnotes.after.distillation import distillation_loss
from dsnotes.after.offpolicy import off_policy_mask, sampling_support, v32_loss
from dsnotes.rl.grpo import group_advantages

from .. import trl_peer

B, T, DELTA = 8, 12, 0.2
Parity = Callable[[str, Tensor, float], None]


@pytest.fixture(autouse=True, scope="module")
def _trl() -> None:
    trl_peer.load("trl.experimental.gkd")


def sample(dtype: torch.dtype, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Random log-probs, ratios on both sides of the clip, an engine that differs from pi_old."""
    g = torch.Generator().manual_seed(seed)

    def noise(scale: float, *size: int) -> Tensor:
        return scale * torch.randn(*size or (B, T), generator=g, dtype=dtype)

    log_probs = -noise(1.0).abs() - 0.1
    lengths = torch.randint(2, T, (B,), generator=g)
    lengths[:2] = torch.tensor([1, T])
    rewards = torch.randint(2, (B // 4, 4), generator=g).to(dtype)
    rewards[:, :2] = torch.tensor([0, 1])
    old = log_probs + noise(0.3) + noise(0.3, B, 1)
    inputs = {
        "prompt_ids": torch.zeros(B, 1, dtype=torch.long),
        "prompt_mask": torch.ones(B, 1, dtype=torch.long),
        "completion_ids": torch.zeros(B, T, dtype=torch.long),
        "completion_mask": (torch.arange(T) < lengths[:, None]).long(),
        "old_per_token_logps": old,
        "sampling_per_token_logps": old + noise(0.1) + noise(0.2, B, 1),
        "ref_per_token_logps": log_probs + noise(0.5),
        "advantages": group_advantages(rewards, scale=False).flatten(),
    }
    return log_probs, inputs


def ours(
    log_probs: Tensor, inputs: dict[str, Tensor], *, beta: float, delta: float | None
) -> Tensor:
    return v32_loss(
        log_probs,
        inputs["old_per_token_logps"],
        inputs["advantages"],
        inputs["completion_mask"].bool(),
        beta=beta,
        ref_log_probs=inputs["ref_per_token_logps"],
        delta=delta,
        sampled_log_probs=inputs["sampling_per_token_logps"],
    )


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    at = at.clone().requires_grad_()
    value = loss(at)
    return value.detach(), torch.autograd.grad(value, at)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("delta", [None, DELTA])
def test_loss_and_gradient(
    dtype: torch.dtype, beta: float, delta: float | None, parity: Parity
) -> None:
    values, gradients, dropped = [], [], 0
    for seed in range(20):
        log_probs, inputs = sample(dtype, seed)
        if delta is None:
            inputs.pop("sampling_per_token_logps")
            inputs["sampling_per_token_logps"] = inputs["old_per_token_logps"]

        def peer(x: Tensor, inputs: dict[str, Tensor] = inputs) -> Tensor:
            return trl_peer.loss(
                x,
                inputs,
                unbiased_kl=True,
                loss_type="grpo",
                importance_sampling_level="token",
                beta=beta,
                off_policy_mask_threshold=delta,
            )

        def own(x: Tensor, inputs: dict[str, Tensor] = inputs) -> Tensor:
            return ours(x, inputs, beta=beta, delta=delta)

        (a, da), (b, db) = gradient(peer, log_probs), gradient(own, log_probs)
        assert da.abs().max() > 1e-3
        dropped += int((da * inputs["completion_mask"] == 0).all(dim=1).sum())
        values.append((a - b).abs())
        gradients.append((da - db).abs().max())
    if delta is not None and beta == 0:
        assert dropped > 20  # the draws do reach the mask
    bound = 2e-6 if dtype == torch.float32 else 1e-14
    name = f"V3.2, {dtype} beta={beta} delta={delta}"
    parity(f"{name} loss", max(values), bound)
    parity(f"{name} gradient", max(gradients), bound)


def test_mask() -> None:
    """1,000 outputs, with padding; a threshold of every size."""
    from trl import GRPOTrainer

    g = torch.Generator().manual_seed(0)
    pi, sampled = -torch.rand(2, 1000, T, generator=g).double() * 2
    advantages = torch.randn(1000, generator=g).double()
    mask = torch.arange(T) < torch.randint(1, T + 1, (1000, 1), generator=g)
    for delta in (0.0, 0.1, 0.5):
        theirs = GRPOTrainer.get_off_policy_mask(
            advantages[:, None], pi, sampled, mask.long(), off_policy_threshold=delta
        )
        found = off_policy_mask(pi, sampled, advantages, mask, delta=delta)
        assert torch.equal(found, theirs[:, 0].bool())
        assert 100 < (~found).sum() < 600 or delta == 0.5


def test_support_is_that_of_transformers() -> None:
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    g = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 40, generator=g).double()
    for top_k, top_p in ((None, 0.9), (None, 0.3), (5, 1.0), (10, 0.7), (40, 0.99)):
        cut = logits
        if top_k is not None:
            cut = TopKLogitsWarper(top_k)(None, cut)
        if top_p < 1:
            cut = TopPLogitsWarper(top_p)(None, cut)
        found = sampling_support(logits, top_k=top_k, top_p=top_p)
        assert torch.equal(found, cut.isfinite())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_distillation(dtype: torch.dtype, parity: Parity) -> None:
    """TRL's beta=1 is KL(student || teacher); beta=0, the other direction, is another loss."""
    from trl.experimental.gkd import GKDTrainer

    g = torch.Generator().manual_seed(0)
    student, *teachers = torch.randn(3, B, T, 11, generator=g, dtype=dtype)
    mask = torch.arange(T) < torch.randint(1, T + 1, (B, 1), generator=g)
    labels = torch.zeros(B, T, dtype=torch.long).masked_fill(~mask, -100)
    weights = [0.7, 0.3]

    def peer(x: Tensor, beta: float = 1) -> Tensor:
        each = [GKDTrainer.generalized_jsd_loss(x, t, labels, beta=beta) for t in teachers]
        return weights[0] * each[0] + weights[1] * each[1]

    def own(x: Tensor) -> Tensor:
        return distillation_loss(x, teachers, mask, weights=weights)

    (a, da), (b, db) = gradient(peer, student), gradient(own, student)
    bound = 1e-6 if dtype == torch.float32 else 1e-14
    parity(f"distillation, {dtype} loss", (a - b).abs(), bound)
    parity(f"distillation, {dtype} gradient", (da - db).abs().max(), bound)
    assert (peer(student, 0) - b).abs() > 0.01
