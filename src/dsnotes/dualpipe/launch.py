"""Starts the ranks of a pipeline as processes of this machine, watches over them, ends them.

Works from a script and from a notebook: processes are started anew (spawn), what they run lies in
the package. Starting costs seconds, so one `Ranks` runs as many steps as one likes. All connections
go over the loopback interface and ranks meet in a file: nothing listens to the network.

A rank that raises, dies or comes late ends the run: the error names it, and no process stays. Ranks
report whom they wait for, so that the late one is told from those that wait for it.
"""

import contextlib
import multiprocessing
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from jaxtyping import Shaped
from torch import Tensor, nn

from dsnotes.dualpipe import worker
from dsnotes.dualpipe.actions import Schedule
from dsnotes.dualpipe.channels import EVERYONE
from dsnotes.dualpipe.runtime import Loss, RankResult, check_batch
from dsnotes.dualpipe.timeline import Durations, Timeline

_GRACE = 1.0  # seconds in which the cause of a failure may overtake its consequences


class RankError(RuntimeError):
    """A rank raised, died, or was late; `rank` says which one (None: they wait for one another)."""

    def __init__(self, message: str, rank: int | None) -> None:
        super().__init__(message)
        self.rank = rank


@dataclass(frozen=True)
class Run:
    """One step of all ranks."""

    loss: float  # mean over micro-batches
    gradients: dict[str, Tensor]  # by "stage.parameter", as those of nn.Sequential(*stages)
    trace: Timeline  # when each action really ran, in seconds
    ranks: tuple[RankResult, ...]


class Ranks:
    """`num_ranks` processes with `torch.distributed` initialised, one thread each.

    On "cuda" rank r uses GPU r through NCCL, on "cpu" ranks use gloo. Raises RankError when a rank
    does not start within `start_timeout` seconds.

        >>> with Ranks(4) as ranks:
        ...     run = ranks.step(schedule, stages, inputs, targets, loss=F.mse_loss,
        ...                      hidden_shape=(2, 16, 64))
        >>> run.loss, run.trace.bubble_fraction
    """

    def __init__(
        self, num_ranks: int, *, device: str = "cpu", start_timeout: float = 300.0
    ) -> None:
        if num_ranks < 1:
            raise ValueError(f"num_ranks must be at least 1, got {num_ranks}")
        context = multiprocessing.get_context("spawn")
        self.device = device
        self._folder = tempfile.mkdtemp(prefix="dsnotes-")
        self._states = context.RawArray("i", [worker.COMPUTING] * num_ranks)
        self._connections: list[Connection] = []
        self._processes = []
        for rank in range(num_ranks):
            ours, theirs = context.Pipe()
            arguments = (rank, num_ranks, device, self._folder, theirs, self._states)
            process = context.Process(target=worker.serve, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)
        self._gather(start_timeout, "start")

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

        The modules given are copied to their ranks and stay as they are. Raises ValueError when
        stages or micro-batches are not as many as the schedule has, RankError when the step does
        not end within `timeout` seconds.
        """
        if len(stages) != schedule.num_stages:
            raise ValueError(f"stages must be {schedule.num_stages} modules, got {len(stages)}")
        check_batch(schedule, inputs=inputs, targets=targets)
        options = {"loss": loss, "hidden_shape": tuple(hidden_shape), "pace": pace,
                   "device": self.device, "timeout": 2 * timeout}  # fmt: skip
        jobs = []
        for rank in range(schedule.num_ranks):
            held = {stage: stages[stage] for stage in schedule.stages_of(rank)}
            jobs.append((schedule, held, inputs, targets, options))
        results: list[RankResult] = self.call(worker.step, jobs, timeout=timeout)
        losses = {m: value for result in results for m, value in result.losses.items()}
        gradients: dict[str, Tensor] = {}
        for result in results:
            gradients |= result.gradients
        trace = Timeline(schedule, tuple(result.events for result in results))
        return Run(sum(losses.values()) / len(losses), gradients, trace, tuple(results))

    def call(
        self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], *, timeout: float
    ) -> list[Any]:
        """function(on_wait, *jobs[rank]) on every rank; the results in order of ranks.

        Raises RankError when a rank raises, dies, or has no result within `timeout` seconds; then
        all ranks are ended. Raises ValueError for a wrong number of jobs, or for what other
        processes could not import.
        """
        if not self._processes:
            raise ValueError("these ranks have been ended, make new ones")
        if len(jobs) != len(self._processes):
            raise ValueError(f"there are {len(self._processes)} ranks, got {len(jobs)} jobs")
        messages = [pickle.dumps((function, job)) for job in jobs]
        notebook = not hasattr(sys.modules["__main__"], "__file__")
        if notebook and any(b"__main__" in message for message in messages):
            raise ValueError(
                "stages and loss must come from a module: a class or function defined in a "
                "notebook cell cannot be found by other processes"
            )
        for rank, message in enumerate(messages):
            self._states[rank] = worker.COMPUTING
            with contextlib.suppress(OSError):  # a rank that is gone is noticed below
                self._connections[rank].send_bytes(message)
        return self._gather(timeout, "finish")

    def close(self) -> None:
        """End all processes; those that do nothing end by themselves, the others are killed."""
        for connection in self._connections:
            connection.close()
        patience = time.monotonic() + 5.0
        for process in self._processes:
            process.join(max(0.0, patience - time.monotonic()))
        self._kill()

    def __enter__(self) -> "Ranks":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._kill()

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()  # not terminate: a rank may be deep inside a library
        for process in self._processes:
            process.join(10.0)
        for connection in self._connections:
            connection.close()
        self._processes, self._connections = [], []
        shutil.rmtree(self._folder, ignore_errors=True)

    def _gather(self, timeout: float, what: str) -> list[Any]:
        """One report of every rank; any trouble ends all of them."""
        results: dict[int, Any] = {}
        troubles: dict[int, tuple[str, Any]] = {}
        end = time.monotonic() + timeout
        try:
            while len(results) + len(troubles) < len(self._processes):
                open_ranks = [r for r in range(len(self._processes))
                              if r not in results and r not in troubles]  # fmt: skip
                events: list[Any] = [self._connections[r] for r in open_ranks]
                events += [self._processes[r].sentinel for r in open_ranks]
                ready = wait(events, max(0.0, end - time.monotonic()))
                if not ready:
                    break
                for rank in open_ranks:
                    outcome, content = self._outcome(rank, ready)
                    if outcome == "done":
                        results[rank] = content
                    elif outcome:
                        troubles[rank] = outcome, content
                        end = min(end, time.monotonic() + _GRACE)
        except BaseException:  # KeyboardInterrupt
            self._kill()
            raise
        if len(results) == len(self._processes):
            return [results[rank] for rank in sorted(results)]
        error = self._blame(troubles, f"did not {what} within {timeout:g} s")
        self._kill()
        raise error

    def _outcome(self, rank: int, ready: Sequence[Any]) -> tuple[str, Any]:
        """What `rank` reports; ("died", exit code) without a report, ("", None) while it runs."""
        connection, process = self._connections[rank], self._processes[rank]
        if connection in ready:
            with contextlib.suppress(EOFError, OSError):
                outcome: tuple[str, Any] = pickle.loads(connection.recv_bytes())
                return outcome
        elif process.sentinel not in ready:
            return "", None
        process.join(_GRACE)
        return "died", process.exitcode

    def _blame(self, troubles: dict[int, tuple[str, Any]], late: str) -> RankError:
        """The cause among what went wrong: others often fail only because one is gone."""
        for rank, (outcome, content) in troubles.items():
            if outcome == "raised":
                return RankError(f"rank {rank} raised an exception\n{content}", rank)
        for rank, (outcome, content) in troubles.items():
            if outcome == "died":
                return RankError(f"rank {rank} died with exit code {content}", rank)
        for peer, message in sorted((content for _, content in troubles.values()), reverse=True):
            return RankError(message, None if peer == EVERYONE else peer)
        states = dict(enumerate(self._states))
        guilty = [rank for rank, state in states.items() if state == worker.COMPUTING]
        if guilty:
            return RankError(f"rank {', '.join(map(str, guilty))} {late}", guilty[0])
        waits = ", ".join(f"rank {r} for rank {s}" for r, s in states.items() if s >= 0)
        return RankError(f"the ranks {late}, they wait for one another: {waits}", None)


def run(
    schedule: Schedule,
    stages: Sequence[nn.Module],
    inputs: Shaped[Tensor, "m *batch"],
    targets: Shaped[Tensor, "m *target"],
    **options: Any,
) -> Run:
    """Start the ranks, run one step, end them; keyword arguments as for `Ranks.step`.

    >>> run(dualpipe(2, 4), stages, inputs, targets, loss=F.mse_loss, hidden_shape=(2, 8)).loss
    1.25
    """
    with Ranks(schedule.num_ranks) as ranks:
        return ranks.step(schedule, stages, inputs, targets, **options)
