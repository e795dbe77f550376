"""Figures in words: every interactive figure and every listed drawing has its text, no text is of a
figure that does not exist; and how a text comes onto a page."""

import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import autocorrect_py
import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[3]
EXT = ROOT / "website" / "extensions"
sys.path.insert(0, str(EXT))

from dsbook import english, figuretext, zhsearch  # noqa: E402

TEXTS = yaml.safe_load((ROOT / figuretext.DATA).read_text("utf8"))
PAGES = {path: path.read_text("utf8") for path in sorted((ROOT / "book").rglob("*.md"))}
DRAWINGS = {  # of the others the alternative text says enough
    "fig-after-timeline",
    "fig-balance-loop",
    "fig-dualpipe-chunk",
    "fig-dualpipe-four",
    "fig-dualpipe-idea",
    "fig-dualpipe-nodes",
    "fig-dualpipe-overlap",
    "fig-fp8-dataflow",
    "fig-grpo-idea",
    "fig-mla-idea",
    "fig-moe-idea",
    "fig-mtp-module",
    "fig-mtp-verify",
    "fig-papers-timeline",
    "fig-r1-pipeline",
    "fig-scale-cards",
    "fig-whole-stages",
}


def labs():
    """Label of every interactive figure."""
    found = []
    for text in PAGES.values():
        for body in re.findall(r"^:{3,}\{lab\} .*\n((?::[a-z]+:.*\n)*)", text, re.M):
            name = re.search(r"^:name: (\S+)", body, re.M)
            assert name, f"an interactive figure without a label: {body}"
            found.append(name[1])
    return found


def test_every_interactive_figure_and_every_listed_drawing_has_its_text():
    assert len(labs()) >= 20
    assert {*labs(), *DRAWINGS, figuretext.MAP} == TEXTS.keys()


def test_no_text_is_of_a_label_that_does_not_exist():
    labels = {label for text in PAGES.values() for label in english.labelled(text)}
    assert TEXTS.keys() - labels == {figuretext.MAP}
    assert any("```{block}\n" in text for text in PAGES.values())


@pytest.mark.parametrize("label", sorted(TEXTS))
def test_a_text_is_a_few_plain_sentences(label):
    text = TEXTS[label]
    assert 2 <= len(re.findall("。", text)) <= 6, label
    assert 80 <= len(text) <= 420, (label, len(text))
    assert not re.search("[！{}]", text)
    assert text.count("$") % 2 == text.count("`") % 2 == 0
    for line in text.splitlines():
        assert autocorrect_py.format_for(line, "markdown") == line


# --- on a page ---

PAGE = """# 一页

```{figure} a.svg
:name: fig-a
:alt: 一张图

图题。

说明。
```

```{figure} a.svg
:name: fig-b
:alt: 没有文字说明的图

图题。
```

```{block}
```
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    root = tmp_path_factory.mktemp("figuretext")
    (root / "book/data").mkdir(parents=True)
    (root / figuretext.DATA).write_text(
        "fig-a: |-\n  横轴是 $x$。\n  再往右。\nblock: 整个模型。\n", "utf8"
    )
    svg = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'></svg>"
    (root / "book/a.svg").write_text(svg, "utf8")
    (root / "book/page.md").write_text(PAGE, "utf8")
    (root / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(EXT)!r})\n"
        "extensions = ['myst_nb', 'sphinx.ext.mathjax', 'dsbook.block', 'dsbook.figuretext',\n"
        "    'dsbook.zhsearch']\n"
        "block_drawing = 'book/a.svg'\n"
        f"templates_path = [{str(EXT.parent / 'templates')!r}]\n"
        "exclude_patterns = ['build']\nnb_execution_mode = 'off'\n"
        "root_doc = 'book/page'\nlanguage = 'zh_CN'\n"
    )
    problems = StringIO()
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")
        Sphinx(
            root, root, root / "build", root / "trees", "html", status=None, warning=problems
        ).build(force_all=True)
    assert problems.getvalue() == ""
    return root / "build"


def test_the_fold_is_in_the_caption_behind_the_legend_and_closed(built):
    page = BeautifulSoup((built / "book/page.html").read_text("utf8"), "html.parser")
    [with_text, without] = page.select("figure")
    [fold] = with_text.select("figcaption > details.figure-text")
    assert fold.find_previous_sibling("div", class_="legend")
    assert fold.summary.get_text() == "图的文字说明"
    assert not fold.has_attr("open")
    first, second = fold.find_all("p")
    assert "横轴是" in first.get_text()
    assert first.select_one(".math")
    assert second.get_text() == "再往右。"
    assert not without.select("details")


def test_the_map_has_its_fold_behind_it(built):
    page = BeautifulSoup((built / "book/page.html").read_text("utf8"), "html.parser")
    fold = page.select_one("div.block-drawing").find_next_sibling()
    assert fold.name == "details"
    assert fold.p.get_text() == "整个模型。"


def test_the_search_has_the_caption_and_not_the_fold(built):
    [entry] = zhsearch.read((built / "searchdata.js").read_text("utf8"))
    assert "图题" in entry["text"]
    assert "横轴" not in entry["text"]


def test_it_is_not_printed():
    paper = (ROOT / "website/assets/book.css").read_text("utf8").partition("@media print")[2]
    assert re.search(r"details\.figure-text[^{]*\{ display: none; \}", paper)
    pdf = (ROOT / "website/pdf.py").read_text("utf8")
    assert '"details.english, details.figure-text")) e.remove()' in pdf
