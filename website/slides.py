"""Print the slides, the sheets and the answers of the course into dist/slides/.

    python website/slides.py [NAME ...] [--output dist/slides]   (make slides builds the book first)

The build has made the pages (`website/extensions/dsbook/course.py`); Chromium prints each section
three times: NAME.pdf, a slide a page; NAME-notes.pdf, with what the speaker says below; and
NAME-sheet.pdf, a sheet of A4. The command fails when a slide or a sheet holds more than its place,
or a file has not the pages it should have.
"""

import argparse
import io
import sys
import threading
from pathlib import Path

import serve
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader

ROOT = serve.ROOT
COURSE = "book/course"
# smaller than this part of its size nothing is read from the back of a room, or on paper
SMALLEST = {"slides": 12, "sheets": 10}  # CSS pixels
TOO_MUCH = """least => [...document.querySelectorAll("[data-fit]")].filter(box =>
    [box, ...box.querySelectorAll(".show")].some(e =>
        e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1) ||
    parseFloat(getComputedStyle(box).fontSize) < least)
  .map(box => box.closest("section")?.id || box.querySelector("h1").textContent)"""


def open_page(page: Page, address: str) -> None:
    """Open a page and wait until what was too large has been set smaller."""
    page.goto(address, wait_until="load")
    page.wait_for_selector("html[data-fitted]", state="attached")


def overfull(page: Page, kind: str) -> list[str]:
    """The slides, or the sheet, that hold more than their place."""
    return page.evaluate(TOO_MUCH, SMALLEST[kind])


def printed(page: Page) -> tuple[bytes, int]:
    """The PDF of a page, and how many pages it has."""
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    return pdf, len(PdfReader(io.BytesIO(pdf)).pages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of sections; all when not given")
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "slides")
    given = parser.parse_args()
    folder = serve.HTML / COURSE
    there = sorted(path.stem for path in (folder / "slides").glob("*.html"))
    if unknown := set(given.names) - set(there):
        sys.exit(f"no slides of {', '.join(sorted(unknown))}; there are {', '.join(there)}")
    chromium = serve.find_chromium()
    given.output.mkdir(parents=True, exist_ok=True)
    wrong: list[str] = []

    def keep(name: str, pdf: bytes, pages: int, expected: int) -> None:
        (given.output / f"{name}.pdf").write_bytes(pdf)
        if pages != expected:
            wrong.append(f"{name}.pdf has {pages} pages, not {expected}")

    with serve.open_server(0) as server, sync_playwright() as play:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/{COURSE}"
        browser = play.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        for name in given.names or there:
            open_page(page, f"{base}/slides/{name}.html")
            wrong += [f"{name}, {place}: too full" for place in overfull(page, "slides")]
            slides = page.locator(".slide").count()
            keep(name, *printed(page), slides)
            page.check("#with-notes")
            keep(f"{name}-notes", *printed(page), slides)
            open_page(page, f"{base}/sheets/{name}.html")
            wrong += [f"{name}, sheet: too full" for _ in overfull(page, "sheets")]
            keep(f"{name}-sheet", *printed(page), 1)
            print(f"{name}: {slides} slides", flush=True)
        page.goto(f"{base}/key.html", wait_until="load")
        (given.output / "key.pdf").write_bytes(printed(page)[0])
        browser.close()
        server.shutdown()
    print(f"{given.output}: {len(list(given.output.glob('*.pdf')))} files")
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
