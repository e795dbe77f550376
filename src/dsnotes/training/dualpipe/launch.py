"""One step of a pipeline on processes of this machine: all stages in, all gradients out.

Starting the processes takes seconds, so one `Ranks` can run many steps. `processes` starts them,
watches over them and ends them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Shaped
from torch import Tensor, nn

from dsnotes.training.dualpipe import worker
from dsnotes.training.dualpipe.actions import Schedule
from dsnotes.training.dualpipe.processes import Processes
from dsnotes.training.dualpipe.runtime import Loss, RankResult, check_batch
from dsnotes.training.dualpipe.sharing import tied
from dsnotes.training.dualpipe.timeline import Durations, Timeline


@dataclass(frozen=True)
class Run:
    """One step of all ranks."""

    loss: float  # mean over micro-batches
    gradients: dict[str, Tensor]  # by "stage.parameter", as those of nn.Sequential(*stages)
    trace: Timeline  # when each action really ran, in seconds
    ranks: tuple[RankResult, ...]


class Ranks(Processes):
    """`num_ranks` processes that run steps of a pipeline; arguments and errors as for `Processes`.

    On "cuda" the first use of a kernel waits for the work before it. So when a rank is late in a
    first step, the error may also name ranks that wait for it.

    >>> from dsnotes.training.dualpipe.schedule import dualpipev
    >>> stages = [nn.Linear(8, 8) for _ in range(2)]
    >>> inputs, targets = torch.ones(4, 3, 8), torch.zeros(4, 3, 8)  # 4 micro-batches of 3
    >>> with Ranks(1) as ranks:
    ...     for _ in range(2):
    ...         done = ranks.step(dualpipev(1, 4), stages, inputs, targets, loss=F.mse_loss,
    ...                           hidden_shape=(3, 8))
    >>> done.loss > 0, len(done.trace.events)
    (True, 1)
    """

    def step(
        self,
        schedule: Schedule,
        stages: Sequence[nn.Module],
        inputs: Shaped[Tensor, "m *batch"],
        targets: Shaped[Tensor, "m *target"],
        *,
        loss: Loss,
        hidden_shape: Sequence[int],
        pace: Durations | None = None,
        timeout: float = 60.0,
    ) -> Run:
        """Run one step of `schedule`; arguments as for `Pipeline`, but `stages` are all stages.

        The modules are copied to their ranks; the originals do not change. Raises ValueError when
        the number of stages or micro-batches is not that of the schedule, and when `loss` is a
        module with trained weights; RankError when the step does not end within `timeout` seconds;
        also what `call` raises.
        """
        if len(stages) != schedule.num_stages:
            raise ValueError(f"stages must be {schedule.num_stages} modules, got {len(stages)}")
        check_batch(schedule, inputs=inputs, targets=targets)
        if isinstance(loss, nn.Module) and any(p.requires_grad for p in loss.parameters()):
            raise ValueError("loss must have no trained weights: they belong into the last stage")
        ties = tied(stages)
        options = {"loss": loss, "hidden_shape": tuple(hidden_shape), "pace": pace, "trace": True,
                   "device": self.device, "ties": ties, "timeout": 2 * timeout}  # fmt: skip
        jobs = []
        for rank in range(schedule.num_ranks):
            held = {stage: stages[stage] for stage in schedule.stages_of(rank)}
            jobs.append((schedule, held, inputs, targets, options))
        results: list[RankResult] = self.call(worker.step, jobs, timeout=timeout)
        losses = {m: value for result in results for m, value in result.losses.items()}
        aliases = {name for names in ties for name in names[1:]}
        gradients = {
            name: gradient
            for result in results
            for name, gradient in result.gradients.items()
            if name not in aliases
        }
        trace = Timeline(schedule, tuple(result.events for result in results))
        return Run(sum(losses.values()) / len(losses), gradients, trace, tuple(results))


def run(
    schedule: Schedule,
    stages: Sequence[nn.Module],
    inputs: Shaped[Tensor, "m *batch"],
    targets: Shaped[Tensor, "m *target"],
    **options: Any,
) -> Run:
    """Start the ranks, run one step, end them; keyword arguments as for `Ranks.step`.

    >>> from dsnotes.training.dualpipe.schedule import dualpipe
    >>> stages, inputs, targets = [nn.Identity()] * 2, torch.ones(4, 3, 8), torch.zeros(4, 3, 8)
    >>> run(dualpipe(2, 4), stages, inputs, targets, loss=F.mse_loss, hidden_shape=(3, 8)).loss
    1.0
    """
    with Ranks(schedule.num_ranks) as ranks:
        return ranks.step(schedule, stages, inputs, targets, **options)
