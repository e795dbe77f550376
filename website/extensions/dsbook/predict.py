"""A result that is seen only after one has said what one expects. ::

    :::{predict} 把节点 1 关掉，专家 14 还会被选中吗？
    :choices: 会 | 不会
    The result: any text, formulas, figures and glued numbers.
    :::

``:choices:`` are separated by ``|``; with ``:answer:`` a number is asked for, or one of the choices
is the right one, and the page says how far off the guess is; with neither any text will do. The
answer is a number, one of the choices, or what a notebook glued: ``/notebooks/moe.ipynb::key``.
``:tolerance:`` is the difference, in parts of the answer, that counts as right (0.05).

Without scripts it is a fold (``details``); the form, which ``page.js`` serves, is shown only with
them. On paper the result is printed.
"""

from __future__ import annotations

from html import escape

from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb.ext.glue.crossref import read_glue_cache
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)


class predict(nodes.General, nodes.Element):
    """Holds the question, the form and the result."""


class predict_form(nodes.General, nodes.Element):
    """The form; what it needs stands in its attributes."""


class predict_result(nodes.General, nodes.Element):
    """The fold with the result."""


def number(text: str) -> float | None:
    """
    >>> number("0.31"), number("−3"), number("会")
    (0.31, -3.0, None)
    """
    try:
        return float(text.replace("−", "-").replace(",", ""))
    except ValueError:
        return None


class Predict(SphinxDirective):
    required_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec = {  # noqa: RUF012
        "choices": directives.unchanged_required,
        "answer": directives.unchanged_required,
        "tolerance": float,
    }

    def run(self):
        self.assert_has_content()
        choices = [c.strip() for c in self.options.get("choices", "").split("|") if c.strip()]
        answer, key = self.options.get("answer", "").strip(), ""
        doc = ""
        if "::" in answer:
            notebook, _, key = answer.partition("::")
            _, file = self.env.relfn2path(notebook)
            self.env.note_dependency(file)
            doc, answer = self.env.path2doc(file), ""
        elif answer and (answer not in choices if choices else number(answer) is None):
            raise self.error("predict: :answer: is a number, or one of the :choices:")
        if len(choices) == 1:
            raise self.error("predict: :choices: are two or more, with | between them")
        name = f"predict-{self.env.new_serialno('predict') + 1}"
        node = predict(ids=[], name=name)
        self.set_source_info(node)
        words, messages = self.state.inline_text(self.arguments[0], self.lineno)
        question = nodes.paragraph("", "", *words, ids=[f"{name}-q"], classes=["predict-question"])
        form = predict_form(
            name=name, choices=choices, answer=answer, doc=doc, key=key,
            tolerance=self.options.get("tolerance", 0.05),
        )  # fmt: skip
        self.set_source_info(form)
        result = predict_result()
        self.state.nested_parse(self.content, self.content_offset, result)
        node += [question, form, result]
        return [node, *messages]


class FillAnswers(SphinxPostTransform):
    default_priority = 4  # like MyST-NB's own gluing

    def run(self, **kwargs):
        for form in self.document.findall(predict_form):
            if not form["key"]:
                continue
            folder = str(self.env.mystnb_config.output_folder)
            data = read_glue_cache(folder, form["doc"]).get(form["key"], {}).get("data", {})
            form["answer"] = data.get("text/plain", "").strip("'\"")
            if form["choices"] and form["answer"] in form["choices"]:
                continue
            if form["choices"] or number(form["answer"]) is None:
                log.warning(
                    "predict: %s of %s is %r, no number and no choice",
                    form["key"], form["doc"], form["answer"], location=form, type="predict",
                )  # fmt: skip


def visit_predict(self, node):
    self.body.append(f'<div class="guess" id="{node["name"]}">\n')


def depart_div(self, node):
    self.body.append("</div>\n")


def visit_form(self, node):
    name, question = node["name"], f"{node['name']}-q"
    data = f' data-answer="{escape(node["answer"])}" data-tolerance="{node["tolerance"]}"'
    self.body.append(f'<form class="predict-form" autocomplete="off"{data}>\n')
    if node["choices"]:
        self.body.append(
            f'<span class="predict-choices" role="radiogroup" aria-labelledby="{question}">'
        )
        for choice in node["choices"]:
            value = escape(choice)
            self.body.append(
                f'<label><input type="radio" name="{name}" value="{value}" required> '
                f"{value}</label>"
            )
        self.body.append("</span>\n")
    else:
        mode = "decimal" if node["answer"] else "text"
        self.body.append(
            f'<label>我猜 <input name="{name}" inputmode="{mode}" aria-describedby="{question}"'
            " required></label>\n"
        )
    self.body.append('<button type="submit">看结果</button>\n</form>\n')
    self.body.append('<p class="predict-said" role="status"></p>\n')
    raise nodes.SkipNode


def visit_result(self, node):
    self.body.append('<details class="predict-result">\n<summary>先猜，再看结果</summary>\n')


def depart_result(self, node):
    self.body.append("</details>\n")


def skip(self, node):
    raise nodes.SkipNode


def nothing(self, node):
    """Other formats have no form."""


def setup(app):
    plain = {"latex": (nothing, nothing), "text": (nothing, nothing)}
    none = {"latex": (skip, None), "text": (skip, None)}
    app.add_node(predict, html=(visit_predict, depart_div), **plain)
    app.add_node(predict_form, html=(visit_form, None), **none)
    app.add_node(predict_result, html=(visit_result, depart_result), **plain)
    app.add_directive("predict", Predict)
    app.add_post_transform(FillAnswers)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
