"""The book for reading offline: packed, unpacked somewhere else, opened without a server."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import quote
from zipfile import ZipFile

import pytest

TOOL = Path(__file__).parents[3] / "website" / "zip.py"


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("zip") / "book.zip"
    subprocess.run([sys.executable, TOOL, "--output", path], check=True)
    return path


@pytest.fixture(scope="module")
def unpacked(archive, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("离线 阅读")  # a path as readers have them
    with ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


@pytest.fixture
def page(page):
    """A page that sees nothing but files; what goes wrong is in its list of trouble."""
    page.trouble = []
    page.on("requestfailed", lambda request: page.trouble.append(f"failed: {request.url}"))
    page.on("console", lambda m: m.type == "error" and page.trouble.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: page.trouble.append(f"script: {error}"))
    page.on(
        "request",
        lambda request: (
            request.url.startswith(("file:", "data:"))
            or page.trouble.append(f"outside: {request.url}")
        ),
    )
    return page


def test_the_same_book_gives_the_same_archive(archive, tmp_path):
    again = tmp_path / "again.zip"
    subprocess.run([sys.executable, TOOL, "--output", again], check=True)
    assert again.read_bytes() == archive.read_bytes()


def test_the_archive_opens_with_one_folder(unpacked):
    assert [path.name for path in unpacked.iterdir()] == ["dsnotes-html"]


def test_a_section_is_read_without_a_server(page, unpacked):
    page.goto((unpacked / "dsnotes-html" / "index.html").as_uri(), wait_until="networkidle")
    page.wait_for_url("**/book/index.html")
    page.locator("nav a", has_text="混合专家模型 (MoE)").first.click()
    page.wait_for_url("**/book/model/moe.html")
    page.wait_for_load_state("networkidle")
    loaded = page.evaluate(
        "[...document.fonts].filter(f => f.status == 'loaded').map(f => f.family)"
    )
    assert any("KaTeX" in family for family in loaded)
    assert page.locator(".katex-display").count() > 5
    # the style sheet is there, and so is every picture
    assert page.evaluate("getComputedStyle(document.querySelector('table.table')).borderCollapse")
    assert page.locator(".bd-sidebar-primary").bounding_box()["x"] == 0
    assert page.evaluate(
        "[...document.images].filter(i => i.loading != 'lazy').every(i => i.naturalWidth)"
    )
    assert page.trouble == []


def test_the_search_finds_without_a_server(page, unpacked):
    search = (unpacked / "dsnotes-html" / "search.html").as_uri()
    page.goto(f"{search}?q={quote('负载均衡')}", wait_until="load")
    links = page.locator("#search-results ol.search > li > a")
    links.first.wait_for()
    assert links.count() > 3
    assert "负载均衡" in page.locator("#search-results").inner_text()
    links.first.click()
    page.locator("main article h1").wait_for()
    assert page.trouble == []
