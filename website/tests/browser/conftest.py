"""The built book in a real browser, without network: serves _build/html on the loopback address.

    make check-site        (builds the book first)

CHROMIUM names another browser; by default Debian's, else the one Playwright has downloaded.
"""

import functools
import gzip
import http.server
import os
import re
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parents[3]
HTML = ROOT / "_build" / "html"
PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text("utf8"))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


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


@dataclass
class Opened:
    """A page on the screen, and what happened while it was loaded."""

    name: str
    page: Page
    trouble: list[str] = field(default_factory=list)
    sizes: dict[str, tuple[str, int]] = field(default_factory=dict)  # path → (kind, bytes sent)


@pytest.fixture(scope="session", params=PAGES)
def opened(browser, site, request) -> Opened:
    """Every page in turn, loaded once for all its tests; no request leaves the site."""
    name = request.param
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    seen = Opened(name, page)
    trouble: list[str] = []

    def on_request(route):
        if route.request.url.startswith((site + "/", "data:")):
            route.continue_()
        else:
            trouble.append(f"outside: {route.request.url}")
            route.abort()

    def on_response(response):
        if response.status >= 400:
            trouble.append(f"{response.status} {response.url}")
            return
        body = response.body()
        kind = response.headers.get("content-type", "")
        if re.search(r"text/|javascript|json|svg", kind):
            body = gzip.compress(body)  # as servers send it
        seen.sizes[response.url.removeprefix(site)] = (response.request.resource_type, len(body))

    page.route("**/*", on_request)
    page.on("response", on_response)
    page.on("console", lambda m: m.type == "error" and trouble.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: trouble.append(f"script: {error}"))
    page.goto(f"{site}/{name}.html", wait_until="networkidle")
    seen.trouble = list(trouble)  # what a check does to the page later is not its own doing
    yield seen
    page.close()
