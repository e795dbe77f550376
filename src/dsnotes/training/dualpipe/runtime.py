"""One rank of a pipeline: runs its actions on real tensors and exchanges them with other ranks.

Before an action the rank exchanges messages and waits for the inputs of the action. Any schedule
runs under anything that initialises `torch.distributed`: torchrun (see `__main__`), or `launch` for
the processes of one machine.

Source
    V3 (arXiv 2412.19437) §3.2.1; the backward is cut in two by `split`, messages are in `channels`

Departures
    An overlapped pair runs forward, then backward: without all-to-all there is nothing to hide.
    (The released code does the same unless a module brings its own overlapped version.)
    Gradients of what several ranks hold (the two copies of a stage in DualPipe, a parameter that
    two stages share) are summed at the end of a step; the released code leaves that to the caller.
    The loss is the mean over micro-batches: every backward is seeded with 1/m.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn

from dsnotes.training.dualpipe.actions import Action, Kind, Schedule
from dsnotes.training.dualpipe.channels import Channels, check_seconds
from dsnotes.training.dualpipe.clock import Clock
from dsnotes.training.dualpipe.sharing import SharedParameters, Ties, groups, named_parameters
from dsnotes.training.dualpipe.split import WeightQueue
from dsnotes.training.dualpipe.timeline import Durations, Event

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class RankResult:
    """What one rank has after a step."""

    losses: dict[int, float]  # by micro-batch, on ranks that hold the last stage
    gradients: dict[str, Tensor]  # by "stage.parameter", its first name on this rank
    events: tuple[Event, ...]  # of a trace: seconds since the first rank was ready, on one clock


class Pipeline:
    """This rank's part of a pipeline; `torch.distributed` must be initialised on all ranks.

    `stages` holds the modules of `schedule.stages_of(rank)`, each mapping one tensor to one tensor;
    between stages all have `hidden_shape` and `dtype`. `loss(output, target)` gives a scalar.
    `ties` names the parameters that stages share, as `sharing.tied(all_stages)` finds them.
    With `trace` the result has events; on a GPU their marks take some of the time of short actions.
    `pace` makes every action last at least that many seconds; then a trace shows the schedule
    even when ranks share a processor. `timeout` is for one message, in seconds. `on_wait` is called
    with the rank that is waited for, and with None afterwards.
    Raises ValueError when stages or number of ranks do not fit the schedule, or for a bad timeout.

        >>> from dsnotes.training.dualpipe.schedule import dualpipev
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> stages = {0: nn.Identity(), 1: nn.Identity()}  # of the one rank there is
        >>> pipeline = Pipeline(dualpipev(1, 4), stages, loss=F.mse_loss, hidden_shape=(2, 8))
        >>> pipeline.step(torch.ones(4, 2, 8), torch.zeros(4, 2, 8)).losses  # all ranks call it
        {0: 1.0, 1: 1.0, 2: 1.0, 3: 1.0}
        >>> dist.destroy_process_group()
    """

    def __init__(
        self,
        schedule: Schedule,
        stages: Mapping[int, nn.Module],
        *,
        loss: Loss,
        hidden_shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        ties: Ties = (),
        trace: bool = False,
        pace: Durations | None = None,
        timeout: float = 60.0,
        on_wait: Callable[[int | None], None] = lambda peer: None,
    ) -> None:
        check_seconds("timeout", timeout)
        rank, world = dist.get_rank(), dist.get_world_size()
        if world != schedule.num_ranks:
            raise ValueError(f"schedule is for {schedule.num_ranks} ranks, there are {world}")
        if tuple(sorted(stages)) != schedule.stages_of(rank):
            raise ValueError(
                f"stages must be those of rank {rank}, {schedule.stages_of(rank)}, "
                f"got {tuple(sorted(stages))}"
            )
        self.stages = {index: stage.to(device) for index, stage in stages.items()}
        self._schedule, self._actions = schedule, schedule.actions[rank]
        self._loss, self._hidden_shape = loss, torch.Size(hidden_shape)
        self._trace, self._pace = trace, pace
        self._dtype, self._device = dtype, torch.device(device)
        self._channels = Channels(
            schedule, shape=hidden_shape, dtype=dtype, device=self._device, timeout=timeout,
            groups=groups(schedule, ties), on_wait=on_wait,
        )  # fmt: skip
        self._shared = SharedParameters(schedule, self.stages, ties)
        # Between forward and backward of (stage, micro-batch), or until its weight backward:
        self._inputs_outputs: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self._weights: dict[tuple[int, int], WeightQueue] = {}
        later = [p for a in self._actions for p in a.parts if p.kind is Kind.BACKWARD_WEIGHT]
        self._in_two_parts = {(part.stage, part.micro_batch) for part in later}

    def step(
        self, inputs: Shaped[Tensor, "m *batch"], targets: Shaped[Tensor, "m *target"]
    ) -> RankResult:
        """Run all actions of this rank; afterwards every parameter has its gradient in `.grad`.

        Parameters that are frozen or unused have none. Input and target of micro-batch i are
        inputs[i] and targets[i]; a rank uses what it needs.
        ValueError when the number of micro-batches is not the scheduled one, a stage output does
        not have `hidden_shape`, a stage passes no gradient to the stage before, or the loss is
        not a scalar; PeerLostError when another rank does not answer in time.
        """
        check_batch(self._schedule, inputs=inputs, targets=targets)
        for stage in self.stages.values():
            stage.zero_grad()
        if 0 in self.stages:  # copied at once: later the program would wait for work before a copy
            inputs = inputs.to(self._device)
        if self._schedule.num_stages - 1 in self.stages:
            targets = targets.to(self._device)
        losses: dict[int, Tensor] = {}
        origin = self._channels.start()
        clock = Clock(self._device, self._pace) if self._trace or self._pace else None
        for action in self._actions:
            self._channels.exchange()
            received = [self._channels.receive(part) for part in action.parts]
            results = []
            with clock.time(action) if clock else nullcontext():
                for part, x in zip(action.parts, received, strict=True):
                    if part.kind is Kind.FORWARD:
                        x = inputs[part.micro_batch] if x is None else x
                        results.append(self._forward(part, x, targets, losses))
                    else:
                        results.append(self._backward(part, x))
            for part, result in zip(action.parts, results, strict=True):
                if result is not None:
                    self._channels.send(part, result)
        self._channels.finish()
        self._shared.sum_gradients(self._channels.sum)
        values = torch.stack([*losses.values()]).flatten().tolist() if losses else []  # one copy
        events = clock.events(origin) if self._trace and clock else ()
        return RankResult(dict(zip(losses, values, strict=True)), gradients(self.stages), events)

    def close(self) -> None:
        """Give back the process groups; all ranks call it."""
        self._channels.close()

    def _forward(
        self, part: Action, x: Tensor, targets: Tensor, losses: dict[int, Tensor]
    ) -> Tensor | None:
        """The output of the stage, or None after the last one."""
        key = part.stage, part.micro_batch
        if part.stage:
            x.requires_grad_()
        if key in self._in_two_parts:
            self._weights[key] = WeightQueue()
            with self._weights[key].record():
                y: Tensor = self.stages[part.stage](x)
        else:
            y = self.stages[part.stage](x)
        if part.stage and not y.requires_grad:
            raise _cuts_the_graph(part.stage)
        if part.stage == self._schedule.num_stages - 1:
            loss = self._loss(y, targets[part.micro_batch])
            if loss.numel() != 1 or loss.requires_grad != y.requires_grad:
                raise ValueError(
                    "loss must return one number that depends on the output of the last stage and "
                    f"has a gradient, got shape {tuple(loss.shape)}, requires_grad "
                    f"{loss.requires_grad}"
                )
            losses[part.micro_batch] = loss.detach()
            self._inputs_outputs[key] = x, loss
            return None
        if y.shape != self._hidden_shape or y.dtype != self._dtype:
            raise ValueError(
                f"stage {part.stage} must return {tuple(self._hidden_shape)} {self._dtype} "
                f"(hidden_shape, dtype), got {tuple(y.shape)} {y.dtype}"
            )
        self._inputs_outputs[key] = x, y
        return y.detach()

    def _backward(self, part: Action, grad: Tensor | None) -> Tensor | None:
        """The gradient of the stage's input; None for weights only and before the first stage."""
        key = part.stage, part.micro_batch
        if part.kind is Kind.BACKWARD_WEIGHT:
            self._weights.pop(key).flush()
            return None
        x, y = self._inputs_outputs.pop(key)
        if y.requires_grad:  # not where a first stage has nothing to train
            if grad is None:  # y is the loss; to divide it would take two kernels more
                grad = torch.full_like(y, 1 / self._schedule.num_micro_batches)
            backward = self._weights[key].backward if key in self._in_two_parts else Tensor.backward
            backward(y, grad)
        if part.stage and x.grad is None:
            raise _cuts_the_graph(part.stage)
        return x.grad if part.stage else None


def _cuts_the_graph(stage: int) -> ValueError:
    return ValueError(
        f"stage {stage} passes no gradient to stage {stage - 1}: its output must depend on its "
        "input, without detach() or no_grad() in between"
    )


def check_batch(schedule: Schedule, **tensors: Tensor) -> None:
    """Raise ValueError or TypeError unless all `tensors` have the micro-batches of `schedule`."""
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
        if value.shape[:1] != (schedule.num_micro_batches,):
            raise ValueError(
                f"{name} must have {schedule.num_micro_batches} micro-batches as first dimension, "
                f"got shape {tuple(value.shape)}"
            )


def gradients(stages: Mapping[int, nn.Module]) -> dict[str, Tensor]:
    """The gradients of all parameters that have one, by "stage.parameter", each once."""
    parameters = named_parameters(stages).items()
    return {name: p.grad for name, p in parameters if p.grad is not None}


def one_process(
    stages: Sequence[nn.Module],
    inputs: Shaped[Tensor, "m *batch"],
    targets: Shaped[Tensor, "m *target"],
    *,
    loss: Loss,
) -> tuple[float, dict[str, Tensor]]:
    """Mean loss and gradients of the same step without a pipeline, as a comparison.

    >>> one_process([nn.Identity()], torch.ones(4, 2), torch.zeros(4, 2), loss=F.mse_loss)
    (1.0, {})
    """
    for stage in stages:
        stage.zero_grad()
    total = 0.0
    for x, target in zip(inputs, targets, strict=True):
        for stage in stages:
            x = stage(x)
        value = loss(x, target) / len(inputs)
        if value.requires_grad:  # not where nothing is trained
            value.backward()
        total += value.item()
    return total, gradients(dict(enumerate(stages)))
