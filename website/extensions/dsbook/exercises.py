"""What an exercise asks for stands in the line of its title: kind, difficulty, time.

``:class: hand stars-2 minutes-10`` becomes 手算 · ★★☆ · 10 分钟. With the setting
``exercise_badges_required`` every exercise of a page in ``book/`` has the three; a part of them, or
another kind, is always a warning.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx_exercise.nodes import exercise_enumerable_node, exercise_node

log = logging.getLogger(__name__)
KINDS = {
    "hand": "手算",
    "predict": "先猜再运行",
    "implement": "实现",
    "bug": "找错",
    "open": "开放",
}
STARS = 3


def badges(classes: list[str]) -> tuple[str, int, int] | None:
    """Kind, stars and minutes; None when the classes name none of the three, else ValueError.

    >>> badges(["exercise", "hand", "stars-2", "minutes-10"])
    ('手算', 2, 10)
    """
    kinds = [KINDS[c] for c in classes if c in KINDS]
    stars = [int(c[6:]) for c in classes if re.fullmatch(rf"stars-[1-{STARS}]", c)]
    minutes = [int(c[8:]) for c in classes if re.fullmatch(r"minutes-\d+", c)]
    if (len(kinds), len(stars), len(minutes)) == (1, 1, 1):
        return kinds[0], stars[0], minutes[0]
    if kinds or stars or minutes:
        raise ValueError(
            f"an exercise has one kind ({', '.join(KINDS)}), stars-1 to stars-{STARS} and "
            f"minutes-N; this one has {' '.join(classes)!r}"
        )
    return None


class exercise_badges(nodes.inline):
    """`kind`, `stars` and `minutes`."""


class AddBadges(SphinxPostTransform):
    default_priority = 900  # after sphinx-exercise has made its titles

    def run(self, **kwargs):
        def is_exercise(node):
            return isinstance(node, exercise_node | exercise_enumerable_node)

        for node in self.document.findall(is_exercise):
            try:
                found = badges(node["classes"])
            except ValueError as error:
                self.warn(str(error), node)
                continue
            if found:
                kind, stars, minutes = found
                text = f"{kind} · {'★' * stars}{'☆' * (STARS - stars)} · {minutes} 分钟"
                node[0] += nodes.Text(" ")
                node[0] += exercise_badges(text, text, kind=kind, stars=stars, minutes=minutes)
            elif self.config.exercise_badges_required and self.env.docname.startswith("book/"):
                self.warn("an exercise without kind, stars and minutes", node)

    def warn(self, text, node):
        log.warning("exercise %s: %s", node["label"], text, location=node, type="exercises")


def visit_html(self, node):
    stars = "★" * node["stars"] + "☆" * (STARS - node["stars"])
    self.body.append(
        f'<span class="badges">{node["kind"]} · <span role="img" '
        f'aria-label="难度 {node["stars"]}，最高 {STARS}">{stars}</span>'
        f" · {node['minutes']} 分钟</span>"
    )
    raise nodes.SkipNode


def setup(app):
    app.add_config_value("exercise_badges_required", False, "html", [bool])
    app.add_node(exercise_badges, html=(visit_html, None))
    app.add_post_transform(AddBadges)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
