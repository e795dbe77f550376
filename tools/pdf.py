"""Print the built book to one PDF: cover, contents with page numbers, outline, links, page numbers.

    python tools/pdf.py [--output dist/dsnotes.pdf]         (make pdf builds the book first)

Chromium prints every page of _build/html by the print rules of the style sheet, so that formulas,
figures and tables are those of the site; pypdf joins the parts. Links between pages become links
inside the file. A formula or a table wider than the paper is set smaller, and named at the end
when even that does not make it fit.
"""

import argparse
import functools
import http.server
import io
import os
import shutil
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NullObject,
    TextStringObject,
)
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
WIDTH = 643  # CSS pixels between the margins: 170 mm at 96 dpi
STYLE = """
@page { size: A4; margin: 20mm; @bottom-center { content: counter(page); font: 9pt sans-serif; } }
@page cover { margin: 20mm; @bottom-center { content: none; } }
html { counter-reset: page %d; }
details > summary { list-style: none; }
.toggle-hidden > *:not(.admonition-title) { display: revert !important; }
#jb-print-toc, .toggle-button, .live-bar, .pipeline-controls { display: none !important; }
"""
# smaller than 0.55 of its size, nothing is read on paper
SHRINK = """
() => {
  const wide = [];
  for (const box of document.querySelectorAll("article :is(.katex-display, table, pre)")) {
    const around = "div.math, .pst-scrollable-table-container, div.highlight, td, div, section";
    const room = (box.parentElement.closest(around) ?? box.parentElement).clientWidth;
    const need = Math.max(box.scrollWidth, box.querySelector(".katex-html")?.scrollWidth ?? 0);
    if (!room || need <= room + 1) continue;
    const size = parseFloat(getComputedStyle(box).fontSize);
    const ratio = Math.max(0.55, room / need);
    box.style.fontSize = `${size * ratio}px`;
    if (need * ratio > room * 1.02) wide.push(box.textContent.trim().slice(0, 40));
  }
  return wide;
}
"""
COVER = """<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>{title}</title>
<style>{style} body {{ font-family: "Noto Sans CJK SC", sans-serif; page: cover; }}
main {{ height: 245mm; display: flex; flex-direction: column; justify-content: center; }}
img {{ width: 34mm; margin-bottom: 14mm; }} h1 {{ font-size: 30pt; line-height: 1.35; margin: 0; }}
p {{ font-size: 12pt; color: #444; }}</style>
<main><img src="_static/logo.svg" alt=""><h1>{title}</h1><p>{authors}</p>
<p>版本 {version}，{date}</p></main></html>"""
CONTENTS = """<!doctype html><html lang="zh-CN"><meta charset="utf-8"><title>目录</title>
<style>{style} body {{ font: 10.5pt/1.7 "Noto Sans CJK SC", sans-serif; }}
h1 {{ font-size: 20pt; }} ol {{ list-style: none; padding: 0; margin: 0; }}
a {{ color: inherit; text-decoration: none; display: flex; gap: .6em; }}
a::before {{ content: ""; order: 1; flex: 1; border-bottom: 1px dotted #999; align-self: center; }}
a > :last-child {{ order: 2; }} .part {{ font-weight: 700; margin-top: 1em; }}
{indents}</style><h1>目录</h1><ol>{rows}</ol></html>"""


@dataclass
class Part:
    """One page of the site and what became of it."""

    name: str
    level: int
    caption: str = ""  # of the part of the book that begins here
    title: str = ""
    pdf: bytes = b""
    first: int = 0  # pages before it
    wide: list[str] = field(default_factory=list)

    @functools.cached_property
    def reader(self) -> PdfReader:
        return PdfReader(io.BytesIO(self.pdf))


def parts_of(toc: dict) -> list[Part]:
    """The pages of _toc.yml in the order of reading."""
    found = [Part(toc["root"], 0)]

    def walk(entries: list[dict], level: int, caption: str = "") -> None:
        for entry in entries:
            found.append(Part(entry["file"], level, caption))
            caption = ""
            walk(entry.get("sections", []), level + 1)

    for part in toc["parts"]:
        walk(part["chapters"], 1, part.get("caption", ""))
    return found


def print_page(page: Page, url: str, before: int) -> tuple[str, list[str], bytes]:
    """(title, what is too wide, the PDF) of one page whose first number is before + 1."""
    answer = page.goto(url, wait_until="networkidle")
    if not answer or not answer.ok:
        sys.exit(f"{url} is not in the built book: run `make book` again")
    page.add_style_tag(content=STYLE % before)
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    # every anchor gets a link, else Chromium does not note where it is
    page.evaluate(
        """() => { const box = document.createElement("div");
        box.style.cssText = "position:absolute;width:0;height:0;overflow:hidden;font-size:1px";
        for (const e of document.querySelectorAll("article [id]")) {
          const a = document.createElement("a"); a.href = "#" + e.id;
          a.textContent = "."; box.append(a); }
        document.querySelector("article")?.append(box); }"""
    )
    wide = page.evaluate(SHRINK)
    title = page.evaluate(
        """() => { const h = document.querySelector("article h1")?.cloneNode(true);
        h?.querySelectorAll("a.headerlink").forEach(a => a.remove());
        return h?.textContent.replace(/\\s+/g, " ").trim() ?? document.title; }"""
    )
    pdf = page.pdf(prefer_css_page_size=True, print_background=True)
    return title, wide, pdf


def contents(parts: list[Part], style: str) -> str:
    rows = []
    for part in parts:
        if part.caption:
            rows.append(f'<li class="part">{part.caption}</li>')
        rows.append(
            f'<li class="level-{part.level}"><a href="{part.name}.html">'
            f"<span>{part.title}</span><span>{part.first + 1}</span></a></li>"
        )
    indents = "".join(f".level-{n} {{ padding-left: {1.4 * max(0, n - 1)}em; }}" for n in range(5))
    return CONTENTS.format(style=style, indents=indents, rows="".join(rows))


def places(reader: PdfReader) -> dict[str, tuple[int, float]]:
    """Anchor → (page, height) inside one part."""
    return {
        unquote(name.removeprefix("/")): (reader.get_destination_page_number(d), float(d.top or 0))
        for name, d in reader.named_destinations.items()
    }


def join(front: list[PdfReader], parts: list[Part], base: str, meta: dict) -> PdfWriter:
    writer = PdfWriter()
    for reader in front:
        writer.append(reader, import_outline=False)
    stack: list = []
    caption = None
    for part in parts:
        writer.append(part.reader, import_outline=False)
        if part.caption:
            caption = writer.add_outline_item(title=part.caption, page_number=part.first)
        del stack[part.level :]
        parent = stack[-1] if len(stack) > 1 else caption
        item = writer.add_outline_item(title=part.title, page_number=part.first, parent=parent)
        stack += [item] * (part.level + 1 - len(stack))

    by_name = {part.name: part for part in parts}
    anchors = {part.name: places(part.reader) for part in parts}
    owners = [None] * sum(len(r.pages) for r in front)
    owners += [part for part in parts for _ in part.reader.pages]

    def target(owner: Part | None, link: DictionaryObject) -> tuple[int, float] | None:
        name = link.get("/Dest")
        if isinstance(name, str) and owner:
            place = anchors[owner.name].get(unquote(name.removeprefix("/")))
            return (owner.first + place[0], place[1]) if place else (owner.first, 0)
        uri = link.get("/A", {}).get("/URI", "")
        if not uri.startswith(base):
            return None
        path, fragment = urldefrag(uri.removeprefix(base))
        part = by_name.get(path.removesuffix(".html"))
        if part is None:
            return None
        place = anchors[part.name].get(unquote(fragment), (0, 0))
        return part.first + place[0], place[1]

    for owner, page in zip(owners, writer.pages, strict=True):
        kept = ArrayObject()
        for reference in page.get("/Annots", []):
            link = reference.get_object()
            place = target(owner, link)
            if place:
                link.pop("/A", None)
                top = FloatObject(place[1]) if place[1] else NullObject()
                link[NameObject("/Dest")] = ArrayObject(
                    [writer.pages[place[0]].indirect_reference, NameObject("/XYZ"),
                     NullObject(), top, NullObject()]
                )  # fmt: skip
            elif link.get("/A", {}).get("/URI", "").startswith(base):
                continue  # a page of source code: not in this file
            kept.append(reference)
        if "/Annots" in page:
            page[NameObject("/Annots")] = kept
    authors = "，".join(a.get("name") or a["family-names"] for a in meta["authors"])
    writer.add_metadata({"/Title": meta["title"], "/Author": authors})
    writer.root_object[NameObject("/Lang")] = TextStringObject("zh-CN")
    writer.page_mode = "/UseOutlines"
    return writer


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "dsnotes.pdf")
    output = parser.parse_args().output
    if not (HTML / "index.html").is_file():
        sys.exit("there is no book in _build/html: run `make book` first")
    meta = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    parts = parts_of(yaml.safe_load((ROOT / "_toc.yml").read_text("utf8")))
    browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium")

    handler = functools.partial(_Quiet, directory=HTML)
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
        sync_playwright() as play,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        browser = play.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page.emulate_media(media="print", color_scheme="light")

        # the contents need as many pages with any numbers: count them with empty ones
        for part in parts:
            part.title = part.title or part.name
        before = 1 + _pages(_contents_pdf(page, base, parts))
        for part in tqdm(parts, desc="print", unit="page", disable=None):
            part.first = before
            part.title, part.wide, part.pdf = print_page(page, f"{base}{part.name}.html", before)
            before += len(part.reader.pages)
        toc = PdfReader(io.BytesIO(_contents_pdf(page, base, parts)))
        page.goto(f"{base}search.html")
        cover = COVER.format(
            style=STYLE % 0, title=meta["title"], version=meta["version"],
            date=meta["date-released"],
            authors="，".join(a.get("name") or a["family-names"] for a in meta["authors"]),
        )  # fmt: skip
        page.set_content(cover, wait_until="networkidle")
        front = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True)))
        browser.close()
        server.shutdown()
    if 1 + len(toc.pages) != parts[0].first or len(front.pages) != 1:
        sys.exit("cover and contents changed their length: the page numbers would be wrong")
    output.parent.mkdir(parents=True, exist_ok=True)
    join([front, toc], parts, base, meta).write(output)
    print(f"{output}: {before} pages, {output.stat().st_size / 1e6:.1f} MB")
    for part in parts:
        for text in part.wide:
            print(f"wider than the paper, on {part.name}: {text!r}")
    sys.exit(any(part.wide for part in parts))


def _contents_pdf(page: Page, base: str, parts: list[Part]) -> bytes:
    page.goto(f"{base}search.html")  # so that relative links are those of the site
    page.set_content(contents(parts, STYLE % 1))
    return page.pdf(prefer_css_page_size=True)


def _pages(pdf: bytes) -> int:
    return len(PdfReader(io.BytesIO(pdf)).pages)


if __name__ == "__main__":
    main()
