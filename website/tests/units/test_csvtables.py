"""The role {csv} and the directive {datatable} of the site, on a small one."""

import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[3]
CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "website" / "extensions")!r})
extensions = ["myst_nb", "dsbook.csvtables"]
nb_execution_mode = "off"
numfig = True
"""
CSV = "test,metric,A,B\nLCB,CoT,40.5,\nLCB,plain,37.6,1\nMATH,EM,-2664,0.7104\n"
GOOD = """
# 页

甲 {csv}`t.csv::LCB & CoT::A` 乙 {csv}`t.csv::MATH::A::,.1f` 丙 {csv}`t.csv::MATH::B::.1%` 丁。

```{datatable} t.csv
:name: tab-t
:header: 测试, 度量, "甲, 分", 乙

表题 *一*
```

见 {numref}`tab-t`。

```{datatable} t.csv
:hide: metric, B

原来的表头
```
"""


def build(root: Path, page: str) -> str:
    """Build a site of one page; returns the warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    (root / "book/data").mkdir(parents=True)
    (root / "conf.py").write_text(CONF, "utf8")
    (root / "book/data/t.csv").write_text(CSV, "utf8")
    (root / "index.md").write_text(page, "utf8")
    problems = StringIO()
    path = list(sys.path)
    # the namespace: what one application registers with docutils is not left to the next
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")  # Sphinx's and docutils' own deprecations are not ours
        out = root / "build"
        app = Sphinx(
            root, root, out / "html", out / "doctrees", "html", status=None, warning=problems
        )
        app.build(force_all=True)
    sys.path[:] = path
    said = re.sub(r"\x1b\[[\d;]*m", "", problems.getvalue())
    # an application built earlier in this process, by another test, may have left its nodes
    return "".join(x for x in said.splitlines(keepends=True) if "is already registered" not in x)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    assert build(root, GOOD) == ""
    return BeautifulSoup((root / "build/html/index.html").read_text("utf8"), "html.parser")


def test_cells_stand_in_the_sentence(page):
    assert "甲 40.5 乙 −2,664.0 丙 71.0% 丁。" in page.get_text()


def test_table_with_our_header_and_dashes(page):
    table, other = page.select("table")
    rows = [[c.get_text(strip=True) for c in r.select("th, td")] for r in table.select("tr")]
    assert rows[0] == ["测试", "度量", "甲, 分", "乙"]
    assert rows[1] == ["LCB", "CoT", "40.5", "—"]
    assert len(rows) == 4
    assert "表题 一" in table.caption.get_text()
    assert "1" in table.caption.select_one(".caption-number").get_text()
    right = [c.get("class") for c in table.select("tbody tr")[0].select("td")]
    assert ["text-right" in (c or []) for c in right] == [False, False, True, True]
    assert [c.get_text(strip=True) for c in other.select("th")] == ["test", "A"]
    assert [c.get_text(strip=True) for c in other.select("td")][:2] == ["LCB", "40.5"]


@pytest.mark.parametrize(
    ("markup", "says"),
    [
        ("{csv}`gone.csv::LCB::A`", "no file book/data/gone.csv"),
        ("{csv}`t.csv::LCB::A`", "fits 2 rows"),
        ("{csv}`t.csv::MATH::C`", "'C' is not in t.csv"),
        ("{csv}`t.csv::LCB & CoT::B`", "is empty: no value in the source"),
        ("{csv}`t.csv::MATH`", "not enough values"),
        ("{csv}`t.csv::MATH::A::nonsense`", "Invalid format specifier"),
        ("```{datatable} gone.csv\n表题\n```", "no file book/data/gone.csv"),
        ("```{datatable} t.csv\n:header: 甲, 乙\n\n表题\n```", "4 names in :header:"),
        ("```{datatable} t.csv\n:hide: C\n\n表题\n```", "columns of test, metric, A, B"),
        ("```{datatable} t.csv\n```", "needs a caption"),
    ],
)
def test_what_is_not_there_is_a_warning(tmp_path, markup, says):
    assert says in build(tmp_path, f"# 页\n\n甲 {markup}\n".replace("甲 ```", "```"))
