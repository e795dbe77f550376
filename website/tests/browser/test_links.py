"""Links inside the book lead somewhere; those to the outside are listed in book/data/links.csv."""

import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[3]
HTML = ROOT / "_build" / "html"


def test_every_link_and_anchor_inside_the_book_resolves():
    soups = {
        path: BeautifulSoup(path.read_text("utf8"), "html.parser")
        for path in HTML.rglob("*.html")
        if "_static" not in path.parts
    }
    anchors = {path: {e["id"] for e in soup.select("[id]")} for path, soup in soups.items()}
    broken = []
    for path, soup in soups.items():
        for element, attribute in (
            ("a", "href"),
            ("link", "href"),
            ("img", "src"),
            ("script", "src"),
        ):
            for node in soup.find_all(element, attrs={attribute: True}):
                url = urlsplit(node[attribute])
                if url.scheme or url.netloc:
                    continue
                target = (path.parent / unquote(url.path)).resolve() if url.path else path
                if not target.is_file() or (
                    url.fragment
                    and target in anchors
                    and unquote(url.fragment) not in anchors[target]
                ):
                    broken.append((path.relative_to(HTML).as_posix(), node[attribute]))
    assert broken == []


def test_outside_links_are_those_listed():
    done = subprocess.run(
        [sys.executable, ROOT / "website" / "links.py"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
