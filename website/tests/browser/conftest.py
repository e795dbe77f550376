"""The built book in a real browser, without network: serves _build/html on the loopback address.

    make check-site        (builds the book first)

`page` and `new_context` are those of pytest-playwright. CHROMIUM names another browser than the
one that is found; none is downloaded. Of a test that fails, pictures of its pages are kept in
_build/browser, and with `--tracing retain-on-failure` all that led there (for
`playwright show-trace`).
"""

import gzip
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "website"))

import serve  # noqa: E402

PAGES = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text("utf8"))


def pytest_configure(config: pytest.Config) -> None:
    config.option.output = str(ROOT / "_build" / "browser")
    config.option.screenshot = "only-on-failure"


@pytest.fixture(scope="session")
def base_url() -> Iterator[str]:
    """The address of the book, which the addresses of tests begin with."""
    with serve.open_server(0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict) -> dict:
    # what a browser asks for by itself would look like requests of the page
    quiet = ["--no-sandbox", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--disable-gpu"]  # fmt: skip
    return browser_type_launch_args | {"executable_path": serve.find_chromium(), "args": quiet}


@pytest.fixture(scope="session")
def browser_context_args(browser_context_args: dict) -> dict:
    """A desk whose clipboard may be read, where nothing moves unless a test wants it to."""
    return browser_context_args | {
        "reduced_motion": "reduce",
        "viewport": {"width": 1280, "height": 900},
        "permissions": ["clipboard-read", "clipboard-write"],
    }


@pytest.fixture(scope="session")
def html() -> Path:
    """The folder of the built book."""
    if not (serve.HTML / serve.HOME).is_file():
        pytest.fail("there is no book in _build/html: run `make book` first", pytrace=False)
    return serve.HTML


@pytest.fixture(scope="session")
def soup(html: Path) -> Callable[[str], BeautifulSoup]:
    """Name of a page → what is written in it."""
    return lambda name: BeautifulSoup((html / f"{name}.html").read_text("utf8"), "html.parser")


@pytest.fixture(scope="session", params=PAGES)
def name(request: pytest.FixtureRequest) -> str:
    """Every page of the table of contents in turn."""
    return request.param


@dataclass
class Opened:
    """A page on the screen, and what happened while it was loaded."""

    name: str
    page: Page
    trouble: list[str] = field(default_factory=list)
    sizes: dict[str, tuple[str, int]] = field(default_factory=dict)  # path → (kind, bytes sent)


@pytest.fixture(scope="session")
def loaded(
    browser: Browser, browser_context_args: dict, base_url: str, name: str
) -> Iterator[Opened]:
    """A page, loaded once for all its tests; no request leaves the site."""
    page = browser.new_page(**browser_context_args)
    seen = Opened(name, page)
    trouble: list[str] = []

    def on_request(route):
        if route.request.url.startswith((base_url + "/", "data:")):
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
        seen.sizes[response.url.removeprefix(base_url)] = (
            response.request.resource_type,
            len(body),
        )

    page.route("**/*", on_request)
    page.on("response", on_response)
    page.on("console", lambda m: m.type == "error" and trouble.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: trouble.append(f"script: {error}"))
    page.goto(f"/{name}.html", wait_until="networkidle")
    seen.trouble = list(trouble)  # what a check does to the page later is not its own doing
    yield seen
    page.close()


@pytest.fixture
def opened(loaded: Opened, request: pytest.FixtureRequest, output_path: str) -> Iterator[Opened]:
    yield loaded
    if request.node.rep_call.failed:  # pytest-playwright pictures only what it has opened itself
        loaded.page.screenshot(path=f"{output_path}/{Path(loaded.name).name}.png")
