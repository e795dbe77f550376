"""Grade a class: a folder of submissions in, a table of marks out.

    python -m dsnotes.practice grade FOLDER --out grades.csv --seed N

`FOLDER` has a folder for each student, or files named student__moe.ipynb. Whatever a submission
does, its marks are one line and those of the others are not touched.
"""

import argparse
import csv
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dsnotes.practice import mechanisms, samples
from dsnotes.practice.marks import (
    NOTEBOOKS,
    OUTCOMES,
    SECONDS,
    SECONDS_A_CELL,
    Grader,
    files_asked_for,
)

COLUMNS = ["student", "exercise", "outcome", "points", "out_of", "note"]
Class = dict[str, dict[str, Path]]


def collect(folder: Path) -> tuple[Class, list[Path]]:
    """Files that can be graded, by student and by name, and those nobody asks for.

    A student who has handed in nothing known is there too, with no file.
    """
    known, students, unknown = files_asked_for(), Class(), []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name.startswith("__"):
            continue
        student, _, name = entry.name.rpartition("__")
        paths = sorted(p for p in entry.rglob("*") if p.is_file()) if entry.is_dir() else [entry]
        if entry.is_file() and not student:
            unknown.append(entry)
            continue
        handed_in = students.setdefault(entry.name if entry.is_dir() else student, {})
        for path in paths:
            name = path.name if entry.is_dir() else name
            if name in known:
                handed_in[name] = path
            elif not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts):
                unknown.append(path)
    return students, unknown


class Exercise(NamedTuple):
    """What a page says of one exercise: its points, and what the reader is told to run."""

    stars: int
    commands: list[str]  # names in the table: a mechanism, bugs


@cache
def on_the_pages(book: Path = mechanisms.REPOSITORY / "book") -> dict[str, Exercise]:
    """Exercises by the name they have on the page; none where there are no pages."""
    found: dict[str, Exercise] = {}
    for path in book.glob("*/*.md"):
        text = path.read_text("utf8")
        for block in re.findall(r"^[`:]{3,}\{exercise\}.*?^[`:]{3,}$", text, re.S | re.M):
            label = re.search(r"^:label: ex-(\w+-\d+)$", block, re.M)
            worth = re.search(r"\bstars-(\d)\b", block)
            if label and worth:
                bugs = re.findall(r"--bug (\w+)-(\d+)", block)
                written = re.findall(r"dsnotes\.practice (\w+)", block)
                commands = [*written, *(f"{s}-bug-{n}" for s, n in bugs)]
                found[label[1]] = Exercise(int(worth[1]), commands)
    return found


@cache
def stars() -> dict[str, int]:
    """Points of an exercise: its stars on the page; where there are no pages, none are known."""
    found: dict[str, int] = {}
    for label, exercise in on_the_pages().items():
        found |= dict.fromkeys([label, *exercise.commands], exercise.stars)
    return found


def in_the_table(label: str) -> list[str]:
    """What an exercise of a page is called in the table; [] if it cannot be graded.

    A cell of a notebook has the name of the page. A mechanism has the name of its section, a bug
    its own: the page's moe-7 may be `moe`.
    """
    known = {x for labels in files_asked_for().values() for x in labels}
    if label in known:
        return [label]
    asked = on_the_pages().get(label)
    return [x for x in asked.commands if x in known] if asked else []


def grade_class(
    folder: Path, out: Path, *, grader: Grader, only: list[str] | None = None
) -> Counter[tuple[str, str]]:
    """Write the table of a class; how often each exercise had each outcome.

    Args:
        folder: of the submissions.
        out: the table, in UTF-8 with a mark that spreadsheets know.
        grader: with the seed of this class.
        only: exercises; None for all that some student has handed in a file for.
    """
    students, unknown = collect(folder)
    handed_in = {name for files in students.values() for name in files}
    asked = [x for name in files_asked_for() if name in handed_in for x in files_asked_for()[name]]
    exercises = list(dict.fromkeys(asked)) if only is None else only
    counts: Counter[tuple[str, str]] = Counter()
    with out.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for number, (student, files) in enumerate(students.items(), start=1):
            print(f"[{number}/{len(students)}] {student}", flush=True)
            for exercise, mark in grader.marks(files, exercises).items():
                worth = stars().get(exercise, 1)
                points = worth if mark.outcome == "passed" else 0
                row = [student, exercise, mark.outcome, points, worth, " ".join(mark.note.split())]
                table.writerow(map(_plain, row))
                counts[exercise, mark.outcome] += 1
            file.flush()  # a run that is stopped leaves what it has
    for path in unknown:
        print(f"没有认出：{path}")
    return counts


def main(arguments: list[str]) -> int:
    """The command; 0 when the table is written, 2 when it could not be."""
    parser = argparse.ArgumentParser(
        prog="python -m dsnotes.practice grade",
        description="批改全班：一个文件夹进，一张 CSV 出。",
    )
    parser.add_argument(
        "folder", type=Path, help="每个学生一个文件夹，或者 学生__moe.ipynb 这样的文件"
    )
    parser.add_argument("--out", type=Path, default=Path("grades.csv"))
    parser.add_argument("--seed", type=int, help="自己定的一个正整数，交作业以后再定")
    parser.add_argument("--only", metavar="A,B", help="只评这些练习，例如 moe-4,moe,mla-8")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="一份机制最多等多久")
    parser.add_argument(
        "--seconds-a-cell", type=float, default=SECONDS_A_CELL, help="一格最多等多久"
    )
    parser.add_argument("--samples", action="store_true", help="不评分，写出三份样例来试")
    parser.add_argument(
        "--section",
        choices=mechanisms.SECTIONS,
        default="moe",
        metavar="SECTION",
        help=f"写哪一节的样例：{'、'.join(mechanisms.SECTIONS)}",
    )
    asked = parser.parse_args(arguments)
    if asked.samples:
        for path in samples.write(
            asked.folder,
            name=asked.section,
            notebooks=NOTEBOOKS if NOTEBOOKS.is_dir() else None,
        ):
            print(f"写好了 {path}")
        return 0
    names = [x.strip() for x in re.split("[,，、]", asked.only)] if asked.only else []
    if wrong := [x for x in names if not in_the_table(x) and x not in on_the_pages()]:
        print(f"没有这样的练习：{'、'.join(wrong)}")
        return 2
    if wrong := [x for x in names if not in_the_table(x)]:
        print(f"要老师自己看，批改不了：{'、'.join(wrong)}")
        return 2
    only = list(dict.fromkeys(x for name in names for x in in_the_table(name))) or None
    if asked.seed is None or asked.seed < 1:
        print("请写 --seed 和一个正整数；0 就是书里的种子，学生也知道。")
        return 2
    if not asked.folder.is_dir():
        print(f"没有文件夹 {asked.folder}。")
        return 2
    grader = Grader(asked.seed, seconds=asked.seconds, seconds_a_cell=asked.seconds_a_cell)
    try:
        counts = grade_class(asked.folder, asked.out, grader=grader, only=only)
    except OSError as error:
        print(f"写不了 {error.filename}（{error.strerror}）。")
        return 2
    except KeyboardInterrupt:
        print(f"停下了，已经评完的在 {asked.out}。")
        return 130
    for exercise in dict.fromkeys(exercise for exercise, _ in counts):
        said = "，".join(f"{o} {counts[exercise, o]}" for o in OUTCOMES.values())
        print(f"{exercise}：{said}")
    print(f"写好了 {asked.out}")
    return 0


def _plain(value: object) -> object:
    """No cell of the table is taken for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(tuple("=+-@")) else value
