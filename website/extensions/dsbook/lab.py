"""An interactive figure, without a kernel and without network. ::

    :::{lab} router
    :name: fig-router
    The caption, and after an empty line a legend.
    :::

The figure is ``website/assets/labs/router.js``; what all share is ``kit.js`` beside it. Numbers
that it needs from dsnotes or from a recorded run come from ``data()`` in ``labs/router.py``, where
there is one, and are laid into the page; that module may also name ``SCRIPTS`` that the figure's
own builds on. Without scripts and on paper stands the state the figure
opens in: the same function draws it here, wide and narrow.
"""

from __future__ import annotations

import inspect
import json
import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from py_mini_racer import MiniRacer
from sphinx.util.docutils import SphinxDirective

FOLDER = Path(__file__).parents[2] / "assets" / "labs"
WIDE, NARROW = 700, 340  # pixels of a column of text, on a desk and on a phone
WITHOUT = "这幅图可以动手：在能运行脚本的浏览器里打开本页，移动它的手柄，看它怎样变。"


class lab(nodes.General, nodes.Element):
    """A figure; `figure_name` is that of its script."""


def data_module(name: str) -> str | None:
    """The module that has the data of a figure."""
    module = f"dsbook.labs.{name.replace('-', '_')}"
    return module if find_spec(module) else None


@cache
def data(name: str) -> Any:
    """What the figure needs besides its own code, or None."""
    module = data_module(name)
    return import_module(module).data() if module else None


def as_json(name: str) -> str:
    text = json.dumps(data(name), ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # it stands inside a script element


def scripts(name: str) -> list[str]:
    """The scripts of a figure, in the order in which they run; a large one names its parts."""
    module = data_module(name)
    parts = getattr(import_module(module), "SCRIPTS", ()) if module else ()
    return ["kit", *parts, name]


@cache
def engine(name: str, pid: int) -> MiniRacer:
    """A JavaScript engine with the figure; one per process, for it does not survive a fork."""
    racer = MiniRacer()
    for script in scripts(name):
        racer.eval((FOLDER / f"{script}.js").read_text("utf8"))
    return racer


def still(name: str, width: int) -> str:
    """The figure as it opens, as SVG or HTML."""
    racer = engine(name, os.getpid())
    return racer.eval(f"Kit.still({json.dumps(name)}, {as_json(name)}, {width})")


class Lab(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec: ClassVar = {"name": directives.unchanged}

    def run(self):
        self.assert_has_content()
        name = self.arguments[0]
        path = FOLDER / f"{name}.js"
        if name == "kit" or not path.is_file():
            there = ", ".join(sorted(p.stem for p in FOLDER.glob("*.js") if p.stem != "kit"))
            raise self.error(f"lab: no figure {name!r}; there are {there}")
        sources: list[str | Path] = [FOLDER / f"{script}.js" for script in scripts(name)]
        if module := data_module(name):
            sources.append(inspect.getfile(import_module(module)))
        for source in sources:
            self.env.note_dependency(str(source))
        figure = nodes.figure("", lab(figure_name=name), classes=["lab-figure"])
        self.set_source_info(figure)
        words = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, words)
        first, *rest = words.children
        if not isinstance(first, nodes.paragraph):
            raise self.error("lab: the caption comes first, a paragraph")
        figure += nodes.caption(first.rawsource, "", *first.children)
        if rest:
            figure += nodes.legend("", *rest)
        self.add_name(figure)
        return [figure]


def visit_html(self, node):
    name = node["figure_name"]
    inside = f'<script type="application/json">{as_json(name)}</script>' if data(name) else ""
    self.body.append(
        f'<div class="lab" data-lab="{name}"><div class="lab-still wide">{still(name, WIDE)}</div>'
        f'<div class="lab-still narrow">{still(name, NARROW)}</div>'
        f'<p class="lab-off">{WITHOUT}</p>{inside}</div>'
    )
    raise nodes.SkipNode


def skip(self, node):
    raise nodes.SkipNode


def add_files(app, pagename, templatename, context, doctree):
    """Scripts only where there is something for them to do."""
    names = {node["figure_name"] for node in doctree.findall(lab)} if doctree is not None else ()
    for script in dict.fromkeys(part for name in sorted(names) for part in scripts(name)):
        app.add_js_file(f"labs/{script}.js", loading_method="defer")


def setup(app):
    app.add_node(lab, html=(visit_html, None), latex=(skip, None), text=(skip, None))
    app.add_directive("lab", Lab)
    app.connect("html-page-context", add_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
