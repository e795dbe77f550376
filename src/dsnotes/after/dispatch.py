"""Expert parallelism: every rank holds some of the experts, and tokens travel to them and back.

Dispatch sends each token once to every rank that holds one of its experts; the rank runs them on
what arrived; combine brings the results home and adds them. It is the pair of exchanges that
DualPipe hides behind the computation.

Source
    DeepEP (README, MIT): dispatch and combine, a row for each token and rank
    V3 (arXiv 2412.19437) section 3.2: experts over the ranks; eq. (12) is the sum that is taken

Departures
    Two plain all-to-all exchanges, the sizes sent beforehand, on any backend; DeepEP has kernels of
    its own for them.
    Gate and shared experts are copied on every rank, which has to sum their gradients itself.

Shapes: T tokens of this rank, A tokens that arrived, K experts a token, E experts on each rank.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.model.moe import MoE
from dsnotes.training.dualpipe.channels import EVERYONE


class _Exchange(torch.autograd.Function):
    """Rows to the ranks, in blocks of `sent`; `received` come back. Gradients go the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], received: list[int], group: Any) -> Tensor:
        ctx.sizes, ctx.group = (received, sent), group
        out = x.new_empty(sum(received), *x.shape[1:])
        dist.all_to_all_single(out, x.contiguous(), received, sent, group=group)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return _Exchange.apply(grads[0], *ctx.sizes, ctx.group), None, None, None


class ExpertParallelMoE(nn.Module):
    """A `MoE` whose routed experts are spread over the ranks of `group`, in order.

    Every rank calls it with its own tokens at the same time. Rank r keeps experts rE .. (r+1)E - 1
    of the `moe` it is given. ValueError when the ranks do not divide the experts.
    """

    @checked
    def __init__(self, moe: MoE, group: Any = None) -> None:
        super().__init__()
        ranks, rank = dist.get_world_size(group), dist.get_rank(group)
        if len(moe.experts) % ranks:
            raise ValueError(
                f"{len(moe.experts)} experts cannot be spread evenly over {ranks} ranks"
            )
        self.group, self.ranks, self.each = group, ranks, len(moe.experts) // ranks
        self.gate, self.shared_experts = moe.gate, moe.shared_experts
        self.experts = moe.experts[rank * self.each : (rank + 1) * self.each]
        self.first = rank * self.each

    @checked
    def forward(self, x: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch hidden"]:
        """The same numbers as the `moe` it was made of."""
        tokens = x.reshape(-1, x.shape[-1])  # (T, hidden)
        indices, weights, _ = self.gate(tokens)
        y = self._combine(*self._dispatch(tokens, indices, weights))
        if self.shared_experts is not None:
            y = y + self.shared_experts(tokens)
        return y.view_as(x)

    def _dispatch(
        self, x: Tensor, indices: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor, list[int], list[int], int]:
        """A row for each token and rank that holds one of its experts, run where it arrives."""
        home = indices // self.each  # (T, K): the rank of each chosen expert
        ranks = torch.arange(self.ranks, device=x.device)
        wanted = (home[:, :, None] == ranks).any(1)  # (T, ranks)
        rank, token = wanted.T.nonzero(as_tuple=True)  # sorted by rank: a block for each
        sent = torch.bincount(rank, minlength=self.ranks)
        received = torch.empty_like(sent)
        dist.all_to_all_single(received, sent, group=self.group)  # the sizes first
        sizes = sent.tolist(), received.tolist(), self.group
        rows = _Exchange.apply(x[token], *sizes)  # (A, hidden)
        chosen = _Exchange.apply(indices[token], *sizes)  # (A, K), numbers of all experts
        g = _Exchange.apply(weights[token], *sizes)  # (A, K)
        out = torch.zeros_like(rows, dtype=torch.promote_types(g.dtype, rows.dtype))
        for i, expert in enumerate(self.experts):
            row, k = (chosen == self.first + i).nonzero(as_tuple=True)
            out = out.index_add(0, row, g[row, k, None] * expert(rows[row]))  # V3 (12)
        return out, token, sizes[0], sizes[1], len(x)

    def _combine(
        self, out: Tensor, token: Tensor, sent: list[int], received: list[int], count: int
    ) -> Tensor:
        """Bring the sums of each rank home and add them."""
        home = _Exchange.apply(out, received, sent, self.group)  # a row for each that was sent
        y = home.new_zeros(count, home.shape[1])
        return torch.index_add(y, 0, token, home)


def step(
    on_wait: Callable[[int | None], None], moe: MoE, x: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What one rank does, for `training.dualpipe.processes.Processes.call`: forward and backward.

    Returns the output, the gradient of the input, and those of the parameters by their names in
    `moe`: of the experts this rank holds, and its share of those that every rank has.
    """
    layer = ExpertParallelMoE(moe)
    x = x.detach().requires_grad_()
    on_wait(EVERYONE)  # every exchange waits for all
    y = layer(x)
    y.backward(grad)
    assert x.grad is not None
    grads = {}
    for name, parameter in layer.named_parameters():
        part, _, rest = name.partition(".")
        if part == "experts":
            number, _, rest = rest.partition(".")
            name = f"experts.{layer.first + int(number)}.{rest}"
        if parameter.grad is not None:
            grads[name] = parameter.grad
    return y.detach(), x.grad, grads
