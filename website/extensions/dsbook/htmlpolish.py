"""Small repairs to the built HTML that no setting of the theme offers.

* words the theme has hard-wired in English, or in the wording of another region, in plain Chinese;
* scripts that no page needs: Sphinx's search (ours is zhsearch.py), Font Awesome's script (the
  icons come from its web font), the scripts of live code (never switched on here), Bootstrap's (its
  menus become ``details``, see also page.js);
* roles and labels that accessibility checkers reject;
* the colours: light without JavaScript (else none at all); with it, chosen before the first paint;
* the language of references that hold no Chinese;
* empty lines at the end of a block of code;
* figures below the first are fetched when they come near the window;
* a description of each page for search engines, from its first paragraph unless the page gives
  one.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

from docutils import nodes


def _named(name: str) -> str:
    return f'title="{name}" aria-label="{name}"'


TEXT = {
    'title="Toggle primary sidebar"': _named("显示或隐藏全书目录"),
    'title="Toggle secondary sidebar"': _named("显示或隐藏本页目录"),
    "Launch interactive content": "在线运行",
    "Launch on Binder": "在 Binder 上运行",
    "Launch on Colab": "在 Colab 上运行",
    "Source repositories": "源码仓库",
    "Suggest edit": "提出修改",
    "列印成 PDF": "打印为 PDF",
    ' aria-label="Main"': ' aria-label="全书目录"',
    ' aria-label="Page"': ' aria-label="本页目录"',
    "© Copyright ": "© 版权所有 ",
    ' id="pst-primary-sidebar" class': ' id="pst-primary-sidebar" role="complementary"'
    ' aria-label="侧栏" class',
    '<summary><span class="toctree-': '<summary aria-label="展开或收起"><span class="toctree-',
    ' data-bs-title="': ' title="',
    '<summary aria-label="Toggle hidden content">': "<summary>",  # what it shows is its name
    ' id="exercise-content"': "",  # on every exercise, and nothing leads to it
    ' id="solution-content"': "",
    ' role="list"': "",
    ' role="doc-biblioentry"': "",
    ' role="doc-backlink"': "",
}


def _tags(*files: str) -> re.Pattern[str]:
    """Matches ``<script>`` and ``<link>`` elements that load one of the files."""
    names = "|".join(map(re.escape, files))
    return re.compile(
        rf'\s*<(?:script|link)[^>]*(?:src|href)="[^"]*(?:{names})[^"]*"[^>]*/?>(?:</script>)?'
    )


DROP = _tags(
    "scripts/fontawesome.js", "scripts/bootstrap.js", "sphinx-thebe.js", "sphinx-thebe.css",
    "_static/searchtools.js", "_static/language_data.js", "searchindex.js",
)  # fmt: skip
MENU = re.compile(
    r'<div class="(dropdown [^"]*)">\s*<button class="([^"]*)" type="button"'
    r' data-bs-toggle="dropdown" aria-expanded="false"([^>]*)>(.*?)</button>\s*'
    r'(<ul class="dropdown-menu">.*?</ul>)\s*</div>',
    re.DOTALL,
)
PROMPT = re.compile(r'<p (class="(?:collapsed|expanded) admonition-title")>(.*?)</p>')
CITATION = re.compile(r'(<div class="citation" id="[^"]*")(>(?:(?!</div>)[^\u3400-\u9fff])*</div>)')
EMPTY = re.compile(r"\n{2,}(?=</pre>)")
TABS = _tags("design-tabs.js")
THEME = (
    'dataset.theme = localStorage.getItem("theme") || "auto"',
    'dataset.theme = document.documentElement.dataset.mode !== "auto"'
    ' ? localStorage.getItem("theme")'
    ' : matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"',
)
NO_SCRIPT = ('data-theme="auto">', 'data-theme="light">')
IMAGE = re.compile(r'<img (?![^>]*(?:loading=|class="logo))')
LABEL = re.compile(r'(<button class="btn search-button-field[^>]*?) aria-label="[^"]*"')


def polish(page: str) -> str:
    """Repair one page; doing it twice changes nothing."""
    page = DROP.sub("", page)
    page = MENU.sub(r'<details class="\1"><summary class="\2"\3>\4</summary>\n\5</details>', page)
    page = PROMPT.sub(r"<span \1>\2</span>", page)  # a summary may hold no paragraph
    if "sd-tab-set" not in page:
        page = TABS.sub("", page)
    page = page.replace(*THEME).replace(*NO_SCRIPT)
    for old, new in TEXT.items():
        page = page.replace(old, new)
    page = CITATION.sub(r'\1 lang="en"\2', page)
    page = EMPTY.sub("\n", page)
    return lazy(LABEL.sub(r"\1", page))


def lazy(page: str) -> str:
    """Fetch all images but the first one late; doing it twice changes nothing."""
    first = page.find("<img ", page.find("<article")) + 1
    return page[:first] + IMAGE.sub('<img loading="lazy" ', page[first:]) if first else page


def polish_all(app, exception):
    if exception or app.builder.format != "html":
        return
    for path in Path(app.outdir, "_static").glob("*webpack-macros.html"):
        path.unlink()  # a template of the theme, copied by mistake
    Path(app.outdir, "_static", "readme.png").unlink(missing_ok=True)  # of README.md alone
    toggle = Path(app.outdir, "_static", "togglebutton.js")
    if toggle.is_file():
        script = toggle.read_text("utf8").replace("Toggle hidden content", "展开或收起")
        toggle.write_text(script, "utf8")
    for path in Path(app.outdir).rglob("*.html"):
        old = path.read_text("utf8")
        new = polish(old)
        if new != old:
            path.write_text(new, "utf8")


def before_page(app, pagename, templatename, context, doctree):
    """Describe the page; take out the live-code script, which defines its constants twice."""
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


def setup(app):
    app.connect("html-page-context", before_page, priority=900)
    app.connect("build-finished", polish_all, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
