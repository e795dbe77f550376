"""Every page is valid HTML for the Nu checker, the reference (needs Java and npx)."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

HTML = Path(__file__).parents[3] / "_build" / "html"
CHECKER = ["npx", "--yes", "--package", "vnu-jar@26.9.27", "--", "vnu"]


def test_every_page_is_valid():
    if missing := [name for name in ("npx", "java") if not shutil.which(name)]:
        pytest.fail(f"install {' and '.join(missing)} to check the HTML", pytrace=False)
    pages = [p for p in sorted(HTML.rglob("*.html")) if "_static" not in p.parts]
    assert len(pages) > 100, "there is no book in _build/html: run `make book` first"
    done = subprocess.run(
        [*CHECKER, "--errors-only", "--format", "json", *map(str, pages)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stderr[done.stderr.index("{") :])["messages"]
    print(f"{len(pages)} pages, {len(found)} errors")
    assert [(m["url"].split("/html/")[1], m.get("lastLine"), m["message"]) for m in found] == []


def test_the_checker_sees_mistakes(tmp_path):
    (tmp_path / "bad.html").write_text("<p id=a></p><p id=a></p>", "utf8")
    done = subprocess.run(
        [*CHECKER, "--errors-only", str(tmp_path / "bad.html")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Duplicate ID" in done.stderr


def test_the_language_of_a_page_and_of_its_english_parts():
    page = BeautifulSoup((HTML / "book" / "papers.html").read_text("utf8"), "html.parser")
    assert page.html["lang"] == "zh-CN"
    references = page.select("div.citation")
    assert len(references) > 5
    for reference in references:
        chinese = re.search("[\u3400-\u9fff]", reference.get_text())
        assert (reference.get("lang") == "en") != bool(chinese)
    source = (HTML / "source" / "dsnotes" / "moe.html").read_text("utf8")
    assert BeautifulSoup(source, "html.parser").select_one(".source-page")["lang"] == "en"
