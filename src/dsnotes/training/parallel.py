"""Data parallelism: every process reads its part of a batch, and all take the same step.

All processes hold the whole model. Each computes the gradient of its own rows, the gradients are
added up, and as the processes started from the same weights they stay the same. One process over
the whole batch gives the same step, up to the order of the sums.

Equations
    The loss of a batch is a mean over its n targets. Rank r holds n_r of them, and its own mean
    L_r: the loss is the sum over the ranks of (n_r / n) L_r, and so is its gradient.

Departures
    - `torch.nn.parallel.DistributedDataParallel` sends gradients while the backward pass still
      computes others; here they go in one piece when it is done. It also takes their plain mean,
      which is another loss where ranks hold different numbers of targets.
    - V3 (arXiv 2412.19437) 3.2 has ZeRO-1: each rank keeps the optimizer's moments of a part of the
      weights. Here every rank keeps all.
"""

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training import texts
from dsnotes.training.loop import language_step
from dsnotes.training.state import Report, TrainState


class ParallelState(TrainState):
    """A `TrainState` whose `update` adds up the gradients of all processes.

    `share` weighs the loss of this process: its part of the targets of the batch.
    """

    share = 1.0

    @checked
    def update(self, loss: Float[Tensor, ""]) -> None:
        """One step by the losses of all processes, each with its share."""
        super().update(self.share * loss)

    def descend(self) -> None:
        """A step along the sum of the gradients."""
        sum_gradients(self.model)
        super().descend()


@checked
def parallel_step(
    state: ParallelState,
    batch: texts.Batch,
    *,
    gamma: float = 0.0,
    mtp_weight: float = 0.0,
    padding: int | None = None,
) -> Report:
    """`loop.language_step` on the rows of this process; loss and load are those of the batch.

    Every process calls it with the same batch, and takes every N-th row. Outside of
    torch.distributed there is one process. ValueError for a batch of fewer rows than processes.

        >>> batch = next(texts.batches(steps=1, batch_size=4, seq_len=16, seed=0))
        >>> state = ParallelState.create(model, steps=1, learning_rate=1e-3)
        >>> parallel_step(state, batch, gamma=0.01)["load"].shape
        torch.Size([2, 16])
    """
    at_least(0, mtp_weight=mtp_weight)
    ranks, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    if (count := len(batch.tokens)) < ranks:
        raise ValueError(f"batch must hold a row for each of {ranks} ranks, got {count}")
    rows = texts.Batch(batch.tokens[rank::ranks], batch.domain[rank::ranks])
    state.share = _targets(rows.tokens, padding) / _targets(batch.tokens, padding)  # n_r / n
    # the loss of the prediction modules is a mean over rows, not over targets
    share_of_rows = len(rows.tokens) / count
    report = language_step(
        state,
        rows,
        gamma=gamma,
        mtp_weight=mtp_weight * share_of_rows / state.share,
        padding=padding,
    )
    load = report["load"]
    loss = torch.tensor([state.share * report["loss"]], device=load.device)
    sums = torch.cat([loss, load.flatten()]).double()
    _add_up(sums)
    return {"loss": sums[0].item(), "load": sums[1:].long().view(load.shape)}


@torch.no_grad()
@checked
def sum_gradients(model: DeepSeek) -> None:
    """Give every weight the sum of its gradients on all processes.

    One that has none anywhere (an expert that no token chose) stays without.

        >>> model(tokens).mean().backward()
        >>> sum_gradients(model)  # one process: as it was
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    parts = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    has = torch.tensor([w.grad is not None for w in weights], device=model.device)
    flat = torch.cat([part.flatten() for part in parts] + [has.to(parts[0].dtype)])
    _add_up(flat)
    *sums, has = flat.split([*map(Tensor.numel, parts), len(weights)])
    for weight, total, anywhere in zip(weights, sums, has.tolist(), strict=True):
        weight.grad = total.view_as(weight) if anywhere else None


def _add_up(x: Tensor) -> None:
    if dist.is_initialized():
        dist.all_reduce(x)


def _targets(tokens: Tensor, padding: int | None) -> int:
    targets = tokens[:, 1:]
    return targets.numel() if padding is None else int((targets != padding).sum())
