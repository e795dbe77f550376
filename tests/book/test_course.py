"""The course: plans ask for what exists, every section has objectives, the pages say what is so."""

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COURSE = ROOT / "book" / "course"
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook import plans  # noqa: E402

from dsnotes.practice import classroom, marks, samples  # noqa: E402
from dsnotes.practice.judging import DRAWS  # noqa: E402

PLANS, RATES = plans.read(ROOT)
WEEKS = [
    pytest.param(w, id=f"{name} {i}") for name, plan in PLANS.items() for i, w in enumerate(plan, 1)
]
LABELS = plans.minutes([p.read_text("utf8") for p in sorted((ROOT / "book").glob("*/*.md"))])


def pages_of_the_book() -> list[str]:
    """Sections of the numbered part of the table of contents, without heads of chapters."""
    parts = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))["parts"]
    (main,) = (part for part in parts if part["caption"] == "正文")

    def files(entries: list[dict]) -> list[str]:
        return [f for e in entries for f in [e["file"], *files(e.get("sections", []))]]

    found = [f for f in files(main["chapters"]) if f.startswith("book/")]
    return [f for f in found if not f.endswith("/index")]


def test_every_section_has_objectives_once() -> None:
    text = (COURSE / "objectives.md").read_text("utf8")
    rows = [row.split("|")[1:-1] for row in text.splitlines() if row.startswith("| [")]
    named = ["book/" + re.search(r"\(\.\./(.+?)\.md\)", row[0])[1] for row in rows]
    assert sorted(named) == sorted(pages_of_the_book())
    assert all(len(cell.strip()) > 0 for row in rows for cell in row)
    assert {len(row) for row in rows} == {3}


@pytest.mark.parametrize(("name", "weeks"), [(n, int(n.rpartition("-")[2])) for n in PLANS])
def test_a_plan_has_its_weeks_and_stands_on_the_page(name: str, weeks: int) -> None:
    assert len(PLANS[name]) == weeks
    assert f"{{course-plan}} {name}\n" in (COURSE / "index.md").read_text("utf8")


@pytest.mark.parametrize("week", WEEKS)
def test_a_week_asks_for_what_exists_and_can_be_done(week: plans.Week) -> None:
    for page in week.pages:
        assert (ROOT / "book" / f"{page}.md").is_file(), page
    for name in week.notebooks:
        assert (ROOT / "notebooks" / f"{name}.ipynb").is_file(), name
    assert set(week.exercises) <= LABELS.keys()
    read = {page.rpartition("/")[2].partition("-")[0] for page in week.pages}
    read |= {"r1"} if "whole/r1-miniature" in week.pages else set()
    assert {label.rpartition("-")[0] for label in week.exercises} <= read
    project = "whole-5" in week.exercises
    assert 1 <= plans.hours(ROOT, week, RATES).total <= (20 if project else 8)


def test_hours_are_added_up_from_characters_notebooks_and_minutes() -> None:
    week = plans.Week("", ["model/mla"], ["mla"], ["mla-1", "mla-3"], [])
    spent = plans.hours(ROOT, week, {"characters": 100, "notebook": 30})
    assert spent.exercises == LABELS["mla-1"] + LABELS["mla-3"]
    assert spent.notebooks == 30
    text = (ROOT / "book/model/mla.md").read_text("utf8")
    assert spent.reading == plans.characters(text) / 100
    assert 2000 < plans.characters(text) < len(re.findall(r"[\u4e00-\u9fff]", text))
    assert plans.Hours(40, 30, 25).total == 1.5


def test_the_table_of_a_plan_ends_with_the_sum() -> None:
    rows = plans.table(ROOT, PLANS["weeks-2"], RATES).splitlines()
    hours = [float(row.split("|")[-2]) for row in rows[2:]]
    assert hours[-1] == sum(hours[:-1])
    assert len(rows) == 2 + 2 + 1


def test_an_exercise_that_no_page_has_is_an_error() -> None:
    with pytest.raises(KeyError, match="moe-99"):
        plans.hours(ROOT, plans.Week("", [], [], ["moe-99"], []), RATES)


# --- the handouts ---


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_has_its_handouts_on_the_page(name: str) -> None:
    assert f"{{course-handout}} {name}\n" in (COURSE / "assign.md").read_text("utf8")


@pytest.mark.parametrize("week", WEEKS)
def test_a_handout_names_what_is_graded_and_the_files_it_is_in(week: plans.Week) -> None:
    told = plans.handout(ROOT, 1, week)
    assert not set("{}`\\$") & set(told)  # plain text: nothing is left of the page's own marks
    command = plans.grading(week)
    for label in week.exercises:
        assert re.search(rf"^  {label}  .+（.+，\d+ 分钟）$", told, re.MULTILINE)
        assert (label in command) == bool(plans.files(label))
        for file in plans.files(label):
            assert file in told.partition("\n交\n")[2]
    assert max(map(len, told.splitlines())) <= 80


def test_a_handout_says_how_a_mechanism_and_a_bug_are_begun() -> None:
    week = plans.Week("", ["model/mla"], [], ["mla-3", "mla-7", "mla-8", "mtp-9"], [])
    told = plans.handout(ROOT, 2, week)
    for line in (
        "写在 mla.ipynb 的练习 3",
        "先运行 python -m dsnotes.practice mla",
        "先运行 python -m dsnotes.practice --bug mla-3",
        "写成报告",
        "mla.ipynb、mla.py、mla_bug_1.py、mla_bug_3.py、报告",
    ):
        assert f"  {line}\n" in told
    assert "--only mla-3,mla-7,mla-8 --seed" in plans.grading(week)
    assert plans.grading(week._replace(exercises=["mtp-9"])) == ""


# --- the page on grading says what the command does ---


def test_grading_names_columns_outcomes_files_and_limits() -> None:
    text = (COURSE / "grading.md").read_text("utf8")
    for word in [*classroom.COLUMNS, *marks.OUTCOMES.values()]:
        assert f"`{word}`" in text
    for name in re.findall(r"^\| `(\S+)` \| ", text, re.MULTILINE):
        assert name in {*marks.files_asked_for(), *classroom.COLUMNS, "points`、`out_of"}
    assert (marks.SECONDS, marks.SECONDS_A_CELL, DRAWS) == (120, 60, 20)  # 两分钟，一分钟，二十组
    assert len(samples.NAMES) == 3
    options = "--samples --section --seed --out --only --seconds --seconds-a-cell"
    for option in options.split():
        assert option in text


def test_errata_have_dates_the_newest_first() -> None:
    text = (COURSE / "errata.md").read_text("utf8")
    dates = re.findall(r"^\| (\d{4}-\d{2}-\d{2}) \| \[", text, re.MULTILINE)
    rows = [row for row in text.splitlines() if row.startswith("| ")]
    assert len(dates) == len(rows) - 1  # the head
    assert dates == sorted(dates, reverse=True)
    assert "DeepSeek-Prover" in text


def test_the_project_and_its_rubric_are_where_the_course_says() -> None:
    whole = (ROOT / "book/whole/whole.md").read_text("utf8")
    assert "(sec-whole-project)=" in whole
    assert ":name: tab-whole-rubric" in whole
    points = re.findall(r"\| (\d+) \|$", whole, re.MULTILINE)
    assert sum(map(int, points)) == 100


def test_the_way_to_reuse_names_the_licences_of_the_repository() -> None:
    text = (ROOT / "book/appendix/cite.md").read_text("utf8")
    assert "(cite-reuse)=" in text
    for name, file, words in [
        ("CC BY 4.0", "LICENSE-CC-BY-4.0", "Creative Commons Attribution 4.0"),
        ("Apache-2.0", "LICENSE", "Apache License"),
    ]:
        assert name in text
        assert words in (ROOT / file).read_text("utf8")
