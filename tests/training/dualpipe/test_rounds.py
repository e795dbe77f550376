"""Rounds of messages, under the rule of NCCL: a send and its receive meet, or both ranks wait.

The model here is the strictest: whoever takes part in a round does nothing else until every message
of it has met its other end. What goes on under this rule goes on under any other.
"""

from collections import Counter, defaultdict

import pytest

from dsnotes.training.dualpipe.actions import Kind, Schedule
from dsnotes.training.dualpipe.rounds import Message, rounds, source_of
from dsnotes.training.dualpipe.schedule import SCHEDULES

Program = list[list[Message]]  # what a rank takes part in, round by round
SIZES = [
    (name, ranks, micro_batches)
    for name in SCHEDULES
    for ranks in (1, 2, 3, 4, 6, 8, 16)
    for micro_batches in (1, 5, 2 * ranks, 2 * ranks + 6)
    if not name.startswith("DualPipe") or micro_batches >= 2 * ranks
    if name != "DualPipe" or ranks % 2 == micro_batches % 2 == 0
]


def _ends(programs: list[Program]) -> bool:
    """Whether all ranks come to the end; ValueError when a message meets another one."""
    done: set[tuple[int, Message]] = set()  # (rank, message)
    at = [0] * len(programs)
    while True:
        offered: dict[tuple[int, int], dict[int, Message]] = defaultdict(dict)
        for rank, program in enumerate(programs):
            for message in program[at[rank]] if at[rank] < len(program) else []:
                if (rank, message) not in done:  # the first of a pair of ranks meets the first
                    offered[message.sender, message.receiver].setdefault(rank, message)
        met = [tuple(ends.values()) for ends in offered.values() if len(ends) == 2]
        for a, b in met:
            if a != b:
                raise ValueError(f"{a} meets {b}")
            done |= {(a.sender, a), (a.receiver, a)}
        moved = False
        for rank, program in enumerate(programs):
            while at[rank] < len(program) and all((rank, m) in done for m in program[at[rank]]):
                at[rank], moved = at[rank] + 1, True
        if not met and not moved:
            return at == [len(program) for program in programs]


def _needs(schedule: Schedule, rank: int) -> list[list[Message]]:
    """What each action of the rank needs from others."""
    return [
        [m for part in action.parts if (m := source_of(part, schedule)) and m.sender != rank]
        for action in schedule.actions[rank]
    ]


def _made(schedule: Schedule, rank: int) -> list[list[Message]]:
    """What each action of the rank makes for others."""
    needed = {m for r in range(schedule.num_ranks) for ms in _needs(schedule, r) for m in ms}
    made = [
        {(p.kind is Kind.FORWARD, p.stage, p.micro_batch) for p in action.parts
         if p.kind is not Kind.BACKWARD_WEIGHT}
        for action in schedule.actions[rank]
    ]  # fmt: skip
    return [sorted(m for m in needed if m.sender == rank and m[2:] in some) for some in made]


@pytest.mark.parametrize(("name", "ranks", "micro_batches"), SIZES)
def test_rounds_go_on_to_the_end(name: str, ranks: int, micro_batches: int) -> None:
    schedule = SCHEDULES[name](ranks, micro_batches)
    plan = rounds(schedule)
    assert _ends([list(map(list, program)) for program in plan])
    for rank, program in enumerate(plan):
        assert len(program) == len(schedule.actions[rank]) + 1
        got: Counter[Message] = Counter()
        made: list[list[Message]] = [[], *_made(schedule, rank)]
        for k, needed in enumerate([*_needs(schedule, rank), []]):
            got.update(m for m in program[k] if m.receiver == rank)
            assert got.keys() >= set(needed)  # at the latest in the round before the action
            assert sorted(m for m in program[k] if m.sender == rank) == made[k]  # and at once
        everything = [m for needed in _needs(schedule, rank) for m in needed]
        assert got == Counter(everything)


@pytest.mark.parametrize("name", SCHEDULES)
def test_one_by_one_with_receives_ahead_all_wait(name: str) -> None:
    """Every receive before the action that comes before it, every send alone: nothing moves."""
    schedule = SCHEDULES[name](4, 8)
    programs = []
    for rank in range(4):
        needs = _needs(schedule, rank)
        channels = {(m.sender, m.forward): m for ms in reversed(needs) for m in ms}
        program = [[m] for m in channels.values()]  # the first of each channel, before all work
        later = [m for ms in needs for m in ms]
        for needed, made in zip(needs, _made(schedule, rank), strict=True):
            for message in needed:
                same = [m for m in later if m[:3] == message[:3]]
                program += [[m] for m in same[same.index(message) + 1 :][:1]]
            program += [[m] for m in made]
        programs.append(program)
    assert not _ends(programs)


@pytest.mark.parametrize("name", SCHEDULES)
def test_receives_when_needed_are_enough_for_one_direction_only(name: str) -> None:
    schedule = SCHEDULES[name](2, 6)
    programs = []
    for rank in range(2):
        made, needed = [[], *_made(schedule, rank)], [*_needs(schedule, rank), []]
        programs.append([m + n for m, n in zip(made, needed, strict=True)])
    assert _ends(programs) == (name in ("1F1B", "ZB1P"))
