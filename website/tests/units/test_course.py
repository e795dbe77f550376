"""The course: ten slides, a sheet and a quiz for each section, of what the pages have."""

import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook import course  # noqa: E402

DATA = {name: course.load(ROOT, name) for name in course.NAMES}
PAGES = {
    name: (ROOT / f"{data['page']}.md").read_text("utf8") for name, data in DATA.items()
}  # fmt: skip
BOOK = "\n".join(path.read_text("utf8") for path in (ROOT / "book").rglob("*.md"))
LABEL = re.compile(r"^\(([\w-]+)\)=|^:name: ([\w-]+)|\$\$ \(([\w-]+)\)", re.MULTILINE)
OF_A_PAGE = {"problem", "traps", "predict"}
CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "website" / "extensions")!r})
extensions = ["myst_nb", "dsbook.predict", "dsbook.course"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
nb_execution_mode = "off"
"""


def labels_in(text: str) -> set[str]:
    return {"".join(found) for found in LABEL.findall(text)}


def shown(part: dict) -> list[str]:
    named = course.labels(part) + [part[key] for key in ("figure", "traps") if key in part]
    return [label.removeprefix("only ") for label in named]


def test_every_main_section_has_a_file_and_no_other() -> None:
    files = {path.stem for path in (ROOT / "book/course/slides").glob("*.yml")}
    assert files == set(course.NAMES)
    assert len({data["page"] for data in DATA.values()}) == len(files) == 10


@pytest.mark.parametrize("name", course.NAMES)
def test_ten_slides_of_few_words_each_with_something_to_see_and_to_say(name: str) -> None:
    slides = DATA[name]["slides"]
    assert len(slides) == 10
    for slide in slides:
        assert set(slide) <= {"title", "lines", "show", "beside", "notes"}
        assert 1 <= len(slide["lines"]) <= 3
        assert all(len(line) <= 60 for line in slide["lines"]), slide["title"]
        assert len(slide["notes"]) >= 20
        assert shown(slide)


@pytest.mark.parametrize("name", course.NAMES)
def test_what_is_shown_is_on_the_page(name: str) -> None:
    parts = [*DATA[name]["slides"], DATA[name]["sheet"]]
    wanted = {label for part in parts for label in shown(part)}
    assert wanted - OF_A_PAGE <= labels_in(PAGES[name])


@pytest.mark.parametrize("name", course.NAMES)
def test_a_quiz_asks_six_to_eight_and_its_answers_lead_into_the_book(name: str) -> None:
    quiz, own = DATA[name]["quiz"], course.guesses(PAGES[name])
    assert 6 <= len(quiz) <= 8
    assert any("predict" in item for item in quiz) or not own
    everywhere = labels_in(BOOK)
    for item in quiz:
        if "predict" in item:
            item = own[item["predict"] - 1] | item
        choices = list(map(str, item["choices"]))
        assert str(item["answer"]) in choices
        assert 2 <= len(choices) == len(set(choices))
        assert item["where"] in everywhere, item["where"]
        assert item["where"].startswith(("eq-", "fig-", "sec-", "tab-")), "code has no caption"
        assert item["why"].endswith("。")


@pytest.mark.parametrize("name", course.NAMES)
def test_the_right_answer_is_not_always_at_one_place(name: str) -> None:
    asked = [item for item in DATA[name]["quiz"] if "ask" in item]
    places = [list(map(str, i["choices"])).index(str(i["answer"])) for i in asked]
    assert len(set(places)) > 1


def test_the_pages_ask_every_quiz_and_have_addresses() -> None:
    page = (ROOT / "book/course/quizzes.md").read_text("utf8")
    assert re.findall(r"\{course-quiz\} (\w+)", page) == list(course.NAMES)
    links = yaml.safe_load((ROOT / "book/permalinks.yml").read_text("utf8"))["pages"].values()
    assert {"book/course/slides", "book/course/quizzes"} <= set(links)


# --- a page of its own ---

PAGE = """<html data-content_root="../../"><body><article class="bd-article"><section id="x">
<h1>1.1 混合专家<a class="headerlink" href="#x">#</a></h1>
<section id="p"><h2>要解决的问题</h2><p>存得多<a href="../a.html">见此</a>。</p>
<div class="math notranslate"><span class="katex-display">1+1</span></div></section>
<figure id="fig-a"><a href="a.svg"><img class="ink-light" loading="lazy" src="../../_images/a.svg"
alt="图"><img class="ink-dark" src="../../_images/a-dark.svg" alt="图"></a>
<figcaption><span class="caption-number">图 1.1 </span></figcaption></figure>
<div class="eqcode docutils container"><div class="eqcode-math docutils container">
<div class="math notranslate" id="equation-eq-a"><span class="eqno">(15)<a class="headerlink"
href="#equation-eq-a">#</a></span><span>s</span></div></div>
<div class="eqcode-code"><pre>code</pre></div></div>
<div class="trap dropdown admonition"><p class="admonition-title">常见错误 1：丙</p><p>三</p></div>
<div class="trap admonition"><p class="admonition-title">2. 甲 <code>x</code></p>
<p>一<a class="testlink" href="t">测试</a></p></div>
</section></article></body></html>"""


@pytest.fixture
def section(tmp_path: Path) -> course.Section:
    for folder in ("book/course/slides", "notebooks"):
        (tmp_path / folder).mkdir(parents=True)
    glued = (
        '{"many": {"data": {"text/plain": "12.345"}}, "who": {"data": {"text/plain": "\'甲\'"}}}'
    )
    (tmp_path / "notebooks/moe.glue.json").write_text(glued, "utf8")
    slide = "{title: '$x$', lines: ['{{many:.1f}} 年 <'], show: eq-a, notes: '{{who}} 说'}"
    (tmp_path / "book/course/slides/moe.yml").write_text(
        f"page: book/page\nslides: [{slide}]\n"
        "sheet: {show: only eq-a, figure: fig-a, number: ['{{many:d}}', 年]}\n",
        "utf8",
    )
    (tmp_path / "book/page.html").write_text(PAGE, "utf8")
    return course.Section(tmp_path, tmp_path, tmp_path, "moe", {})


def test_a_figure_is_the_light_one_seen_from_the_slides(section: course.Section) -> None:
    image = BeautifulSoup(section.exhibit("fig-a"), "html.parser").find_all(True)
    assert [e.name for e in image] == ["img"]
    # the page lies at book/page.html, a level higher than those of the book
    assert image[0]["src"] == "../../../../_images/a.svg"
    assert "loading" not in image[0].attrs


def test_an_equation_comes_with_its_code_unless_it_shall_not(section: course.Section) -> None:
    assert "code" in section.exhibit("eq-a")
    assert "<pre>" not in section.exhibit("only eq-a")
    assert "id=" not in section.exhibit("eq-a")
    assert "#" not in section.exhibit("eq-a")


def test_the_slides_link_back_to_where_it_stands(section: course.Section) -> None:
    assert section.place("eq-a") == '<a href="../../page.html#equation-eq-a">式 (15)</a>'
    assert section.place("fig-a") == '<a href="../../page.html#fig-a">图 1.1</a>'


def test_traps_that_are_open_come_first_without_number_and_test(section: course.Section) -> None:
    (first, text), (second, _) = section.three_traps()
    assert first == "甲 <code>x</code>"
    assert second == "丙"
    assert "测试" not in text


def test_texts_take_numbers_from_the_notebook_and_are_escaped(section: course.Section) -> None:
    deck = course.deck(section)
    assert "<li>12.3 年 &lt;</li>" in deck
    assert '<div class="notes">甲 说</div>' in deck
    assert 'class="katex"' in deck
    sheet = course.sheet(section)
    assert "<b>12</b> 年" in sheet
    assert "存得多见此。" in sheet


def test_a_sheet_may_have_its_own_words_for_the_problem(section: course.Section) -> None:
    section.data["sheet"]["problem"] = "要 {{many:d}} 年吗？"
    sheet = course.sheet(section)
    assert "<p>要 12 年吗？</p>" in sheet
    assert "存得多" not in sheet


@pytest.mark.parametrize(("size", "beside"), [('width="4" height="9"', True), ("", False)])
def test_a_tall_figure_stands_beside_the_mistakes(
    section: course.Section, size: str, beside: bool
) -> None:
    section.exhibit = lambda label: f"<img {size}>"
    sheet = BeautifulSoup(course.sheet(section), "html.parser")
    assert bool(sheet.select(".beside > .figure")) == beside
    assert len(sheet.select(".figure img")) == len(sheet.select(".number")) == 1
    assert sheet.select("ol.long")


@pytest.mark.parametrize("name", [n for n in course.NAMES if "problem" in DATA[n]["sheet"]])
def test_the_problem_of_a_sheet_stands_alone_and_asks(name: str) -> None:
    problem = DATA[name]["sheet"]["problem"]
    assert problem.endswith("？")
    assert "paragraphs" not in DATA[name]["sheet"]
    assert not re.search(r"\[\d|[图表]\s?\d|下一节|上一节|预备知识", problem)


def test_what_is_not_there_is_named(section: course.Section) -> None:
    with pytest.raises(course.CourseError, match="no 'fig-b'"):
        section.exhibit("fig-b")
    with pytest.raises(course.CourseError, match="no number 'few'"):
        section.text("{{few}}")


def test_a_quiz_is_asked_by_guesses(tmp_path: Path) -> None:
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    (tmp_path / "book/course/slides").mkdir(parents=True)
    (tmp_path / "conf.py").write_text(CONF, "utf8")
    (tmp_path / "book/course/slides/moe.yml").write_text(
        "page: index\nquiz:\n"
        "- {predict: 1, why: 理由甲。, where: sec-x}\n"
        "- {ask: 省下什么？, choices: [存储, 计算], answer: 计算, why: 理由乙。, where: sec-x}\n",
        "utf8",
    )
    (tmp_path / "index.md").write_text(
        "(sec-x)=\n# 页\n\n:::{predict} 会吗？\n:choices: 会 | 不会\n:answer: 会\n\n结果。\n:::\n\n"
        "```{course-quiz} moe\n```\n",
        "utf8",
    )
    warned, out = StringIO(), tmp_path / "out"
    with docutils_namespace(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        app = Sphinx(tmp_path, tmp_path, out, tmp_path / "doc", "html", status=None, warning=warned)
        app.build()
    assert "warning" not in warned.getvalue().lower(), warned.getvalue()
    page = BeautifulSoup((out / "index.html").read_text("utf8"), "html.parser")
    asked = page.select(".guess")[1:]
    assert [e.select_one(".predict-question").get_text() for e in asked] == [
        "第一题：会吗？",
        "第二题：省下什么？",
    ]
    assert [e.form["data-answer"] for e in asked] == ["会", "计算"]
    assert "理由乙。见 页。" in asked[1].select_one(".predict-result").get_text()
