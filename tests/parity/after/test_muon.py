"""Muon against optax, which knows the coefficients of V4, and against the optimizer of PyTorch.

optax has Newton-Schulz with coefficients of each step, the scale by the larger side and decoupled
decay, but not the momentum of Algorithm 1: its `nesterov` mixes a running mean that is corrected
for its beginning. `torch.optim.SGD` has that momentum. Together they are the whole algorithm.
`torch.optim.Muon` knows one triple of coefficients and computes in bfloat16.
"""

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dsnotes.after.muon import Muon
from dsnotes.after.newton_schulz import HYBRID, STEEP, orthogonalize

Parity = Callable[[str, Tensor, float], None]
LR, DECAY, STEPS = 0.02, 0.1, 4
SHAPES = [(12, 20), (20, 12), (16, 16)]


@pytest.fixture
def optax(peer: Callable[..., ModuleType]) -> Iterator[ModuleType]:
    """optax over jax in float64, with products that are not shortened."""
    jax = peer("jax")
    kept = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_default_matmul_precision", "highest")
    yield peer("optax")
    jax.config.update("jax_enable_x64", kept[0])
    jax.config.update("jax_default_matmul_precision", kept[1])


def problem(shape: tuple[int, int]) -> tuple[Tensor, list[Tensor]]:
    draw = [torch.randn(shape, dtype=torch.float64) for _ in range(STEPS + 1)]
    return draw[0], draw[1:]


def ours(weight: Tensor, gradients: list[Tensor], **options: Any) -> list[Tensor]:
    return [*stepped(Muon, weight, gradients, weight_decay=DECAY, **options)]


def stepped(
    optimizer: Any, weight: Tensor, gradients: list[Tensor], *, lr: float = LR, **options: Any
) -> Iterator[Tensor]:
    """The weight after every step."""
    parameter = nn.Parameter(weight.clone())
    made = optimizer([parameter], lr=lr, **options)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        made.step()
        yield parameter.detach().clone()


def ahead(gradients: list[Tensor]) -> list[Tensor]:
    """mu M_t + G_t by SGD: what it takes away from a weight of zeros at rate 1."""
    parameter = nn.Parameter(torch.zeros_like(gradients[0]))
    sgd = torch.optim.SGD([parameter], lr=1.0, momentum=0.95, nesterov=True)
    found = []
    for gradient in gradients:
        parameter.data.zero_()
        parameter.grad = gradient.clone()
        sgd.step()
        found.append(-parameter.detach().clone())
    return found


def to_torch(x: Any) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(x))


@pytest.mark.parametrize("shape", SHAPES)
def test_newton_schulz_is_that_of_optax(
    optax: ModuleType, shape: tuple[int, int], parity: Parity
) -> None:
    import jax.numpy as jnp

    x = torch.randn(shape, dtype=torch.float64)
    theirs = optax.contrib._muon.orthogonalize_via_newton_schulz(
        jnp.asarray(x.numpy()), jnp.asarray(HYBRID), 10, "frobenius", 0.0
    )
    parity("Newton-Schulz", (orthogonalize(x) - to_torch(theirs)).abs().max(), 1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_algorithm_1_is_momentum_of_sgd_and_newton_schulz_of_optax(
    optax: ModuleType, shape: tuple[int, int], parity: Parity
) -> None:
    import jax.numpy as jnp

    weight, gradients = problem(shape)
    theirs = weight
    for direction, found in zip(ahead(gradients), ours(weight, gradients), strict=True):
        update = optax.contrib._muon.orthogonalize_via_newton_schulz(
            jnp.asarray(direction.numpy()), jnp.asarray(HYBRID), 10, "frobenius", 0.0
        )
        scale = max(shape) ** 0.5 * 0.18
        theirs = theirs * (1 - LR * DECAY) - LR * scale * to_torch(update)
        parity("Algorithm 1", (found - theirs).abs().max(), 1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_scale_and_decay_are_those_of_optax(
    optax: ModuleType, shape: tuple[int, int], parity: Parity
) -> None:
    """Its optimizer without momentum, over the directions of SGD."""
    import jax.numpy as jnp

    weight, gradients = problem(shape)
    rule = optax.contrib.muon(
        LR, ns_coeffs=HYBRID, ns_steps=10, beta=0.0, eps=0.0, weight_decay=DECAY, nesterov=False,
        consistent_rms=0.18,
    )  # fmt: skip
    theirs = {"w": jnp.asarray(weight.numpy())}
    state = rule.init(theirs)
    for direction, found in zip(ahead(gradients), ours(weight, gradients), strict=True):
        updates, state = rule.update({"w": jnp.asarray(direction.numpy())}, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
        parity("optax.contrib.muon", (found - to_torch(theirs["w"])).abs().max(), 1e-14)


def test_the_nesterov_of_optax_is_another_one(optax: ModuleType) -> None:
    import jax.numpy as jnp

    weight, gradients = problem((12, 20))
    rule = optax.contrib.muon(
        LR, ns_coeffs=HYBRID, ns_steps=10, eps=0.0, weight_decay=DECAY, nesterov=True,
        consistent_rms=0.18,
    )  # fmt: skip
    theirs = {"w": jnp.asarray(weight.numpy())}
    state = rule.init(theirs)
    for gradient in gradients:
        updates, state = rule.update({"w": jnp.asarray(gradient.numpy())}, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    assert (ours(weight, gradients)[-1] - to_torch(theirs["w"])).abs().max() > 1e-4


def as_torch(weight: Tensor, gradients: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Ours with five standard steps, and theirs: 0.2 is its factor, and decay goes with its lr."""
    own = ours(weight, gradients, coefficients=(STEEP,) * 5)
    options = {"weight_decay": DECAY / 0.9, "adjust_lr_fn": "match_rms_adamw", "momentum": 0.95}
    return own, [*stepped(torch.optim.Muon, weight, gradients, lr=LR * 0.9, **options)]


@pytest.mark.parametrize("shape", SHAPES)
def test_five_steps_are_the_optimizer_of_torch(
    shape: tuple[int, int], parity: Parity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its formulas as they are, in float64: only its cast to bfloat16 does nothing."""
    weight, gradients = problem(shape)
    monkeypatch.setattr(Tensor, "bfloat16", lambda x: x)
    for own, theirs in zip(*as_torch(weight, gradients), strict=True):
        parity("torch.optim.Muon in float64", (own - theirs).abs().max(), 1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_its_bfloat16_is_the_only_difference(shape: tuple[int, int], parity: Parity) -> None:
    weight, gradients = problem(shape)
    for own, theirs in zip(*as_torch(weight, gradients), strict=True):
        parity("torch.optim.Muon", (own - theirs).abs().max(), 1e-3)
