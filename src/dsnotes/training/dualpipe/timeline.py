"""When each action of a schedule runs, how long ranks idle, and how much they keep in memory.

An action starts as soon as its rank is free and its inputs exist: a forward needs the output of the
stage before, a backward the gradient from the stage after. Bubble and memory are sums over these
actions.

Equations
    V3 (arXiv 2412.19437) table 2: bubble, parameters and activations of 1F1B, ZB1P and DualPipe;
    the row of DualPipeV is from the README of the released code

Departures
    In the formulas B is a full backward, in `Durations` it comes in its two parts: B = I + W. (In
    Zero Bubble, arXiv 2401.10241, the letter B stands for I.)
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from dsnotes.training.dualpipe.actions import Action, Kind, Pair, Schedule

Time = int | float  # in any one unit


@dataclass(frozen=True)
class Durations:
    """How long each kind of action takes, for one stage, in any one unit of time.

    `pair` is an overlapped forward and backward; None means that the overlap saves no time.
    `transfer` is the time from the end of an action until another rank has its result.
    Raises ValueError unless all are finite numbers of at least 0.

        >>> Durations(forward=1, backward_input=1, weight=1).full_pair
        3
    """

    forward: Time = 1
    backward_input: Time = 1
    weight: Time = 1
    pair: Time | None = None
    transfer: Time = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "pair" or value is not None:
                _check_time(name, value)

    @classmethod
    def with_all_to_all(
        cls, forward: Time, backward_input: Time, weight: Time, *, comm: Time, hidden: Time
    ) -> "Durations":
        """Add all-to-all communication: `comm` to each forward and each input backward.

        A single action cannot hide any of it and takes longer by `comm`. An overlapped pair takes
        longer by the part 1 - `hidden` of both (V3 §3.2.1 aims at hidden = 1). In V3 §3.2.1
        computation and communication are about 1 : 1.
        Raises ValueError unless hidden is from 0 to 1.

            >>> Durations.with_all_to_all(1, 1, 1, comm=1, hidden=1).pair
            3
        """
        if not 0 <= hidden <= 1:
            raise ValueError(f"hidden must be from 0 to 1, got {hidden}")
        _check_time("comm", comm)
        pair = forward + backward_input + weight + 2 * comm * (1 - hidden)
        return cls(forward + comm, backward_input + comm, weight, pair)

    @property
    def backward(self) -> Time:
        """B, the full backward."""
        return self.backward_input + self.weight

    @property
    def full_pair(self) -> Time:
        """F&B, whether the overlap saves time or not."""
        return self.forward + self.backward if self.pair is None else self.pair

    def of(self, action: Action | Pair) -> Time:
        """The duration of `action`."""
        if isinstance(action, Pair):
            return self.full_pair
        match action.kind:
            case Kind.FORWARD:
                return self.forward
            case Kind.BACKWARD:
                return self.backward
            case Kind.BACKWARD_INPUT:
                return self.backward_input
            case Kind.BACKWARD_WEIGHT:
                return self.weight


class Event(NamedTuple):
    """An action and when it ran."""

    action: Action | Pair
    start: Time
    end: Time


@dataclass(frozen=True)
class Timeline:
    """The events of every rank in order, `events[rank]`; simulated, or the trace of a real run."""

    schedule: Schedule
    events: tuple[tuple[Event, ...], ...]

    @property
    def makespan(self) -> Time:
        """From the first start to the last end."""
        ends = (events[-1].end for events in self.events)
        return max(ends) - min(events[0].start for events in self.events)

    @property
    def idle(self) -> tuple[Time, ...]:
        """The bubble of every rank: the time of the makespan in which it does nothing."""
        makespan = self.makespan
        return tuple(makespan - sum(e.end - e.start for e in events) for events in self.events)

    @property
    def bubble_fraction(self) -> float:
        """The idle time of all ranks divided by the total time of all ranks."""
        return sum(self.idle) / (self.makespan * len(self.events)) if self.makespan else 0.0

    def live_activations(self, rank: int) -> list[tuple[Time, int]]:
        """(time, count) at each change of the number of micro-batches whose activations are kept.

        The activations of a micro-batch at a stage live from the start of its forward to the end
        of its last backward; between input and weight backward they still count fully.
        """
        changes, live = [], 0
        for action, start, end in self.events[rank]:
            for part in action.parts:
                if part.kind is Kind.FORWARD:
                    live += 1
                    changes.append((start, live))
            for part in action.parts:
                if part.kind in (Kind.BACKWARD, Kind.BACKWARD_WEIGHT):
                    live -= 1
                    changes.append((end, live))
        return changes

    @property
    def peak_activations(self) -> tuple[int, ...]:
        """The largest number of micro-batches that each rank keeps at one time, stage by stage."""
        return tuple(max(n for _, n in self.live_activations(r)) for r in range(len(self.events)))

    @property
    def parameters(self) -> tuple[int, ...]:
        """The number of stages whose parameters each rank holds."""
        return tuple(len(self.schedule.stages_of(rank)) for rank in range(len(self.events)))


def simulate(schedule: Schedule, durations: Durations | None = None) -> Timeline:
    """Simulate `schedule`; by default every part takes 1.

    Raises ValueError when the order of actions is impossible, and names what waits for what.

        >>> from dsnotes.training.dualpipe.schedule import dualpipe
        >>> timeline = simulate(dualpipe(8, 20))
        >>> timeline.makespan, timeline.idle[0], timeline.peak_activations[0]
        (66, 6, 9)
    """
    durations = durations or Durations()
    ready_at: dict[_Result, Time] = {}
    waiting: dict[_Result, list[int]] = defaultdict(list)
    events: list[list[Event]] = [[] for _ in schedule.actions]
    runnable = list(range(schedule.num_ranks))
    while runnable:
        rank = runnable.pop()
        actions, done = schedule.actions[rank], events[rank]
        while len(done) < len(actions):
            action = actions[len(done)]
            needs = [need for part in action.parts for need in _needs(part, schedule)]
            missing = next((need for need in needs if need not in ready_at), None)
            if missing is not None:
                waiting[missing].append(rank)
                break
            start = done[-1].end if done else 0
            for need in needs:
                away = schedule.rank_of[need[1:]] != rank
                start = max(start, ready_at[need] + durations.transfer * away)
            done.append(Event(action, start, start + durations.of(action)))
            for part in action.parts:
                if part.kind is not Kind.BACKWARD_WEIGHT:
                    result = (part.kind is Kind.FORWARD, part.stage, part.micro_batch)
                    ready_at[result] = done[-1].end
                    runnable += waiting.pop(result, [])
    for rank, done in enumerate(events):
        if len(done) < len(schedule.actions[rank]):
            raise ValueError(
                f"schedule {schedule.name} cannot go on: rank {rank} waits for the inputs of "
                f"{schedule.actions[rank][len(done)]}, which no rank is going to send"
            )
    return Timeline(schedule, tuple(tuple(done) for done in events))


_Result = tuple[bool, int, int]  # forward?, stage, micro-batch


def _needs(part: Action, schedule: Schedule) -> list[_Result]:
    """The results that must exist before `part` can start."""
    before, here, after = part.stage - 1, part.stage, part.stage + 1
    if part.kind is Kind.FORWARD:
        return [(True, before, part.micro_batch)] if before >= 0 else []
    if part.kind is Kind.BACKWARD_WEIGHT:
        return [(False, here, part.micro_batch)]
    own = (True, here, part.micro_batch)
    return [own] if after == schedule.num_stages else [own, (False, after, part.micro_batch)]


class Formula(NamedTuple):
    """A row of V3 table 2."""

    bubble: Time  # idle time per device
    parameters: int  # stages per device
    activations: int  # micro-batches kept per device
    devices: int


def formula(name: str, num_stages: int, durations: Durations | None = None) -> Formula:
    """The row of V3 table 2 for a pipeline of PP = `num_stages` stages, without communication.

    The table names no condition. Its bubble is that of the simulated run for 1F1B always, for ZB1P
    if W <= F and W <= I, and for the middle ranks of DualPipe and DualPipeV if F = I >= W and
    F&B >= B; `bubble.idle_times` has the other cases and the other ranks.
    Raises ValueError for a name not in `SCHEDULES`, a PP below 1 and, for the last two, an odd PP.

        >>> formula("ZB1P", 8), formula("DualPipe", 8)[:3]
        (Formula(bubble=7, parameters=1, activations=8, devices=8), (6, 2, 9))
    """
    d, pp = durations or Durations(), num_stages
    if not isinstance(pp, int) or pp < 1:
        raise ValueError(f"num_stages must be a whole number of at least 1, got {pp!r}")
    if name == "1F1B":
        return Formula((pp - 1) * (d.forward + d.backward), 1, pp, pp)
    if name == "ZB1P":
        return Formula((pp - 1) * (d.forward + d.backward - 2 * d.weight), 1, pp, pp)
    if name not in ("DualPipe", "DualPipeV"):
        raise ValueError(f"name must be 1F1B, ZB1P, DualPipe or DualPipeV, got {name!r}")
    if pp % 2:
        raise ValueError(f"num_stages must be even for {name}, got {pp}")
    bubble = (pp // 2 - 1) * (d.full_pair + d.backward - 3 * d.weight)
    return Formula(bubble, 2, pp + 1, pp if name == "DualPipe" else pp // 2)


def _check_time(name: str, value: Time) -> None:
    if not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError(f"{name} must be 0 or more, got {value!r}")
