"""Schedules as data: the counts of the released code, the totals, and what is refused."""

import subprocess
import sys
from collections import Counter

import pytest

from dsnotes.training.dualpipe.actions import Action, Kind, Pair, Schedule
from dsnotes.training.dualpipe.schedule import (
    SCHEDULES,
    dualpipe,
    dualpipev,
    one_f_one_b,
    step_counts,
    zb1p,
)

F, B, I, W = Kind.FORWARD, Kind.BACKWARD, Kind.BACKWARD_INPUT, Kind.BACKWARD_WEIGHT  # noqa: E741

# Steps 1-8 of V3 figure 5 (8 ranks, 20 micro-batches), per position from the nearer end.
FIGURE_5 = [
    (6, 1, 3, 3, 3, 1, 3, 1),
    (4, 2, 2, 4, 2, 2, 2, 2),
    (2, 3, 1, 5, 1, 3, 1, 3),
    (0, 4, 0, 6, 0, 4, 0, 4),
]
CASES = [
    *(("1F1B", ranks, m) for ranks, m in ((1, 3), (4, 2), (4, 4), (5, 9))),
    *(("ZB1P", ranks, m) for ranks, m in ((1, 3), (4, 2), (4, 4), (5, 9))),
    *(("DualPipe", ranks, m) for ranks, m in ((2, 4), (2, 6), (4, 8), (6, 14), (8, 20))),
    *(("DualPipeV", ranks, m) for ranks, m in ((1, 2), (2, 4), (3, 7), (4, 10), (8, 16))),
]  # fmt: skip


def _parts(schedule: Schedule, rank: int) -> list[Action]:
    return [part for action in schedule.actions[rank] for part in action.parts]


@pytest.mark.parametrize("rank", range(8))
def test_steps_of_figure_5(rank: int) -> None:
    position = min(rank, 7 - rank)
    counts = FIGURE_5[position]
    assert step_counts(4, position, 10) == counts
    n1, n2, n3, n4, n5, n6, n7, n8 = counts
    middle = position == 3
    actions = dualpipe(8, 20).actions[rank]
    alone = Counter(a.kind for a in actions if isinstance(a, Action))
    assert sum(isinstance(a, Pair) for a in actions) == 2 * n4 + n5 - middle
    assert alone[F] == n1 + 2 * n2 + n3 + middle
    assert alone[B] == n5 + n6 + middle
    assert alone[I] == n3 + n6 + n7 == alone[W] == n3 + n7 + n8


def test_first_rank_of_figure_5_word_by_word() -> None:
    def word(action: Action | Pair) -> str:
        return "&".join(f"{p.kind}{p.micro_batch}" for p in action.parts)

    assert " ".join(map(word, dualpipe(8, 20).actions[0])) == (
        "F0 F1 F2 F3 F4 F5 F6 F10 "  # steps 1, 2
        "I10 W10 F11 I11 W11 F12 I12 W12 F13 "  # 3
        "F7&B13 F14&B0 F8&B14 F15&B1 F9&B15 F16&B2 "  # 4
        "B16 F17&B3 B17 F18&B4 B18 F19&B5 "  # 5
        "B19 I6 W6 I7 W7 I8 W8 I9 W9"  # 6, 7, 8
    )


@pytest.mark.parametrize(("name", "ranks", "m"), CASES)
def test_every_micro_batch_passes_every_stage_once(name: str, ranks: int, m: int) -> None:
    schedule = SCHEDULES[name](ranks, m)
    done = Counter(
        (part.kind, part.stage, part.micro_batch)
        for rank in range(ranks)
        for part in _parts(schedule, rank)
    )
    assert set(done.values()) == {1}
    for stage in range(schedule.num_stages):
        for micro_batch in range(m):
            kinds = {kind for kind in Kind if (kind, stage, micro_batch) in done}
            assert kinds in ({F, B}, {F, I, W})


@pytest.mark.parametrize(("name", "ranks", "m"), CASES)
def test_a_stage_stays_on_its_rank(name: str, ranks: int, m: int) -> None:
    schedule = SCHEDULES[name](ranks, m)
    for rank in range(ranks):
        for part in _parts(schedule, rank):
            mirrored = schedule.num_stages - 1 - part.stage
            assert rank == (mirrored if part.direction else part.stage)
            assert schedule.rank_of[part.stage, part.micro_batch] == rank
            # DualPipe: the direction belongs to the micro-batch, DualPipeV: to the stage
            if name == "DualPipe":
                assert part.direction == (part.micro_batch >= m // 2)
            elif name == "DualPipeV":
                assert part.direction == (part.stage >= ranks)
            else:
                assert part.direction == 0


@pytest.mark.parametrize(("ranks", "m"), [(2, 4), (4, 8), (8, 20), (16, 50)])
def test_totals_per_rank_and_direction(ranks: int, m: int) -> None:
    schedule = dualpipe(ranks, m)
    for rank in range(ranks):
        total = Counter(
            (p.kind in (B, I), p.direction) for p in _parts(schedule, rank) if p.kind != W
        )
        assert set(total.values()) == {m // 2}
        assert len(total) == 4
        assert schedule.stages_of(rank) == tuple(sorted((rank, ranks - 1 - rank)))


@pytest.mark.parametrize(("half", "per_phase"), [(1, 2), (2, 5), (4, 10), (5, 13)])
def test_dualpipev_is_half_a_dualpipe(half: int, per_phase: int) -> None:
    """The same order of kinds on rank r and on both ranks that mirror it."""

    def kinds(schedule: Schedule, rank: int) -> list[list[Kind]]:
        return [[part.kind for part in action.parts] for action in schedule.actions[rank]]

    whole, cut = dualpipe(2 * half, 2 * per_phase), dualpipev(half, per_phase)
    for rank in range(half):
        assert kinds(whole, rank) == kinds(cut, rank) == kinds(whole, 2 * half - 1 - rank)


def test_weight_backwards_come_in_the_order_they_were_put_off() -> None:
    for name, ranks, m in CASES:
        schedule = SCHEDULES[name](ranks, m)
        for rank in range(ranks):
            parts = _parts(schedule, rank)
            put_off = [(p.stage, p.micro_batch) for p in parts if p.kind is I]
            assert [(p.stage, p.micro_batch) for p in parts if p.kind is W] == put_off


@pytest.mark.parametrize(
    ("build", "arguments", "rule"),
    [
        (dualpipe, (7, 20), "num_ranks must be an even number of at least 2 for DualPipe, got 7"),
        (dualpipe, (0, 20), "num_ranks must be an even number of at least 2 for DualPipe, got 0"),
        (dualpipe, (8, 14), r"num_micro_batches must be an even number of at least 16 \(2 \* num"),
        (dualpipe, (8, 17), "both directions counted.*got 17"),
        (dualpipev, (0, 4), "num_ranks must be a whole number of at least 1 for DualPipeV, got 0"),
        (dualpipev, (4, 7), "num_micro_batches must be a whole number of at least 8 .*got 7"),
        (one_f_one_b, (4, 0), "num_micro_batches must be a whole number of at least 1 for 1F1B"),
        (step_counts, (4, 4, 10), "position must be from 0 to half - 1 = 3, got 4"),
        (step_counts, (4, -1, 10), "position must be from 0 to half - 1 = 3, got -1"),
        (step_counts, (4, 0, 7), "per_phase must be at least 2 half = 8, got 7"),
        (zb1p, (0, 4), "num_ranks must be a whole number of at least 1 for ZB1P, got 0"),
    ],
)
def test_illegal_numbers_are_refused_with_the_rule(build, arguments, rule) -> None:
    with pytest.raises(ValueError, match=rule):
        build(*arguments)


def test_schedules_and_timelines_need_no_torch() -> None:
    code = "import sys, dsnotes.training.dualpipe.bubble, dsnotes.training.dualpipe.schedule; print('torch' in sys.modules)"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr
