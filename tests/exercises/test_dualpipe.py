"""The exercises of book/training/dualpipe.md, solved by running the schedules."""

import re

import pytest

from dsnotes.config import DEEPSEEK_V3
from dsnotes.training.dualpipe.actions import Action, Kind, Pair, Schedule
from dsnotes.training.dualpipe.schedule import SCHEDULES, dualpipe, dualpipev, one_f_one_b
from dsnotes.training.dualpipe.timeline import Durations, simulate

from .page import solution


def test_dualpipe_1() -> None:
    durations = Durations(1, 1, 1, 2.5)
    found = {name: simulate(SCHEDULES[name](16, 60), durations) for name in SCHEDULES}
    idle = {name: max(timeline.idle) for name, timeline in found.items()}
    assert (idle["1F1B"], idle["ZB1P"], idle["DualPipe"]) == (45, 15, 10.5)
    for term in ("15\\times3=45", "15\\times1=15", "=10.5"):
        assert term in solution("dualpipe-1")
    assert found["DualPipe"].makespan < found["ZB1P"].makespan - 20  # pairs are shorter too


def test_dualpipe_2() -> None:
    """Count the eight steps in the list of actions of rank 2."""
    *_, rank_2, rank_3 = dualpipe(8, 20).actions[:4]
    words = ["P" if isinstance(a, Pair) else f"{a.kind}{a.direction}" for a in rank_2]
    line = re.sub(r"W\d", "W", " ".join(words) + " ")
    steps = ["F0 ", "F0 F1 ", "I1 W F1 ", "P P ", "B1 P ", "[BI]1 [BI]0 ", "W I0 ", "W "]
    found = re.fullmatch("(?P<one>(F0 )*?)" + "".join(f"((?:{s})*)" for s in steps[1:]), line)
    lengths = [found["one"], *found.groups()[2:]]
    counts = [len(part.split()) // len(s.split()) for part, s in zip(lengths, steps, strict=True)]
    assert "、".join(map(str, counts)) == "2、3、1、5、1、3、1、3"
    assert "2、3、1、5、1、3、1、3" in solution("dualpipe-2")
    assert sum(isinstance(a, Pair) for a in rank_2) == 11
    assert sum(isinstance(a, Pair) for a in rank_3) == 11
    assert "$2\\times5+1=11$" in solution("dualpipe-2")
    assert "$2\\times6-1=11$" in solution("dualpipe-2")


def test_dualpipe_3() -> None:
    for stages in (8, 16):
        limit = 3 + 1 / (stages - 3)
        for pair, larger in ((limit - 1e-3, False), (limit + 1e-3, True)):
            durations = Durations(1, 1, 1, pair)
            dual, zb = (
                max(simulate(SCHEDULES[name](stages, 2 * stages), durations).idle)
                for name in ("DualPipe", "ZB1P")
            )
            assert (dual > zb) is larger
    at_325 = Durations(1, 1, 1, 3.25)  # what the interactive figure can be set to
    assert max(simulate(dualpipe(8, 20), at_325).idle) == 7.25
    assert "3+\\frac1{PP-3}" in solution("dualpipe-3")


def test_dualpipe_4() -> None:
    to_send = sum(4 * DEEPSEEK_V3.hidden_size for _token in range(4096))  # elements
    dispatch = {rate: to_send * 1 / (rate * 1e6) for rate in (50, 40)}  # ms, from GB/s
    combine = {rate: to_send * 2 / (rate * 1e6) for rate in (50, 40)}
    assert dispatch == {50: pytest.approx(2.35, abs=0.005), 40: pytest.approx(2.94, abs=0.005)}
    assert combine == {50: pytest.approx(4.70, abs=0.005), 40: pytest.approx(5.87, abs=0.005)}
    # of the same order as the kernels recorded: 3.1 to 4.6 ms and 5.8 to 6.5 ms
    assert 3.1 / 2 < dispatch[50] < dispatch[40] < 4.6
    assert 5.8 / 2 < combine[50] < combine[40] < 6.5


def test_dualpipe_5() -> None:
    wide, narrow = simulate(dualpipev(16, 64), Durations(0.5, 0.5, 0.5)), simulate(dualpipe(16, 64))
    idle, parameters, peak = (15, 1, 16.5)
    assert set(wide.idle) == {idle}
    assert {n / 2 for n in wide.parameters} == {parameters}  # a stage is 1/32 of the model
    assert max(wide.peak_activations) / 2 == peak
    assert set(narrow.idle) == {14}
    assert (narrow.parameters[0], max(narrow.peak_activations)) == (2, 17)
    for part in ("=15$", "$2\\times\\frac12=1$", "=16.5$", "14、2、17"):
        assert part in solution("dualpipe-5")


def test_dualpipe_6() -> None:
    def actions(rank: int) -> tuple[Action, ...]:
        return tuple(
            Action(kind, rank, 0, m) for kind in (Kind.FORWARD, Kind.BACKWARD) for m in range(20)
        )

    gpipe = simulate(Schedule("GPipe", 8, 20, tuple(actions(rank) for rank in range(8))))
    usual = simulate(one_f_one_b(8, 20))
    assert max(gpipe.idle) == max(usual.idle) == 21
    assert (max(gpipe.peak_activations), max(usual.peak_activations)) == (20, 8)
    for part in ("空等同样是 21", "激活值却是 20 份", "1F1B 是 8 份"):
        assert part in solution("dualpipe-6")
