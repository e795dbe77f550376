"""SwiGLU of many experts as one autograd step, against the chain of PyTorch's own operations."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsnotes.config import TINY
from dsnotes.model.mlp import grouped_swiglu
from dsnotes.model.moe import MoE

LOAD = [3, 0, 2]  # the second expert gets nothing


def _arguments(*, dtype: torch.dtype = torch.float64, weighted: bool) -> list[Tensor | None]:
    shapes = [(5, 8), (5, 1) if weighted else None, *[(6, 8), (6, 8), (8, 6)] * 3]
    return [None if s is None else torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes]


def _grouped(x: Tensor, w: Tensor | None, *matrices: Tensor) -> Tensor:
    return grouped_swiglu(x, w, matrices, load=LOAD)


def _plain(x: Tensor, w: Tensor | None, *matrices: Tensor) -> Tensor:
    """Row by row, from the formula."""
    rows = []
    for row, expert in enumerate([0, 0, 0, 2, 2]):
        gate, up, down = matrices[3 * expert : 3 * expert + 3]
        y = down @ (F.silu(gate @ x[row]) * (up @ x[row]))
        rows.append(y if w is None else y * w[row])
    return torch.stack(rows)


@pytest.mark.parametrize("weighted", [True, False])
def test_gradients_against_finite_differences(weighted: bool) -> None:
    assert torch.autograd.gradcheck(_grouped, _arguments(weighted=weighted))


@pytest.mark.parametrize("weighted", [True, False])
def test_equals_the_formula_row_by_row(weighted: bool) -> None:
    arguments = _arguments(weighted=weighted)
    leaves = [a for a in arguments if a is not None]
    ours, plain, upstream = _grouped(*arguments), _plain(*arguments), torch.randn(5, 8).double()
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad(ours, leaves, upstream)
    expected = torch.autograd.grad(plain, leaves, upstream, materialize_grads=True)
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


def test_keeps_two_inner_tensors_for_backward() -> None:
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        _grouped(*_arguments(weighted=True))
    assert sum(t.shape == (5, 6) for t in saved) == 2


@pytest.mark.parametrize("weighted", [True, False])
def test_second_derivatives_against_finite_differences(weighted: bool) -> None:
    assert torch.autograd.gradgradcheck(_grouped, _arguments(weighted=weighted), atol=1e-6)


def test_second_derivative_when_the_factor_depends_on_the_rows() -> None:
    """As behind a gate: the way from the rows through the factor must be counted once."""
    x, _, *matrices = _arguments(weighted=True)

    def both_ways(x: Tensor) -> Tensor:
        return _grouped(x, x[:, :1].sigmoid(), *matrices)

    assert torch.autograd.gradgradcheck(both_ways, [x])


def test_bfloat16_with_a_float32_weight_keeps_its_type() -> None:
    x, _, *matrices = (
        None if a is None else a.detach().bfloat16().requires_grad_()
        for a in _arguments(weighted=False)
    )
    w = torch.rand(5, 1, requires_grad=True)
    y = _grouped(x, w, *matrices)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16
    assert w.grad.dtype == torch.float32


@pytest.mark.parametrize("load", [[3, 0, 1], [5], [2, 1, 1, 1]])
def test_a_load_that_does_not_fit_is_refused(load: list[int]) -> None:
    x, w, *matrices = _arguments(weighted=True)
    with pytest.raises(ValueError, match="load must count the 5 rows"):
        grouped_swiglu(x, w, matrices, load=load)


def test_one_replaced_projection_leaves_the_result_as_it_was() -> None:
    class Replaced(torch.nn.Linear):
        """Stands for a quantised projection: it must be called, not bypassed."""

    moe, x = MoE(TINY).double(), torch.randn(7, TINY.hidden_size, dtype=torch.float64)
    expected = moe(x)
    moe.experts[3].up_proj.__class__ = Replaced
    torch.testing.assert_close(moe(x), expected, rtol=0, atol=1e-12)
