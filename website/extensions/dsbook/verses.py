"""Poems before and after reinforcement learning, side by side, from the record of the scoreboard.

``{verses}`` shows a prompt at a time: what the model wrote before and after, with the rhymes and
the tones that break the pattern marked as `dsnotes.rl.verse` finds them. With scripts the two are
written character by character and a button turns to the next prompt; without them, and on paper,
the first stands there. The poems are those of the first seed, drawn at random and not chosen.
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from dsnotes.rl.verse import judge, rhyme_places, split, tone_places

RECORD = "book/data/runs/scoreboard.json"
CAPTION = (
    "同一个小模型，同样的提示，各写一首。带点的字押了韵，划线的字不合平仄。"
    "{many} 首由随机数抽出，没有挑选。"
)


def marked(text: str, rhyme: str) -> str:
    """The four lines of a poem as HTML, a <b> around rhymes, an <i> around tones that break.

    >>> marked("白日依山盡，黃河入海流。欲窮千里目，更上一層樓。", "尤").split("<br>")[3]
    '更上一層<b>樓</b>。'
    """
    lines = split(text)
    if lines is None:
        return escape(text)
    signs = {(line, place): "i" for line, place, fits in tone_places(lines, rhyme) if not fits}
    kept = zip((1, 3), rhyme_places(lines, rhyme), strict=True)
    signs |= {(line, len(lines[line]) - 1): "b" for line, fits in kept if fits}
    written = []
    for i, line in enumerate(lines):
        tags = [(signs.get((i, j)), c) for j, c in enumerate(line)]
        row = "".join(f"<{tag}>{c}</{tag}>" if tag else c for tag, c in tags)
        written.append(row + "，。"[i % 2])
    return "<br>".join(written)


def verdict(text: str, rhyme: str) -> str:
    """What the rules say, in a few words.

    >>> verdict("白日依山盡，黃河入海流。欲窮千里目，更上一層樓。", "尤")
    '合律'
    """
    found = judge(text, form="五", rhyme=rhyme)
    if not found.form:
        return "不成绝句"
    if found.keeps_all_rules:
        return "合律"
    wrong = [] if found.rhyme == 1 else ["一处不押韵" if found.rhyme else "不押韵"]
    return "，".join(wrong + ["平仄有误"] * (found.tones < 1))


class Verses(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / RECORD
        self.env.note_dependency(str(path))
        runs = json.loads(path.read_text("utf8"))["runs"]
        poems = next(run["poems"] for run in runs if run["variant"] == "rl")
        pairs = []
        for i, poem in enumerate(poems):
            sides = [
                f'<div><p class="when">{when}</p><p class="poem" lang="zh-Hant">'
                f"{marked(poem[key], poem['rhyme'])}</p>"
                f'<p class="verdict">{verdict(poem[key], poem["rhyme"])}</p></div>'
                for key, when in (("before", "强化学习之前"), ("after", "之后"))
            ]
            hidden = " hidden" if i else ""
            head = f'<p class="prompt">五言，限“<span lang="zh-Hant">{poem["rhyme"]}</span>”韵</p>'
            pairs.append(f'<div class="pair"{hidden}>{head}{"".join(sides)}</div>')
        html = (
            f'<figure class="verses">{"".join(pairs)}<figcaption>'
            f"{CAPTION.format(many=len(poems))}</figcaption></figure>"
        )
        return [nodes.raw("", html, format="html")]


def setup(app):
    app.add_directive("verses", Verses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
