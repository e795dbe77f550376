"""Four pipeline schedules: 1F1B, ZB1P, DualPipe and DualPipeV, for any number of ranks.

A schedule is the ordered list of actions of every rank. In DualPipe, micro-batches enter at both
ends of the pipeline, so that in the middle of a step each rank always has a forward and a backward
that can overlap.

Sources
    1F1B        the first row of V3 (arXiv 2412.19437) table 2
    ZB1P        the handcrafted ZB-H1 of Zero Bubble (arXiv 2401.10241) §2, which has the bubble and
                the memory that V3 table 2 gives as ZB1P
    DualPipe    V3 §3.2.1, figure 5; the exact counts are those of the released dualpipe.py
    DualPipeV   the released dualpipev.py

Departures
    Micro-batches have one numbering, as in figure 5: those that enter at rank 0 are 0 to m/2 - 1,
    those that enter at the last rank follow.
    The released code sends and receives inside its steps. A schedule here lists only computation;
    the messages follow from it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from itertools import count

from dsnotes.training.dualpipe.actions import Action, Kind, Pair, Schedule

Actions = tuple[Action | Pair, ...]


def one_f_one_b(num_ranks: int, num_micro_batches: int) -> Schedule:
    """1F1B: rank r does P - r forwards, then one backward and one forward in turn.

    Raises ValueError unless both numbers are at least 1.

        >>> [str(a.kind) for a in one_f_one_b(2, 3).actions[0]]
        ['F', 'F', 'B', 'F', 'B', 'B']
    """

    def actions(rank: int) -> Actions:
        recorder = _Recorder((rank, 0, 0))
        ahead = min(num_ranks - rank, num_micro_batches)
        for _ in range(ahead):
            recorder.forward(0)
        for i in range(num_micro_batches):
            recorder.backward(0)
            if ahead + i < num_micro_batches:
                recorder.forward(0)
        return recorder.actions

    return _one_way("1F1B", num_ranks, num_micro_batches, actions)


def zb1p(num_ranks: int, num_micro_batches: int) -> Schedule:
    """ZB-H1: 1F1B with a split backward; rank r delays r weight backwards.

    The delayed weight backwards fill the wait at the end. Together with the P - r forwards under
    way they keep P micro-batches alive on every rank, no more than 1F1B on rank 0. The bubble is
    that of V3 table 2 if num_micro_batches >= num_ranks; with fewer it is larger.
    Raises ValueError unless both numbers are at least 1.

        >>> [str(a.kind) for a in zb1p(2, 3).actions[1]]
        ['F', 'I', 'F', 'I', 'W', 'F', 'I', 'W', 'W']
    """

    def actions(rank: int) -> Actions:
        recorder = _Recorder((rank, 0, 0))
        ahead = min(num_ranks - rank, num_micro_batches)
        behind = min(rank, num_micro_batches)
        for _ in range(ahead):
            recorder.forward(0)
        for i in range(num_micro_batches):
            recorder.backward_input(0)
            if i >= behind:
                recorder.weight()
            if ahead + i < num_micro_batches:
                recorder.forward(0)
        for _ in range(behind):
            recorder.weight()
        return recorder.actions

    return _one_way("ZB1P", num_ranks, num_micro_batches, actions)


def dualpipe(num_ranks: int, num_micro_batches: int) -> Schedule:
    """DualPipe: micro-batches enter at both ends; every rank holds two stages (V3 §3.2.1).

    `num_micro_batches` counts both directions. Raises ValueError unless num_ranks is even and
    num_micro_batches is even and at least 2 * num_ranks.

        >>> dualpipe(8, 20).stages_of(0)
        (0, 7)
    """
    _require("DualPipe", "num_ranks", num_ranks, least=2, even=True)
    _require("DualPipe", "num_micro_batches", num_micro_batches, least=2 * num_ranks, even=True)
    half, per_direction = num_ranks // 2, num_micro_batches // 2

    def actions(rank: int) -> Actions:
        here = ((rank, 0, 0), (num_ranks - 1 - rank, 1, per_direction))
        # Phase 0 is what enters at the nearer end, so the second half mirrors the first.
        phases = here if rank < half else here[::-1]
        return _eight_steps(
            _Recorder(*phases), half, min(rank, num_ranks - 1 - rank), per_direction
        )

    return Schedule(
        "DualPipe", num_ranks, num_micro_batches, tuple(actions(r) for r in range(num_ranks))
    )


def dualpipev(num_ranks: int, num_micro_batches: int) -> Schedule:
    """DualPipeV, half a DualPipe: 2R stages go down R ranks and back up; each stage exists once.

    Raises ValueError unless num_ranks is at least 1 and num_micro_batches at least 2 * num_ranks.

        >>> dualpipev(4, 10).stages_of(3)
        (3, 4)
    """
    _require("DualPipeV", "num_ranks", num_ranks, least=1)
    _require("DualPipeV", "num_micro_batches", num_micro_batches, least=2 * num_ranks)

    def actions(rank: int) -> Actions:
        recorder = _Recorder((rank, 0, 0), (2 * num_ranks - 1 - rank, 1, 0))
        return _eight_steps(recorder, num_ranks, rank, num_micro_batches)

    return Schedule(
        "DualPipeV", 2 * num_ranks, num_micro_batches, tuple(actions(r) for r in range(num_ranks))
    )


SCHEDULES: dict[str, Callable[[int, int], Schedule]] = {
    "1F1B": one_f_one_b,
    "ZB1P": zb1p,
    "DualPipe": dualpipe,
    "DualPipeV": dualpipev,
}


def step_counts(half: int, position: int, per_phase: int) -> tuple[int, ...]:
    """How often each of the eight steps is repeated (dualpipe.py, dualpipev.py).

    DualPipe: half = PP/2, position = min(rank, PP - 1 - rank), per_phase = micro-batches/2.
    DualPipeV: half = ranks, position = rank, per_phase = micro-batches.
    Raises ValueError unless 0 <= position < half and per_phase >= 2 half.

        >>> step_counts(4, 0, 10)  # ranks 0 and 7 of V3 figure 5
        (6, 1, 3, 3, 3, 1, 3, 1)
    """
    if not 0 <= position < half:
        raise ValueError(f"position must be from 0 to half - 1 = {half - 1}, got {position}")
    if per_phase < 2 * half:
        raise ValueError(f"per_phase must be at least 2 half = {2 * half}, got {per_phase}")
    before, after = half - position - 1, position + 1
    main = per_phase - 2 * half + after
    return (2 * before, after, before, main, before, after, before, after)


def _eight_steps(rank: "_Recorder", half: int, position: int, per_phase: int) -> Actions:
    counts = step_counts(half, position, per_phase)
    for _ in range(counts[0]):  # 1: F0
        rank.forward(0)
    for _ in range(counts[1]):  # 2: F0 F1
        rank.forward(0)
        rank.forward(1)
    for _ in range(counts[2]):  # 3: I1 W F1
        rank.backward_input(1)
        rank.weight()
        rank.forward(1)
    for i in range(counts[3]):  # 4, the main step: F0&B1 F1&B0
        if i == 0 and position == half - 1:  # in the middle: apart, which makes the bubble smaller
            rank.forward(0)
            rank.backward(1)
        else:
            rank.pair(0, 1)
        rank.pair(1, 0)
    for _ in range(counts[4]):  # 5: B1 F1&B0
        rank.backward(1)
        rank.pair(1, 0)
    for i in range(2 * counts[5]):  # 6: B1 B0; of these, the second half input gradients only
        backward = rank.backward if i < counts[5] else rank.backward_input
        backward(1 - i % 2)
    for _ in range(counts[6]):  # 7: W I0
        rank.weight()
        rank.backward_input(0)
    for _ in range(counts[7]):  # 8: W
        rank.weight()
    return rank.actions


class _Recorder:
    """Records the actions of one rank; each phase takes its micro-batches in order.

    A phase is (stage, direction, first micro-batch). Weight backwards run in the order in which
    they were delayed.
    """

    def __init__(self, *phases: tuple[int, int, int]) -> None:
        self._actions: list[Action | Pair] = []
        self._places = [(stage, direction) for stage, direction, _ in phases]
        self._forwards = [count(first) for *_, first in phases]
        self._backwards = [count(first) for *_, first in phases]
        self._put_off: deque[Action] = deque()

    @property
    def actions(self) -> Actions:
        return tuple(self._actions)

    def forward(self, phase: int) -> None:
        self._actions.append(self._next_forward(phase))

    def backward(self, phase: int) -> None:
        self._actions.append(self._next_backward(phase, Kind.BACKWARD))

    def backward_input(self, phase: int) -> None:
        action = self._next_backward(phase, Kind.BACKWARD_INPUT)
        self._actions.append(action)
        self._put_off.append(replace(action, kind=Kind.BACKWARD_WEIGHT))

    def weight(self) -> None:
        self._actions.append(self._put_off.popleft())

    def pair(self, forward: int, backward: int) -> None:
        self._actions.append(
            Pair(self._next_forward(forward), self._next_backward(backward, Kind.BACKWARD))
        )

    def _next_forward(self, phase: int) -> Action:
        return Action(Kind.FORWARD, *self._places[phase], next(self._forwards[phase]))

    def _next_backward(self, phase: int, kind: Kind) -> Action:
        return Action(kind, *self._places[phase], next(self._backwards[phase]))


def _one_way(
    name: str, num_ranks: int, num_micro_batches: int, actions: Callable[[int], Actions]
) -> Schedule:
    _require(name, "num_ranks", num_ranks, least=1)
    _require(name, "num_micro_batches", num_micro_batches, least=1)
    ranks = tuple(actions(rank) for rank in range(num_ranks))
    return Schedule(name, num_ranks, num_micro_batches, ranks)


def _require(name: str, argument: str, value: int, *, least: int, even: bool = False) -> None:
    if not isinstance(value, int) or value < least or (even and value % 2):
        what = "an even number" if even else "a whole number"
        twice = " (2 * num_ranks, both directions counted)" if even and least > 2 else ""
        raise ValueError(
            f"{argument} must be {what} of at least {least}{twice} for {name}, got {value!r}"
        )
