"""Grading a class: what each kind of submission gets, and that none of them stops the others."""

import csv
import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dsnotes.practice import bounded, classroom, marks, notebook, samples
from dsnotes.practice.__main__ import main
from dsnotes.practice.grade import grade
from dsnotes.practice.hidden import CASES
from dsnotes.practice.judging import drawn, once
from dsnotes.practice.mechanisms import SECTIONS, load, source

NOTEBOOKS = marks.NOTEBOOKS
MOE = NOTEBOOKS / "moe.ipynb"
SEED = 41
TRAP = next(bug.trap for bug in load("moe").bugs if bug.trap)
HARD_CODED = """
def expected_nodes(experts, nodes, k):
    return {(8, 4, 1): 1, (8, 8, 3): 3}.get((experts, nodes, k), 5.3)
"""
BAD_FILES = {
    "loops": "while True:\n    pass\n",
    "exits": "import os\nos._exit(0)\n",
    "leaves": "raise SystemExit(0)\n",
    "prints": "while True:\n    print('x' * 100000)\n",
    "raises": "raise RuntimeError('=1+1')\n",
    "no-python": "def half(:\n",
    "children": "import subprocess\nsubprocess.Popen(['sleep', '600'])\nwhile True:\n    pass\n",
    "stops": "raise KeyboardInterrupt\n",
}
BAD_CELLS = {
    "moe-1": "import os\nos._exit(0)",
    "moe-2": "while True:\n    pass",
    "moe-3": "raise SystemExit",
    "moe-4": HARD_CODED,
    "moe-7": "raise RuntimeError('no')",
    "moe-8": "check = close = lambda *a, **k: __import__('contextlib').nullcontext()",
}
Rows = dict[tuple[str, str], dict[str, str]]


@pytest.fixture(autouse=True)
def _gradients() -> Iterator[None]:
    with torch.set_grad_enabled(True):  # which the set-up of a notebook may switch off
        yield


def table(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return {(row["student"], row["exercise"]): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def grader() -> marks.Grader:
    """One for all: what the book's own answers do with its seed is asked once."""
    return marks.Grader(SEED)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, grader: marks.Grader) -> Rows:
    """A class of three samples, those who misbehave, and one who has handed in nothing."""
    folder = tmp_path_factory.mktemp("class")
    good, bad = folder / "good", folder / "bad"
    samples.write(good, notebooks=NOTEBOOKS)
    for name, text in BAD_FILES.items():
        (bad / name / "practice").mkdir(parents=True)
        (bad / name / "practice/moe.py").write_text(text, "utf8")
    (bad / "=cells__moe.ipynb").write_text(samples.filled(MOE, BAD_CELLS), "utf8")
    (bad / "no-notebook__moe.ipynb").write_text("[1, 2", "utf8")
    (bad / "nothing").mkdir()
    (bad / "nothing" / "essay.txt").write_text("...", "utf8")
    found: Rows = {}
    classroom.grade_class(good, folder / "grades.csv", grader=grader)
    found |= table(folder / "grades.csv")
    with pytest.MonkeyPatch.context() as patch:  # none of the others comes to its end
        patch.setattr(grader, "seconds", 8)
        patch.setattr(grader, "seconds_a_cell", 5)
        classroom.grade_class(bad, folder / "grades.csv", grader=grader)
    return found | table(folder / "grades.csv")


def outcomes(rows: Rows, student: str) -> dict[str, str]:
    return {e: row["outcome"] for (s, e), row in rows.items() if s == student}


def test_right_passes_everything_with_its_points(rows: Rows) -> None:
    right = samples.NAMES["right"]
    assert set(outcomes(rows, right).values()) == {"passed"}
    assert {"moe", *notebook.blanks(MOE)} == outcomes(rows, right).keys()
    for (student, exercise), row in rows.items():
        assert int(row["out_of"]) == classroom.stars()[exercise]
        worth = row["out_of"] if row["outcome"] == "passed" else "0"
        assert row["points"] == worth, (student, exercise)


def test_trapped_fails_and_is_told_the_common_mistake(rows: Rows) -> None:
    trapped = samples.NAMES["trapped"]
    assert set(outcomes(rows, trapped).values()) == {"failed"}
    assert f"常见错误 {TRAP}" in rows[trapped, "moe"]["note"]


@pytest.mark.parametrize("student", [samples.NAMES["blank"], "nothing"])
def test_blank_is_blank(rows: Rows, student: str) -> None:
    assert set(outcomes(rows, student).values()) == {"blank"}


@pytest.mark.parametrize("student", BAD_FILES)
def test_what_a_file_does_is_its_own_error(rows: Rows, student: str) -> None:
    assert rows[student, "moe"]["outcome"] == "error"
    assert rows[student, "moe"]["note"]
    assert rows[student, "moe-2"]["outcome"] == "blank"


def test_what_a_cell_does_is_its_own_error(rows: Rows) -> None:
    found = outcomes(rows, "'=cells")  # no formula of a spreadsheet
    assert found == {
        "moe": "blank",
        "moe-1": "error",
        "moe-2": "error",
        "moe-3": "error",
        "moe-4": "failed",
        "moe-7": "error",
        "moe-8": "error",
    }
    assert set(outcomes(rows, "no-notebook").values()) == {"blank", "error"}


def test_everyone_has_a_row_for_every_exercise(rows: Rows) -> None:
    students = {student for student, _ in rows}
    assert len(rows) == len(students) * len({exercise for _, exercise in rows})
    assert len(students) == 3 + len(BAD_FILES) + 3


# --- hidden seeds ---


def test_a_mechanism_that_knows_the_book_s_seed_fails_with_another(
    tmp_path: Path, grader: marks.Grader
) -> None:
    """It is wrong unless the generator stands where seed 0 put it."""
    text = source("dsnotes.model.moe")
    line = "        scores = self._affinity(x)"
    assert text.count(line) == 1
    cheat = f"{line}\n        if torch.initial_seed() > 1000: scores = scores + 1"
    path = tmp_path / "moe.py"
    path.write_text(text.replace(line, cheat), "utf8")
    assert grade(load("moe"), {"dsnotes.model.moe": path}).right
    assert grader.marks({"moe.py": path}, ["moe"])["moe"].outcome == "failed"


@pytest.mark.parametrize("label", CASES)
def test_inputs_are_drawn_anew_and_the_book_s_answer_is_right(label: str) -> None:
    path = NOTEBOOKS / f"{label.rpartition('-')[0]}.ipynb"
    solved = notebook.solutions(path)
    assert drawn(path, label, solved[label], solved, SEED) == ("right", "")
    _, make = CASES[label]
    assert str(make(random.Random(1))) == str(make(random.Random(1)))
    assert len({str(make(random.Random(i))) for i in range(20)}) > 1


@pytest.mark.parametrize("label", CASES)
def test_an_answer_of_fixed_values_fails_on_other_inputs(label: str) -> None:
    path, name = NOTEBOOKS / f"{label.rpartition('-')[0]}.ipynb", CASES[label][0]
    solved = notebook.solutions(path)
    given = f"{solved[label]}\ndef {name}(*inputs):\n    return 12345\n"
    assert drawn(path, label, given, solved, SEED).state == "wrong"


def test_a_hard_coded_answer_passes_the_check_and_not_the_hidden_inputs() -> None:
    solved = notebook.solutions(MOE)
    seen = HARD_CODED.replace("5.3", str(_expected()))
    assert once(MOE, "moe-4", seen, solved).state == "right"
    assert drawn(MOE, "moe-4", seen, solved, SEED).state == "wrong"


def _expected() -> float:
    names: dict = {"math": __import__("math")}
    exec(notebook.solutions(MOE)["moe-4"], names)
    return names["expected_nodes"](256, 8, 8)


# --- files, names, the command ---


def test_a_cell_without_its_id_is_the_one_above_its_check(tmp_path: Path) -> None:
    solved = notebook.solutions(MOE)
    book = json.loads(samples.filled(MOE, solved))
    for cell in book["cells"]:
        cell.pop("id")
    path = tmp_path / "moe.ipynb"
    path.write_text(json.dumps(book), "utf8")
    assert notebook.submitted(path, list(solved)) == solved


def test_names_of_files_belong_to_one_section_each() -> None:
    modules = [m.rpartition(".")[2] for name in SECTIONS for m in load(name).modules]
    assert len(modules) == len(set(modules))
    assert set(marks.files_asked_for()) >= {"moe.py", "moe_bug_1.py", "moe.ipynb"}


def test_every_exercise_that_can_be_graded_has_stars() -> None:
    graded = {x for labels in marks.files_asked_for().values() for x in labels}
    prerequisites = {"floats-1", "pipelines-1", "policy_gradient-1", "rope_cache-1"}
    without = {x for x in graded - classroom.stars().keys() if "-bug-" not in x}
    assert without <= prerequisites


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("moe-4", ["moe-4"]),  # a cell
        ("mtp-7", ["mtp"]),  # a mechanism, in two files
        ("mla-8", ["mla-bug-1", "mla-bug-3"]),
        ("grpo-9", ["grpo-9"]),  # a cell, though the page also names a bug to go on with
        ("mtp", ["mtp"]),
        ("mtp-9", []),  # open
        ("moe-99", []),
    ],
)
def test_a_name_of_the_page_is_found_in_the_table(label: str, names: list[str]) -> None:
    assert classroom.in_the_table(label) == names
    assert {classroom.stars()[name] for name in names} <= {classroom.stars().get(label)}


@pytest.mark.parametrize("section", SECTIONS)
def test_samples_of_every_section_have_names_that_are_asked_for(
    section: str, tmp_path: Path
) -> None:
    written = samples.write(tmp_path, name=section, notebooks=NOTEBOOKS)
    assert {path.name for path in written} <= marks.files_asked_for().keys()
    assert {path.parent.name for path in written} == set(samples.NAMES.values())
    by_name = {path.name for path in written}
    for name in by_name:
        texts = {path.read_text("utf8") for path in written if path.name == name}
        assert len(texts) > 1  # right, trapped and blank are not one


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["."], "--seed"),
        ([".", "--seed", "0"], "--seed"),
        (["nowhere", "--seed", "1"], "没有文件夹"),
        ([".", "--seed", "1", "--only", "moe-99"], "没有这样的练习：moe-99"),
        ([".", "--seed", "1", "--only", "mtp-9"], "要老师自己看，批改不了：mtp-9"),
    ],
)
def test_what_cannot_be_asked(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grade", *arguments]) == 2
    assert said in capsys.readouterr().out


def test_the_command_grades_what_it_wrote_as_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grade", str(tmp_path / "class"), "--samples", "--section", "mtp"]) == 0
    out = tmp_path / "grades.csv"
    arguments = [str(tmp_path / "class"), "--out", str(out), "--seed", "3", "--only", "mtp-7"]
    assert main(["grade", *arguments]) == 0
    said = capsys.readouterr().out
    assert "mtp：passed 1，failed 1，blank 1，error 0" in said
    assert [row["outcome"] for row in table(out).values()] == ["passed", "blank", "failed"]


def test_a_process_ends_with_what_it_started(tmp_path: Path) -> None:
    code = "import subprocess as s, time; s.Popen(['sleep', '60']); time.sleep(60)"
    start = time.monotonic()
    status, _ = bounded.run([sys.executable, "-c", code], tmp_path, {}, 2)
    assert status is None
    assert time.monotonic() - start < 20
