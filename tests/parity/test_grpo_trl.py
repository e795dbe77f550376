"""Loss, gradient and advantages against TRL's GRPOTrainer, without a model.

What is compared are the loss types TRL shares with us; cispo, sapo and vespo are objectives of
others.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.rl.grpo import group_advantages, grpo_loss
from dsnotes.rl.objective import Objective

from . import trl_peer

B, T, MAX_LENGTH = 8, 12, 20
# TRL's loss_type and importance_sampling_level -> options of ours
SHARED: dict[tuple[str, str], dict[str, Any]] = {
    ("grpo", "token"): {"average": "sequence"},
    ("grpo", "sequence"): {"average": "sequence", "ratio": "geometric"},
    ("bnpo", "token"): {"average": "token"},
    ("bnpo", "sequence"): {"average": "token", "ratio": "geometric"},
    ("dr_grpo", "token"): {"average": "constant", "max_length": MAX_LENGTH},
    ("dr_grpo", "sequence"): {
        "average": "constant",
        "max_length": MAX_LENGTH,
        "ratio": "geometric",
    },
    ("dapo", "token"): {"average": "token"},
    ("dapo", "sequence"): {"average": "token", "ratio": "geometric"},
    ("luspo", "sequence"): {"average": "constant", "max_length": 1, "ratio": "geometric"},
}


@pytest.fixture(autouse=True, scope="module")
def _trl() -> None:
    trl_peer.load()


def trl_loss(
    loss_type: str,
    level: str,
    log_probs: Tensor,
    inputs: dict[str, Tensor],
    *,
    beta: float,
    clip_high: float,
) -> Tensor:
    return trl_peer.loss(
        log_probs,
        inputs,
        loss_type=loss_type,
        importance_sampling_level=level,
        beta=beta,
        epsilon_high=clip_high,
    )


def sample(dtype: torch.dtype, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Random log-probs with ratios on both sides of the clip, outputs of 1 to T tokens."""
    generator = torch.Generator().manual_seed(seed)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(B, T, generator=generator, dtype=dtype)

    log_probs = -noise(1.0).abs() - 0.1
    drift = noise(0.3) + noise(0.4)[:, :1]  # of the tokens, and of the output as a whole
    lengths = torch.randint(2, T, (B,), generator=generator)
    lengths[:2] = torch.tensor([1, T])
    mask = torch.arange(T) < lengths[:, None]
    rewards = torch.randint(2, (B // 4, 4), generator=generator).to(dtype)
    rewards[:, :2] = torch.tensor([0, 1])
    inputs = {
        "prompt_ids": torch.zeros(B, 1, dtype=torch.long),
        "prompt_mask": torch.ones(B, 1, dtype=torch.long),
        "completion_ids": torch.zeros(B, T, dtype=torch.long),
        "completion_mask": mask.long(),
        "old_per_token_logps": log_probs + drift,
        "ref_per_token_logps": log_probs + noise(0.5),
        "advantages": group_advantages(rewards).flatten(),
        "num_items_in_batch": mask.sum(),
    }
    return log_probs, inputs


def ours(log_probs: Tensor, inputs: dict[str, Tensor], **options: Any) -> Tensor:
    return grpo_loss(
        log_probs,
        inputs["old_per_token_logps"],
        inputs["advantages"],
        inputs["completion_mask"].bool(),
        objective=Objective(**options),
        ref_log_probs=inputs["ref_per_token_logps"],
    )


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor]:
    at = at.clone().requires_grad_()
    value = loss(at)
    return value.detach(), torch.autograd.grad(value, at)[0]


@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("kind", SHARED, ids="-".join)
def test_loss_and_gradient(
    kind: tuple[str, str], beta: float, parity: Callable[[str, Tensor, float], None]
) -> None:
    """Float32, twenty draws, a wider upper clip; the differences are the rounding of the sums."""
    values, gradients, clipped = [], [], 0
    for seed in range(20):
        log_probs, inputs = sample(torch.float32, seed)

        def peer(x: Tensor, inputs: dict[str, Tensor] = inputs) -> Tensor:
            return trl_loss(*kind, x, inputs, beta=beta, clip_high=0.28)

        def own(x: Tensor, inputs: dict[str, Tensor] = inputs) -> Tensor:
            return ours(x, inputs, beta=beta, clip_high=0.28, **SHARED[kind])

        (a, da), (b, db) = gradient(peer, log_probs), gradient(own, log_probs)
        assert da.abs().max() > 1e-3
        clipped += int((da[inputs["completion_mask"].bool()] == 0).sum())
        values.append((a - b).abs())
        gradients.append((da - db).abs().max())
    if beta == 0:
        assert clipped > 20  # the draws do reach the clip
    name = f"{'-'.join(kind)} beta={beta}"
    parity(f"{name} loss", max(values), 2e-6)
    parity(f"{name} gradient", max(gradients), 1e-6)


@pytest.mark.parametrize("kind", SHARED, ids="-".join)
def test_in_float64(kind: tuple[str, str]) -> None:
    log_probs, inputs = sample(torch.float64, 0)
    a, da = gradient(lambda x: trl_loss(*kind, x, inputs, beta=0.1, clip_high=0.2), log_probs)
    b, db = gradient(lambda x: ours(x, inputs, beta=0.1, **SHARED[kind]), log_probs)
    assert (a - b).abs() < 1e-14
    assert (da - db).abs().max() < 1e-14


def test_dapo_over_accumulated_calls() -> None:
    """TRL divides by the tokens of all calls; ours does when calls are weighed by their tokens."""
    parts = [sample(torch.float64, seed) for seed in (0, 1)]
    total = torch.stack([inputs["num_items_in_batch"] for _, inputs in parts]).sum()
    for log_probs, inputs in parts:
        share = inputs["num_items_in_batch"].item() / total.item()
        own = share * ours(log_probs, inputs, average="token")
        inputs["num_items_in_batch"] = total
        peer = trl_loss("dapo", "token", log_probs, inputs, beta=0.0, clip_high=0.2)
        assert share < 0.9
        assert own.item() == pytest.approx(peer.item(), abs=1e-14)


def test_the_ratio_of_whole_outputs_is_not_trls_sequence_level() -> None:
    """V3 eq 26 has no 1/|o| in the exponent: the two agree on outputs of one token alone."""
    log_probs, inputs = sample(torch.float64, 0)

    def both() -> list[float]:
        peer = trl_loss("grpo", "sequence", log_probs, inputs, beta=0.0, clip_high=0.2)
        own = ours(log_probs, inputs, average="sequence", ratio="sequence")
        return [peer.item(), own.item()]

    long = both()
    inputs["completion_mask"][:, 1:] = 0
    short = both()
    assert abs(long[0] - long[1]) > 0.01
    assert short[0] == pytest.approx(short[1], abs=1e-14)


def test_advantages() -> None:
    """TRL: (r - mean) / (std + 1e-4) with its own std, that of a sample."""
    from trl.trainer.utils import nanstd

    rewards = torch.randn(6, 8)
    rewards[0] = 1.0
    theirs = (rewards - rewards.mean(1, keepdim=True)) / (nanstd(rewards, dim=1)[:, None] + 1e-4)
    found = group_advantages(rewards, correction=1, eps=1e-4)
    assert torch.allclose(found, theirs, atol=1e-6)
    assert not torch.allclose(group_advantages(rewards), theirs, atol=1e-2)
