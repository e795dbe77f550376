"""The processes of a pipeline: started on this machine, watched over, and ended.

They start from a script and from a notebook: each is a new Python process (spawn) that runs code of
the package. All connections use the loopback interface and the ranks find each other through a
file, so nothing listens to the network.

A rank that raises, dies or is late ends the run: the error names it, and no process stays. Ranks
report which rank they wait for, so that the late one is not confused with those that wait for it.
They end by themselves when this process is gone, and remove their folder (see `worker`).
"""

import contextlib
import multiprocessing
import os
import pickle
import shutil
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

from dsnotes.training.dualpipe import worker
from dsnotes.training.dualpipe.channels import EVERYONE, check_seconds

_GRACE = 1.0  # seconds in which the cause of a failure may overtake its consequences
_NO_GUARD = 86  # the exit code of a process that would start ranks while it is being started
_Some = TypeVar("_Some", bound="Processes")
_GUARD = 'if __name__ == "__main__":'


class RankError(RuntimeError):
    """A rank raised, died, or was late; `rank` is its number (None: they wait for one another)."""

    def __init__(self, message: str, rank: int | None) -> None:
        super().__init__(message)
        self.rank = rank


class Processes:
    """`num_ranks` processes with `torch.distributed` initialised, one thread each.

    On "cuda" rank r uses GPU r through NCCL, on "cpu" ranks use gloo. Raises ValueError when a
    device is missing and when other processes cannot import the program; RankError when a rank does
    not start within `start_timeout` seconds.

        >>> with Processes(2) as processes:  # each calls getattr(on_wait, "__name__")
        ...     processes.call(getattr, [("__name__",), ("__name__",)], timeout=60.0)
        ['on_wait', 'on_wait']
    """

    def __init__(
        self, num_ranks: int, *, device: str = "cpu", start_timeout: float = 300.0
    ) -> None:
        if not isinstance(num_ranks, int) or num_ranks < 1:
            raise ValueError(f"num_ranks must be a whole number of at least 1, got {num_ranks!r}")
        check_seconds("start_timeout", start_timeout)
        _check_device(device, num_ranks)
        _check_main()
        context = multiprocessing.get_context("spawn")
        self.device = device
        self._folder = tempfile.mkdtemp(prefix="dsnotes-")
        self._remove_folder = weakref.finalize(self, shutil.rmtree, self._folder, True)
        self._states = context.RawArray("i", [worker.COMPUTING] * num_ranks)
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        try:
            for rank in range(num_ranks):
                ours, theirs = context.Pipe()
                arguments = (rank, num_ranks, device, self._folder, theirs, self._states)
                process = context.Process(target=worker.serve, args=arguments, daemon=True)
                _start(process)
                theirs.close()
                self._connections.append(ours)
                self._processes.append(process)
        except BaseException:
            self._kill()
            raise
        self._gather(start_timeout, "start")

    def call(
        self, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], *, timeout: float
    ) -> list[Any]:
        """function(on_wait, *jobs[rank]) on every rank; the results in order of ranks.

        RankError when a rank raises, dies, or has no result within `timeout` seconds; then all
        ranks are ended. ValueError for a wrong number of jobs, and for an object that cannot be
        sent to other processes: a lambda, a class or function of a notebook cell.
        """
        check_seconds("timeout", timeout)
        if not self._processes:
            raise ValueError("these ranks have been ended, make new ones")
        if len(jobs) != len(self._processes):
            raise ValueError(f"there are {len(self._processes)} ranks, got {len(jobs)} jobs")
        messages = [_pickled(function, job) for job in jobs]
        for rank, message in enumerate(messages):
            self._states[rank] = worker.COMPUTING
            with contextlib.suppress(OSError):  # a rank that is gone is noticed below
                self._connections[rank].send_bytes(message)
        return self._gather(timeout, "finish")

    def close(self) -> None:
        """End all processes; idle ones end by themselves, the others are killed."""
        for connection in self._connections:
            with contextlib.suppress(OSError):  # a rank that is gone
                connection.send_bytes(pickle.dumps(None))
        patience = time.monotonic() + 5.0
        for process in self._processes:
            process.join(max(0.0, patience - time.monotonic()))
        self._kill()

    def __enter__(self: _Some) -> _Some:
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
        self._remove_folder()

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
        error = self._blame(troubles, what, f"did not {what} within {timeout:g} s")
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

    def _blame(self, troubles: dict[int, tuple[str, Any]], what: str, late: str) -> RankError:
        """The cause among what went wrong: others often fail only because one is gone."""
        for rank, (outcome, content) in troubles.items():
            if outcome == "raised":
                return RankError(f"rank {rank} raised an exception\n{content}", rank)
        for rank, (outcome, content) in troubles.items():
            if outcome == "died" and content == _NO_GUARD:
                return RankError(_NEEDS_A_GUARD, rank)
            if outcome == "died":
                hint = "" if what == "finish" else f" before it was ready; {_IMPORTS}"
                return RankError(f"rank {rank} died with exit code {content}{hint}", rank)
        for peer, message in sorted((content for _, content in troubles.values()), reverse=True):
            return RankError(message, None if peer == EVERYONE else peer)
        states = dict(enumerate(self._states))
        guilty = [rank for rank, state in states.items() if state == worker.COMPUTING]
        if guilty:
            return RankError(f"rank {', '.join(map(str, guilty))} {late}", guilty[0])
        waits = ", ".join(f"rank {r} for rank {s}" for r, s in states.items() if s >= 0)
        return RankError(f"the ranks {late}, they wait for one another: {waits}", None)


_IMPORTS = (
    "every rank imports the program that starts it: what it wrote to stderr says what was wrong, "
    f"and all that is not for the ranks belongs under `{_GUARD}`"
)
_NEEDS_A_GUARD = (
    "the ranks cannot start: each imports the program that starts it, and would start ranks in "
    f"turn; put that part of the program under `{_GUARD}`"
)


def _start(process: Any) -> None:
    try:
        process.start()
    except RuntimeError:
        # A process that is itself being started, and imports the program, must not start others.
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            sys.exit(_NO_GUARD)  # the one that started it says what it means
        raise


def _check_device(device: str, num_ranks: int) -> None:
    if device not in ("cpu", "cuda"):
        raise ValueError(f'device must be "cpu" or "cuda" (rank r takes GPU r), got {device!r}')
    gpus = torch.cuda.device_count() if device == "cuda" else num_ranks
    if gpus < num_ranks:
        raise ValueError(
            f'device "cuda" needs a GPU for each of {num_ranks} ranks, there are {gpus}'
        )


def _check_main() -> None:
    """Refuse a program that has no file, unless it is one that nobody imports (a notebook)."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is not None and getattr(main, "__spec__", None) is None and not os.path.exists(file):
        raise ValueError(f"every rank imports the program that starts it, but {file} is no file")


def _pickled(function: Callable[..., Any], job: tuple[Any, ...]) -> bytes:
    try:
        message = pickle.dumps((function, job))
    except Exception as error:  # pickle and torch raise half a dozen kinds
        raise ValueError(
            "stages and loss must be such as can be sent to other processes: functions and classes "
            f"at the top level of a module, no lambda ({type(error).__name__}: {error})"
        ) from error
    if b"__main__" in message and not hasattr(sys.modules["__main__"], "__file__"):
        raise ValueError(
            "stages and loss must come from a module: a class or function defined in a "
            "notebook cell cannot be found by other processes"
        )
    return message
