"""SwiGLU against its formula, row by row, and its derivatives against finite differences."""

import pytest
import torch
from torch import Tensor

from dsnotes.model.mlp import MLP


def network() -> MLP:
    """8 wide, 6 inside, in float64, with weights of a size that matters."""
    mlp = MLP(8, 6).double()
    for parameter in mlp.parameters():
        torch.nn.init.normal_(parameter)
    return mlp


def formula(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """For one row."""
    a = gate @ x
    return down @ (a / (1 + torch.exp(-a)) * (up @ x))


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (8,), (0, 8)])
def test_equals_the_formula_row_by_row(shape: tuple[int, ...]) -> None:
    mlp = network()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    leaves = [x, *mlp.parameters()]
    rows = [formula(row, *mlp.parameters()) for row in x.reshape(-1, 8)]
    ours = mlp(x)
    expected = torch.stack(rows).view_as(x) if rows else x.new_zeros(shape)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)

    gradients = torch.autograd.grad(ours.square().sum(), leaves)  # zero without rows, not None
    if rows:
        wanted = torch.autograd.grad(expected.square().sum(), leaves)
    else:
        wanted = tuple(torch.zeros_like(leaf) for leaf in leaves)
    torch.testing.assert_close(gradients, wanted, rtol=0, atol=1e-11)


def test_first_and_second_derivatives_against_finite_differences() -> None:
    mlp = network()
    names = [name for name, _ in mlp.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(mlp, dict(zip(names, weights, strict=True)), x)

    inputs = torch.randn(5, 8, dtype=torch.float64, requires_grad=True), *mlp.parameters()
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs, atol=1e-6)


def test_bfloat16_stays_bfloat16() -> None:
    mlp, x = network().bfloat16(), torch.randn(5, 8).bfloat16().requires_grad_()
    y = mlp(x)
    y.sum().backward()
    assert {t.dtype for t in (y, x.grad, mlp.down_proj.weight.grad)} == {torch.bfloat16}


def test_released_names() -> None:
    names = [name for name, _ in network().named_parameters()]
    assert names == ["gate_proj.weight", "up_proj.weight", "down_proj.weight"]


def test_another_last_size_is_refused() -> None:
    with pytest.raises(ValueError, match="x must"):
        network()(torch.zeros(5, 7, dtype=torch.float64))
