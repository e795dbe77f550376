"""The same step on torch's own ScheduleDualPipeV, the engine to use for real training.

`torch.distributed.pipelining` overlaps sending with computing, infers shapes, handles several
inputs and outputs a stage, and splits any module's backward, not only that of linear layers.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn

from dsnotes.training.dualpipe.launch import Ranks
from dsnotes.training.dualpipe.runtime import Loss, check_batch, gradients
from dsnotes.training.dualpipe.schedule import dualpipev
from dsnotes.training.dualpipe.sharing import holders, tied


def torch_dualpipev(
    ranks: Ranks,
    stages: Sequence[nn.Module],
    inputs: Shaped[Tensor, "m batch *_"],
    targets: Shaped[Tensor, "m target *_"],
    *,
    loss: Loss,
    timeout: float = 60.0,
) -> tuple[float, dict[str, Tensor], float]:
    """Mean loss, gradients and seconds of a step of ScheduleDualPipeV, two stages on each rank.

    The seconds are those of the slowest rank, from a common start. They do not include imports and
    the set-up of the process groups; they include the exchange of shapes before the first
    micro-batch.

    Raises ValueError for a wrong number of stages or targets, and when stages of two ranks share a
    parameter (the engine would not add up its gradients); also what `Ranks.call` and `dualpipev`
    raise.

        >>> stages = [nn.Linear(8, 8) for _ in range(2)]
        >>> inputs, targets = torch.ones(4, 2, 8), torch.zeros(4, 2, 8)  # four micro-batches
        >>> with Ranks(1) as ranks:
        ...     value, grads, _ = torch_dualpipev(ranks, stages, inputs, targets, loss=F.mse_loss)
        >>> value > 0, sorted(grads)
        (True, ['0.bias', '0.weight', '1.bias', '1.weight'])
    """
    if len(stages) % 2:
        raise ValueError(f"stages must be two for each rank, got {len(stages)}")
    schedule = dualpipev(len(stages) // 2, len(inputs))
    check_batch(schedule, inputs=inputs, targets=targets)
    ties = tied(stages)
    ranks_of = holders(schedule, ties)
    if apart := [names for names in ties if len(ranks_of[names[0]]) > 1]:
        raise ValueError(f"stages of different ranks share a parameter: {', '.join(apart[0])}")
    jobs = [
        ({s: stages[s] for s in schedule.stages_of(rank)}, inputs, targets, loss, ranks.device)
        for rank in range(schedule.num_ranks)
    ]
    results = ranks.call(_step, jobs, timeout=timeout)
    merged = {name: gradient for _, part, _ in results for name, gradient in part.items()}
    seconds = max(seconds for *_, seconds in results)
    return sum(results[0][0]) / len(inputs), merged, seconds


def _step(
    on_wait: Callable[[int | None], None],
    stages: dict[int, nn.Module],
    inputs: Tensor,
    targets: Tensor,
    loss: Loss,
    device: str,
) -> tuple[list[float], dict[str, Tensor], float]:
    from torch.distributed.pipelining import PipelineStage, ScheduleDualPipeV

    inputs, targets = inputs.to(device), targets.to(device)
    for stage in stages.values():
        stage.to(device)
        # The engine detaches stage outputs in place, which a view (a linear layer with a bias, on
        # a batch of sequences) does not allow.
        stage.register_forward_hook(lambda stage, inputs, output: output.clone())
    num_stages = 2 * dist.get_world_size()
    local: list[Any] = [
        PipelineStage(stages[s], s, num_stages, inputs.device) for s in sorted(stages)
    ]
    schedule = ScheduleDualPipeV(local, n_microbatches=len(inputs), loss_fn=loss)
    losses: list[Tensor] = []
    dist.barrier()
    start = time.monotonic()
    if dist.get_rank() == 0:  # holds the first and the last stage
        arguments: dict[str, Any] = {"target": targets.flatten(0, 1), "losses": losses}
        schedule.step(inputs.flatten(0, 1), **arguments)
    else:
        schedule.step()
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = time.monotonic() - start
    here = {name: gradient.cpu() for name, gradient in gradients(stages).items()}
    return [value.item() for value in losses], here, seconds
