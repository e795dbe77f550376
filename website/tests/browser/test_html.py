"""Every page is valid HTML for the Nu checker, the reference (needs Java and npx)."""

import json
import re
import shutil
import subprocess

import pytest

CHECKER = ["npx", "--yes", "--package", "vnu-jar@26.9.27", "--", "vnu"]


def _errors(*pages):
    """[(page, line, message)] of the checker."""
    done = subprocess.run(
        [*CHECKER, "--errors-only", "--format", "json", *map(str, pages)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stderr[done.stderr.index("{") :])["messages"]
    return [(m["url"].rpartition("/html/")[2], m.get("lastLine"), m["message"]) for m in found]


def test_every_page_is_valid(html):
    if missing := [name for name in ("npx", "java") if not shutil.which(name)]:
        pytest.fail(f"install {' and '.join(missing)} to check the HTML", pytrace=False)
    pages = [p for p in sorted(html.rglob("*.html")) if "_static" not in p.parts]
    assert len(pages) > 100
    assert _errors(*pages) == []


def test_the_checker_sees_mistakes(tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<p id=a></p><p id=a></p>", "utf8")
    assert any("Duplicate ID" in message for _, _, message in _errors(bad))


def test_the_language_of_a_page_and_of_its_english_parts(soup):
    page = soup("book/papers")
    assert page.html["lang"] == "zh-CN"
    references = page.select("div.citation")
    assert len(references) > 5
    for reference in references:
        chinese = re.search("[\u3400-\u9fff]", reference.get_text())
        assert (reference.get("lang") == "en") != bool(chinese)
    assert soup("source/dsnotes/model/moe").select_one(".source-page")["lang"] == "en"
