"""Plans of a course: ``{course-plan} NAME`` is a table of weeks from ``book/course/plans.yml``.

Hours are worked out, never typed: the Chinese characters of the pages divided by how many are read
a minute, a time for each notebook, and the minutes that stand at each exercise. A page, a notebook
or an exercise that is not there is a warning, hence an error under ``-W``.

``{course-handout} NAME`` is what the students of that plan are told, a block of plain text a week
to copy: what to read, which exercises, in which files they are handed in; and for the instructor
the command that grades the week.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole

from dsbook.exercises import KINDS
from dsnotes.practice.classroom import in_the_table
from dsnotes.practice.marks import files_asked_for

PLANS = "book/course/plans.yml"
EXERCISE = re.compile(r"^[`:]{3,}\{exercise\}[^\n]*\n((?::\w+:[^\n]*\n)+)", re.MULTILINE)
HEAD = "| 周 | 题目 | 读 | 笔记本 | 作业 | 旁读的论文 | 小时 |\n|---|---|---|---|---|---|---|"


class Week(NamedTuple):
    """What one week asks for."""

    title: str
    pages: list[str]
    notebooks: list[str]
    exercises: list[str]
    papers: list[str]


class Hours(NamedTuple):
    """Minutes of a week."""

    reading: float
    notebooks: float
    exercises: float

    @property
    def total(self) -> float:
        """In hours, to a half: more would be pretended."""
        return round(sum(self) / 30) / 2


def characters(text: str) -> int:
    """Chinese characters that are read: not the solutions, which are folded.

    >>> characters("一个token\\n````{solution} ex-a-1\\n答案\\n````\\n两个")
    4
    """
    folded = re.compile(r"^(`{3,}|:{3,})\{solution\}.*?^\1$", re.DOTALL | re.MULTILINE)
    return len(re.findall(r"[\u4e00-\u9fff]", folded.sub("", text)))


def minutes(texts: list[str]) -> dict[str, int]:
    """Minutes of every exercise, by its label without "ex-".

    >>> minutes(["```{exercise} 名\\n:label: ex-a-1\\n:class: hand stars-1 minutes-10\\n```"])
    {'a-1': 10}
    """
    found = {}
    for options in EXERCISE.findall("\n".join(texts)):
        label = re.search(r"^:label: ex-(\S+)", options, re.MULTILINE)
        time = re.search(r"\bminutes-(\d+)", options)
        if label and time:
            found[label[1]] = int(time[1])
    return found


def read(root: Path) -> tuple[dict[str, list[Week]], dict[str, float]]:
    """The plans by name, and the rates: `characters` a minute, minutes a `notebook`."""
    table = yaml.safe_load((root / PLANS).read_text("utf8"))
    fields = ("notebooks", "exercises", "papers")
    plans = {
        name: [Week(w["title"], w["pages"], *(w.get(f, []) for f in fields)) for w in weeks]
        for name, weeks in table["plans"].items()
    }
    return plans, table["rates"]


def hours(root: Path, week: Week, rates: dict[str, float]) -> Hours:
    """The three parts of a week's time; KeyError for an exercise that no page has."""
    texts = [path.read_text("utf8") for path in sorted((root / "book").glob("*/*.md"))]
    known = minutes(texts)
    pages = [(root / f"book/{page}.md").read_text("utf8") for page in week.pages]
    return Hours(
        sum(map(characters, pages)) / rates["characters"],
        len(week.notebooks) * rates["notebook"],
        sum(known[label] for label in week.exercises),
    )


def table(root: Path, weeks: list[Week], rates: dict[str, float]) -> str:
    """The rows as Markdown, with a line of the sum."""
    rows, total = [HEAD], 0.0
    for number, week in enumerate(weeks, start=1):
        spent = hours(root, week, rates).total
        total += spent
        cells = (
            str(number),
            week.title,
            "、".join(f"[](../{page}.md)" for page in week.pages),
            "、".join(f"[`{name}`](../../notebooks/{name}.ipynb)" for name in week.notebooks),
            "、".join(f"{{ref}}`{label} <ex-{label}>`" for label in week.exercises),
            "；".join(week.papers),
            f"{spent:g}",
        )
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([*rows, f"| | 合计 | | | | | {total:g} |"])


class Asked(NamedTuple):
    """An exercise as the students are told of it."""

    title: str
    kind: str
    minutes: int


def asked(texts: list[str]) -> dict[str, Asked]:
    """Every exercise, by its label without "ex-".

    >>> asked(["```{exercise} 名\\n:label: ex-a-1\\n:class: hand stars-1 minutes-10\\n```"])
    {'a-1': Asked(title='名', kind='手算', minutes=10)}
    """
    found, letters = {}, {"$": "", r"\pi": "π", r"\theta": "θ"}
    pattern = re.compile(
        r"^[`:]{3,}\{exercise\} *([^\n]*)\n:label: ex-(\S+)\n:class: (\w+) .*?\bminutes-(\d+)",
        re.MULTILINE,
    )
    for title, label, kind, time in pattern.findall("\n".join(texts)):
        for old, new in letters.items():
            title = title.replace(old, new)
        found[label] = Asked(title.strip(), KINDS[kind], int(time))
    return found


def files(label: str) -> list[str]:
    """The files in which an exercise is handed in; [] if it is read by the instructor."""
    return [
        name
        for wanted in in_the_table(label)
        for name, labels in files_asked_for().items()
        if wanted in labels
    ]


def handout(root: Path, number: int, week: Week) -> str:
    """What the students are told in a week; KeyError for an exercise that no page has."""
    known = asked([path.read_text("utf8") for path in sorted((root / "book").glob("*/*.md"))])
    lines, wanted = [f"第 {number} 周作业：{week.title}", "", "读"], list[str]()
    for page in week.pages:
        text = (root / f"book/{page}.md").read_text("utf8")
        lines.append("  " + re.search(r"^# (.+)", text, re.MULTILINE)[1])
    lines += ["运行", *(f"  notebooks/{name}.ipynb" for name in week.notebooks), "做"]
    for label in week.exercises:
        exercise, where = known[label], files(label)
        lines.append(f"  {label}  {exercise.title}（{exercise.kind}，{exercise.minutes} 分钟）")
        if not where:
            lines.append("    写成报告")
            wanted.append("报告")
        elif where[0].endswith(".ipynb"):
            lines.append(f"    写在 {where[0]} 的练习 {label.rpartition('-')[2]}")
        else:
            for name in in_the_table(label):
                section, bug, place = name.partition("-bug-")
                wish = f"--bug {section}-{place}" if bug else section
                lines.append(f"    先运行 python -m dsnotes.practice {wish}")
            lines.append(f"    写在 practice/ 里的 {'、'.join(where)}")
        wanted += where
    lines += [
        "交",
        f"  {'、'.join(dict.fromkeys(wanted))}",
        "  放进以姓名为名的文件夹，文件名不要改",
    ]
    return "\n".join(lines if wanted else lines[:-3])


def grading(week: Week) -> str:
    """The command that grades a week; empty if nothing of it can be."""
    labels = [label for label in week.exercises if files(label)]
    command = f"python -m dsnotes.practice grade class --only {','.join(labels)} --seed N"
    return command if labels else ""


class OfAPlan(SphinxDirective):
    """What a plan is asked for, with what the page then depends on."""

    required_arguments = 1

    def weeks(self) -> tuple[Path, list[Week], dict[str, float]]:
        root = Path(self.env.srcdir)
        plans, rates = read(root)
        self.env.note_dependency(str(root / PLANS))
        (name,) = self.arguments
        if name not in plans:
            raise self.error(f"no plan {name!r} in {PLANS}, got {', '.join(plans)}")
        for page in {page for week in plans[name] for page in week.pages}:
            self.env.note_dependency(str(root / f"book/{page}.md"))
        return root, plans[name], rates


class CourseHandout(OfAPlan):
    def run(self) -> list[nodes.Node]:
        root, weeks, _ = self.weeks()
        found: list[nodes.Node] = []
        for number, week in enumerate(weeks, start=1):
            try:
                told = handout(root, number, week)
            except (KeyError, OSError) as error:
                raise self.error(f"plan {self.arguments[0]!r}: {error}") from error
            for text, language in ((told, "text"), (grading(week), "bash")):
                if text:
                    found.append(nodes.literal_block(text, text, language=language))
        return found


class CoursePlan(OfAPlan):
    def run(self) -> list[nodes.Node]:
        root, weeks, rates = self.weeks()
        try:
            text = table(root, weeks, rates)
        except (KeyError, OSError) as error:
            raise self.error(f"plan {self.arguments[0]!r}: {error}") from error
        holder = nodes.container(classes=["course-plan"])
        source, _ = self.get_source_info()
        self.state.nested_parse(StringList(text.splitlines(), source), 0, holder)
        return holder.children


class CourseRate(SphinxRole):
    """A rate by which hours are worked out: ``{course-rate}`notebook```."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / PLANS))
        return [nodes.Text(f"{read(root)[1][self.text]:g}")], []


def setup(app):
    app.add_directive("course-plan", CoursePlan)
    app.add_directive("course-handout", CourseHandout)
    app.add_role("course-rate", CourseRate())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
