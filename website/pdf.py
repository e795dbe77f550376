"""Print the built book to one PDF: cover, contents with page numbers, outline, links, page numbers.

    python website/pdf.py [--output dist/dsnotes.pdf]         (make pdf builds the book first)

The articles of all pages of _build/html are put into one document, which Chromium prints by the
print rules of the style sheet: formulas, figures and tables are those of the site, each font is
embedded once, and a link between two pages is a link inside the file. pypdf puts the cover and
the contents in front, whose page numbers are known only then, and writes the outline. (Chromium's
own outline knows no parts of the book, puts all pages on one level, and doubles the words of one
heading in six.)

The file is tagged: headings, paragraphs, lists, tables and the texts of figures can be read by a
screen reader, in their order. The solutions of a page stand at its end, away from the exercises.
Left out is what paper has no use for: links to pages of source code, the fold in English (the page
that lists them all is there), and the citations which a page has folded (except those of the book
itself). A formula or a table wider than the paper is set smaller; the command fails and
names it when even that does not make it fit.
"""

import argparse
import html
import io
import json
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import serve
import yaml
from pdftext import mend_text
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import (
    Destination,
    Fit,
    NameObject,
    StreamObject,
    TextStringObject,
)

ROOT = serve.ROOT
WIDTH = 643  # CSS pixels between the margins: 170 mm at 96 dpi
FONT = '"Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif'

SHEET = """
@page { size: A4; margin: 20mm; font: 8.5pt %(font)s; color: #59626b; }
html { counter-reset: page %(before)d; }
"""
BOOK = """
@page { @bottom-center { content: counter(page); } }
article { break-before: page; padding: 0 !important; }
article:first-of-type { break-before: auto; }
.headerlink { display: inline-block !important; width: 1px; height: 1px; margin: 0; padding: 0; }
.bd-main .bd-content .bd-article-container article h1:first-of-type { display: block; }
"""
EMPTY = """<!doctype html><html lang="zh-CN" data-theme="light"><meta charset="utf-8">
<div class="bd-main"><div class="bd-content"><div class="bd-article-container"></div></div></div>"""
# One document of the articles; an anchor of a page becomes page/anchor. Chromium notes where an
# anchor is only if a link leads to it: every heading keeps its own, a point in size, for the
# outline. Returns the headings.
GATHER = """
async names => {
  const home = new URL(".", location.href).href, styles = new Set(), headings = [];
  const box = document.createDocumentFragment();
  for (const [i, name] of names.entries()) {
    const url = new URL(`${name}.html`, home).href, answer = await fetch(url);
    if (!answer.ok) throw new Error(`${url} is not in the built book: run make book again`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const e of page.querySelectorAll("link[rel=stylesheet]"))
      styles.add(new URL(e.getAttribute("href"), url).href);
    const article = document.adoptNode(page.querySelector("article"));
    for (const e of article.querySelectorAll("details.english, details.figure-text")) e.remove();
    for (const e of article.querySelectorAll("details.fold > summary")) {
      const name = Object.assign(document.createElement("p"), {textContent: e.textContent});
      name.className = "rubric";
      e.replaceWith(name);
    }
    for (const e of article.querySelectorAll(".katex")) {  // for screen readers, its TeX
      const drawn = e.querySelector(".katex-html");
      drawn.removeAttribute("aria-hidden");
      drawn.setAttribute("role", "img");
      drawn.setAttribute("aria-label", e.querySelector("annotation").textContent);
    }
    for (const e of article.querySelectorAll("script, summary, .ink-dark, .katex-mathml"))
      e.remove();
    const citations = "details:has(> .cite-this), .cite-this .dropdown";
    if (i) for (const e of article.querySelectorAll(citations)) e.remove();
    // folded on the screen; on paper not where the eye falls on them with the exercise
    const answers = article.querySelectorAll(".admonition.solution");
    if (answers.length) {
      const part = document.createElement("section");
      const head = Object.assign(document.createElement("h2"), {textContent: "解答"});
      part.append(head, ...answers);
      article.querySelector("section").append(part);
    }
    for (const e of article.querySelectorAll("details")) e.replaceWith(...e.childNodes);
    for (const e of article.querySelectorAll("[id]")) e.id = `${name}/${e.id}`;
    for (const e of article.querySelectorAll(".headerlink")) {
      e.textContent = "";
      const heading = e.closest("h1, h2, h3, h4, h5, h6");
      if (heading) headings.push([name, Number(heading.tagName[1]) - 1,
        heading.textContent.replace(/\\s+/g, " ").trim(),
        `${name}/${decodeURIComponent(e.hash.slice(1))}`]);
      else e.remove();
    }
    for (const e of article.querySelectorAll("img")) {
      e.src = new URL(e.getAttribute("src"), url).href;
      e.loading = "eager";
    }
    for (const e of article.querySelectorAll("a[href]")) {
      const to = new URL(e.getAttribute("href"), url);
      if (!to.href.startsWith(home)) continue;
      const target = to.href.slice(home.length).split(/[.]html|#/)[0];
      if (!names.includes(target)) e.removeAttribute("href");
      else e.setAttribute("href", to.hash === "#in-english" ? `#${target}`
        : `#${target}${to.hash.replace("#", "/")}`);
    }
    article.id = name;
    box.append(article);
  }
  const loaded = e => new Promise((done, fail) => { e.onload = done;
    e.onerror = () => fail(new Error(`not loaded: ${e.src ?? e.href}`)); });
  const links = [...styles].map(href =>
    Object.assign(document.createElement("link"), {rel: "stylesheet", href}));
  document.head.prepend(...links);
  await Promise.all(links.map(loaded));
  document.querySelector(".bd-article-container").append(box);
  await Promise.all([...document.images].filter(e => !e.complete).map(loaded));
  await document.fonts.ready;
  return headings;
}
"""
# What is wider than its place is set smaller (below 0.55 of its size nothing is read on paper);
# a box that fills a good part of a page may be broken. Returns what is still too wide.
FIT = """
() => {
  const around = "div.math, .pst-scrollable-table-container, div.highlight, td, div, section";
  const room = box => (box.parentElement.closest(around) ?? box.parentElement).clientWidth;
  const need = box => Math.max(box.scrollWidth,
    box.querySelector(".katex-html")?.scrollWidth ?? 0);
  const boxes = [...document.querySelectorAll("article :is(.katex-display, table, pre)")];
  const sizes = boxes.map(box => {
    const ratio = Math.max(0.55, (room(box) || Infinity) / need(box));
    return ratio < 0.999 ? `${parseFloat(getComputedStyle(box).fontSize) * ratio}px` : "";
  });
  boxes.forEach((box, i) => { if (sizes[i]) box.style.fontSize = sizes[i]; });
  const tall = "article :is(.cell_input, [class*=highlight], table, .admonition)";
  for (const box of document.querySelectorAll(tall))
    if (box.offsetHeight > 280) box.style.breakInside = "auto";
  const right = document.querySelector("article").getBoundingClientRect().right;
  return [...document.querySelectorAll("article :is(img, table, pre, .katex-html)")]
    .filter(box => box.getBoundingClientRect().right > right + 1 ||
      (box.matches("table, pre") && room(box) && need(box) > room(box) * 1.02))
    .map(box => `${box.closest("article").id}: ${box.alt ?? box.textContent.trim().slice(0, 40)}`);
}
"""
FRONT = """
@page cover { @bottom-center { content: none; } }
@page { @bottom-center { content: counter(page); } }
body { font: 10.5pt/1.62 %(font)s; margin: 0; }
.cover { page: cover; height: 245mm; display: flex; flex-direction: column;
  justify-content: center; }
.cover img { width: 34mm; margin-bottom: 14mm; }
.cover h1 { font-size: 30pt; line-height: 1.35; margin: 0; text-wrap: balance; }
.cover p { font-size: 12pt; color: #444; }
h2 { font-size: 20pt; margin: 0 0 1em; }
.row { display: flex; gap: .6em; color: inherit; text-decoration: none; }
.row i { flex: 1; border-bottom: 1px dotted #999; align-self: center; }
.part { font-weight: 700; margin: .9em 0 0; }
"""


@dataclass
class Part:
    """A page of the site and where it is in the file."""

    name: str
    level: int
    caption: str = ""  # of the part of the book that begins here
    title: str = ""
    number: int = 0  # of its first page, from 1


@dataclass
class Heading:
    """A heading and where it is in the file."""

    name: str  # of the page of the site
    depth: int
    title: str
    anchor: str
    number: int = 0
    top: float = 0


def parts_of(toc: dict) -> list[Part]:
    """The pages of _toc.yml in the order of reading."""
    found = [Part(toc["root"], 0)]

    def walk(entries: list[dict], level: int, caption: str = "") -> None:
        for entry in entries:
            if entry.get("file", "src/").startswith("src/"):  # the reference is for a screen
                continue
            found.append(Part(entry["file"], level, caption))
            caption = ""
            walk(entry.get("sections", []), level + 1)

    for part in toc["parts"]:
        walk(part["chapters"], 1, part.get("caption", ""))
    return found


def authors_of(meta: dict) -> str:
    return "，".join(a.get("name") or a["family-names"] for a in meta["authors"])


def sheet(before: int = 0) -> str:
    """Paper whose first page has the number before + 1."""
    return SHEET % {"font": FONT, "before": before}


def running_heads(parts: list[Part]) -> str:
    """The title of each page of the site at the top of its paper."""
    return "".join(
        f"@page p{i} {{ @top-right {{ content: {json.dumps(part.title, ensure_ascii=False)}; }} }}"
        f"article:nth-of-type({i}) {{ page: p{i}; }}"
        for i, part in enumerate(parts, 1)
    )


def print_front(page: Page, base: str, parts: list[Part], meta: dict) -> PdfReader:
    """Cover and contents."""
    rows = []
    for part in parts:
        if part.caption:
            rows.append(f'<p class="part">{part.caption}</p>')
        rows.append(
            f'<a class="row" href="{base}{part.name}" style="margin-left:{1.4 * part.level}em">'
            f"<span>{html.escape(part.title)}</span><i></i><span>{part.number}</span></a>"
        )
    title = meta["title"].replace("：", "：<br>")
    page.set_content(
        f'<!doctype html><html lang="zh-CN"><style>{sheet()}{FRONT % {"font": FONT}}</style>'
        f'<section class="cover"><img src="{base}_static/logo.svg" alt=""><h1>{title}</h1>'
        f"<p>{authors_of(meta)}</p><p>版本 {meta['version']}，{meta['date-released']}</p></section>"
        f"<h2>目录</h2>{''.join(rows)}",
        wait_until="networkidle",
    )
    return PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True)))


def write_outline(writer: PdfWriter, parts: list[Part], headings: list[Heading]) -> None:
    """Parts of the book, below them the pages as in the contents, below each its headings."""
    by_name = {part.name: part for part in parts}
    above: list = []  # the last item of each level
    for heading in headings:
        part = by_name[heading.name]
        if heading.depth == 0 and part.caption:
            above = [writer.add_outline_item(title=part.caption, page_number=heading.number - 1)]
        level = part.level + heading.depth
        item = writer.add_outline_item(
            title=heading.title, page_number=heading.number - 1, is_open=False,
            parent=above[level - 1] if level else None, fit=Fit.xyz(top=heading.top),
        )  # fmt: skip
        above[level:] = [item]


def link_front(writer: PdfWriter, front: PdfReader, parts: list[Part], base: str) -> None:
    """The rows of the contents lead to their pages."""
    numbers = {f"{base}{part.name}": part.number for part in parts}
    for page in writer.pages[: len(front.pages)]:
        for reference in page.get("/Annots", []):
            link = reference.get_object()
            to = writer.pages[numbers[link.pop("/A")["/URI"]] - 1]
            link[NameObject("/Dest")] = Destination("", to.indirect_reference, Fit.fit()).dest_array


def as_artifacts(writer: PdfWriter, count: int) -> None:
    """Cover and contents, which the outline repeats, are no part of the tagged text."""
    for page in writer.pages[:count]:
        content = StreamObject()
        content.set_data(b"/Artifact BMC\n" + page.get_contents().get_data() + b"\nEMC")
        page[NameObject("/Contents")] = writer._add_object(content.flate_encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "dsnotes.pdf")
    output = parser.parse_args().output
    meta = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    chromium = serve.find_chromium()
    parts = parts_of(yaml.safe_load((ROOT / "_toc.yml").read_text("utf8")))

    with serve.open_server(0) as server, sync_playwright() as play:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        browser = play.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        front_page = browser.new_page()
        page = browser.new_page(viewport={"width": WIDTH, "height": 900})
        page.emulate_media(media="print", color_scheme="light")
        page.set_default_timeout(600_000)
        page.route(f"{base}print.html", lambda route: route.fulfill(body=EMPTY))
        page.goto(f"{base}print.html")
        print(f"printing {len(parts)} pages of the site, in about a minute", flush=True)
        found = [Heading(*row) for row in page.evaluate(GATHER, [part.name for part in parts])]
        tops = [heading for heading in found if heading.depth == 0]
        for part, heading in zip(parts, tops, strict=True):
            part.title = heading.title
        # how many pages the contents take does not depend on the numbers in them
        before = len(print_front(front_page, base, parts, meta).pages)
        page.add_style_tag(content=sheet(before) + BOOK + running_heads(parts))
        wide = page.evaluate(FIT)
        pdf = page.pdf(prefer_css_page_size=True, print_background=True, tagged=True)
        book = PdfReader(io.BytesIO(pdf))
        anchors = {unquote(k).lstrip("/"): v for k, v in book.named_destinations.items()}
        for heading in found:
            place = anchors[heading.anchor]
            heading.number = before + book.get_destination_page_number(place) + 1
            heading.top = place.top
        for part, heading in zip(parts, tops, strict=True):
            part.number = heading.number
        front = print_front(front_page, base, parts, meta)
        browser.close()
        server.shutdown()
    if len(front.pages) != before:
        sys.exit("the contents changed their length: the page numbers would be wrong")
    writer = PdfWriter(clone_from=book)  # with its tags, which merging would lose
    writer.merge(0, front, import_outline=False)
    as_artifacts(writer, len(front.pages))
    link_front(writer, front, parts, base)
    write_outline(writer, parts, found)
    writer.add_metadata({"/Title": meta["title"], "/Author": authors_of(meta)})
    writer.root_object[NameObject("/Lang")] = TextStringObject("zh-CN")
    writer.page_mode = "/UseOutlines"
    mend_text(writer)
    writer.compress_identical_objects()
    output.parent.mkdir(parents=True, exist_ok=True)
    writer.write(output)
    print(f"{output}: {len(writer.pages)} pages, {output.stat().st_size / 1e6:.1f} MB")
    for text in wide:
        print(f"wider than the paper, on {text!r}")
    sys.exit(bool(wide))


if __name__ == "__main__":
    main()
