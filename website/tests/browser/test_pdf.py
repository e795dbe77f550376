"""The whole book as a PDF, printed afresh from _build/html and opened: fonts, text, places, links.

What is wider than the paper makes website/pdf.py fail, and so the fixture.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from bs4 import BeautifulSoup
from pypdf import PageObject, PdfReader
from pypdf.generic import DictionaryObject

ROOT = Path(__file__).parents[3]
META = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
SHOWN = re.compile(rb"/(\S+) \S+ Tf\b|<(\w+)> Tj")


@pytest.fixture(scope="module")
def pdf(tmp_path_factory) -> PdfReader:
    path = tmp_path_factory.mktemp("pdf") / "book.pdf"
    tool = [sys.executable, ROOT / "website" / "pdf.py", "--output", path]
    done = subprocess.run(tool, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f"website/pdf.py: {done.stdout}{done.stderr}", pytrace=False)
    assert path.stat().st_size < 20e6
    return PdfReader(path)


@pytest.fixture(scope="module")
def outline(pdf) -> list[tuple[tuple[str, ...], int]]:
    """(titles from the top of the outline down, page from 0) in the order of the outline."""

    def walk(items: list, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
        for item in items:
            if isinstance(item, list):
                yield from walk(item, path)
            else:
                path = (*above, item.title)
                yield path, pdf.get_destination_page_number(item)

    return list(walk(pdf.outline, ()))


def _title(page: BeautifulSoup) -> str:
    """The heading of a page of the site, as built."""
    heading = page.select_one("article h1")
    heading.select_one("a.headerlink").decompose()
    return " ".join(heading.get_text().split())


@pytest.fixture(scope="module")
def paths(soup) -> list[tuple[str, ...]]:
    """Where the table of contents has every page: (part of the book, chapter, section)."""
    found = [(_title(soup(TOC["root"])),)]

    def walk(entries: list[dict], above: tuple[str, ...]) -> None:
        for entry in entries:
            if entry.get("file", "src/").startswith("src/"):
                continue
            found.append((*above, _title(soup(entry["file"]))))
            walk(entry.get("sections", []), found[-1])

    for part in TOC["parts"]:
        walk(part["chapters"], (part["caption"],))
    return found


@pytest.fixture(scope="module")
def starts(outline, paths) -> list[tuple[str, int]]:
    """(title, page from 0) of every page of the site, by the outline."""
    numbers = dict(outline)
    missing = [path for path in paths if path not in numbers]
    assert not missing, f"not in the outline: {missing}"
    return [(path[-1], numbers[path]) for path in paths]


@pytest.fixture(scope="module")
def first_pages(pdf, starts) -> dict[str, str]:
    return {title: pdf.pages[number].extract_text() for title, number in starts}


def _fonts(page: PageObject) -> dict[str, DictionaryObject]:
    fonts = page["/Resources"].get("/Font", {})
    return {name: fonts[name] for name in fonts}


def _lines(text: str) -> list[str]:
    return ["".join(line.split()) for line in text.splitlines()]


def test_every_font_is_embedded(pdf):
    outside, count = set(), 0
    for page in pdf.pages:
        for font in _fonts(page).values():
            count += 1
            if font["/Subtype"] == "/Type3":
                assert font["/CharProcs"]  # its glyphs are drawings in the file
                continue
            if font["/Subtype"] == "/Type0":
                font = font["/DescendantFonts"][0].get_object()
            files = {"/FontFile", "/FontFile2", "/FontFile3"}
            if not files & set(font.get("/FontDescriptor", {})):
                outside.add(font["/BaseFont"])
    assert count > 1000
    assert not outside


def test_no_glyph_is_missing(pdf):
    """Glyph 0 of every font is the box for what it does not have."""
    boxes, count = [], 0
    for number, page in enumerate(pdf.pages, 1):
        fonts, font = _fonts(page), None
        glyphs: list[int] = []
        for name, codes in SHOWN.findall(page.get_contents().get_data()):
            if name:
                font = fonts["/" + name.decode()]
                width = 4 if font["/Subtype"] == "/Type0" else 2
                differences = font["/Encoding"]["/Differences"][1:] if width == 2 else None
                continue
            for i in range(0, len(codes), width):
                code = int(codes[i : i + width], 16)
                glyphs.append(int(differences[code][2:], 16) if differences else code)
        count += len(glyphs)
        boxes += [number] * glyphs.count(0)
    assert count > 300_000
    assert not boxes, f"on pages {sorted(set(boxes))}"


def test_chinese_text_is_found(first_pages):
    for title, text in first_pages.items():
        assert "".join(title.split()) in "".join(_lines(text)), title
        # 一 and not the radical ⼀, which looks the same but is not found
        assert not re.search("[\u2e80-\u2fdf\ufffd]", text), title


def test_outline_has_parts_pages_and_headings(pdf, outline, starts):
    captions = [part["caption"] for part in TOC["parts"]]
    assert [path[0] for path, _ in outline if len(path) == 1] == [starts[0][0], *captions]
    numbers = [number for _, number in outline]
    assert numbers == sorted(numbers)
    begins = [number for _, number in starts]
    assert begins == sorted(set(begins))  # every page of the site begins on paper of its own
    assert len(outline) > 5 * len(starts)
    assert [path[-1] for path, _ in outline].count("1.1.3 公式") == 1


def test_contents_give_the_page_of_every_part(pdf, starts):
    first = starts[0][1]
    rows = _lines("\n".join(page.extract_text() for page in pdf.pages[1:first]))
    for title, number in starts:
        row = "".join(title.split())
        assert f"{row}{number + 1}" in "".join(rows), title
        # and the paper has that number
        assert str(number + 1) in _lines(pdf.pages[number].extract_text()), title


def test_links_stay_in_the_file_or_go_to_the_web(pdf, starts):
    inside, ids = 0, {page.indirect_reference.idnum for page in pdf.pages}
    for number, page in enumerate(pdf.pages, 1):
        for reference in page.get("/Annots", []):
            link = reference.get_object()
            if "/Dest" not in link:
                assert re.match("https?://(?!127|localhost)", link["/A"]["/URI"]), number
                continue
            inside += 1
            to = link["/Dest"]
            if isinstance(to, str):
                assert to in pdf.named_destinations, f"page {number}: {to}"
            else:
                assert to[0].idnum in ids, number
    assert inside > 500
    rows = [a.get_object()["/Dest"][0] for p in pdf.pages[1 : starts[0][1]] for a in p["/Annots"]]
    assert [pdf.get_page_number(row.get_object()) for row in rows] == [n for _, n in starts]


def test_cover(pdf):
    text = "".join(_lines(pdf.pages[0].extract_text()))
    for part in (META["title"], str(META["version"]), str(META["date-released"])):
        assert "".join(part.split()) in text
    for author in META["authors"]:
        assert "".join((author.get("name") or author["family-names"]).split()) in text


def test_equations_are_numbered(pdf, starts, soup):
    """Every number of an equation of the section on MoE is on its paper."""
    begin = next(number for title, number in starts if title.startswith("1.1 "))
    end = next(number for _, number in starts if number > begin)
    text = "".join(page.extract_text() for page in pdf.pages[begin:end])
    numbers = [e.next_element for e in soup("book/model/moe").select("span.eqno")]
    assert len(numbers) > 5
    assert [n for n in numbers if n not in text] == []


def test_paper_and_what_the_file_says_of_itself(pdf):
    assert {tuple(round(float(x)) for x in page.mediabox[2:]) for page in pdf.pages} == {(595, 842)}
    assert pdf.metadata.title == META["title"]
    assert META["authors"][0]["name"] in pdf.metadata.author
    assert pdf.trailer["/Root"]["/Lang"] == "zh-CN"
    assert pdf.page_mode == "/UseOutlines"


def _elements(pdf):
    """Every element of the tagged text, with the kinds of those inside it."""
    todo = [pdf.trailer["/Root"]["/StructTreeRoot"]]
    while todo:
        kids = todo.pop().get("/K", [])
        kids = [k.get_object() for k in (kids if isinstance(kids, list) else [kids])]
        elements = [k for k in kids if isinstance(k, DictionaryObject) and "/S" in k]
        todo += elements
        yield from elements


def test_the_file_is_tagged(pdf, starts):
    """For screen readers: headings, lists and tables are such, pictures and formulas have words."""
    assert pdf.trailer["/Root"]["/MarkInfo"]["/Marked"] is True
    elements = list(_elements(pdf))
    kinds = [element["/S"] for element in elements]
    assert kinds.count("/H1") == len(starts)
    assert kinds.count("/H2") > len(starts)
    for kind in ("/P", "/L", "/LI", "/Table", "/TR", "/TH", "/TD", "/Link"):
        assert kinds.count(kind) > 50, kind
    figures = [e for e in elements if e["/S"] == "/Figure"]
    # a numbered figure is one around its picture, or around a drawing and a caption
    inner = [e for e in figures if {k["/S"] for k in _inside(e)} <= {"/NonStruct"}]
    bare = [e for e in inner if not e.get("/Alt")]
    assert len(inner) > 1000  # formulas are pictures with their TeX
    assert bare == []


def _inside(element):
    kids = element.get("/K", [])
    for kid in kids if isinstance(kids, list) else [kids]:
        kid = kid.get_object()
        if isinstance(kid, DictionaryObject) and "/S" in kid:
            yield kid
            yield from _inside(kid)


def test_every_page_is_in_the_tags_or_says_that_it_is_not(pdf, starts):
    """Cover and contents, which the outline repeats, are artifacts."""
    for number, page in enumerate(pdf.pages):
        if number < starts[0][1]:
            assert page.get_contents().get_data().startswith(b"/Artifact BMC")
        else:
            assert "/StructParents" in page, number + 1
