"""Poems of a model among poems of poets: the reader says who wrote each, and unfolds the answer.

``{quiz}`` shows the table `quiz` of ``book/data/runs/whole.json`` (`experiments/whole.py`) in its
order: drawn, not chosen. Each poem is a question as in `predict`; without scripts the answer is a
fold, on paper it stands below the poem.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from dsbook.predict import predict, predict_form, predict_result

RECORD = "book/data/runs/whole.json"
MODEL, POET = "模型", "诗人"
WRITERS = {"model": MODEL, "poet": POET}


class Poem(NamedTuple):
    """A row of the table."""

    by: str
    form: str
    rhyme: str
    title: str
    text: str
    author: str  # dynasty and name, empty where it is not known


def question(number: int, poem: Poem) -> str:
    """What stands above a poem.

    >>> question(3, Poem("poet", "五絕", "尤", "登鸛雀樓", "", ""))
    '第 3 首：登鸛雀樓（五絕，尤韵）'
    >>> question(3, Poem("poet", "五絕", "尤", "", "", ""))
    '第 3 首：无题（五絕，尤韵）'
    """
    return f"第 {number} 首：{poem.title or '无题'}（{poem.form}，{poem.rhyme}韵）"


def answer(poem: Poem) -> str:
    """Who wrote it.

    >>> answer(Poem("poet", "五絕", "尤", "登鸛雀樓", "", "唐 王之渙"))
    '诗人写的：唐，王之渙。'
    >>> answer(Poem("poet", "五絕", "尤", "登鸛雀樓", "", ""))
    '诗人写的，唐宋时的诗。'
    """
    if poem.by == "model":
        return "模型写的。题目与韵是别人的，句子在训练的诗里没有。"
    return (
        f"诗人写的：{poem.author.replace(' ', '，')}。" if poem.author else "诗人写的，唐宋时的诗。"
    )


class Quiz(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / RECORD
        if not path.is_file():
            raise self.error(f"no file {RECORD}")
        self.env.note_dependency(str(path))
        poems = json.loads(path.read_text("utf8"))["tables"]["quiz"]
        if not poems:
            raise self.error(f"{RECORD} has no poems for a quiz")
        return [self.one(i, Poem(**poem)) for i, poem in enumerate(poems, 1)]

    def one(self, number: int, poem: Poem) -> predict:
        name = f"quiz-{number}"
        node = predict(ids=[], name=name)
        text = question(number, poem)
        node += nodes.paragraph("", text, ids=[f"{name}-q"], classes=["predict-question"])
        couplets = [f"{couplet}。" for couplet in poem.text.split("。") if couplet]
        node += nodes.line_block("", *(nodes.line("", couplet) for couplet in couplets))
        form = predict_form(
            name=name,
            choices=[MODEL, POET],
            answer=WRITERS[poem.by],
            doc="",
            key="",
            tolerance=0.05,
        )
        result = predict_result()
        result += nodes.paragraph("", answer(poem))
        node += [form, result]
        for part in (node, form, result):
            self.set_source_info(part)
        return node


def setup(app):
    app.setup_extension("dsbook.predict")
    app.add_directive("quiz", Quiz)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
