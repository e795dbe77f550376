"""Slides, sheets and quizzes of a course, made from the pages.

``book/course/slides/NAME.yml`` says for the section of that name what stands on its ten slides, on
its sheet and in its quiz; a formula, a figure or a table is named by its label and taken from the
page as it was built, so that there is no second copy of it. A file has

- ``page``, the page of the section;
- ``slides``, ten of them: ``title``, ``lines`` (at most three), ``show`` (a label, or several) and
  ``notes`` for the speaker;
- ``sheet``: which ``paragraphs`` of the opening, or a ``problem`` where they cannot stand alone;
  ``figure`` and ``show``, labels, ``number``, the one to remember, and what it is, ``traps`` and
  ``rows``, where the traps stand in a table;
- ``quiz``: ``ask``, ``choices``, ``answer``, ``why`` and ``where`` (a label of the book); in the
  place of the first three ``predict``: which of the guesses of the page that have choices.

What can be shown besides labels: ``problem`` (the formula, figure or table that the section opens
with), ``traps`` (the titles of its three dearest traps) and ``predict`` (its first guess). A label
of a formula with code beside it shows both; ``only eq-…`` leaves the code out. A text may have
``$…$``, ```…```, ``**…**`` and ``{{key:.1f}}``, a number that the notebook of the section glued
(``{{other::key}}``: that another one did).

``{course-links}`` lists what there is, ``{course-quiz} NAME`` asks the questions of a section. When
the pages are finished, the hook writes ``book/course/slides/NAME.html``, ``sheets/NAME.html`` and
``key.html``, the answers for the instructor; ``make slides`` prints them.
"""

from __future__ import annotations

import json
import posixpath
import re
from copy import deepcopy
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from lxml import etree, html
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

from dsbook import katexmath
from dsbook.finish import parse

NAMES = ("moe", "balance", "mla", "mtp", "fp8", "dualpipe", "reward", "grpo", "v3", "r1")
HERE = "book/course"
TEXT = re.compile(r"\{\{(.+?)\}\}|\$(.+?)\$|`(.+?)`|\*\*(.+?)\*\*")
QUESTION = re.compile(r"^(:{3,})\{predict\} (.+?)\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
ROLES = {"eq": "eq", "fig": "numref", "tab": "numref"}
LETTERS = "ABCDEF"
ORDER = "一二三四五六七八"


class CourseError(ExtensionError):
    """A file of the course names what is not there."""


def load(source: Path, name: str) -> dict:
    return yaml.safe_load((source / HERE / "slides" / f"{name}.yml").read_text("utf8"))


def glued(folder: Path, name: str, given: str) -> str:
    """What a notebook glued, in a format: ``key``, ``key:.1f`` or ``notebook::key:.1f``."""
    notebook, _, rest = given.rpartition("::")
    key, _, form = rest.partition(":")
    path = folder / "notebooks" / f"{notebook or name}.glue.json"
    found = json.loads(path.read_text("utf8")).get(key)
    if found is None:
        raise CourseError(f"course: {path.stem} has no number {key!r}")
    value = found["data"]["text/plain"].strip("'\"")
    return value if form in ("", "s") else format(float(value), form.replace("d", ".0f"))


class Section:
    """A page that was built, and what is to be made of it."""

    def __init__(self, out: Path, source: Path, glue: Path, name: str, macros: dict) -> None:
        self.name, self.glue, self.macros = name, glue, macros
        self.data = load(source, name)
        self.page = self.data["page"]
        self.tree = parse((out / f"{self.page}.html").read_text("utf8"))
        self.ids = {e.get("id"): e for e in self.tree.xpath("//article//*[@id]")}
        self.address = posixpath.relpath(self.page, f"{HERE}/slides") + ".html"
        heading = self.tree.xpath("//article//h1")[0]
        self.title = heading.text_content().strip().removesuffix("#")

    def text(self, text: str) -> str:
        """HTML of a text of the file."""

        def one(match: re.Match[str]) -> str:
            number, tex, code, bold = match.groups()
            if number:
                return escape(glued(self.glue, self.name, number))
            if tex:
                return katexmath.render(tex, macros=self.macros)
            return f"<code>{escape(code)}</code>" if code else f"<b>{escape(bold)}</b>"

        parts, end = [], 0
        for match in TEXT.finditer(text):
            parts += [escape(text[end : match.start()], quote=False), one(match)]
            end = match.end()
        return "".join(parts) + escape(text[end:], quote=False)

    def copy(self, element: etree.ElementBase) -> str:
        """HTML of a part of the page that can stand on another one."""
        made = deepcopy(element)
        made.tail = None
        drop = ".//a[contains(@class, 'headerlink') or contains(@class, 'testlink')] | .//caption"
        for e in made.xpath(f"{drop} | .//img[contains(@class, 'ink-dark')] | .//script"):
            e.drop_tree()
        for e in made.xpath(".//a"):
            e.drop_tag()
        for e in made.xpath("descendant-or-self::*[@id]"):
            del e.attrib["id"]
        for e in made.xpath("descendant-or-self::img"):
            address = posixpath.join(posixpath.dirname(self.page), e.get("src"))
            e.set("src", posixpath.relpath(address, f"{HERE}/slides"))
            for given in ("loading", "style", "class"):
                e.attrib.pop(given, None)
        return html.tostring(made, encoding="unicode")

    def element(self, label: str) -> etree.ElementBase:
        found = self.ids.get(f"equation-{label}" if label.startswith("eq-") else label)
        if found is None:
            raise CourseError(f"course: {self.page} has no {label!r}")
        return found

    def problem(self) -> etree.ElementBase:
        """The section that opens the page."""
        for section in self.tree.xpath("//article//section[h2]"):
            if "要解决的问题" in section.find("h2").text_content():
                return section
        raise CourseError(f"course: {self.page} has no section 要解决的问题")

    def traps(self) -> list[etree.ElementBase]:
        """The traps of the page, those that are not folded first."""
        found = self.tree.xpath("//article//div[contains(@class, 'trap')]")
        found = [e for e in found if "admonition" in e.get("class").split()]
        return sorted(found, key=lambda e: "dropdown" in e.get("class"))

    def three_traps(self) -> list[tuple[str, str]]:
        """(title, text) of the three dearest: of the page's boxes, or of rows of its table."""
        given = self.data["sheet"]
        if "rows" in given:
            rows = self.element(given["traps"]).xpath("./tbody/tr")
            cells = [rows[i - 1].xpath("./td") for i in given["rows"]]
            return [tuple(self.inner(cell) for cell in row) for row in cells]
        found = []
        for trap in self.traps()[:3]:
            title, *rest = trap
            name = re.sub(r"^(常见错误 )?\d+[.：]\s*", "", title.text_content().strip())
            made = deepcopy(title)
            if made.text:
                made.text = re.sub(r"^\s*(常见错误 )?\d+[.：]\s*", "", made.text)
            found.append((self.inner(made) or name, "".join(map(self.copy, rest))))
        return found

    def inner(self, element: etree.ElementBase) -> str:
        """HTML of what is inside a cell or a title."""
        whole = self.copy(element)
        whole = re.sub(r"^<\w+[^>]*>|</\w+>\s*$", "", whole.strip()).strip()
        return re.sub(r"^<p>(.*)</p>$", r"\1", whole, flags=re.DOTALL)

    def exhibit(self, label: str) -> str:
        """HTML of what a label names."""
        only = label.startswith("only ")
        label = label.removeprefix("only ")
        if label == "problem":
            rest = self.problem().xpath(
                "./div[contains(@class, 'math')] | ./figure | .//table | .//div[@class='guess']"
            )
            return self.show(rest[0])
        if label == "traps":
            items = "".join(f"<li>{title}</li>" for title, _ in self.three_traps())
            return f'<ol class="traps">{items}</ol>'
        if label == "predict":
            return self.show(self.tree.xpath("//div[@class='guess']")[0])
        element = self.element(label)
        if label.startswith("eq-") and not only:
            beside = element.xpath("ancestor::div[starts-with(@class, 'eqcode ')]")
            element = beside[0] if beside else element
        return self.show(element)

    def show(self, element: etree.ElementBase) -> str:
        if element.tag == "figure":
            return self.copy(element.xpath(".//img")[0])
        if element.get("class") == "guess":
            question = self.copy(element.xpath("./p")[0])
            choices = element.xpath(".//label[input[@type='radio']]")
            items = "".join(f"<li>{escape(e.text_content().strip())}</li>" for e in choices)
            return f'<div class="ask">{question}<ol>{items}</ol></div>'
        return self.copy(element)

    def place(self, label: str) -> str:
        """A link to where it stands in the book."""
        label = label.removeprefix("only ")
        if label in ("problem", "traps", "predict"):
            return ""
        element = self.element(label)
        number = "".join(element.xpath(".//span[@class='caption-number']/text()")).strip()
        if label.startswith("eq-"):
            number = "式 " + "".join(element.xpath("./span[@class='eqno']/text()")).strip()
        return f'<a href="{self.address}#{element.get("id")}">{number or "书中"}</a>'


def labels(slide: dict) -> list[str]:
    show = slide["show"]
    return [show] if isinstance(show, str) else show


def document(title: str, kind: str, body: str, root: str) -> str:
    """A page that stands alone but for the fonts, the style sheets and the figures of the site."""
    sheets = "".join(
        f'<link rel="stylesheet" href="{root}_static/{name}">\n'
        for name in ("katex/katex.min.css", "pygments.css", "course.css")
    )
    return (
        '<!DOCTYPE html>\n<html lang="zh-CN" data-theme="light">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="{root}_static/favicon.svg">\n'
        f'{sheets}<script defer src="{root}_static/course.js"></script>\n</head>\n'
        f'<body class="{kind}">\n{body}</body>\n</html>\n'
    )


def deck(section: Section) -> str:
    """The slides of a section, each with its notes below."""
    slides, total = section.data["slides"], len(section.data["slides"])
    parts = [
        f'<header class="bar"><a href="{section.address}">{escape(section.title)}</a>'
        '<a href="../slides.html">各节的幻灯</a>'
        f'<a href="../sheets/{section.name}.html">一页纸</a>'
        '<label><input type="checkbox" id="with-notes"> 讲稿</label>'
        "<span>左右键翻页，F 全屏</span></header>\n<main>\n"
    ]
    for i, slide in enumerate(slides, 1):
        shown = [section.exhibit(label) for label in labels(slide)]
        beside = " beside" if slide.get("beside") else ""
        lines = "".join(f"<li>{section.text(line)}</li>" for line in slide["lines"])
        places = " ".join(filter(None, map(section.place, labels(slide))))
        title = section.text(slide["title"])
        heading = f"<h1>{title}</h1>" if i == 1 else f"<h2>{title}</h2>"
        parts.append(
            f'<section id="s{i}"><div class="slide{beside}">{heading}\n'
            f'<div class="body" data-fit><ul>{lines}</ul>\n<div class="show">'
            f"{''.join(shown)}</div></div>\n"
            f"<footer><span>{escape(section.title)}</span><span>{places}</span>"
            f"<span>CC BY 4.0</span><span>{i} / {total}</span></footer></div>\n"
            f'<div class="notes">{section.text(slide["notes"])}</div></section>\n'
        )
    parts.append("</main>\n")
    return document(f"{section.title}：幻灯", "slides", "".join(parts), "../../../")


def is_tall(figure: str) -> bool:
    """Whether a figure is higher than wide.

    >>> is_tall('<img width="440" height="738">'), is_tall('<img width="9" height="5">')
    (True, False)
    """
    size = {
        name: float(value) for name, value in re.findall(r'\b(width|height)="([\d.]+)"', figure)
    }
    return size.get("height", 0) > size.get("width", 0)


def sheet(section: Section) -> str:
    """One sheet of paper: problem, formula, line of code, number, three traps."""
    given = section.data["sheet"]
    paragraphs = section.problem().xpath("./p")
    problem = "".join(section.copy(paragraphs[i - 1]) for i in given.get("paragraphs", [1]))
    if "problem" in given:
        problem = f"<p>{section.text(given['problem'])}</p>"
    figure = section.exhibit(given["figure"]) if "figure" in given else ""
    value, meaning = given["number"]
    traps = "".join(
        f"<li><b>{title}</b><div>{text}</div></li>" for title, text in section.three_traps()
    )
    shown = "".join(section.exhibit(label) for label in labels(given))
    number = (
        f'<section class="number"><h2>记住一个数</h2><p><b>{section.text(value)}</b> '
        f"{section.text(meaning)}</p></section>\n"
    )
    figure = f'<section class="figure">{figure}</section>\n'
    mistakes = f'<section><h2>三个常见错误</h2><ol class="long">{traps}</ol></section>\n'
    rest = number + figure + mistakes
    if is_tall(figure):  # above the traps it would be too small to read
        rest = f'<div class="beside">\n{figure}<div>\n{number}{mistakes}</div>\n</div>\n'
    body = (
        f'<header class="bar"><a href="{section.address}">{escape(section.title)}</a>'
        f'<a href="../slides.html">各节的一页纸</a><a href="../slides/{section.name}.html">幻灯</a>'
        f'</header>\n<main class="sheet" data-fit>\n<h1>{escape(section.title)}</h1>\n'
        f'<section class="problem"><h2>问题</h2>{problem}</section>\n'
        f"<section><h2>{given.get('heading', '式子与代码')}</h2>{shown}</section>\n"
        f"{rest}"
        "<footer>DeepSeek 关键技术：一本可以运行的书。图、表、式与文献的号都是书里的。"
        "文字与图按 CC BY 4.0 使用。</footer>\n"
        "</main>\n"
    )
    return document(f"{section.title}：一页纸", "paper", body, "../../../")


def key(out: Path) -> str:
    """The answers, as the page of the quizzes has them, for printing."""
    tree = parse((out / HERE / "quizzes.html").read_text("utf8"))
    parts = [
        '<header class="bar"><a href="quizzes.html">测验</a></header>\n<main>\n'
        "<h1>测验的答案</h1>\n<p>给教师：每题的答案，次序与测验一页相同。</p>\n"
    ]
    for section in tree.xpath("//section[h2][.//div[@class='guess']]"):
        parts.append(f"<h2>{escape(section.find('h2').text_content().strip('#'))}</h2>\n<ol>\n")
        for guess in section.xpath(".//div[@class='guess']"):
            answer = guess.xpath("./form/@data-answer")[0]
            given = [e.get("value") for e in guess.xpath(".//input[@type='radio']")]
            letter = f"{LETTERS[given.index(answer)]}. " if answer in given else ""
            question = deepcopy(guess.xpath("./p")[0])
            question.tag, question.tail = "span", None
            del question.attrib["id"]
            asked = html.tostring(question, encoding="unicode")
            parts.append(f"<li>{asked}<br><b>{escape(letter + answer)}</b></li>\n")
        parts.append("</ol>\n")
    return document("测验的答案", "paper key", "".join(parts) + "</main>\n", "../../")


def write(out: Path, source: Path, glue: Path, macros: dict) -> None:
    """All files of the course."""
    for name in NAMES:
        section = Section(out, source, glue, name, macros)
        for kind, make in (("slides", deck), ("sheets", sheet)):
            path = out / HERE / kind / f"{name}.html"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make(section), "utf8")
    (out / HERE / "key.html").write_text(key(out), "utf8")


# --- on the pages ---


def guesses(text: str) -> list[dict]:
    """The guesses of a page that have choices, as its source writes them."""
    found = []
    for _, ask, body in QUESTION.findall(text):
        options = dict(re.findall(r"^:(choices|answer): (.+)$", body, re.MULTILINE))
        if len(options) == 2:
            choices = [choice.strip() for choice in options["choices"].split("|")]
            found.append({"ask": ask.strip(), "choices": choices, "answer": options["answer"]})
    return found


class CourseQuiz(SphinxDirective):
    """The questions of a section; the guess is a `predict`, the answer its fold."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name, source = self.arguments[0], Path(self.env.srcdir)
        data = load(source, name)
        page = source / f"{data['page']}.md"
        for path in (source / HERE / "slides" / f"{name}.yml", page):
            self.env.note_dependency(str(path))
        lines: list[str] = []
        for i, item in enumerate(data["quiz"]):
            asked = item
            if "predict" in item:
                asked = guesses(page.read_text("utf8"))[item["predict"] - 1]
            where = item["where"]
            role = ROLES.get(where.partition("-")[0], "ref")
            lines += [
                f"::::{{predict}} 第{ORDER[i]}题：{asked['ask']}",
                f":choices: {' | '.join(map(str, asked['choices']))}",
                f":answer: {asked['answer']}",
                "",
                f"{item['why']}见 {{{role}}}`{where}`。",
                "::::",
                "",
            ]
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, source=page.name), self.content_offset, node)
        return node.children


class CourseLinks(SphinxDirective):
    """A line for each section: its page, its slides, its sheet; last the answers."""

    def run(self) -> list[nodes.Node]:
        made = nodes.bullet_list()
        for name in NAMES:
            lines = [f"{{ref}}`sec-{name}`："]
            item = nodes.Element()
            self.state.nested_parse(StringList(lines, source=name), self.content_offset, item)
            line = item.children[0]
            for text, kind in (("幻灯", "slides"), ("一页纸", "sheets")):
                line += nodes.reference("", text, refuri=f"{kind}/{name}.html", internal=True)
                line += nodes.Text("、" if kind == "slides" else "")
            made += nodes.list_item("", line)
        answers = nodes.reference("", "测验的答案", refuri="key.html", internal=True)
        made += nodes.list_item("", nodes.paragraph("", "", answers))
        return [made]


def finished(app, exception) -> None:
    out = Path(app.outdir)
    if exception or not (out / HERE / "quizzes.html").is_file():
        return
    glue = Path(app.env.mystnb_config.output_folder)
    write(out, Path(app.srcdir), glue, app.config.katex_macros)


def setup(app):
    app.add_directive("course-quiz", CourseQuiz)
    app.add_directive("course-links", CourseLinks)
    app.connect("build-finished", finished, priority=950)  # after `finish`
    return {"parallel_read_safe": True, "parallel_write_safe": True}
