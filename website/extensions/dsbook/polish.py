"""Small repairs of the built pages that neither a setting, a template nor a catalogue of the theme
offers. What a word can mend is in ``website/locale``, what a template can is in
``website/templates``.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes
from lxml.etree import ElementBase as Element
from sphinx.errors import ExtensionError

# Sphinx's search (ours is zhsearch.py), Font Awesome's script (the icons come from its web font),
# live code (never switched on here), Bootstrap's script (see `menus` and page.js)
DROP = re.compile(
    r"scripts/(fontawesome|bootstrap)\.js|sphinx-thebe\.(js|css)"
    r"|_static/(searchtools|language_data)\.js|searchindex\.js"
)
HAN = re.compile("[\u3400-\u9fff]")
THEME = (
    'dataset.theme = localStorage.getItem("theme") || "auto"',
    'dataset.theme = document.documentElement.dataset.mode !== "auto"'
    ' ? localStorage.getItem("theme")'
    ' : matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"',
)
ATTRIBUTES = {  # of what; None takes the attribute away
    # words that the theme has hard-wired in English or in the wording of another region
    "//nav[@aria-label='Main']": {"aria-label": "全书目录"},
    "//nav[@aria-label='Page']": {"aria-label": "本页目录"},
    "//*[@title='列印成 PDF']": {"title": "打印为 PDF"},
    # roles and names that accessibility checkers ask for or refuse
    "//div[@id='pst-primary-sidebar']": {"role": "complementary", "aria-label": "侧栏"},
    "//summary[span[starts-with(@class, 'toctree-')]]": {"aria-label": "展开或收起"},
    "//summary[@aria-label='Toggle hidden content']": {"aria-label": None},  # its text is its name
    "//button[contains(@class, 'search-button-field')]": {"aria-label": None},
    "//*[@role='list' or @role='doc-biblioentry' or @role='doc-backlink']": {"role": None},
    # on every exercise and every solution, and nothing leads to it
    "//*[@id='exercise-content' or @id='solution-content']": {"id": None},
}


def files(static: Path) -> None:
    """Beside the pages: a template of the theme, copied by mistake, and a word in a script."""
    for path in static.glob("*webpack-macros.html"):
        path.unlink()
    toggle = static / "togglebutton.js"
    if toggle.is_file():
        script = toggle.read_text("utf8").replace("Toggle hidden content", "展开或收起")
        toggle.write_text(script, "utf8")


def remove(element: Element) -> None:
    """Take an element out with the white space behind it."""
    if element.tail and not element.tail.strip():
        element.tail = None
    element.drop_tree()


def drop(page: Element, path: Path) -> None:
    """Scripts and style sheets that no page needs, or not this one."""
    tabs = page.find_class("sd-tab-set")
    for element in page.xpath("//script[@src] | //link[@href]"):
        address = element.get("src") or element.get("href")
        if DROP.search(address) or ("design-tabs.js" in address and not tabs):
            remove(element)


def menus(page: Element, path: Path) -> None:
    """Menus of Bootstrap become ``details``, which need no script; a summary holds no paragraph."""
    for button in page.xpath("//div/button[@data-bs-toggle='dropdown']"):
        button.getparent().tag, button.tag = "details", "summary"
        for name in ("type", "data-bs-toggle", "aria-expanded"):
            del button.attrib[name]
    for prompt in page.xpath("//summary/p[contains(@class, 'admonition-title')]"):
        prompt.tag = "span"


def label(page: Element, path: Path) -> None:
    for where, attributes in ATTRIBUTES.items():
        for element in page.xpath(where):
            for name, value in attributes.items():
                if value is None:
                    element.attrib.pop(name, None)
                else:
                    element.set(name, value)
    for element in page.xpath("//*[@data-bs-title]"):
        element.set("title", element.attrib.pop("data-bs-title"))


def theme(page: Element, path: Path) -> None:
    """The colours: light without JavaScript, else none; with it, chosen before the first paint."""
    before, after = THEME
    scripts = [s for s in page.iterfind("head/script") if "dataset.theme" in (s.text or "")]
    if len(scripts) != 1 or not (before in scripts[0].text or after in scripts[0].text):
        raise ExtensionError("layout.html of pydata-sphinx-theme has changed: adapt polish.THEME")
    scripts[0].text = scripts[0].text.replace(before, after)
    if page.get("data-theme") == "auto":
        page.set("data-theme", "light")


def citations(page: Element, path: Path) -> None:
    """A reference without Chinese is English."""
    for reference in page.xpath("//div[@class='citation']"):
        if not HAN.search(reference.text_content()):
            reference.set("lang", "en")


def code(page: Element, path: Path) -> None:
    """No empty lines at the end of a block."""
    for block in page.iter("pre"):
        if len(block):
            block[-1].tail = re.sub(r"\n{2,}\Z", "\n", block[-1].tail or "")
        elif block.text:
            block.text = re.sub(r"\n{2,}\Z", "\n", block.text)


def lazy(page: Element, path: Path) -> None:
    """Figures below the first are fetched when they come near the window."""
    for image in page.xpath("//article//img")[1:]:
        if "loading" not in image.attrib:
            image.set("loading", "lazy")


def describe(app, pagename, templatename, context, doctree):
    """A description for search engines: the first paragraph, unless the page gives one. Also takes
    out the script of live code, which defines its constants twice."""
    context["script_files"][:] = [
        s for s in context["script_files"] if "thebe" not in str(s).lower()
    ]
    if doctree is None or 'name="description"' in context.get("metatags", ""):
        return
    first = next((p.astext() for p in doctree.findall(nodes.paragraph) if len(p.astext()) > 20), "")
    if first:
        text = html.escape(" ".join(first.split())[:150], quote=True)
        context["metatags"] = (
            context.get("metatags", "") + f'\n<meta name="description" content="{text}">'
        )
