"""The site's own extensions (dsbook), without a browser: units, and two small sites."""

import ast
import json
import re
import sys
import warnings
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import yaml
from docutils import nodes
from docutils.utils import new_document

ROOT = Path(__file__).parents[3]
EXT = ROOT / "website" / "extensions"
ASSETS = ROOT / "website" / "assets"
sys.path.insert(0, str(EXT))

import dsbook  # noqa: E402
from bs4 import BeautifulSoup  # noqa: E402
from dsbook import (  # noqa: E402
    anchors,
    bundle,
    cachekey,
    codelink,
    darkfigures,
    finish,
    gbt7714,
    katexmath,
    papers,
    polish,
    repo,
    runtimes,
    zhsearch,
)
from myst_nb.ext.execution_tables import make_stat_table  # noqa: E402
from pybtex.database import parse_string  # noqa: E402
from sphinx.errors import ExtensionError  # noqa: E402

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt" viewBox="0 0 72 36">'
    '<g id="text_1"><path d="M0 0"/></g><path style="fill: none; stroke: #000000" d="M0 0L9 9"/>'
    '<path style="stroke: #0072b2" d="M0 0"/><g id="keep-label"><path style="fill: #000000"/></g>'
    '<g id="QuadMesh_1"><path style="fill: #00224e"/></g></svg>'
)
BIB = r"""
@misc{v3, title={{DeepSeek-V3} Technical Report}, year={2024}, archivePrefix={arXiv},
  eprint={2412.19437}, url={https://arxiv.org/abs/2412.19437},
  author={{DeepSeek-AI} and Liu, Aixin and Feng, Bei and Xue, Bing and others}}
@inproceedings{mtp, title={Better \& Faster {LLM}s}, year={2024}, booktitle={ICML}, pages={1--9},
  author={Gloeckle, Fabian and Rozi{\`e}re, Baptiste and de Jong, Michiel}}
@article{survey, title={大语言模型综述}, author={张三 and 李四 and 王五 and 赵六},
  journal={软件学报}, year={2023}, volume={34}, number={5}, pages={1--20}}
@article{arxivonly, title={Switch}, author={Fedus, William},
  journal={arXiv preprint arXiv:2101.03961}, year={2021}, eprint={2101.03961}}
@misc{blog, title={Approximating {KL}}, author={Schulman, John}, year={2020}, url={http://example.org/kl}}
@book{book, title={Deep Learning}, author={Goodfellow, Ian and others}, publisher={MIT Press},
  address={Cambridge}, year={2016}}
"""


# --- references ---


@pytest.mark.parametrize(
    ("key", "of2025", "of2015"),
    [
        (
            "v3",
            "DeepSeek-AI, LIU A, FENG B, et al. DeepSeek-V3 Technical Report[PP/OL]. arXiv (2024)",
            "DeepSeek-AI, LIU A, FENG B, et al. DeepSeek-V3 Technical Report[EB/OL]. (2024)",
        ),
        (
            "mtp",
            "GLOECKLE F, ROZIÈRE B, DE JONG M. Better & Faster LLMs[C]//ICML. 2024: 1-9",
            "GLOECKLE F, ROZIÈRE B, DE JONG M. Better & Faster LLMs[C]//ICML. 2024: 1-9",
        ),
        (
            "survey",
            "张三，李四，王五，等. 大语言模型综述[J]. 软件学报，2023，34（5）：1-20",
            "张三, 李四, 王五, 等. 大语言模型综述[J]. 软件学报, 2023, 34(5): 1-20",
        ),
        ("arxivonly", "FEDUS W. Switch[PP/OL]. arXiv (2021)", "FEDUS W. Switch[EB/OL]. (2021)"),
        (
            "blog",
            "SCHULMAN J. Approximating KL[EB/OL]. (2020)",
            "SCHULMAN J. Approximating KL[EB/OL]. (2020)",
        ),
        (
            "book",
            "GOODFELLOW I, et al. Deep Learning[M]. Cambridge: MIT Press, 2016",
            "GOODFELLOW I, et al. Deep Learning[M]. Cambridge: MIT Press, 2016",
        ),
    ],
)
def test_reference_in_both_editions(key, of2025, of2015):
    entry = parse_string(BIB, "bibtex").entries[key]
    assert gbt7714.GBT7714().describe(entry)[0] == of2025
    assert gbt7714.GBT7714Of2015().describe(entry)[0] == of2015


def test_link_of_a_preprint_comes_from_its_number():
    entry = parse_string(BIB, "bibtex").entries["arxivonly"]
    assert gbt7714.GBT7714().describe(entry)[1] == "https://arxiv.org/abs/2101.03961"


def test_every_entry_of_the_book_has_a_reference():
    text = (ROOT / "book" / "references.bib").read_text("utf8")
    for key, entry in parse_string(text, "bibtex").entries.items():
        reference, url = gbt7714.GBT7714().describe(entry)
        assert re.search(r"\[(PP|C|J|M|EB)/OL\]", reference), key
        assert url.startswith("http"), key
        assert "{" not in reference, key


# --- one style sheet, one script ---


def test_rules_that_match_nothing_are_left_out():
    css = """.a, .b > i { color: var(--x); --y: 0; --x: red } .a.gone { top: 0 } #here { top: 0 }
        @media print { .b { top: 0 } .a { top: 0 } } @font-face { font-family: F }
        .icon::before { content: "\\f0c9" }"""
    kept = bundle.prune(css, {"a", "here", "icon"})
    assert kept.startswith(".a{color: var(--x);--x: red }#here")
    assert "gone" not in kept
    assert ".b" not in kept
    assert "@media print {.a{top: 0 }}" in kept
    assert "@font-face" in kept
    assert "\uf0c9" in kept
    assert bundle.prune(kept, {"a", "here", "icon"}) == kept


def page_of(inside: str, head: str = ""):
    """A page as the theme writes it, with the script that chooses its colours."""
    return finish.parse(
        '<html lang="zh-CN" data-content_root="../" data-theme="auto"><head><script>'
        f"document.documentElement.{polish.THEME[0]};</script>{head}</head><body>{inside}"
    )


def polished(page) -> str:
    for step in finish.STEPS:
        step(page, Path("page.html"))
    return finish.serialize(page)


def test_a_page_loads_the_two_files():
    head = (
        '<link rel="stylesheet" href="../_static/basic.css?v=1"/>'
        '<link rel="stylesheet" href="../_static/book.css?v=1"/>'
        '<script src="../_static/documentation_options.js?v=1"></script>'
        '<script src="../_static/doctools.js?v=1"></script>'
        '<script src="../_static/print.js?v=1"></script><script src="../_static/own.js"></script>'
    )
    page = page_of("", head)
    bundle.link(page, bundle.Bundle("2", "let x;"))
    once = finish.serialize(page)
    assert once.count('href="../_static/site.css?v=2"') == 1
    assert once.count('src="../_static/site.js?v=2"') == 1
    assert "<script>let x;</script>" in once
    assert [s.get("defer") for s in page.xpath("//script[@src]")] == ["", ""]
    assert "own.js" in once
    # of a page that was not written again, the version changes and nothing else
    bundle.link(page, bundle.Bundle("3", "let x;"))
    assert finish.serialize(page) == once.replace("?v=2", "?v=3")


# --- search ---


@pytest.fixture(scope="module")
def searching():
    from py_mini_racer import MiniRacer

    browser = MiniRacer()
    browser.eval((ASSETS / "search.js").read_text("utf8"))
    return browser


def test_a_query_is_cut_into_pairs_and_words(searching):
    assert list(searching.call("cut", "无辅助损失")) == ["无辅", "辅助", "助损", "损失"]
    mixed = "熵 kv_lora_rank 70,272 MTP-1"
    assert list(searching.call("cut", mixed)) == ["熵", "kv_lora_rank", "70,272", "mtp"]
    assert list(searching.call("cut", "k")) == ["k"]


@pytest.mark.parametrize(
    ("query", "pieces"),
    [
        ("KV缓存", ["kv", "缓存"]),
        ("为什么RoPE要解耦", ["为什", "什么", "rope", "要解", "解耦"]),
        ("ＭＬＡ与１Ｆ１Ｂ", ["mla", "与", "1f1b"]),
        ("７０，２７２", ["70,272"]),
        ("獎勵", ["奖励"]),
        ("λ系数", ["λ", "系数"]),
        ("投机采样", ["推测", "测解", "解码"]),
    ],
)
def test_a_query_is_read_as_people_type_it(searching, query, pieces):
    searching.eval(
        f"searchFold = {json.dumps(zhsearch.traditional('奖励'))}; simplified = undefined"
    )
    assert list(searching.call("cut", query)) == pieces


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("负载均衡", "a"),  # all of it in one place
        ("怎样均衡负载", "ab"),  # the pairs, in any order
        ("lora", "b"),  # part of an identifier
        ("rope", "c"),  # not within property
        ("70,272", "c"),
        ("c_t^KV", "c"),
        ("RoPE与", "c"),  # Chinese is a letter to Unicode, but ends a Latin word
        ("λ", "d"),
        ("没有", ""),
        (".*", ""),
    ],
)
def test_what_is_found(searching, query, found):
    texts = {
        "a": "专家的负载均衡，property",
        "b": "均衡各个专家的负载 kv_lora_rank",
        "c": "每个 token 70,272 字节，c_t^KV 与 RoPE",
        "d": "损失的系数2λ_t",
    }
    sections = [
        {"doc": doc, "page": "", "title": "", "code": "", "weight": 1, "text": text, "terms": []}
        for doc, text in texts.items()
    ]
    hits = searching.call("find", sections, query)
    assert "".join(hit["section"]["doc"] for hit in hits).startswith(found)
    assert bool(hits) == bool(found)


def test_an_excerpt_shows_the_query(searching):
    section = {"text": "前" * 300 + "这里说权重吸收，" + "后" * 300, "code": ""}
    parts = searching.call("excerpt", section, ["权重", "重吸", "吸收"])
    assert "".join(text for text, marked in parts if marked) == "权重吸收"
    assert "这里说权重吸收" in "".join(text for text, _ in parts)
    assert len("".join(text for text, _ in parts)) < 120


def test_an_explanation_comes_before_its_exercise(searching):
    sections = [
        {"doc": "p", "page": "", "title": title, "code": "", "text": "节点受限路由", "terms": []}
        | {"weight": zhsearch.weight("book/model/moe", title)}
        for title in ("练习", "常见错误", "小结", "V3 的路由")
    ]
    assert searching.call("find", sections, "节点受限路由")[0]["section"]["title"] == "V3 的路由"


def test_a_definition_comes_before_what_uses_the_term_often(searching):
    sections = [
        {"doc": doc, "page": "", "title": title, "code": "", "text": text}
        | {"weight": weight, "terms": terms}
        for doc, title, weight, text, terms in (
            ("uses", "直觉", 1, "微批次的前向，微批次的反向，" * 4, []),
            ("near", "错误", 1, "微批次数是两个方向的，微批次数要是偶数", ["微批次数"]),
            ("defines", "切成微批次", 0.7, "切成许多微批次，一个接一个送进去", ["微批次"]),
        )
    ]
    docs = [hit["section"]["doc"] for hit in searching.call("find", sections, "微批次")]
    assert docs[0] == "defines"
    assert searching.call("find", sections, "反向")[0]["section"]["doc"] == "uses"


def test_terms_are_what_is_bold_within_a_sentence():
    def bold(before, term, after):
        parts = nodes.Text(before), nodes.strong("", term), nodes.Text(after)
        return nodes.paragraph("", "", *parts)

    sentences = bold("切成许多", "微批次", "（micro-batch）。"), bold("", "开头", "，要等一阵。")
    section = nodes.section("", nodes.title("", "题"), *sentences, ids=["a"])
    document = new_document("")
    document += section
    assert [found["terms"] for found in zhsearch.sections(document)] == [["微批次"]]


@pytest.mark.parametrize(
    ("tex", "typed"),
    [(r"\lambda", "λ"), (r"\gamma_t", "γ_t"), (r"\varepsilon", "ε"), (r"\Lambda", "Λ")],
)
def test_greek_letters_are_found(tex, typed):
    assert zhsearch.plain_tex(tex) == typed
    assert zhsearch.WORD.findall(f"a + {typed}") == [typed]


def test_formulas_are_found_as_they_are_typed():
    assert zhsearch.plain_tex(r"\mathbf{c}_{t}^{KV} = \softmax(\alpha\,x)") == (
        "c_t^KV = softmax(α x)"
    )


# --- formulas ---


def test_formula_becomes_html_and_mathml():
    html = katexmath.render(r"\R^{d} \text{个专家}", macros={r"\R": r"\mathbb{R}"})
    assert "<math" in html
    assert "个专家" in html


def test_what_is_copied_needs_no_macro_of_ours():
    macros = {
        r"\softmax": r"\operatorname{softmax}",
        r"\vect": r"\mathbf{#1}",
        r"\E": r"\mathbb{E}",
    }
    html = katexmath.render(r"\softmax(\vect{h_{t}})<\E", macros=macros)
    tex = BeautifulSoup(html, "html.parser").select_one("annotation").get_text()
    assert tex == r"\operatorname{softmax}(\mathbf{h_{t}})<\mathbb{E}"


def test_bad_formula_says_where():
    with pytest.raises(katexmath.KatexError, match=r"\\foo at position 1"):
        katexmath.render(r"\foo{")


@pytest.mark.parametrize(
    ("tex", "prepared", "number"),
    [
        (r"x \tag{12}", "x", "12"),
        (r"\label{a} x", "x", None),
        (r"a &= b \\ c &= d", r"\begin{aligned}a &= b \\ c &= d\end{aligned}", None),
        (r"\begin{cases} a & b \\ c \end{cases}", r"\begin{cases} a & b \\ c \end{cases}", None),
        (
            r"f &= \begin{cases} a & b \end{cases} \\ g &= 1",
            r"\begin{aligned}f &= \begin{cases} a & b \end{cases} \\ g &= 1\end{aligned}",
            None,
        ),
        (r"a \& b", r"a \& b", None),
        (r"\begin{align} a &= b \end{align}", r"\begin{align*} a &= b \end{align*}", None),
    ],
)
def test_prepare(tex, prepared, number):
    assert katexmath.prepare(tex) == (prepared, number)
    katexmath.render(prepared, display=True)


def test_the_archive_of_katex_has_what_a_page_needs():
    files = {name: content.decode("latin1") for name, content in katexmath.files().items()}
    version = re.search(r'katex-version:after\{content:"([\d.]+)"', files["katex.min.css"])[1]
    assert f'version:"{version}"' in files["katex.min.js"]
    assert katexmath.KATEX.name == f"katex-{version}.tgz"
    fonts = set(re.findall(r"url\(([^)]+)\)", files["katex.min.css"]))
    assert fonts == set(files) - {"LICENSE", "katex.min.css", "katex.min.js"}
    assert len(fonts) == 20


def test_an_archive_that_is_not_the_published_one_is_an_error(tmp_path, monkeypatch):
    other = tmp_path / "katex.tgz"
    other.write_bytes(katexmath.KATEX.read_bytes() + b"0")
    monkeypatch.setattr(katexmath, "KATEX", other)
    with pytest.raises(ExtensionError, match="not the published one"):
        katexmath.files.__wrapped__()


# --- links to code ---


def test_locate_finds_the_line_of_every_kind_of_symbol(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("")
    file = tmp_path / "pkg" / "mod.py"
    file.write_text(
        "LIMIT = 3\n\nclass A:\n    x: int = 0\n\n    @property\n    def f(self):\n        pass\n"
    )
    for symbol, line in {"": 1, ".LIMIT": 1, ".A": 3, ".A.x": 4, ".A.f": 7}.items():
        assert codelink.locate(tmp_path, f"pkg.mod{symbol}") == (file, line)
    assert codelink.locate(tmp_path, "pkg.mod.A.gone") is None
    assert codelink.locate(tmp_path, "other.mod") is None


# --- figures ---


def test_ink_turns_light_and_data_keeps_its_colour():
    dark = darkfigures.darken(SVG)
    assert f'fill="{darkfigures.INK}"' in dark.split(">")[0]  # letters name no colour
    assert "fill: none" in dark
    assert dark.count("fill: #000000") == 1  # the kept label
    assert 'id="keep-label" fill="#000000"' in dark  # and what it would inherit
    assert "fill: #00224e" in dark  # a cell of a heat map
    assert "stroke: #000000" not in dark


def test_labels_on_cells_keep_their_colour_and_the_title_does_not():
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "path"}):
        figure = Figure()
        ax = figure.add_subplot()
        ax.imshow([[0.0, 1.0]])
        ax.set_title("title", color="#111111")
        ax.text(0, 0, "on dark", color="#fefefe")
        ax.text(1, 0, "on light", color="#020202")
        drawn = StringIO()
        figure.savefig(drawn, format="svg")
    dark = darkfigures.darken(drawn.getvalue())
    assert "#fefefe" in dark
    assert "#020202" in dark
    assert "#111111" not in dark


@pytest.mark.parametrize(
    "colour", ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000", "#333333"]
)
def test_recoloured_ink_stands_out_on_the_dark_page(colour):
    new = darkfigures.recolour(colour)
    assert (
        darkfigures.contrast([int(new[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        >= darkfigures.CONTRAST
    )


def test_ground_is_that_of_the_style_sheet():
    css = (ASSETS / "book.css").read_text("utf8")
    assert "--pst-color-background: #{:02x}{:02x}{:02x}".format(*darkfigures.GROUND) in css


def test_figure_is_paired_once(tmp_path):
    (tmp_path / "a.svg").write_text(SVG)
    page = page_of('<p><img alt="x" src="a.svg"/>；<img class="keep-colors" src="a.svg"/></p>')
    darkfigures.pair(page, tmp_path / "p.html")
    first, second, kept = page.iter("img")
    assert first.get("class") == "ink-light dark-light"
    assert second.get("class") == "ink-dark dark-light"
    assert second.get("src").startswith("a-dark.svg?v=")
    assert second.get("loading") == "lazy"
    assert (first.get("width"), first.get("height"), second.get("alt")) == ("96", "48", "x")
    assert (first.tail, second.tail, kept.get("class")) == (None, "；", "keep-colors")
    once = finish.serialize(page)
    darkfigures.pair(page, tmp_path / "p.html")
    assert finish.serialize(page) == once


# --- addresses of headings ---


def test_a_heading_is_called_by_its_label_or_its_title():
    document = new_document("page")

    def section(parent, title, id_, *labels):
        part = nodes.section("", nodes.title("", title), ids=[id_, *labels], names=[title, *labels])
        parent += part
        document.ids |= dict.fromkeys(part["ids"], part)
        return part

    top = section(document, "一页", "id1", "sec-page")
    first = section(top, "实验", "id2")
    again = section(section(top, "练习 (1)", "id3"), "实验", "id4")
    latin = section(top, "YaRN", "yarn")
    third = section(top, "实验", "id5")
    document.nameids["实验"] = "id2"
    document += nodes.reference("", "", refid="id4")
    renamed = anchors.rename(document)
    ids = [part["ids"][0] for part in (top, first, again, latin, third)]
    assert ids == ["sec-page", "实验", "练习-1-实验", "yarn", "sec-page-实验"]
    assert document[-1]["refid"] == renamed["id4"] == "练习-1-实验"
    assert document.nameids["实验"] == "实验"


# --- small parts ---


def test_polish_repairs_and_repeats_without_effect():
    page = page_of(
        '<nav aria-label="Main"></nav><div role="list"></div><pre>x = 1\n\n\n</pre>'
        '<div class="dropdown d"><button class="btn" type="button" data-bs-toggle="dropdown"'
        ' aria-expanded="false" aria-label="下载"><i></i></button>'
        '<ul class="dropdown-menu"></ul></div><article><img src="1.png"><img src="2.png"></article>'
        '<div class="citation" id="a">A <i>reference</i></div><div class="citation">文献</div>',
        '<script src="../_static/scripts/fontawesome.js?digest=1"></script>'
        '<script src="../searchindex.js"></script>',
    )
    new = polished(page)
    assert "<pre>x = 1\n</pre>" in new
    assert page.xpath("//script[@src]") == []
    assert "全书目录" in new
    assert 'role="list"' not in new
    assert '<details class="dropdown d"><summary class="btn" aria-label="下载"><i></i>' in new
    assert [image.get("loading") for image in page.iter("img")] == [None, "lazy"]
    assert [c.get("lang") for c in page.find_class("citation")] == ["en", None]
    assert page.get("data-theme") == "light"
    assert polished(page) == polished(finish.parse(new)) == new


def test_what_a_page_says_survives_the_last_step():
    inside = (
        "<p>a &lt; b &amp; c\u00a0“引号”</p><pre>  def f():\n\n      <b>return</b>  </pre>\n"
        '<math xmlns="http://www.w3.org/1998/Math/MathML"><mi>x</mi><annotation encoding="t">'
        '\\frac{a}{b}</annotation></math><svg viewBox="0 0 1 1"><path d="M0 0"></path></svg>'
        '<a href="#式-1">式</a><a href="p.html?a=1&amp;b=%20">é</a><br><input disabled="">'
        "<script>if (a < b && c) x();</script>"
    )
    written = BeautifulSoup(finish.serialize(page_of(f"<div>{inside}</div>")), "html.parser")
    assert str(written.div) == str(BeautifulSoup(f"<div>{inside}</div>", "html.parser"))


def test_a_theme_that_has_changed_is_an_error(tmp_path):
    page = finish.parse('<html data-theme="auto"><head><script>other()</script></head></html>')
    with pytest.raises(ExtensionError, match=r"polish\.THEME"):
        polish.theme(page, tmp_path)
    (tmp_path / "print.js").write_text("print()")
    with pytest.raises(ExtensionError, match=r"bundle\.LAYOUT"):
        bundle.script(tmp_path)


def test_cache_key_follows_what_a_notebook_uses(tmp_path):
    files = {
        "src/lib/__init__.py": "",
        "src/lib/top.py": "from lib.low import f\nimport torch",
        "src/lib/low.py": "f = 1",
        "src/lib/other.py": "",
        "src/lib/pipe/__init__.py": "",
        "src/lib/pipe/worker.py": "",
        "src/lib/text.txt": "",
        "book/data/runs/long.json": "1",
        "book/data/table.csv": "1",
        "book/refs.bib": "1",
        "constraints.txt": "torch==1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def used(code):
        found = cachekey.dependencies(tmp_path, code)
        return {path.relative_to(tmp_path).as_posix() for path in found} - {"constraints.txt"}

    always = {"src/lib/__init__.py", "src/lib/text.txt"}
    low, top = "src/lib/low.py", "src/lib/top.py"
    assert used("import numpy") == set()
    assert used("import lib\nlib.__file__") == always
    assert used("import lib\nlib.low.f") == always | {low}
    assert used("from lib import (\n    low,\n    other,\n)") >= {low, "src/lib/other.py"}
    assert {low, top} <= used("from lib.top import f") <= always | {low, top}
    room = {"src/lib/pipe/__init__.py"}
    assert used("from lib.pipe import run") == always | room
    assert used("from lib.pipe import worker") == always | room | {"src/lib/pipe/worker.py"}
    assert used("import lib.pipe.worker") == always | room | {"src/lib/pipe/worker.py"}
    assert used("read('book/data/runs', 'long')") == {"book/data/runs/long.json"}
    assert used("open('refs.bib')") == {"book/refs.bib"}

    before = cachekey.content_hash(tmp_path, "import lib.top")
    (tmp_path / "src/lib/other.py").write_text("x = 2")
    assert cachekey.content_hash(tmp_path, "import lib.top") == before
    (tmp_path / low).write_text("f = 2")
    after = cachekey.content_hash(tmp_path, "import lib.top")
    (tmp_path / "constraints.txt").write_text("torch==2")
    assert len({before, after, cachekey.content_hash(tmp_path, "import lib.top")}) == 3


@pytest.mark.parametrize(
    ("url", "services"),
    [
        ("", None),
        ("https://code.example.org/team/book", None),
        ("https://github.com/team/book/", {"binderhub_url", "colab_url"}),
        ("https://gitlab.com/team/book", {"binderhub_url"}),
    ],
)
def test_buttons_only_where_they_lead_somewhere(monkeypatch, url, services):
    monkeypatch.setenv("BOOK_REPO_URL", url)
    config = SimpleNamespace(html_theme_options={})
    repo.set_repository(None, config)
    assert config.book_repo_url == url.rstrip("/")
    launch = config.html_theme_options.get("launch_buttons")
    assert (launch and {k for k in launch if k.endswith("_url")}) == services


def test_run_times_are_in_chinese_with_a_total():
    from docutils import nodes

    run = {"mtime": 0, "method": "cache", "runtime": 2.34, "succeeded": True}
    pages = {"notebooks/moe": {"exec_data": run}, "book/index": {}}
    pages["notebooks/a"] = {"exec_data": run | {"runtime": None}}
    table = make_stat_table("book/status", pages)
    assert runtimes.in_chinese(table)
    first, *_, last = [[cell.astext() for cell in row] for row in table.findall(nodes.row)]
    assert first == ["笔记本", "运行时间", "方式", "用时（秒）", "状态"]
    assert last == ["合计", "", "", "2.3", ""]
    assert not re.search("[✅❌]|Document|cache", table.astext())
    assert not runtimes.in_chinese(table)
    assert not runtimes.in_chinese(nodes.table("", nodes.tgroup("", nodes.tbody())))


def test_month_of_a_paper():
    entry = parse_string(BIB, "bibtex").entries["v3"]
    assert papers.month({}, entry) == "2024-12"
    assert papers.month({"date": "2025-09"}, entry) == "2025-09"


def test_settings_name_every_extension_and_every_page():
    config = yaml.safe_load((ROOT / "_config.yml").read_text("utf8"))
    [(package, folder)] = config["sphinx"]["local_extensions"].items()
    files = {path.stem: path for path in (ROOT / folder / package).glob("*.py")}
    assert set(dsbook.PARTS) == {n for n, p in files.items() if "def setup(" in p.read_text()} - {
        "__init__"
    }
    for name, path in files.items():
        assert ast.get_docstring(ast.parse(path.read_text("utf8"))), name
    for page in re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text("utf8")):
        suffixes = (".md", ".ipynb", ".py")
        assert any((ROOT / f"{page}{suffix}").is_file() for suffix in suffixes), page


# --- two small sites ---


PAGE = r"""
# 一页

$$
s = \sigma(x) \tag{15}
$$ (eq-paper)

$$
y = 2x
$$ (eq-own)

由{eq}`eq-paper` 和{eq}`eq-own`，见 {code}`pkg.mod.A.f` 与 {code}`常数 <pkg.mod.LIMIT>`。
引用 {cite:p}`v3`。负载均衡。

```{nbfigure} nb.ipynb::fig
:name: fig-x
:alt: 一条线
图题。
```

见 {numref}`fig-x`。

```{papers} map.yml
```

```{equation-index}
```

```{bibliography}
:filter: docname in docnames
```
"""
BAD = r"""
# 坏页

$\foo{$ 和 {code}`pkg.mod.gone`。

```{nbfigure} nb.ipynb::nothing
:alt: 没有
图题。
```

```{papers} map.yml
```
"""
ROW = {"key": "v3", "name": "V3", "post": True, "brought": "一句话。", "used_in": ["page"]}
CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_nb", "sphinxcontrib.bibtex", *("dsbook." + name for name in (
    "codelink", "eqindex", "finish", "gbt7714", "katexmath", "nbfigure", "papers", "zhsearch"))]
language = "zh_CN"
bibtex_bibfiles = ["refs.bib"]
bibtex_default_style = "gbt7714-2025"
html_math_renderer = "katexmath"
math_eqref_format = "式 ({{number}})"
myst_enable_extensions = ["dollarmath", "colon_fence"]
nb_execution_mode = "off"
numfig = True
exclude_patterns = ["build"]
templates_path = [{templates!r}]
html_theme = "sphinx_book_theme"
html_context = {{"default_mode": "auto"}}
"""


def build(root: Path, page: str, rows: list[dict], builder: str = "html") -> str:
    """Build a small site; returns the warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    for name in ("book", "src/pkg"):
        (root / name).mkdir(parents=True)
    (root / "conf.py").write_text(
        CONF.format(ext=str(EXT), templates=str(EXT.parent / "templates")), "utf8"
    )
    (root / "refs.bib").write_text(BIB, "utf8")
    (root / "index.md").write_text("# 书\n\n```{toctree}\nbook/page\nbook/nb\n```\n", "utf8")
    (root / "book/page.md").write_text(page, "utf8")
    (root / "book/map.yml").write_text(yaml.safe_dump(rows, allow_unicode=True), "utf8")
    (root / "src/pkg/__init__.py").write_text("")
    (root / "src/pkg/mod.py").write_text(
        "LIMIT = 3\n\n\nclass A:\n    def f(self):\n        '''V3 eq 15.'''\n"
    )
    glued = nbformat.v4.new_output(
        "display_data",
        {"application/papermill.record/image/svg+xml": SVG},
        metadata={"scrapbook": {"mime_prefix": "application/papermill.record/", "name": "fig"}},
    )
    cell = nbformat.v4.new_code_cell("glue()", outputs=[glued], id="c0")
    title = nbformat.v4.new_markdown_cell("# 笔记本", id="c1")
    language = {"language_info": {"name": "python", "pygments_lexer": "python"}}
    notebook = nbformat.v4.new_notebook(cells=[title, cell], metadata=language)
    nbformat.write(notebook, root / "book/nb.ipynb")
    problems = StringIO()
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")  # Sphinx's and docutils' own deprecations are not ours
        out = root / "build"
        app = Sphinx(
            root, root, out / builder, out / "doctrees", builder, status=None, warning=problems
        )
        app.build(force_all=True)
    return re.sub(r"\x1b\[[\d;]*m", "", problems.getvalue())


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    assert build(root, PAGE, [ROW]) == ""
    html = root / "build" / "html"
    return html, BeautifulSoup((html / "book/page.html").read_text("utf8"), "html.parser")


def test_equation_keeps_the_papers_number_and_ours_counts_on(good):
    html, page = good
    numbers = [e.get_text() for e in page.select("div.math .eqno")]
    assert [n.split(")")[0] for n in numbers] == ["(15", "(1"]
    links = {
        a["href"]: a.get_text()
        for a in page.select('a[href^="#equation-"]')
        if "式" in a.get_text()
    }
    assert links == {"#equation-eq-paper": "式 (15)", "#equation-eq-own": "式 (1)"}
    assert all(page.select(link) for link in links)
    assert ".katex{" in (html / "_static/site.css").read_text("utf8")


def test_a_page_of_papers_numbers_alone_is_built_for_its_links_too(tmp_path):
    """`make links` is a builder of no format, where references resolve as well."""
    page = PAGE.replace("$$\ny = 2x\n$$ (eq-own)\n", "").replace("和{eq}`eq-own`", "")
    assert "eq-own" not in page
    assert build(tmp_path, page, [ROW], builder="dummy") == ""


def test_code_role_leads_to_the_line(good):
    html, page = good
    hrefs = {a.get_text(): a["href"] for a in page.select("a.codelink")}
    assert hrefs == {"mod.A.f": "../source/pkg/mod.html#L-5", "常数": "../source/pkg/mod.html#L-1"}
    source = BeautifulSoup((html / "source/pkg/mod.html").read_text("utf8"), "html.parser")
    assert "def f(self)" in source.select_one("#L-5").get_text()


def test_equation_leads_to_its_formula_and_to_its_code(good):
    _, page = good
    cells = page.select("table.equation-index tbody td")
    assert [c.get_text(strip=True) for c in cells] == ["V3 式 15", "式 (15)", "mod.A.f"]
    assert [a["href"] for c in cells for a in c.select("a")] == [
        "#equation-eq-paper",
        "../source/pkg/mod.html#L-5",
    ]


def test_glued_figure_has_number_text_and_both_inks(good):
    html, page = good
    images = page.select("figure img")
    assert [i["alt"] for i in images] == ["一条线", "一条线"]
    assert all((html / "book" / i["src"].split("?")[0]).is_file() for i in images)
    assert "1" in page.select_one("figure .caption-number").get_text()


def test_papers_and_references(good):
    _, page = good
    cells = [c.get_text(" ", strip=True) for c in page.select("table.papers tbody td")]
    assert cells == ["2024-12", "V3 arXiv:2412.19437", "一句话。", "PAGE"]
    whole = page.select_one("table.papers abbr.title")["title"]
    assert whole == "DeepSeek-V3 Technical Report"
    assert "[PP/OL]" in page.select_one("div.citation").get_text()


def test_search_data_holds_every_section(good):
    html, _ = good
    assert not (html / "searchindex.js").exists()
    data = (html / "searchdata.js").read_text("utf8")
    section = next(s for s in zhsearch.read(data) if s["doc"] == "book/page")
    assert "负载均衡" in section["text"] + section["title"]


def test_every_mistake_is_a_warning_with_its_place(tmp_path):
    problems = build(tmp_path, BAD, [ROW | {"key": "unknown"}, {"key": "v3"}])
    for text in (
        r"page\.md:4: WARNING: KaTeX: .*\\foo",
        r"page\.md:4: WARNING: no such symbol in src/: pkg\.mod\.gone",
        r"page\.md:\d+: WARNING: no picture 'nothing' glued in 'book/nb'",
        r"page\.md:\d+: WARNING: papers: key not in the bibliography",
        r"page\.md:\d+: WARNING: papers: lacks \['brought', 'name', 'post', 'used_in'\]",
    ):
        assert re.search(text, problems), f"{text}\n{problems}"
