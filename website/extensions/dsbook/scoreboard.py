"""The scoreboard of the model that grows: a row for every stage, from a recorded run.

    ```{scoreboard} mla
    ```

shows the rows up to `mla` and lights that one; without an argument all rows stand there. Numbers
come from ``book/data/runs/scoreboard.json`` (``experiments/scoreboard.py``) and are never typed: a
cell is the mean over the seeds, and the smallest and the largest below it where they differ. A sign
marks what is worse than in the stage before, by all seeds and by as much as is shown. A row that
does not exist, or that the record does not have, is a warning, hence an error under ``-W``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

RECORD = "book/data/runs/scoreboard.json"
EMPTY, WORSE = "—", "▾"
Run = dict[str, Any]


class Row(NamedTuple):
    label: str
    page: str
    before: str | None  # the row whose cells are compared


ROWS = {
    "dense": Row("稠密模型", "book/start/model", None),
    "experts": Row("＋专家", "book/model/moe", "dense"),
    "bias": Row("＋偏置", "book/model/balance", "experts"),
    "mla": Row("＋MLA", "book/model/mla", "bias"),
    "mtp": Row("＋MTP", "book/model/mtp", "mla"),
    "fp8": Row("＋FP8", "book/training/fp8", "mtp"),
    "processes": Row("四个进程", "book/training/dualpipe", None),
    "rl": Row("＋强化学习", "book/rl/grpo", "mtp"),
}


class Column(NamedTuple):
    label: str
    value: Callable[[Run], float | None]
    show: Callable[[float], str]
    more_is_better: bool


def ten_thousands(value: float) -> str:
    """A large number as it is read in Chinese.

    >>> ten_thousands(2516864)
    '252 万'
    """
    return f"{value / 1e4:,.0f} 万"


COLUMNS = (
    Column("参数", lambda r: r.get("parameters"), ten_thousands, False),
    Column("激活参数", lambda r: r.get("active_parameters"), ten_thousands, False),
    Column("缓存", lambda r: r.get("cache_bytes"), "{:,.0f}".format, False),
    Column("乘加", lambda r: r.get("multiply_adds"), ten_thousands, False),
    Column("损失", lambda r: r.get("loss"), "{:.2f}".format, False),
    Column("MaxVio", lambda r: r.get("max_vio"), "{:.2f}".format, False),
    Column("token／步", lambda r: r.get("tokens_per_pass"), "{:.2f}".format, True),
    Column("token／秒", lambda r: r.get("tokens_per_second"), "{:,.0f}".format, True),
    Column("合律", lambda r: r.get("verse", {}).get("rules"), "{:.1%}".format, True),
)
CAPTION = (
    "同一个模型，一行多一个部件，训练 {steps} 步。"
    "各格是 {seeds} 个种子的平均，下面的小字是最小和最大；标 "
    f"{WORSE} 的比上一行差（强化学习一行比的是 MTP 一行）。参数、激活参数和乘加是训练时的，乘加按"
    "每个 token 算；缓存是每个 token 的字节；损失是留出的诗每个字多少 nat；后三列是逐首写诗时的："
    "主模型每前向一步得到几个 token，每秒几个，以及合乎格律的诗占多少。"
)
PIPELINE = (
    "四个进程训练的是 MLA 那一行的模型，{steps} 步，每秒读 {four} 个 token，一个进程 {one} 个，"
    "四个进程平均有 {idle:.0%} 的时间空闲。{alike}损失与一个进程至多相差 {difference}。"
)
ALIKE = "前 {steps} 步每个 token 选的专家都与一个进程的相同，"
PARTED = "此后至多相差 {difference}。"


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def values(runs: list[Run], column: Column) -> list[float]:
    """One number for each seed; none where the row has none."""
    return [x for run in runs if (x := column.value(run)) is not None]


def is_worse(now: list[float], before: list[float], *, more_is_better: bool) -> bool:
    """Whether even the best seed is worse than the worst of the row before.

    >>> is_worse([2.0, 3.0], [1.0, 1.9], more_is_better=False)
    True
    >>> is_worse([1.5, 3.0], [1.0, 1.9], more_is_better=False)
    False
    """
    if not now or not before:
        return False
    return max(now) < min(before) if more_is_better else min(now) > max(before)


def power(value: float) -> str:
    """A small number as a power of ten, rounded up, in words of one line.

    >>> power(4.8e-7), power(0)
    ('5×10⁻⁷', '0')
    """
    if value == 0:
        return "0"
    exponent = 0
    while value < 1:
        value, exponent = value * 10, exponent + 1
    digits = str(exponent).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    whole = int(value) + (value % 1 > 1e-9)
    return f"{whole}×10⁻{digits}"


class Scoreboard(SphinxDirective):
    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        last = self.arguments[0] if self.arguments else list(ROWS)[-1]
        if last not in ROWS:
            raise self.error(f"scoreboard has the rows {', '.join(ROWS)}, not {last!r}")
        path = Path(self.env.srcdir) / RECORD
        if not path.is_file():
            raise self.error(f"no file {RECORD}")
        self.env.note_dependency(str(path))
        record = json.loads(path.read_text("utf8"))
        runs: dict[str, list[Run]] = {}
        for run in record["runs"]:
            runs.setdefault(run["variant"], []).append(run)
        shown = list(ROWS)[: list(ROWS).index(last) + 1]
        if missing := [name for name in shown if name not in runs]:
            raise self.error(f"{RECORD} has no runs of {', '.join(missing)}")
        if "processes" in runs:  # the model of another row, trained in another way
            same = ("parameters", "active_parameters", "cache_bytes", "multiply_adds")
            runs["processes"] = [
                run | {name: runs["mla"][0][name] for name in same} for run in runs["processes"]
            ]
        return [self.table(record, runs, shown, lit=last if self.arguments else None)]

    def table(
        self, record: Run, runs: dict[str, list[Run]], shown: list[str], *, lit: str | None
    ) -> nodes.table:
        caption = CAPTION.format(seeds=len(record["seeds"]), steps=record["settings"]["steps"])
        if "processes" in shown:
            steps = record["settings"]["pipeline_steps"]
            alike = min(r["steps_alike"] for r in runs["processes"])
            rounded = [x for r in runs["processes"] for x in r["differences"][:alike]]
            parted = [x for r in runs["processes"] for x in r["differences"][alike:]]
            caption += PIPELINE.format(
                steps=steps,
                alike=ALIKE.format(steps=alike) if parted else "",
                difference=power(max(rounded)),
                four=f"{mean([r['training_tokens_per_second'] for r in runs['processes']]):,.0f}",
                one=f"{mean([r['one_process_tokens_per_second'] for r in runs['processes']]):,.0f}",
                idle=mean([r["idle"] for r in runs["processes"]]),
            )
            if parted:
                caption += PARTED.format(difference=power(max(parted)))
        table = nodes.table(
            "",
            nodes.title("", caption),
            classes=["colwidths-auto", "mb-4", "scoreboard"],
        )
        group = nodes.tgroup(cols=len(COLUMNS) + 1)
        group += [nodes.colspec(colwidth=1) for _ in range(len(COLUMNS) + 1)]
        head = [entry(nodes.Text("模型"))]
        head += [entry(nodes.Text(c.label), right=True) for c in COLUMNS]
        group += nodes.thead("", nodes.row("", *head))
        body = nodes.tbody()
        for name in shown:
            row = nodes.row("", self.link(name), classes=["lit"] if name == lit else [])
            for column in COLUMNS:
                row += self.cell(name, column, runs)
            body += row
        group += body
        table += group
        self.set_source_info(table)
        return table

    def link(self, name: str) -> nodes.entry:
        link = addnodes.pending_xref(
            "",
            nodes.inline("", ROWS[name].label),
            refdomain="std",
            reftype="doc",
            reftarget=f"/{ROWS[name].page}",
            refexplicit=True,
            refwarn=True,
            refdoc=self.env.docname,
        )
        return entry(link)

    def cell(self, name: str, column: Column, runs: dict[str, list[Run]]) -> nodes.entry:
        now = values(runs[name], column)
        if not now:
            return entry(nodes.Text(EMPTY), right=True)
        before = values(runs.get(ROWS[name].before or "", []), column)
        said = column.show(mean(now))
        parts: list[nodes.Node] = [nodes.Text(said)]
        worse = is_worse(now, before, more_is_better=column.more_is_better)
        if worse and said != column.show(mean(before)):  # a difference that the reader sees
            parts.append(nodes.inline("", WORSE, classes=["worse"]))
        low, high = (column.show(x) for x in (min(now), max(now)))
        if low != high:
            parts.append(nodes.inline("", f"{low}–{high}", classes=["spread"]))
        return entry(*parts, right=True)


def entry(*parts: nodes.Node, right: bool = False) -> nodes.entry:
    """A cell of the table."""
    classes = ["text-right"] if right else []
    return nodes.entry("", nodes.paragraph("", "", *parts), classes=classes)


def setup(app):
    app.add_directive("scoreboard", Scoreboard)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
