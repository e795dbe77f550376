"""The reference (dsbook.reference): docstrings as Markdown, modules as pages, links both ways."""

import doctest
import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook import reference  # noqa: E402

MODULE = '''"""Adds.

It adds x_1 to `x_2`, as `dsnotes.other` does not.

Departures
    The first is long enough to reach the end of the line, so that the next one goes on where it
    stopped.
    The second is short.
"""

LIMIT = 3  # the largest
_HIDDEN = 4


class A(NamedTuple):
    """A pair."""

    x: Float[Tensor, "batch seq"]  # both
    _y: int

    @property
    @checked
    def size(self) -> int:
        """How many.

        >>> 1 + 1
        2
        """
        return 2

    def _private(self):
        pass


@checked
def add(
    x: int,  # any
) -> int:
    """x's sum with one."""


def _not_here():
    pass
'''


def test_public_objects_in_the_order_of_the_source():
    found = list(reference.entries(MODULE))
    assert [e.title for e in found] == [reference.CONSTANTS, "A", "A.size", "add"]
    assert [e.line for e in found] == [11, 15, 23, 36]
    constants, pair, size, add = (e.signature for e in found)
    assert constants == "LIMIT = 3  # the largest"
    assert pair == 'class A(NamedTuple):\n    x: Float[Tensor, "batch seq"]  # both'
    assert size == "@property\ndef size(self) -> int:"
    assert add == "def add(\n    x: int,  # any\n) -> int:"


def test_a_docstring_as_markdown():
    assert doctest.testmod(reference).failed == 0
    text = reference.page(MODULE, "pkg.mod")
    assert r"It adds x\_1 to `x_2`, as {py:obj}`dsnotes.other` does not." in text
    points = re.findall(r"^- (.*)$", text, re.MULTILINE)
    assert [p.split()[1] for p in points] == ["first", "second"]
    assert points[0].endswith("goes on where it stopped.")
    assert "```pycon\n>>> 1 + 1\n2\n```" in text
    rooms = reference.markdown("one    the first\ntwo    the second", package="pkg")
    assert rooms.splitlines()[0] == "- {py:obj}`one <pkg.one>`: the first"


def test_every_example_of_the_page_about_signatures_is_right():
    failed, tried = doctest.testfile(
        str(ROOT / "book/reference.md"),
        module_relative=False,
        optionflags=doctest.NORMALIZE_WHITESPACE,
    )
    assert tried > 4
    assert failed == 0


def test_signatures_write_one_axis_in_one_way():
    """As the page says it: "pairs", not " pairs"."""
    sources = [path.read_text("utf8") for path in (ROOT / "src").rglob("*.py")]
    assert not [found for text in sources for found in re.findall(r'Tensor, "\s[^"]*"', text)]


# --- a small site ---


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    root = tmp_path_factory.mktemp("site")
    (root / "src/pkg").mkdir(parents=True)
    module = MODULE.replace("dsnotes.other", "pkg.mod")
    (root / "src/pkg/mod.py").write_text(module, "utf8")
    (root / "index.md").write_text(
        "# 书\n\n见 {code}`加 <pkg.mod.add>`、{code}`pkg.mod._HIDDEN`、{code}`pkg.mod` 和\n"
        "{py:obj}`pkg.mod.LIMIT`。\n\n```{toctree}\nsrc/pkg/mod\n```\n",
        "utf8",
    )
    (root / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'website/extensions')!r})\n"
        "extensions = ['myst_parser', 'dsbook.reference', 'dsbook.anchors']\n"
        "myst_enable_extensions = ['colon_fence']\nlanguage = 'zh_CN'\nnitpicky = True\n"
        "exclude_patterns = ['*.py']\n"
        "source_suffix = {'.rst': 'restructuredtext'}\n",  # the default is one dict for all sites
        "utf8",
    )
    problems = StringIO()
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")  # Sphinx's and docutils' own deprecations are not ours
        out = root / "build"
        app = Sphinx(root, root, out, root / "doctrees", "html", status=None, warning=problems)
        app.build(force_all=True)
    assert problems.getvalue() == ""
    return out


def _page(site: Path, name: str) -> BeautifulSoup:
    return BeautifulSoup((site / name).read_text("utf8"), "html.parser")


def test_a_module_is_a_page_with_an_address_for_each_object(site):
    page = _page(site, "src/pkg/mod.html")
    assert [h.get_text()[:-1] for h in page.select("section > :is(h1, h2, h3)")] == [
        "pkg.mod", reference.CONSTANTS, "A", "A.size", "add",
    ]  # fmt: skip
    names = ("", ".LIMIT", ".A", ".A.size", ".add")
    assert all(page.find("section", id=f"pkg.mod{name}") for name in names)
    assert {div["lang"] for div in page.select("div.docstring")} == {"en"}
    assert "x's sum" in page.get_text()  # no quotes of Chinese text in English
    lines = [a["href"] for a in page.select("a.codelink")]
    assert lines[-1] == "../../source/pkg/mod.html#L-36"


def test_a_name_leads_to_its_description_and_an_arrow_to_its_line(site):
    links = _page(site, "index.html").select("p a")
    assert [(a.get_text(), a["href"]) for a in links] == [
        ("加", "src/pkg/mod.html#pkg.mod.add"),
        ("", "source/pkg/mod.html#L-36"),
        ("mod._HIDDEN", "source/pkg/mod.html#L-12"),  # private: its line alone
        ("mod", "src/pkg/mod.html#pkg.mod"),
        ("", "source/pkg/mod.html#L-1"),
        ("pkg.mod.LIMIT", "src/pkg/mod.html#pkg.mod.LIMIT"),
    ]
    assert links[1]["title"] == "pkg.mod.add，第 36 行"


def test_the_inventory_lists_the_objects(site):
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        found = InventoryFile.load(file, "", lambda base, uri: uri)
    assert found["py:method"]["pkg.mod.A.size"][2] == "src/pkg/mod.html#pkg.mod.A.size"
    assert set(found["py:function"]) == {"pkg.mod.add"}
    assert set(found["py:data"]) == {"pkg.mod.LIMIT"}
