"""Gradients of gradients: right by finite differences, or refused; never another number."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dsnotes.config import TINY
from dsnotes.model.balance import expert_balance_loss, sequence_balance_loss
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import MLA, Pass
from dsnotes.model.moe import MoE
from dsnotes.model.mtp import add_modules, mtp_loss, predict
from dsnotes.model.rope import rope_frequencies, rope_rotation
from dsnotes.rl.grpo import grpo_loss
from dsnotes.rl.objective import Objective, k1, k2, k3
from dsnotes.rl.ppo import ppo_loss
from dsnotes.training.fp8.linear import Bf16Linear, Fp8Linear, convert

SMALL = dataclasses.replace(TINY, initializer_range=0.3)


def hessian_vector(f: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """H v by autograd, and by central differences of the gradient."""

    def gradient(at: Tensor, **options: bool) -> Tensor:
        return torch.autograd.grad(f(at), at, **options)[0]

    x = x.detach().requires_grad_()
    (found,) = torch.autograd.grad((gradient(x, create_graph=True) * v).sum(), x)
    ahead, behind = (gradient((x + s * v).detach().requires_grad_()) for s in (1e-5, -1e-5))
    return found, (ahead - behind) / 2e-5


def scaled_up(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return module.double()


def test_moe() -> None:
    """Through the experts, the gate, and the gate's weight in the experts' output."""
    moe = scaled_up(MoE(SMALL))
    x, v = torch.randn(2, 3, 64).double()
    found, right = hessian_vector(lambda x: moe(x).pow(2).sum(), x, v)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5 * right.abs().max().item())


def test_moe_by_its_weights() -> None:
    moe, x = scaled_up(MoE(SMALL)), torch.randn(3, 64).double()
    down = moe.experts[int(moe.gate(x).indices[0, 0])].down_proj.weight
    loss = moe(x).pow(2).sum()
    (gradient,) = torch.autograd.grad(loss, moe.gate.weight, create_graph=True)
    (mixed,) = torch.autograd.grad(gradient.square().sum(), down)
    at = down.detach().clone()
    for i, j in ((0, 0), (5, 7)):
        sums = []
        for step in (1e-5, -1e-5):
            down.data = at.clone()
            down.data[i, j] += step
            (g,) = torch.autograd.grad(moe(x).pow(2).sum(), moe.gate.weight)
            sums.append(g.square().sum().item())
        slope = (sums[0] - sums[1]) / 2e-5
        assert mixed[i, j].item() == pytest.approx(slope, rel=1e-4, abs=1e-3)


def test_mla() -> None:
    """Its attention is the fused kernel of PyTorch, which is differentiated once and says so."""
    mla = scaled_up(MLA(SMALL))
    rotation = rope_rotation(torch.arange(4), rope_frequencies(SMALL), dtype=torch.float64)
    x, v = torch.randn(2, 1, 4, 64).double()
    with pytest.raises(RuntimeError, match=r"attention.* is not implemented"):
        hessian_vector(lambda x: mla(x, Pass(rotation)).pow(2).sum(), x, v)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found, right = hessian_vector(lambda x: mla(x, Pass(rotation)).pow(2).sum(), x, v)
    torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-5 * right.abs().max().item())


def test_model_with_prediction_modules() -> None:
    model = add_modules(DeepSeek(SMALL)).double()
    tokens = torch.randint(256, (1, 6))
    weight = model.model.layers[0].input_layernorm.weight

    def loss() -> Tensor:
        hidden = model.hidden(tokens)
        return mtp_loss(predict(model, hidden, tokens), tokens, weight=1.0)

    v = torch.randn_like(weight)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        (gradient,) = torch.autograd.grad(loss(), weight, create_graph=True)
        (found,) = torch.autograd.grad((gradient * v).sum(), weight)
    at, ends = weight.detach().clone(), []
    for step in (1e-5, -1e-5):
        weight.data = at + step * v
        ends.append(torch.autograd.grad(loss(), weight)[0])
    right = (ends[0] - ends[1]) / 2e-5
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5 * right.abs().max().item())


@pytest.mark.parametrize("ratio", ["token", "sequence", "geometric"])
def test_grpo_loss(ratio: str) -> None:
    pi = (-torch.rand(3, 4).double()).requires_grad_()
    old, ref = pi.detach() + 0.3 * torch.randn(2, 3, 4).double()
    mask = torch.arange(4) < torch.tensor([[4], [2], [3]])
    a = torch.tensor([1.0, -1.0, 0.5]).double()
    objective = Objective(beta=0.1, ratio=ratio)
    assert torch.autograd.gradgradcheck(
        lambda x: grpo_loss(x, old, a, mask, objective=objective, ref_log_probs=ref), [pi]
    )


def test_ppo_loss_and_estimators() -> None:
    pi, old, a, targets = -torch.rand(4, 2, 3).double()
    values = torch.randn(2, 3).double().requires_grad_()
    mask = torch.tensor([[True, True, False], [True, True, True]])
    pi.requires_grad_()
    assert torch.autograd.gradgradcheck(
        lambda x, v: ppo_loss(x, old, a, v, targets, mask, value_weight=0.5), [pi, values]
    )
    for k in (k1, k2, k3):
        assert torch.autograd.gradgradcheck(lambda x, k=k: k(x, old).square(), [pi])


def test_balance_losses() -> None:
    scores = torch.rand(2, 3, 4).double().requires_grad_()
    indices = scores.detach().topk(2, dim=-1).indices
    assert torch.autograd.gradgradcheck(
        lambda s: sequence_balance_loss(s, num_experts_per_tok=2, alpha=1.0), [scores]
    )
    assert torch.autograd.gradgradcheck(
        lambda s: expert_balance_loss(s[0].square(), indices[0], alpha=1.0), [scores]
    )


def test_fp8_is_refused() -> None:
    """Also where another way leads to the input, past which an error of autograd is not met."""
    layer, x = Fp8Linear(128, 128), torch.randn(4, 128, requires_grad=True)
    with pytest.raises(RuntimeError, match="Fp8Linear has no gradient of a gradient"):
        torch.autograd.grad((layer(x) * x).sum(), x, create_graph=True)
    moe = MoE(SMALL)
    convert(moe)
    x = torch.randn(4, 64, requires_grad=True)
    with pytest.raises(RuntimeError, match="Fp8Linear has no gradient of a gradient"):
        torch.autograd.grad(moe(x).square().sum(), x, create_graph=True)


def test_bf16_is_that_of_the_layer_without_rounding() -> None:
    """What is rounded counts as unrounded in the derivative, at every order."""
    layer, x = Bf16Linear(8, 8, bias=False), torch.randn(4, 8)
    v = torch.randn_like(x)
    found, _ = hessian_vector(lambda x: layer(x).square().sum(), x, v)
    right = 2 * v @ layer.weight.T @ layer.weight
    torch.testing.assert_close(found, right, rtol=0.05, atol=0.02)
