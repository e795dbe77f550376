"""The closed forms of the bubble against the simulated run, over random times in every range."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dsnotes.training.dualpipe.bubble import idle_times, middle_waits
from dsnotes.training.dualpipe.schedule import dualpipe
from dsnotes.training.dualpipe.timeline import Durations, formula, simulate

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from enumeration import CASES, PAIRS, PARTS  # noqa: E402


@pytest.fixture(scope="module")
def simulated() -> dict:
    done = subprocess.run(
        [sys.executable, HERE / "enumeration.py"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("parts", PARTS)
def test_every_rank_idles_as_the_closed_form_says(simulated, parts: str, pairs: str) -> None:
    cases = simulated["two ways"][f"{parts}, {pairs}"]
    assert len(cases) == CASES
    for pp, *times, down, fold in cases:
        durations = Durations(*times)
        assert list(idle_times("DualPipe", pp, durations)) == down, (pp, durations)
        assert fold in (None, list(idle_times("DualPipeV", pp, durations))), (pp, durations)
        innermost = down[pp // 2 - 1]
        assert innermost == sum(middle_waits(pp, durations))
        assert max(down) == (down[0] if pairs == "F&B > F + B" else innermost)


@pytest.mark.parametrize("parts", PARTS)
def test_where_table_2_is_the_bubble(simulated, parts: str) -> None:
    """With F = I >= W, and nowhere else; with I > F it is above, by no more than F."""
    for pairs in ("B <= F&B <= F + B", "F&B > F + B"):
        for pp, *times, down, _ in simulated["two ways"][f"{parts}, {pairs}"]:
            durations = Durations(*times)
            f, i, w, pair = times
            innermost, table_2 = down[pp // 2 - 1], formula("DualPipe", pp, durations).bubble
            ahead = (pp // 2 - 1) * (pair + f - 2 * w)
            match parts:
                case "F = I >= W":
                    assert table_2 == innermost == ahead
                case "F > I >= W":
                    assert table_2 < innermost == ahead
                case "F < I >= W":
                    assert table_2 > innermost == ahead
                case "F << I >= W":
                    assert table_2 == innermost + f
                case "I < W" if f >= i:
                    assert table_2 < innermost
            if pairs == "F&B > F + B":  # the ends wait longest
                assert max(down) == innermost + (pp // 2 - 2) * (pair - f - i - w)


def test_schedules_of_one_direction(simulated) -> None:
    shorter = 0
    for pp, f, i, w, one_f_one_b, zb1p in simulated["one way"]:
        durations = Durations(f, i, w)
        assert list(idle_times("1F1B", pp, durations)) == one_f_one_b
        assert set(one_f_one_b) == {formula("1F1B", pp, durations).bubble}
        assert list(idle_times("ZB1P", pp, durations)) == zb1p
        table_2 = formula("ZB1P", pp, durations).bubble
        if w <= min(f, i):
            assert set(zb1p) == {table_2}
        else:
            assert set(zb1p) == {(pp - 1) * max(f, i)}
            assert table_2 < zb1p[0]
            shorter += 1
    assert CASES < shorter < 2 * CASES - 100


@pytest.mark.parametrize(
    "durations",
    [Durations(2, 2, 2, 7), Durations(5, 3, 2, 9), Durations(4, 6, 2, 12), Durations(2, 3, 4, 9)],
    ids=["equal", "F > I > W", "I > F", "I < W"],
)
def test_the_middle_waits_in_these_four_places(durations: Durations) -> None:
    pp = 8
    first_forward, first_gradient, step_6, end = middle_waits(pp, durations)
    timeline = simulate(dualpipe(pp, 20), durations)
    events = timeline.events[pp // 2 - 1]
    gaps = [events[0].start]
    gaps += [after.start - before.end for before, after in itertools.pairwise(events)]
    assert gaps[0] == first_forward
    assert gaps[pp + 1] == first_gradient  # after PP + 1 forwards
    rounds = (durations.full_pair - durations.backward,) * (pp // 2 - 1)
    assert tuple(gap for gap in gaps[pp + 2 :] if gap) == tuple(gap for gap in rounds if gap)
    assert sum(rounds) == step_6
    assert timeline.makespan - events[-1].end == end


def test_a_pair_shorter_than_a_forward_has_no_closed_form() -> None:
    for call in (
        lambda: middle_waits(8, Durations(3, 1, 1, 2)),
        lambda: idle_times("DualPipe", 8, Durations(3, 1, 1, 2)),
    ):
        with pytest.raises(ValueError, match=r"pair must be at least forward \(3\) .*, got 2"):
            call()
    assert idle_times("1F1B", 2, Durations(3, 1, 1, 2)) == (5, 5)  # has no pairs


def test_bad_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"transfer must be 0 for the closed forms, got 0\.5"):
        idle_times("ZB1P", 4, Durations(transfer=0.5))
    with pytest.raises(ValueError, match="num_stages must be even for DualPipe, got 7"):
        middle_waits(7)
    with pytest.raises(ValueError, match="name must be 1F1B"):
        idle_times("GPipe", 8)


def test_two_stages_have_no_bubble() -> None:
    for pair in (1, 2, 3, 5):
        assert idle_times("DualPipe", 2, Durations(1, 1, 1, pair)) == (0, 0)
        assert set(simulate(dualpipe(2, 4), Durations(1, 1, 1, pair)).idle) == {0}


PAGE = (HERE.parents[2] / "book" / "appendix" / "reproduction.md").read_text("utf-8")
TABLE = PAGE.split(":name: tab-dualpipe-exact\n")[1].split(":::")[0].strip().splitlines()[2:]


def as_python(latex: str) -> str:
    """`$k(F\\&B+F-2W)$` as `k*(p+F-2*W)`; several formulas are joined by `and`."""
    text = " and ".join(latex.strip().replace("，", ",").strip("$").split("$,$"))
    for old, new in (
        ("F\\&B", "p"), ("PP", "n"), ("\\le", "<="), ("\\ge", ">="), ("\\max", "max"),
        ("\\min", "min"), ("任意", "True"),
    ):  # fmt: skip
        text = text.replace(old, new)
    text = re.sub(r"(?<![<>])=", "==", text)
    return re.sub(r"(?<![a-z])([\dk)])(?=[(FBIWpkm])", r"\1*", text)


@pytest.mark.parametrize("row", TABLE)
def test_the_table_of_the_page_in_every_range(simulated, row: str) -> None:
    """The page's own ranges, expressions and words on table 2, read as Python."""
    name, where, idle, words, _ = (cell.strip() for cell in row.strip(" |").split(" | "))
    where, idle, checked = as_python(where), as_python(idle), 0
    if name == "DualPipe":
        cases = [
            (pp, *times, found[pp // 2 - 1])
            for key, rows in simulated["two ways"].items()
            if "F <= F&B < B" not in key
            for pp, *times, found, _ in rows
        ]
    else:
        which = ["1F1B", "ZB1P"].index(name)
        cases = [(*row[:4], None, row[4 + which][0]) for row in simulated["one way"]]
    for n, f, i, w, p, found in cases:
        values = {"F": f, "I": i, "W": w, "B": i + w, "p": p, "n": n, "k": n // 2 - 1}
        if not eval(where, {"min": min}, values):
            continue
        checked += 1
        assert eval(idle, {"max": max}, values) == found, (row, values)
        paper = formula(name, n, Durations(f, i, w, p)).bubble
        match words:
            case "相同":
                assert paper == found
            case "偏小":
                assert paper < found
            case "偏大":
                assert paper > found
            case "偏大 $F$":
                assert paper == found + f
            case "$F\\ge I$ 时偏小":
                assert f < i or paper < found
            case _:
                assert words == "不定"
    assert checked > 100
    assert len(TABLE) == 9
