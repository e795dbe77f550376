"""Mixture of experts: every token is sent to a few of many small feed-forward networks.

A gate scores all routed experts for a token and keeps the K best; the token's output is their
weighted sum plus the shared experts, which see every token. No token is ever dropped.

Equations
    V3 (arXiv 2412.19437) §2.1.2: (12) sum of experts, (13) normalised gate values, (15) sigmoid
        affinity, (16) top-K over affinity plus bias; the paragraph "Node-Limited Routing"
    V2 (arXiv 2405.04434) §2.2.1 (21)-(22) and V1 (arXiv 2401.06066) §3.2 (10)-(11): top-K gate
        over softmax affinities
    V1 §3.1 (6)-(8) fine-grained segmentation, §3.2 (9)-(11) shared expert isolation

Departures
    The decoder layer adds the residual u_t of eq. (12), as in the released code.
    `routed_scaling_factor` multiplies the gate values: in the released code, not in the papers.
    Eq. (13) gets 1e-20 in the denominator: affinities that all underflow give 0, not 0/0.
    The gate computes in float32 at least, also under autocast and in a bfloat16 model.
    A group counts as the sum of its two best scores s + b, as in the released code. The paper sums
    its K_r/M highest affinities, by its name for them without b; for V3 that is two as well.

Shapes: T tokens, E routed experts in G groups, K chosen by each token; a slot is one such choice.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.config import Config
from dsnotes.model.experts import grouped
from dsnotes.model.mlp import MLP


class Routing(NamedTuple):
    """Where every token goes: to K of E experts."""

    indices: Int[Tensor, "tokens k"]  # the chosen experts
    weights: Float[Tensor, "tokens k"]  # g, what multiplies the output of each chosen expert
    scores: Float[Tensor, "tokens experts"]  # s, the affinities, without bias


class Gate(nn.Module):
    """Scores the routed experts and chooses K for each token (V3 eq 13, 15, 16; V1 eq 10-11).

    `weight` holds the centroids e_i as rows. With "noaux_tc" the buffer `e_score_correction_bias`
    (b_i) takes part in the choice and in nothing else; `dsnotes.model.balance` moves it.

        >>> Gate(TINY)(torch.randn(5, TINY.hidden_size)).indices.shape
        torch.Size([5, 4])
    """

    e_score_correction_bias: Tensor | None

    @checked
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size))
        nn.init.normal_(self.weight, std=config.initializer_range)
        bias = torch.zeros(config.n_routed_experts, dtype=torch.float32)
        has_bias = config.topk_method == "noaux_tc"
        self.register_buffer("e_score_correction_bias", bias if has_bias else None)

    @checked
    def forward(self, x: Float[Tensor, "tokens hidden"]) -> Routing:
        """Route T tokens; raises ValueError or TypeError when x is not (T, hidden_size) floats."""
        _check_input(x, self.weight)
        scores = self._affinity(x)  # (T, E)
        indices = self._choose(scores.detach())  # (T, K)
        weights = scores.gather(1, indices)  # (16): the value is s, without the bias
        if self.config.norm_topk_prob:
            weights = weights / (weights.sum(dim=1, keepdim=True) + 1e-20)  # (13)
        return Routing(indices, weights * self.config.routed_scaling_factor, scores)

    def _affinity(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(dtype), self.weight.to(dtype))  # u_t . e_i
        if self.config.scoring_func == "sigmoid":
            return logits.sigmoid()  # (15)
        return logits.softmax(dim=1)  # V2 (22), V1 (11)

    def _choose(self, scores: Tensor) -> Tensor:
        """The K best experts of each token (16), inside its best groups when there are groups."""
        config = self.config
        if self.e_score_correction_bias is not None:
            scores = scores + self.e_score_correction_bias
        if config.n_group > 1:
            groups = scores.unflatten(1, (config.n_group, -1))  # (T, G, E/G)
            # V3's code: a group counts as the sum of its two best experts; V2: as its best one
            best = 2 if config.topk_method == "noaux_tc" else 1
            group_scores = groups.topk(best, dim=2).values.sum(dim=2)  # (T, G)
            kept = group_scores.topk(config.topk_group, dim=1).indices
            closed = torch.ones_like(group_scores, dtype=torch.bool).scatter(1, kept, False)
            # -inf, not 0: a biased score may be negative and would lose against a closed group
            scores = groups.masked_fill(closed[:, :, None], -math.inf).flatten(1)
        return scores.topk(config.num_experts_per_tok, dim=1).indices

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Gate":
        """Casting the model to bfloat16 leaves the bias in float32, as in the released weights.

        In bfloat16 a step of 0.001 would double from 0.25 on and vanish from 0.5 on.
        """
        before = self.e_score_correction_bias
        super()._apply(fn, recurse)
        after = self.e_score_correction_bias
        if before is not None and after is not None and after.itemsize < 4:
            self.e_score_correction_bias = before.to(after.device)
        return self


class MoE(nn.Module):
    """Routed experts, weighted by the gate, plus the shared experts (V3 eq 12; V1 eq 9).

    >>> MoE(TINY)(torch.randn(2, 7, TINY.hidden_size)).shape
    torch.Size([2, 7, 64])
    """

    @checked
    def __init__(self, config: Config) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.moe_intermediate_size
        self.gate = Gate(config)
        self.experts = nn.ModuleList(MLP(hidden, inner) for _ in range(config.n_routed_experts))
        n_shared = config.n_shared_experts
        self.shared_experts = MLP(hidden, n_shared * inner) if n_shared else None

    @checked
    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Map (..., hidden_size) to the same shape; bad input raises as in `Gate.forward`."""
        _check_input(x, self.gate.weight)
        tokens = x.reshape(-1, x.shape[-1])  # (T, hidden)
        routing = self.gate(tokens)
        y = grouped(self.experts, tokens, *routing[:2]) if tokens.is_cuda else None
        y = self._routed(tokens, routing) if y is None else y
        if self.shared_experts is not None:
            y = y + self.shared_experts(tokens)
        return y.view_as(x)

    def _routed(self, x: Tensor, routing: Routing) -> Tensor:
        """Sum of g_i FFN_i(x) over the chosen experts; sorted, the slots of each are one block."""
        order = routing.indices.flatten().argsort(stable=True)  # (T*K,)
        token = order // routing.indices.shape[1]  # (T*K,), of each slot
        g = routing.weights.flatten()[order, None]  # (T*K, 1)
        load = routing.indices.flatten().bincount(minlength=len(self.experts)).tolist()
        blocks = x.index_select(0, token).split(load)
        idle = torch.is_grad_enabled() or not len(x)  # runs them too: their gradient is 0, not None
        out = torch.cat([e(u) for e, u in zip(self.experts, blocks, strict=True) if len(u) or idle])
        y = torch.zeros_like(x, dtype=g.dtype)  # sums in float32 at least
        return y.index_add(0, token, g * out).to(x.dtype)  # (12)


@contextmanager
@checked
def record_routing(model: nn.Module) -> Iterator[list[Routing]]:
    """The `Routing` of every gate of `model` that runs inside the block, in the order of the calls.

    Each pass adds one per MoE layer, first layer first, tokens flattened and attached to the graph.

        >>> with record_routing(model) as routings:
        ...     logits = model(tokens)
        >>> [routing.indices.shape for routing in routings]  # the first of three layers is dense
        [torch.Size([32, 4]), torch.Size([32, 4])]
    """
    routings: list[Routing] = []
    gates = [module for module in model.modules() if isinstance(module, Gate)]

    def note(gate: Gate, _args: object, routing: Routing) -> None:
        if gate in gates:  # a copy of the model has the hook as well
            routings.append(routing)

    with ExitStack() as hooks:
        for gate in gates:
            hooks.enter_context(gate.register_forward_hook(note))
        yield routings


@checked
def segment(config: Config, *, m: int) -> Config:
    """Fine-grained segmentation (V1 §3.1): m times the experts, each 1/m as wide, m times active.

    The experts keep their parameters and FLOPs. ValueError if m does not divide the inner size.

        >>> segment(TINY, m=2).n_routed_experts  # 16 before
        32
    """
    inner = config.moe_intermediate_size
    if not isinstance(m, int) or m < 1 or inner % m:
        raise ValueError(f"m must divide moe_intermediate_size ({inner}), got {m!r}")
    return dataclasses.replace(
        config,
        n_routed_experts=m * config.n_routed_experts,
        n_shared_experts=m * config.n_shared_experts,
        moe_intermediate_size=inner // m,
        num_experts_per_tok=m * config.num_experts_per_tok,
    )


@checked
def isolate_shared(config: Config, *, n: int) -> Config:
    """Shared expert isolation (V1 §3.2): n of the active routed experts become shared ones.

    The experts keep their parameters and FLOPs; the router loses n rows. ValueError when no active
    routed one would be left.

        >>> isolate_shared(dataclasses.replace(TINY, n_group=1, topk_group=1), n=1).n_routed_experts
        15
    """
    most = config.num_experts_per_tok - 1
    if not isinstance(n, int) or not 0 <= n <= most:
        raise ValueError(f"n must be a whole number from 0 to {most}, got {n!r}")
    return dataclasses.replace(
        config,
        n_shared_experts=config.n_shared_experts + n,
        n_routed_experts=config.n_routed_experts - n,
        num_experts_per_tok=config.num_experts_per_tok - n,
    )


@checked
def expert_combinations(config: Config) -> int:
    """How many different sets of routed experts a token can be sent to (V1 §3.1).

    C(N, K) without groups. With groups, the sets inside at most topk_group of them: those that
    touch each of j given groups are counted by inclusion and exclusion.

        >>> expert_combinations(TINY)  # 4 of 16 experts, inside 2 of 4 groups
        412
    """
    k, size = config.num_experts_per_tok, config.n_routed_experts // config.n_group
    return sum(
        math.comb(config.n_group, j) * (-1) ** (j - i) * math.comb(j, i) * math.comb(i * size, k)
        for j in range(1, config.topk_group + 1)
        for i in range(j + 1)
    )


def _check_input(x: Tensor, weight: Tensor) -> None:
    mixed = x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type)
    if mixed or not x.is_floating_point():
        raise TypeError(f"x must be {weight.dtype} like the weights, got {x.dtype}")
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x must have shape (..., {weight.shape[1]}), got {tuple(x.shape)}")
