"""What the pages teach with: equation beside code, a guess before a result, the drawing of the
model, exercises and their tests. Units, and a small site."""

import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXT = ROOT / "website" / "extensions"
sys.path.insert(0, str(EXT))

from bs4 import BeautifulSoup  # noqa: E402
from dsbook import eqcode, exercises, katexmath, testlink, zhsearch  # noqa: E402

SOURCE = '''class Gate:
    def forward(self, x):
        """scores = what the text says."""
        # scores = what a comment says
        scores = self._affinity(x)  # (15), scores

        # a comment by itself
        indices = self._choose(
            scores + self.bias
        )
        weights = scores.gather(1, indices)
        weights = weights / weights.sum()
        return weights
'''


# --- the lines ---


def test_lines_from_one_text_to_another_without_comments_and_indentation():
    shown = eqcode.select(SOURCE, 2, "self._affinity", "weights =")
    assert [n for n, _ in shown] == [5, 8, 9, 10, 11]
    assert [text for _, text in shown][:3] == [
        "scores = self._affinity(x)  # (15), scores",
        "indices = self._choose(",
        "    scores + self.bias",
    ]


def test_one_line_is_its_whole_statement():
    assert [n for n, _ in eqcode.select(SOURCE, 2, "self.bias", "")] == [8, 9, 10]


def test_all_of_a_body_is_without_its_docstring():
    assert [n for n, _ in eqcode.select(SOURCE, 2, "", "")] == [5, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize(
    ("start", "end", "problem"),
    [
        ("scores", "", "has 3 lines with 'scores', expected one"),
        ("what the text says", "", "has 0 lines with"),
        ("return", "scores", "has no line with 'scores' from 'return' on"),
    ],
)
def test_lines_that_are_not_there_once(start, end, problem):
    with pytest.raises(ValueError, match=re.escape(problem)):
        eqcode.select(SOURCE, 2, start, end)


def test_identifiers_are_coloured_in_code_only():
    html = eqcode.highlighted("w = self.bias + bias_2  # bias", {"self.bias": "sa", "w": "sb"})
    assert re.findall(r'<span class="(sym [\w-]+)">([^<]*)', html) == [
        ("sym sym-b", "w"),
        ("sym sym-a", "self"),
        ("sym sym-a", "."),
        ("sym sym-a", "bias"),
    ]
    soup = BeautifulSoup(f"<pre>{html}</pre>", "html.parser")
    assert soup.get_text() == "w = self.bias + bias_2  # bias\n"


# --- the formula ---


def test_a_coloured_symbol_is_copied_and_found_without_its_colour():
    html = katexmath.render(
        r"\sa{s_{i_{t}}}=\vect{\sb{u}}", macros={r"\vect": r"\mathbf{#1}"}, display=True
    )
    soup = BeautifulSoup(html, "html.parser")
    assert soup.select_one("annotation").get_text() == r"{s_{i_{t}}}=\mathbf{{u}}"
    assert soup.select_one(".katex-html .sym-a").get_text().startswith("s")
    assert zhsearch.plain_tex(r"\sa{s_i}=\sb{b}") == "s_i=b"


# --- exercises ---


def test_badges_come_all_three_or_not_at_all():
    assert exercises.badges(["exercise"]) is None
    assert exercises.badges(["exercise", "bug", "stars-3", "minutes-25"]) == ("找错", 3, 25)
    for wrong in (
        ["hand"],
        ["hand", "stars-4", "minutes-5"],
        ["hand", "bug", "stars-1", "minutes-5"],
    ):
        with pytest.raises(ValueError, match="one kind"):
            exercises.badges(wrong)


# --- tests ---


def test_the_line_of_a_test(tmp_path):
    file = tmp_path / "tests/model/test_a.py"
    file.parent.mkdir(parents=True)
    file.write_text("def test_b():\n    pass\n\n\nclass TestC:\n    def test_d(self): ...\n")
    assert testlink.locate(tmp_path, "model/test_a.py::test_b") == 1
    assert testlink.locate(tmp_path, "model/test_a.py::TestC::test_d") == 6
    assert testlink.locate(tmp_path, "model/test_a.py") == 1
    assert testlink.locate(tmp_path, "model/test_a.py::test_gone") is None
    assert testlink.locate(tmp_path, "model/gone.py::test_b") is None


# --- a small site ---

CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_nb", "sphinx_exercise", *("dsbook." + name for name in (
    "block", "eqcode", "exercises", "folds", "katexmath", "numbers", "predict", "sides", "testlink",
    "zhsearch"))]
language = "zh_CN"
html_math_renderer = "katexmath"
myst_enable_extensions = ["dollarmath", "colon_fence"]
nb_execution_mode = "off"
numfig = True
exclude_patterns = ["build"]
templates_path = [{templates!r}]
html_theme = "sphinx_book_theme"
html_context = {{"default_mode": "auto"}}
exercise_badges_required = True
"""
DRAWING = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 200" width="400" height="200">'
    '<g data-part="moe"><rect width="9" height="9" fill="#0072b2"/><text>MoE</text></g>'
    '<g data-part="mla"><rect width="9" height="9" style="fill: #000000"/></g></svg>'
)
PAGE = r"""# 页

```{block} moe
```

```{block}
```

::::{eqcode} pkg.mod.Gate.forward
:from: self._affinity
:to: weights =
:sa: scores
:sb: self.bias weights

$$
\sa{s_i}=\sb{b_i} \tag{15}
$$ (eq-score)

其中 $\sa{s}$ 是分数。
::::

:::{predict} 还会选中 $x$ 吗？
:choices: 会 | 不会
:answer: 不会

不会，因为 $s<0$。
:::

:::{predict} 多大？
:answer: 0.31

是 0.31。
:::

:::{predict} 为什么？
随便说说。
:::

::::{admonition} 1. 错
:class: trap dropdown

见{test}`model/test_a.py::test_b`。
::::

```{exercise} 数
:label: ex-1
:class: hand stars-2 minutes-10

算一算。
```

```{solution} ex-1
:label: sol-1
:class: dropdown

好。
```

:::{admonition} 引用本节
:class: dropdown
这样引。
:::

(sec-references)=
## 参考文献

一篇。
"""
BAD = r"""# 坏页

::::{eqcode} pkg.mod.Gate.forward
:from: nothing
$$
\sa{s}
$$
::::

::::{eqcode} pkg.mod.Gate.forward
:from: return
:sa: gone
$$
\sa{s}\sb{t}
$$
::::

:::{eqcode} pkg.gone
$x$
:::

{test}`model/test_a.py::test_gone`

```{exercise} 空
:label: ex-1

算。
```

```{exercise} 半
:label: ex-2
:class: hand

算。
```
"""


def build(root: Path, page: str) -> tuple[str, BeautifulSoup]:
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    def write(name: str, text: str) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf8")

    write("conf.py", CONF.format(ext=str(EXT), templates=str(EXT.parent / "templates")))
    write(
        "index.md",
        "# 书\n\n```{toctree}\n:numbered: 2\nbook/model/moe\nnotebooks/moe\n"
        "book/page\nbook/model/mla\n```\n",
    )
    write("book/page.md", page)
    write("book/model/moe.md", "# 专家\n")
    write("notebooks/moe.md", "# 运行\n")
    write("book/model/mla.md", "# 潜在\n")
    write("book/figures/block.svg", DRAWING)
    write("src/pkg/__init__.py", "")
    write("src/pkg/mod.py", SOURCE)
    write("tests/model/test_a.py", "def test_b():\n    pass\n")
    problems = StringIO()
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")  # Sphinx's and docutils' own deprecations are not ours
        out = root / "build"
        Sphinx(
            root, root, out / "html", out / "doctrees", "html", status=None, warning=problems
        ).build(force_all=True)
    html = (out / "html/book/page.html").read_text("utf8")
    told = re.sub(r"\x1b\[[\d;]*m", "", problems.getvalue())
    return told, BeautifulSoup(html, "html.parser")


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    told, soup = build(tmp_path_factory.mktemp("good"), PAGE)
    assert told == ""
    return soup


def test_equation_and_code_share_their_colours(good):
    pair = good.select_one(".eqcode")
    assert pair.select_one(".eqcode-math .eqno").get_text().startswith("(15)")
    assert pair.select(".eqcode-math .katex .sym-a")
    code = pair.select_one(".eqcode-code pre")
    assert code.get_text().splitlines()[0] == "scores = self._affinity(x)  # (15), scores"
    assert [s.get_text() for s in code.select(".sym-a")] == ["scores"] * 3
    assert "".join(s.get_text() for s in code.select(".sym-b")) == "self.biasweights"


def test_code_beside_an_equation_links_to_its_first_line(good):
    link = good.select_one(".eqcode-where a")
    assert link["href"] == "../source/pkg/mod.html#L-5"
    assert link.get_text() == "mod.Gate.forward，第 5 行"


def test_a_guess_is_asked_for_and_the_result_is_a_fold(good):
    first, second, third = good.select(".guess")
    assert [i["value"] for i in first.select("input[type=radio]")] == ["会", "不会"]
    assert first.form["data-answer"] == "不会"
    assert first.select_one("details > p").get_text().startswith("不会，因为")
    assert first.select_one(".predict-question .math")
    group = first.select_one("[role=radiogroup]")["aria-labelledby"]
    assert first.find(id=group).name == "p"
    assert second.form["data-answer"] == "0.31"
    assert second.select_one("label input")["inputmode"] == "decimal"
    assert third.form["data-answer"] == ""
    assert len({p["id"] for p in (first, second, third)}) == 3


def test_the_drawing_has_one_part_lit_and_links(good):
    small, big = good.select(".block-drawing svg")
    assert [g["data-part"] for g in small.select("g.lit")] == ["moe"]
    assert "混合专家" in small["aria-label"]
    assert [a["href"] for a in small.select("a")] == ["model/moe.html", "model/mla.html"]
    assert all(a["tabindex"] == "-1" for a in small.select("a"))
    assert not big.select("g.lit")
    assert not big.select("a[tabindex]")
    assert [t.get_text() for t in big.select("a > title")] == ["混合专家", "多头潜在注意力"]
    assert "light-dark(#000000,#" in str(small)


def test_an_exercise_says_what_it_asks_for_in_its_title(good):
    badges = good.select_one(".exercise .admonition-title .badges")
    assert badges.get_text() == "手算 · ★★☆ · 10 分钟"
    assert badges.select_one("[role=img]")["aria-label"] == "难度 2，最高 3"
    assert "手算" not in good.select_one(".solution .admonition-title").get_text()


def test_a_test_is_a_link_of_two_characters(good):
    link = good.select_one(".trap a.testlink")
    assert link.get_text() == "测试"
    assert link["href"] == "../source/tests/model/test_a.html#L-1"
    assert link["title"] == "tests/model/test_a.py::test_b"


def test_the_references_are_a_fold_without_a_number(good):
    citing, fold = good.select("details.fold")
    assert citing.get_text().split() == ["引用本节", "这样引。"]
    assert citing["class"] == fold["class"] == ["fold"]
    assert good.find(id="sec-references") in (fold, *fold.find_all("span"))
    assert fold.summary.get_text() == "参考文献"
    assert fold.p.get_text() == "一篇。"
    assert not good.find_all(["h2", "a"], string="参考文献")


def test_a_page_leads_to_its_sides_and_to_the_next_section(tmp_path):
    build(tmp_path, PAGE)
    soup = BeautifulSoup(
        (tmp_path / "build/html/book/model/moe.html").read_text("utf8"), "html.parser"
    )
    tabs = soup.select("h1 + nav.sides a")
    assert [(a.get_text(), a["href"]) for a in tabs] == [
        ("讲解", "#"),
        ("笔记本", "../../notebooks/moe.html"),
    ]
    assert [a.get_text() for a in soup.select("nav.sides a[aria-current=page]")] == ["讲解"]
    following = soup.select(".prev-next-area .right-next")
    assert [a["href"] for a in following] == ["../../notebooks/moe.html", "../page.html"]
    assert following[1]["title"] == "下一节"
    numbers = [a.select_one(".section-number") for a in following]
    assert [n and n.get_text().strip() for n in numbers] == [None, "3."]  # a notebook has none


def test_what_does_not_hold_is_a_warning(tmp_path):
    told, _ = build(tmp_path, BAD)
    for problem in (
        "pkg.mod.Gate.forward has 0 lines with 'nothing'",
        "no gone in the lines of pkg.mod.Gate.forward",
        r"\sb{…} and :sb: come together",
        "pkg.gone is not in src/",
        "no such test in tests/: model/test_a.py::test_gone",
        "exercise ex-1: an exercise without kind",
        "exercise ex-2: an exercise has one kind",
    ):
        assert problem in told


# --- the four sides of a section ---


def test_the_sides_of_a_section_have_its_name(tmp_path):
    from dsbook import sides

    files = (
        "src/dsnotes/model/moe.py src/dsnotes/training/fp8/__init__.py "
        "src/dsnotes/training/fp8/gemm.py tests/model/test_moe.py tests/parity/test_moe.py "
        "tests/training/fp8/test_gemm.py tests/training/fp8/test_traps.py "
        "src/dsnotes/whole/__init__.py src/dsnotes/whole/run.py tests/whole/test_run.py"
    )
    for name in files.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    docs = {
        "book/model/moe", "notebooks/moe", "book/training/fp8", "book/training/fp8-accumulation",
        "notebooks/fp8", "book/results/v3", "notebooks/v3", "book/appendix/cite",
        "book/whole/whole", "notebooks/whole",
    }  # fmt: skip
    found = sides.sides(tmp_path, tmp_path / "src", docs)
    assert found["notebooks/moe"] == [
        ("讲解", "book/model/moe", False),
        ("笔记本", "notebooks/moe", True),
        ("代码", "source/dsnotes/model/moe", False),
        ("测试", "source/tests/model/test_moe", False),
    ]
    assert found["book/training/fp8-accumulation"] == [
        ("讲解", "book/training/fp8", True),
        ("笔记本", "notebooks/fp8", False),
        ("代码", "src/dsnotes/training/fp8/__init__", False),
        ("测试", "source/tests/training/fp8/test_traps", False),
    ]
    assert [s[2] for s in found["source/dsnotes/training/fp8/gemm"]] == [False, False, True, False]
    assert [s[0] for s in found["book/results/v3"]] == ["讲解", "笔记本"]
    assert found["source/dsnotes/whole/run"] == [  # the room is the section
        ("讲解", "book/whole/whole", False),
        ("笔记本", "notebooks/whole", False),
        ("代码", "src/dsnotes/whole/__init__", True),
        ("测试", "source/tests/whole/test_run", False),
    ]
    assert "book/appendix/cite" not in found
    assert "source/tests/parity/test_moe" not in found
