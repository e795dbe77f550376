"""Routed experts on a GPU: one matrix product for all of them where the loop has one for each.

The loop of `MoE._routed` asks the GPU how many tokens each expert got, waits for the answer and
starts hundreds of small products. A grouped product takes the weights of all experts as one stack
and the ends of their blocks of rows as a tensor: nothing is waited for.

Equations
    V3 (arXiv 2412.19437) (12): the sum over the routed experts, as in `MoE._routed`
    V3 section 3.3.3: kept for the backward pass are the inputs of SwiGLU, whose output is made
        again from them

Departures from the loop
    g multiplies the output of SwiGLU and not that of the expert; the projection between the two is
    linear. So the output of the experts is not kept for the gradient of g.
    The K terms are added in float32 as in the loop, but in the order of the choice, not of the
    experts: the same on every run, which `index_add` on a GPU is not.

Shapes: T tokens, K choices of each, S = T*K slots, sorted by expert; E experts, H hidden, N inner.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import _has_any_global_hook

from dsnotes.checks.devices import triton_capability
from dsnotes.model.mlp import MLP

NAMES = ("gate_proj", "up_proj", "down_proj")


@torch.compiler.disable  # type: ignore[untyped-decorator]
def grouped(
    experts: nn.ModuleList,
    x: Float[Tensor, "tokens hidden"],
    indices: Int[Tensor, "tokens k"],
    g: Float[Tensor, "tokens k"],
) -> Float[Tensor, "tokens hidden"] | None:
    """Sum of g_i FFN_i(x) over the chosen experts; None where only the loop can do it.

    It takes products in bfloat16 whose sides are multiples of 8, and experts that are `MLP` and
    nothing more: no FP8 layer, no hook, no transform of `torch.func`, no `fully_shard`. At the
    first call the weights move into two stacks, gate and up (2E, N, H) and down (E, H, N). They
    stay parameters with their names, each of them now a view. While a stack is filled, memory holds
    it and the weights.
    """
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
    if dtype != torch.bfloat16 or type(x) is not Tensor or not len(x):
        return None
    # On a CPU it is tested; where the GPU is older, a grouped product waits for its sizes
    if x.device.type != "cpu" and triton_capability(x.device) < (9, 0):
        return None
    parts = _weights(experts)
    stacks = [made for part in parts if (made := stack(part)) is not None]
    cast = (torch.float32, torch.float16) if autocast else ()  # autocast leaves float64 as it is
    for one in (x, *stacks):
        if one.device != x.device or one.dtype not in (dtype, *cast):
            return None
    if len(stacks) < 2 or any(size % 8 for one in stacks for size in one.shape[1:]):
        return None
    gate_up, down = (one.bfloat16() for one in stacks)
    gate_up = gate_up.view(len(down), -1, x.shape[1])  # (E, 2N, H), gate above up
    if torch.is_grad_enabled():
        y: Tensor = _Grouped.apply(x, g, indices, gate_up, down, *parts[0], *parts[1])
        return y
    return _forward(x, _sort(indices, g, len(down)), gate_up, down, _fused(x))[0]


def _weights(experts: nn.ModuleList) -> list[list[Tensor]]:
    """Gate and up of each expert in turn, and the downs; nothing if one does more than `MLP`.

    It looks at a thousand modules while the GPU would be done with a token: hence no loops in it
    that call, and attributes by their dictionaries.
    """
    modules = [m for expert in experts for m in (expert, *map(expert._modules.get, NAMES))]
    if list(map(type, modules)) != [MLP, nn.Linear, nn.Linear, nn.Linear] * len(experts):
        return []
    own = list(map(vars, modules))
    extra = any(
        d["_forward_hooks"] or d["_forward_pre_hooks"] or d["_backward_hooks"]
        or d["_backward_pre_hooks"] or "forward" in d or d["_parameters"].get("bias") is not None
        for d in own
    )  # fmt: skip
    transformed = torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    if extra or _has_any_global_hook() or transformed or _fully_sharded():
        return []
    gates, ups, downs = ([d["_parameters"]["weight"] for d in own[i::4]] for i in (1, 2, 3))
    return [[w for pair in zip(gates, ups, strict=True) for w in pair], downs]


def _fully_sharded() -> bool:
    """Whether FSDP2 runs some model here, maybe this one: see `stack`."""
    states = sys.modules.get("torch.distributed._composable_state")
    return states is not None and len(states._module_state_mapping) > 0


def stack(weights: Sequence[Tensor]) -> Tensor | None:
    """(number, *shape): weights as one tensor without gradient, in which they live from now on.

    Where they do so already, as their addresses tell, nothing is copied: `.to`, `assign` and the
    like have moved them out. None if they differ in shape or type, or are no common parameters.
    Not for weights whose memory something else manages: FSDP (`fully_shard`) gathers them anew for
    each pass where they were at first, and would never see that they moved. The stack goes stale.
    """
    first, step = weights[0], weights[0].nbytes
    start, end = first.data_ptr(), first.data_ptr() + len(weights) * step
    held = first.untyped_storage()
    if (
        list(map(Tensor.data_ptr, weights)) == list(range(start, end, step))
        and end <= held.data_ptr() + held.nbytes()  # and not neighbours by chance
        and all(map(Tensor.is_contiguous, weights))
        and {w.nbytes for w in weights} == {step}
    ):
        shape, strides = (len(weights), *first.shape), (first.numel(), *first.stride())
        return first.detach().as_strided(shape, strides)
    alike = {(type(w), w.shape, w.dtype, w.is_contiguous(), w.is_inference()) for w in weights}
    if alike != {(nn.Parameter, first.shape, first.dtype, True, False)}:
        return None
    if len({w.device for w in weights}) > 1:
        return None
    with torch.inference_mode(False), torch.no_grad():
        home = torch.stack(list(weights))
        for weight, place in zip(weights, home.unbind(), strict=True):
            weight.data = place
    return home


class Slots(NamedTuple):
    """The choices of all tokens, sorted by expert."""

    token: Tensor  # (S,), whose row it is
    ends: Tensor  # (E,), where the block of each expert ends
    place: Tensor  # (T, K), where each choice went
    g: Tensor  # (S,)


def _sort(indices: Tensor, g: Tensor, n_experts: int) -> Slots:
    expert, order = indices.flatten().sort(stable=True)
    every = torch.arange(n_experts, device=expert.device)
    ends = torch.searchsorted(expert, every, right=True, out_int32=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    return Slots(order // indices.shape[1], ends, place.view_as(indices), g.flatten()[order])


def _forward(x: Tensor, slots: Slots, gate_up: Tensor, down: Tensor, fused: Any) -> list[Tensor]:
    """The sum (T, H), and what a backward pass needs: the rows (S, H), gate and up (S, 2N)."""
    rows = x.to(gate_up.dtype).index_select(0, slots.token)
    both = F.grouped_mm(rows, gate_up.mT, offs=slots.ends)
    hidden = fused.swiglu(both, slots.g)  # (S, N)
    out = F.grouped_mm(hidden, down.mT, offs=slots.ends)  # (S, H)
    return [fused.gather_sum(out, slots.place, x.dtype), rows, both]  # (12)


class _Grouped(torch.autograd.Function):
    """`_forward` with gradients for x, g and the weights."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, g: Tensor, indices: Tensor, *stacks_and_weights: Tensor
    ) -> Tensor:
        gate_up, down, *weights = stacks_and_weights
        slots = _sort(indices, g, len(down))
        y, rows, both = _forward(x, slots, gate_up, down, _fused(x))
        # the weights too: one that changes in place before the backward pass is an error, as ever
        ctx.save_for_backward(x, g, indices, *slots, rows, both, gate_up, down, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, g, indices, *rest = ctx.saved_tensors
        token, ends, place, g_slots, rows, both, gate_up, down, *weights = rest
        if torch.is_grad_enabled():  # create_graph: by operations that have a gradient themselves
            return _differentiable(grads[0], x, g, indices, weights, ctx.needs_input_grad)
        fused = _fused(x)
        d_out = grads[0].to(rows.dtype).index_select(0, token)  # (S, H)
        d_hidden = F.grouped_mm(d_out, down, offs=ends)  # (S, N)
        d_both, hidden, d_g = fused.swiglu_backward(d_hidden, both, g_slots)
        d_x = None
        d_weights: Sequence[Tensor | None] = [None] * len(weights)
        if ctx.needs_input_grad[0]:
            d_x = fused.gather_sum(F.grouped_mm(d_both, gate_up, offs=ends), place, x.dtype)
        if any(ctx.needs_input_grad[5:]):  # an idle expert has no rows: 0
            d_down = F.grouped_mm(d_out.mT, hidden, offs=ends)  # (E, H, N)
            d_both = F.grouped_mm(d_both.mT, rows, offs=ends)  # (E, 2N, H)
            parts = d_both.view(-1, *weights[0].shape), d_down
            d_weights = [d for part in parts for d in part.to(weights[0].dtype).unbind()]
        return d_x, d_g[place], None, None, None, *d_weights


def _differentiable(
    dy: Tensor, x: Tensor, g: Tensor, indices: Tensor, weights: list[Tensor], needed: Any
) -> tuple[Tensor | None, ...]:
    """The gradients of `_Grouped` with a graph of their own, for second derivatives."""
    n = len(weights) // 3
    gate_up = torch.stack(weights[: 2 * n]).bfloat16().view(n, -1, x.shape[1])
    down = torch.stack(weights[2 * n :]).bfloat16()
    y, *_ = _forward(x, _sort(indices, g, n), gate_up, down, Plain)
    inputs = [x, g, indices, gate_up, down, *weights]
    asked = [one for one, need in zip(inputs, needed, strict=True) if need]
    found = iter(torch.autograd.grad(y, asked, dy, create_graph=True))
    return tuple(next(found) if need else None for need in needed)


class Plain:
    """What each kernel of `moe_triton` computes, by operations of PyTorch."""

    @staticmethod
    def swiglu(both: Tensor, g: Tensor) -> Tensor:
        """g * silu(gate) * up: (S, 2N) and (S,) to (S, N)."""
        gate, up = both.float().chunk(2, dim=1)
        return (F.silu(gate) * up * g[:, None]).to(both.dtype)

    @staticmethod
    def swiglu_backward(d: Tensor, both: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of both (S, 2N) and, last, of g (S,); between them the output once more."""
        gate, up = both.float().chunk(2, dim=1)
        sigma = gate.sigmoid()
        silu, dg = gate * sigma, d.float() * g[:, None]
        d_gate = dg * up * (sigma + silu * (1 - sigma))
        d_both = torch.cat([d_gate, dg * silu], dim=1).to(both.dtype)
        return d_both, Plain.swiglu(both, g), (d.float() * silu * up).sum(dim=1)

    @staticmethod
    def gather_sum(rows: Tensor, place: Tensor, dtype: torch.dtype) -> Tensor:
        """Of each token the sum of its K rows, in float32: (S, H) and (T, K) to (T, H)."""
        return rows[place].float().sum(dim=1).to(dtype)


def _fused(x: Tensor) -> Any:
    if x.device.type != "cuda":
        return Plain
    from dsnotes.model import moe_triton  # needs Triton, which comes with PyTorch for a GPU

    return moe_triton
