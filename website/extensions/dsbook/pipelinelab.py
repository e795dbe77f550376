"""Make a figure of a pipeline schedule interactive, without a kernel and without network. ::

    :::{pipeline-lab}
    ```{nbfigure} /notebooks/dualpipe.ipynb::fig-schedule
    ...
    ```
    :::

The figure inside is what shows without JavaScript and on paper. With it, ``pipeline.js`` puts
controls and a timeline in the place of its picture. Which rank does what after what comes from
``dsnotes.training.dualpipe.schedule``, worked out here and laid into the page; the browser
only places the actions in time.

One letter is one computation: a b forward, c d full backward, e f backward for the input, at the
first or second stage of the rank; w the weight backward that was put off longest. A capital
overlaps with the letter after it. Micro-batches follow in order at each stage, beginning with the
one that is given.
"""

from __future__ import annotations

import json
from functools import cache

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from dsnotes.training.dualpipe.actions import Kind, Schedule
from dsnotes.training.dualpipe.schedule import SCHEDULES

RANKS = (2, 4, 8, 16)
LETTERS = {
    Kind.FORWARD: "ab",
    Kind.BACKWARD: "cd",
    Kind.BACKWARD_INPUT: "ef",
    Kind.BACKWARD_WEIGHT: "ww",
}


def micro_batches(ranks: int) -> list[int]:
    """The numbers to choose from: legal for all four schedules; for 8 ranks 20 is among them."""
    return sorted({2 * ranks, 2 * ranks + 4, 3 * ranks, 4 * ranks})


def encode(schedule: Schedule) -> dict:
    """A schedule as the page holds it: for each rank its stages and its letters."""
    ranks = []
    for rank, actions in enumerate(schedule.actions):
        stages, first, letters = schedule.stages_of(rank), {}, ""
        for action in actions:
            for i, part in enumerate(action.parts):
                first.setdefault(part.stage, part.micro_batch)
                letter = LETTERS[part.kind][stages.index(part.stage)]
                letters += letter.upper() if i < len(action.parts) - 1 else letter
        ranks.append({"stages": [[stage, first[stage]] for stage in stages], "letters": letters})
    return {
        "name": schedule.name,
        "stages": schedule.num_stages,
        "microBatches": schedule.num_micro_batches,
        "ranks": ranks,
    }


@cache
def data() -> str:
    """All choices as JSON, for a script element."""
    choices = [
        encode(build(ranks, m))
        for build in SCHEDULES.values()
        for ranks in RANKS
        for m in micro_batches(ranks)
    ]
    return json.dumps(choices, separators=(",", ":"))


class pipeline_lab(nodes.General, nodes.Element):
    """Holds the figure."""


class PipelineLab(SphinxDirective):
    has_content = True

    def run(self):
        self.assert_has_content()
        node = pipeline_lab()
        self.set_source_info(node)
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


def visit_html(self, node):
    self.body.append(self.starttag(node, "div", CLASS="pipeline-lab"))


def depart_html(self, node):
    self.body.append(f'<script type="application/json">{data()}</script></div>\n')


def nothing(self, node):
    """Other formats show the figure alone."""


def add_files(app, pagename, templatename, context, doctree):
    """Script and style only where there is something for them to do."""
    if doctree is not None and next(doctree.findall(pipeline_lab), None) is not None:
        app.add_css_file("pipeline.css")
        app.add_js_file("pipeline.js", loading_method="defer")


def setup(app):
    plain = (nothing, nothing)
    app.add_node(pipeline_lab, html=(visit_html, depart_html), latex=plain, text=plain)
    app.add_directive("pipeline-lab", PipelineLab)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
