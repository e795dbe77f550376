"""The ranks of a pipeline as threads of this process, on messages in a dictionary: no waiting.

Everything but the transport is the code that runs on processes.
"""

import copy
import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from dsnotes.training.dualpipe import runtime
from dsnotes.training.dualpipe.actions import Action, Kind, Schedule
from dsnotes.training.dualpipe.runtime import Loss, Pipeline, RankResult
from dsnotes.training.dualpipe.sharing import tied


class _Stopped(Exception):
    """Another rank has raised."""


class _World:
    def __init__(self, num_ranks: int) -> None:
        self.num_ranks = num_ranks
        self.changed = threading.Condition()
        self.messages: dict[tuple[int, int, bool], Tensor] = {}
        self.sums: dict[tuple[Any, int], list[Tensor]] = {}
        self.error: BaseException | None = None

    def wait_for(self, ready: Callable[[], bool]) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: ready() or self.error is not None, timeout=60):
                raise AssertionError("the ranks wait for one another")
            if not ready():
                raise _Stopped


class _Channels:
    def __init__(self, world: _World, rank: int, schedule: Schedule) -> None:
        self.world, self.rank, self.schedule = world, rank, schedule
        self.calls: dict[Any, int] = {}

    def start(self) -> float:
        return time.monotonic()

    def exchange(self) -> None:
        pass

    def receive(self, part: Action) -> Tensor | None:
        forward = part.kind is Kind.FORWARD
        stage = part.stage + (-1 if forward else 1)
        if part.kind is Kind.BACKWARD_WEIGHT or not 0 <= stage < self.schedule.num_stages:
            return None
        key = stage, part.micro_batch, forward
        self.world.wait_for(lambda: key in self.world.messages)
        return self.world.messages.pop(key).clone()

    def send(self, part: Action, result: Tensor) -> None:
        with self.world.changed:
            key = part.stage, part.micro_batch, part.kind is Kind.FORWARD
            assert key not in self.world.messages
            self.world.messages[key] = result.detach().clone()
            self.world.changed.notify_all()

    def finish(self) -> None:
        pass

    def sum(self, tensor: Tensor, ranks: tuple[int, ...]) -> None:
        """The n-th call for a set of ranks is one sum on all of them, as in a process group."""
        assert self.rank in ranks
        key = ranks, self.calls.setdefault(ranks, 0)
        self.calls[ranks] += 1
        with self.world.changed:
            parts = self.world.sums.setdefault(key, [])
            parts.append(tensor.detach().clone())
            self.world.changed.notify_all()
        self.world.wait_for(lambda: len(parts) == len(ranks))
        tensor.copy_(torch.stack(parts).sum(0))

    def close(self) -> None:
        pass


def step(
    schedule: Schedule, stages: Sequence[nn.Module], inputs: Tensor, targets: Tensor, *,
    loss: Loss, hidden_shape: Sequence[int],
) -> list[RankResult]:  # fmt: skip
    """What each rank has; the first exception of a rank is raised here."""
    world, ties = _World(schedule.num_ranks), tied(stages)
    results: dict[int, RankResult] = {}
    here = threading.local()

    def serve(rank: int) -> None:
        here.rank = rank
        try:
            # copied together, as in a message to a process: what is shared there is shared here
            held = copy.deepcopy({stage: stages[stage] for stage in schedule.stages_of(rank)})
            pipeline = Pipeline(schedule, held, loss=loss, hidden_shape=hidden_shape, ties=ties)
            results[rank] = pipeline.step(inputs, targets)
        except BaseException as error:
            with world.changed:
                world.error = world.error or error
                world.changed.notify_all()

    real = runtime.dist, runtime.Channels
    runtime.dist = SimpleNamespace(
        get_rank=lambda: here.rank, get_world_size=lambda: world.num_ranks
    )
    runtime.Channels = lambda schedule, **options: _Channels(world, here.rank, schedule)
    try:
        threads = [threading.Thread(target=serve, args=(r,)) for r in range(world.num_ranks)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        runtime.dist, runtime.Channels = real
    if world.error is not None:
        raise world.error
    assert not world.messages
    return [results[rank] for rank in sorted(results)]
