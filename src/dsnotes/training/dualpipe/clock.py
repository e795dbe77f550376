"""When the actions of a rank run, and how long they last at least.

On a GPU the program only hands out work and is soon ahead of it. The times here are those of the
work itself, from marks among it, so that measuring does not make anybody wait.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dsnotes.training.dualpipe.actions import Action, Pair
from dsnotes.training.dualpipe.timeline import Durations, Event

_Mark = Any  # a moment: a float, or on a GPU an event that is reached some time


class Clock:
    """Times actions on `device`; with a `pace`, each lasts that many seconds or more.

    >>> from dsnotes.training.dualpipe.schedule import one_f_one_b
    >>> clock = Clock(torch.device("cpu"))
    >>> with clock.time(one_f_one_b(1, 1).actions[0][0]):
    ...     time.sleep(0.01)
    >>> ((action, start, end),) = clock.events()
    >>> end - start >= 0.01
    True
    """

    def __init__(self, device: torch.device, pace: Durations | None = None) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._pace = pace
        self._marks: list[tuple[Action | Pair, _Mark, _Mark]] = []
        self._finish_work()
        self._first, self._zero = self._mark(), time.monotonic()

    @contextmanager
    def time(self, action: Action | Pair) -> Iterator[None]:
        """What is done inside is `action`."""
        if self._pace is not None:
            self._finish_work()
        begin, start = time.monotonic(), self._mark()
        yield
        if self._pace is not None:
            self._finish_work()
            time.sleep(max(0.0, begin + self._pace.of(action) - time.monotonic()))
        self._marks.append((action, start, self._mark()))

    def events(self, origin: float = 0.0) -> tuple[Event, ...]:
        """The actions with start and end in seconds since `origin`, a time of `time.monotonic`."""
        self._finish_work()
        shift = self._zero - origin
        return tuple(
            Event(action, shift + self._since_first(start), shift + self._since_first(end))
            for action, start, end in self._marks
        )

    def _mark(self) -> _Mark:
        if self._stream is None:
            return time.monotonic()
        return self._stream.record_event(torch.cuda.Event(enable_timing=True))

    def _since_first(self, mark: _Mark) -> float:
        if self._stream is None:
            return float(mark - self._first)
        return float(self._first.elapsed_time(mark)) / 1000  # from milliseconds

    def _finish_work(self) -> None:
        if self._stream is not None:
            self._stream.synchronize()
