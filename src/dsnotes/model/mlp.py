"""SwiGLU, of one network or of many experts at once, its product computed again in backward.

Rows sorted by expert form one block per expert, and each block meets the three matrices of its
expert: (silu(x W_gate^T) * (x W_up^T) * w) W_down^T. All blocks write into one tensor, forward and
backward, and of the tensors as wide as the inner layer only the two inputs of the product are
kept, as in V3 (arXiv 2412.19437 §3.3.3: the inputs of SwiGLU are cached, its output is not).

Departure: the factor w of a row (the gate value of eq. 13, or none) is multiplied in before W_down,
which is linear; the rows are narrower there than behind it.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, channels


class MLP(nn.Module):
    """SwiGLU feed-forward network: down(silu(gate(x)) * up(x)).

    >>> MLP(64, 32)(torch.randn(5, 64)).shape
    torch.Size([5, 64])
    """

    @checked
    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        at_least(1, hidden_size=hidden_size, intermediate_size=intermediate_size)
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    @checked
    def forward(
        self, x: Float[Tensor, "*batch hidden"], *, weight: Float[Tensor, "*batch 1"] | None = None
    ) -> Float[Tensor, "*batch hidden"]:
        """Map (..., hidden_size) to the same shape, times `weight` (..., 1) if there is one."""
        channels(self.gate_proj.in_features, x=x)
        if matrices := self.matrices():
            rows, w = x.reshape(-1, x.shape[-1]), None if weight is None else weight.reshape(-1, 1)
            return grouped_swiglu(rows, w, matrices, load=[len(rows)]).view_as(x)
        h = F.silu(self.gate_proj(x)) * self.up_proj(x)
        y: Tensor = self.down_proj(h if weight is None else (h * weight).to(h.dtype))
        return y

    def matrices(self) -> list[Tensor]:
        """The three weights; none under autocast and where a projection was replaced (FP8)."""
        linears = [self.gate_proj, self.up_proj, self.down_proj]
        if torch.is_autocast_enabled(self.gate_proj.weight.device.type):
            return []
        return [p.weight for p in linears] if {type(p) for p in linears} == {nn.Linear} else []


@checked
def grouped_swiglu(
    x: Float[Tensor, "rows hidden"],
    w: Float[Tensor, "rows 1"] | None,
    matrices: Sequence[Tensor],
    *,
    load: Sequence[int],
) -> Float[Tensor, "rows hidden"]:
    """Feed-forward of R rows: the first load[0] by expert 0, the next load[1] by expert 1, ...

    `matrices` holds W_gate, W_up (inner, hidden) and W_down (hidden, inner) of expert 0, then those
    of expert 1 and so on. All tensors get gradients, of any order. Raises ValueError when `load`
    does not fit the rows or the matrices.

        >>> matrices = [torch.randn(4, 8), torch.randn(4, 8), torch.randn(8, 4)]
        >>> grouped_swiglu(torch.randn(5, 8), None, matrices, load=[5]).shape
        torch.Size([5, 8])
    """
    if sum(load) != len(x) or 3 * len(load) != len(matrices):
        raise ValueError(
            f"load must count the {len(x)} rows of x and have an entry per expert "
            f"({len(matrices) / 3:g}), got {len(load)} entries with sum {sum(load)}"
        )
    wide = (*matrices[0].shape[:1], x.shape[1]) if matrices else ()  # (inner, hidden)
    shapes = {m.shape for m in matrices[::3]} | {m.shape for m in matrices[1::3]}
    if shapes != {wide} or {m.shape for m in matrices[2::3]} != {wide[::-1]}:
        raise ValueError(
            f"matrices must be (inner, hidden), (inner, hidden) and (hidden, inner) for each "
            f"expert and x (rows, hidden), got {[tuple(m.shape) for m in matrices[:3]]} first and "
            f"{tuple(x.shape)}"
        )
    y: Tensor = _GroupedSwiGLU.apply(x, w, list(load), *matrices)
    return y


class _GroupedSwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor | None, load: list[int], *matrices: Tensor
    ) -> Tensor:
        a = x.new_empty(len(x), len(matrices[0]))
        b, y = torch.empty_like(a), torch.empty_like(x)
        ctx.save_for_backward(x, w, a, b, *matrices)
        ctx.load = load
        for block, (gate, up, down) in _blocks(load, matrices):
            a_i, b_i = a[block], b[block]
            torch.mm(x[block], gate.T, out=a_i)
            torch.mm(x[block], up.T, out=b_i)
            h = F.silu(a_i).mul_(b_i)
            if w is not None:
                h.mul_(w[block])
            torch.mm(h, down.T, out=y[block])
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, a, b, *matrices = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph: what follows would not be differentiated
            return _differentiable_backward(dy, x, w, ctx.load, matrices)
        dx, dw = torch.empty_like(x), None if w is None else torch.empty_like(w)
        d_matrices = []
        for block, (gate, up, down) in _blocks(ctx.load, matrices):
            s = F.silu(a[block])
            h, dh = s * b[block], dy[block] @ down
            if dw is not None:
                dw[block] = torch.linalg.vecdot(dh, h).unsqueeze(-1)
                h.mul_(w[block])  # what W_down was given
                dh.mul_(w[block])
            d_down = dy[block].T @ h
            db = s.mul_(dh)
            da = torch.ops.aten.silu_backward(dh.mul_(b[block]), a[block])
            torch.mm(da, gate, out=dx[block]).addmm_(db, up)
            d_matrices += [da.T @ x[block], db.T @ x[block], d_down]
        return dx, dw, None, *d_matrices


def _differentiable_backward(
    dy: Tensor, x: Tensor, w: Tensor | None, load: list[int], matrices: Sequence[Tensor]
) -> tuple[Tensor | None, ...]:
    """The same gradients through operations that autograd follows, for gradients of gradients."""
    # Aliases: w may have been computed from x, and only the way through this function counts.
    inputs: list[Any] = [t if t is None else t.view_as(t) for t in (x, w, *matrices)]
    x, w, *matrices = inputs
    out = []
    for block, (gate, up, down) in _blocks(load, matrices):
        h = F.silu(F.linear(x[block], gate)) * F.linear(x[block], up)
        out.append(F.linear(h if w is None else (h * w[block]).to(h.dtype), down))
    trained = [t is not None and t.requires_grad for t in inputs]
    leaves = list(itertools.compress(inputs, trained))
    found = iter(torch.autograd.grad(torch.cat(out), leaves, dy, create_graph=True))
    dx, dw, *d_matrices = [next(found) if needed else None for needed in trained]
    return dx, dw, None, *d_matrices


def _blocks(
    load: list[int], matrices: Sequence[Tensor]
) -> Iterator[tuple[slice, Sequence[Tensor]]]:
    """The rows of each expert and its three matrices."""
    start = 0
    for expert, rows in enumerate(load):
        yield slice(start, start + rows), matrices[3 * expert : 3 * expert + 3]
        start += rows
