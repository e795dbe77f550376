"""The simulated run against V3 table 2, and against the rules of causality."""

import itertools
import math
import subprocess
import sys

import pytest

from dsnotes.training.dualpipe.actions import Action, Kind, Schedule
from dsnotes.training.dualpipe.schedule import SCHEDULES, dualpipe, one_f_one_b
from dsnotes.training.dualpipe.timeline import Durations, Timeline, formula, simulate

UNEVEN = Durations(forward=1.13, backward_input=1.51, weight=0.48, pair=2.2, transfer=0.3)


def _ranks(name: str, stages: int) -> int:
    return stages // 2 if name == "DualPipeV" else stages


@pytest.mark.parametrize("pair", [3.0, 2.5])
@pytest.mark.parametrize("stages", [4, 6, 8, 10, 16, 32])
@pytest.mark.parametrize("name", SCHEDULES)
def test_table_2(name: str, stages: int, pair: float) -> None:
    durations = Durations(1, 1, 1, pair)
    expected = formula(name, stages, durations)
    for m in (2 * stages, 2 * stages + 6):  # the bubble does not grow with m
        timeline = simulate(SCHEDULES[name](_ranks(name, stages), m), durations)
        assert max(timeline.idle) == expected.bubble
        if pair == 3.0:
            assert set(timeline.idle) == {expected.bubble}
        assert max(timeline.peak_activations) == expected.activations
        if name != "1F1B":  # 1F1B needs fewer on later ranks
            assert set(timeline.peak_activations) == {expected.activations}
        assert set(timeline.parameters) == {expected.parameters}
        assert len(timeline.events) == expected.devices


def test_numbers_of_table_2_in_unit_times() -> None:
    assert [formula(name, 8).bubble for name in SCHEDULES] == [21, 7, 6, 6]
    assert [formula(name, 16).bubble for name in SCHEDULES] == [45, 15, 14, 14]
    assert formula("DualPipe", 8, Durations(pair=2.5)).bubble == 4.5
    assert formula("DualPipe", 16, Durations(pair=2.5)).bubble == 10.5
    assert simulate(dualpipe(8, 20)).makespan == 66


def test_1f1b_keeps_fewer_activations_on_later_ranks() -> None:
    assert simulate(one_f_one_b(4, 8)).peak_activations == (4, 3, 2, 1)


@pytest.mark.parametrize("durations", [Durations(), UNEVEN], ids=["unit", "uneven"])
@pytest.mark.parametrize(
    ("name", "ranks", "m"),
    [("1F1B", 5, 7), ("1F1B", 5, 2), ("ZB1P", 5, 9), ("ZB1P", 5, 3), ("DualPipe", 6, 14),
     ("DualPipe", 8, 20), ("DualPipeV", 1, 2), ("DualPipeV", 4, 10)],
)  # fmt: skip
def test_inputs_exist_before_an_action_starts(
    name: str, ranks: int, m: int, durations: Durations
) -> None:
    timeline = simulate(SCHEDULES[name](ranks, m), durations)
    done = {}
    for rank, events in enumerate(timeline.events):
        for before, after in itertools.pairwise(events):
            assert after.start >= before.end
        for event in events:
            assert event.end == pytest.approx(event.start + durations.of(event.action))
            for part in event.action.parts:
                done[part.kind, part.stage, part.micro_batch] = rank, event
    last = timeline.schedule.num_stages - 1
    for (kind, stage, micro_batch), (rank, event) in done.items():
        if kind is Kind.FORWARD:
            sources = [(Kind.FORWARD, stage - 1)] if stage else []
        elif kind is Kind.BACKWARD_WEIGHT:
            sources = [(Kind.BACKWARD_INPUT, stage)]
        else:
            sources = [(Kind.FORWARD, stage)]
            if stage < last:
                split = (Kind.BACKWARD_INPUT, stage + 1, micro_batch) in done
                sources += [(Kind.BACKWARD_INPUT if split else Kind.BACKWARD, stage + 1)]
        for source_kind, source_stage in sources:
            source_rank, source = done[source_kind, source_stage, micro_batch]
            wait = durations.transfer if source_rank != rank else 0.0
            assert event.start >= source.end + wait


def test_nobody_waits_without_reason() -> None:
    """Every action starts when its rank gets free or at the very moment an input arrives."""
    timeline = simulate(dualpipe(6, 14), UNEVEN)
    ends = {e.end for events in timeline.events for e in events}
    arrivals = ends | {end + UNEVEN.transfer for end in ends} | {0.0}
    for events in timeline.events:
        assert all(event.start in arrivals for event in events)


def test_transfer_time_lengthens_the_step() -> None:
    quick, slow = (simulate(dualpipe(4, 8), Durations(transfer=t)).makespan for t in (0.0, 0.5))
    assert slow > quick


def test_hidden_communication_is_what_dualpipe_gains_by() -> None:
    def fraction(name: str, hidden: float) -> float:
        durations = Durations.with_all_to_all(1, 1, 1, comm=1, hidden=hidden)
        timeline = simulate(SCHEDULES[name](8, 32), durations)
        # what is not computation is idle or exposed communication
        return 1 - 32 * 3 / timeline.makespan

    assert fraction("1F1B", 1.0) == fraction("1F1B", 0.0)
    values = [fraction("DualPipe", hidden) for hidden in (0, 0.25, 0.5, 0.75, 1)]
    assert values == sorted(values, reverse=True)
    assert fraction("DualPipe", 1.0) < fraction("ZB1P", 1.0) / 2


def test_live_activations_come_and_go() -> None:
    timeline = simulate(one_f_one_b(2, 2))
    assert timeline.live_activations(0) == [(0, 1), (1, 2), (6, 1), (9, 0)]
    assert timeline.live_activations(1) == [(1, 1), (4, 0), (4, 1), (7, 0)]
    assert timeline.bubble_fraction == 3 / 9


def test_large_pipelines_in_seconds() -> None:
    """In a process of its own: the run-time check of types costs ten times as much as the work."""
    code = """
from dsnotes.training.dualpipe.schedule import dualpipe
from dsnotes.training.dualpipe.timeline import simulate
timeline = simulate(dualpipe(64, 1000))
print(timeline.makespan, set(timeline.idle), set(timeline.peak_activations), time.process_time())
"""
    done = subprocess.run(
        [sys.executable, "-c", "import time" + code], capture_output=True, text=True, timeout=300
    )
    *result, seconds = done.stdout.split()
    assert result == ["3062", "{62}", "{65}"], done.stderr
    assert float(seconds) < 10


def test_an_order_that_cannot_be_carried_out_is_named() -> None:
    forward = Action(Kind.FORWARD, 0, 0, 0)
    backward = Action(Kind.BACKWARD, 0, 0, 0)
    schedule = Schedule("upside down", 1, 1, ((backward, forward),))
    with pytest.raises(ValueError, match="rank 0 waits for the inputs of B of micro-batch 0 at"):
        simulate(schedule)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Durations(weight=-1), "weight must be 0 or more, got -1"),
        (lambda: Durations(transfer=math.nan), "transfer must be 0 or more, got nan"),
        (lambda: Durations(pair=math.inf), "pair must be 0 or more, got inf"),
        (
            lambda: Durations.with_all_to_all(1, 1, 1, comm=-1, hidden=1),
            "comm must be 0 or more, got -1",
        ),
        (
            lambda: Durations.with_all_to_all(1, 1, 1, comm=1, hidden=math.nan),
            "hidden must be from 0 to 1, got nan",
        ),
        (lambda: formula("DualPipe", 0), "num_stages must be a whole number of at least 1, got 0"),
        (lambda: formula("1F1B", -3), "num_stages must be a whole number of at least 1, got -3"),
        (
            lambda: Durations.with_all_to_all(1, 1, 1, comm=1, hidden=2),
            "hidden must be from 0 to 1",
        ),
        (
            lambda: formula("GPipe", 8),
            "name must be 1F1B, ZB1P, DualPipe or DualPipeV, got 'GPipe'",
        ),
        (lambda: formula("DualPipe", 7), "num_stages must be even for DualPipe, got 7"),
    ],
)
def test_bad_values_are_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_no_time_at_all_is_no_bubble() -> None:
    assert simulate(one_f_one_b(2, 2), Durations(0, 0, 0)).bubble_fraction == 0


def test_a_timeline_may_start_late() -> None:
    """A trace of a real run does not begin at 0."""
    simulated = simulate(one_f_one_b(2, 3))
    moved = tuple(
        tuple(e._replace(start=e.start + 5, end=e.end + 5) for e in events)
        for events in simulated.events
    )
    assert Timeline(simulated.schedule, moved).makespan == simulated.makespan
