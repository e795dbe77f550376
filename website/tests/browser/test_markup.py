"""Every page is sound HTML, as far as can be told without Java: what is opened is closed, nothing
stands where it may not, every id is there once and every reference finds its own.

test_html.py asks the reference checker, which knows more and needs more.
"""

import re
from collections import Counter
from html.parser import HTMLParser

import pytest

VOID = {
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source",
    "track", "wbr",
}  # fmt: skip
# what ends an open paragraph: a browser reads <p><div></div></p> as something else
BLOCK = {
    "address", "article", "aside", "blockquote", "details", "div", "dl", "fieldset",
    "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header",
    "hgroup", "hr", "main", "menu", "nav", "ol", "p", "pre", "search", "section", "table", "ul",
}  # fmt: skip
CLICKED = {"a", "button", "select", "textarea", "label", "summary", "iframe"}
PARENTS = {
    "li": {"ul", "ol", "menu"},
    "dt": {"dl", "div"},
    "dd": {"dl", "div"},
    "tr": {"thead", "tbody", "tfoot", "table"},
    "td": {"tr"},
    "th": {"tr"},
    "caption": {"table"},
    "figcaption": {"figure"},
    "summary": {"details"},
    "legend": {"fieldset"},
    "option": {"select", "optgroup", "datalist"},
    "source": {"picture", "audio", "video"},
}
CHILDREN = {
    "ul": {"li", "script", "template"},
    "ol": {"li", "script", "template"},
    "dl": {"dt", "dd", "div", "script", "template"},
}
LABELLED = {"button", "input", "meter", "output", "progress", "select", "textarea"}
REFERENCES = {
    "aria-activedescendant", "aria-controls", "aria-describedby", "aria-details", "aria-flowto",
    "aria-labelledby", "aria-owns", "for", "headers", "list",
}  # fmt: skip
OBSOLETE = {"center", "font", "tt", "big", "strike", "acronym", "frame", "frameset", "marquee"}


class Checker(HTMLParser):
    """Collects what is wrong with a page in `found`."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.open = []
        self.ids = Counter()
        self.tag_of = {}
        self.wanted = []  # (line, tag, attribute, id)
        self.title = None
        if not text.lower().startswith("<!doctype html>"):
            self.complain("no doctype")
        self.feed(text)
        self.close()
        for tag in self.open:
            self.complain(f"<{tag}> is never closed")
        for name, times in self.ids.items():
            if times > 1:
                self.complain(f"id {name!r} {times} times")
        for line, tag, attribute, name in self.wanted:
            if name not in self.ids:
                self.found.append((line, f"{attribute}={name!r} of <{tag}> leads nowhere"))
            elif attribute == "for" and tag == "label" and self.tag_of[name] not in LABELLED:
                self.found.append((line, f"a label for <{self.tag_of[name]}>"))
        if not (self.title or "").strip():
            self.complain("no title")

    def complain(self, what):
        self.found.append((self.getpos()[0], what))

    def handle_starttag(self, tag, attrs):
        self.check_place(tag)
        self.check_attributes(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        """`<path/>`; in HTML itself the stroke says nothing."""
        self.check_place(tag)
        self.check_attributes(tag, attrs)
        if tag not in VOID and not {"svg", "math"} & {tag, *self.open}:
            self.complain(f"<{tag}/> does not close <{tag}>")

    def handle_endtag(self, tag):
        if tag in VOID:
            self.complain(f"</{tag}>")
        elif self.open and self.open[-1] == tag:
            self.open.pop()
        elif tag in self.open:
            while self.open[-1] != tag:
                self.complain(f"<{self.open.pop()}> is open where </{tag}> stands")
            self.open.pop()
        else:
            self.complain(f"</{tag}> closes nothing")

    def handle_data(self, data):
        if self.open and self.open[-1] == "title" and "svg" not in self.open:
            self.title = (self.title or "") + data
        elif self.open and self.open[-1] in CHILDREN and data.strip():
            self.complain(f"text right in <{self.open[-1]}>: {data.strip()[:30]!r}")

    def check_place(self, tag):
        parent = self.open[-1] if self.open else None
        if {"svg", "math"} & set(self.open):
            inside = self.open[max(i for i, t in enumerate(self.open) if t in ("svg", "math")) :]
            if tag == "a" and "a" in inside:
                self.complain("<a> in <a>")
            return  # other rules hold there
        if tag in BLOCK and "p" in self.open:
            self.complain(f"<{tag}> in <p>")
        if tag in OBSOLETE:
            self.complain(f"<{tag}> is obsolete")
        if tag in PARENTS and parent not in PARENTS[tag]:
            self.complain(f"<{tag}> in <{parent}>")
        if parent in CHILDREN and tag not in CHILDREN[parent]:
            self.complain(f"<{tag}> in <{parent}>")
        if tag in CLICKED | {"input"} and (outer := {"a", "button"} & set(self.open)):
            self.complain(f"<{tag}> in <{outer.pop()}>")
        if tag in BLOCK and {"span", "button"} & set(self.open):
            self.complain(f"<{tag}> in <{'span' if 'span' in self.open else 'button'}>")

    def check_attributes(self, tag, attrs):
        given = dict(attrs)
        for name, times in Counter(name for name, _ in attrs).items():
            if times > 1:
                self.complain(f"{name} of <{tag}> {times} times")
        if "id" in given:
            name = given["id"] or ""
            if not name or re.search(r"\s", name):
                self.complain(f"id {name!r}")
            self.ids[name] += 1
            self.tag_of[name] = tag
        for attribute in REFERENCES & given.keys():
            for name in (given[attribute] or "").split() or [""]:
                self.wanted.append((self.getpos()[0], tag, attribute, name))
        if tag == "html" and not given.get("lang"):
            self.complain("no language")
        if tag == "img" and "alt" not in given:
            self.complain(f"no alt: {given.get('src')}")
        if tag == "iframe" and not given.get("title"):
            self.complain("a frame without a title")
        if {"svg", "math"} & {tag, *self.open}:
            return
        for attribute in ("href", "src"):
            if re.search(r"\s", (given.get(attribute) or "").strip()):
                self.complain(f"white space in {attribute}: {given[attribute]!r}")


def trouble(text):
    return Checker(text).found


def test_every_page_is_sound(html):
    pages = [p for p in sorted(html.rglob("*.html")) if "_static" not in p.parts]
    assert len(pages) > 100
    found = [
        f"{page.relative_to(html)}:{line}: {what}"
        for page in pages
        for line, what in trouble(page.read_text("utf8"))
    ]
    assert not found, f"{len(found)}:\n" + "\n".join(found[:60])


SOUND = (
    '<!DOCTYPE html><html lang="zh-CN"><head><title>页</title></head><body>{}</body></html>'.format
)


def test_a_sound_page_has_no_trouble():
    page = SOUND(
        '<p id="a">文<br>字</p><label for="b">名</label><input id="b" aria-describedby="a">'
        '<ul><li><a href="#a"><svg><path d="M0 0"/><title></title></svg></a></li></ul>'
    )
    assert trouble(page) == []


@pytest.mark.parametrize(
    ("inside", "said"),
    [
        ('<p id="a"></p><p id="a"></p>', "id 'a' 2 times"),
        ('<p id="a b"></p>', "id 'a b'"),
        ("<div><span></div>", "<span> is open where </div> stands"),
        ("</i>", "</i> closes nothing"),
        ("<i/>", "<i/> does not close <i>"),
        ("<p><div></div></p>", "<div> in <p>"),
        ("<span><ul></ul></span>", "<ul> in <span>"),
        ('<a href="#"><button></button></a>', "<button> in <a>"),
        ("<ul><p></p></ul>", "<p> in <ul>"),
        ("<ul>文</ul>", "text right in <ul>: '文'"),
        ("<div><li></li></div>", "<li> in <div>"),
        ('<p aria-labelledby="x"></p>', "aria-labelledby='x' of <p> leads nowhere"),
        ('<label for="x"></label>', "for='x' of <label> leads nowhere"),
        ('<label for="x"></label><p id="x"></p>', "a label for <p>"),
        ('<img src="a.png">', "no alt: a.png"),
        ('<p class="a" class="b"></p>', "class of <p> 2 times"),
        ('<a href="a b">c</a>', "white space in href: 'a b'"),
        ("<center></center>", "<center> is obsolete"),
    ],
)
def test_a_mistake_is_seen(inside, said):
    assert said in [what for _, what in trouble(SOUND(inside))]


def test_a_page_without_title_or_language_is_seen():
    found = [what for _, what in trouble("<html><head></head><body></body></html>")]
    assert found.count("no language") == found.count("no title") == found.count("no doctype") == 1
