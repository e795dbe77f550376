"""The built book in a real browser, without network: serves _build/html on the loopback address.

    make check-site        (builds the book first)

CHROMIUM names another browser; by default Debian's, else the one Playwright has downloaded.
"""

import functools
import http.server
import os
import re
import shutil
import threading
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
HTML = ROOT / "_build" / "html"
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text("utf8"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=PAGES)
def name(request) -> str:
    """Every page in turn, as its path without .html."""
    return request.param


@pytest.fixture(scope="session")
def site() -> str:
    if not (HTML / "index.html").is_file():
        pytest.fail("there is no book in _build/html: run `make book` first", pytrace=False)
    handler = functools.partial(_Quiet, directory=HTML)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser():
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    # what a browser asks for by itself would look like requests of the page
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--disable-gpu"]  # fmt: skip
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=quiet)
        yield browser
        browser.close()
