"""Every page: nothing from outside, nothing broken, light enough, wide enough, readable bare."""

import re

import pytest

LIMIT = 600_000  # bytes on first view, without the figures


def test_page_needs_nothing_from_outside(opened):
    assert opened.trouble == []


def test_page_is_light(opened):
    sizes = {path: size for path, (kind, size) in opened.sizes.items() if kind != "image"}
    assert sum(sizes.values()) <= LIMIT, sorted(sizes.items(), key=lambda item: -item[1])[:8]


def test_page_has_no_markup_left(opened):
    assert opened.page.locator(".katex-error, .problematic, .system-message").count() == 0
    prose = opened.page.evaluate(
        """() => { const main = document.querySelector("main").cloneNode(true);
        main.querySelectorAll("pre, code, .katex").forEach(e => e.remove());
        return main.textContent; }"""
    )
    assert not re.search(r"\$\$|\\\(|\\\[|\{(glue|numref|code|cite)", prose)


def test_page_fits_a_phone(opened):
    opened.page.set_viewport_size({"width": 390, "height": 800})
    wide = opened.page.evaluate("document.documentElement.scrollWidth")
    opened.page.set_viewport_size({"width": 1280, "height": 900})
    assert wide <= 390


def test_page_reads_without_scripts(new_context, name):
    page = new_context(java_script_enabled=False).new_page()
    page.goto(f"/{name}.html", wait_until="domcontentloaded")
    main = page.locator("main article").first
    assert main.is_visible()
    assert len(main.inner_text()) > 200
    assert page.locator("nav a").count() > 20  # the way to the other pages


def test_permalinks_lead_to_their_pages(page):
    page.goto("/id/moe.html", wait_until="load")
    page.wait_for_url("**/book/model/moe.html")


@pytest.mark.parametrize(
    "public", ["https://book.example/notes", ""], ids=["public", "own machine"]
)
def test_a_citation_is_copied_with_the_day_and_the_address(page, base_url, public):
    """A book that is published under an address says that one, wherever it is read. On a machine of
    its own the others do not know theirs, and leave the word for it."""
    if public:
        there = re.compile(re.escape(public))
        page.route(
            there,
            lambda route: route.fulfill(
                response=route.fetch(url=there.sub(base_url, route.request.url))
            ),
        )
    page.goto(f"{public}/book/model/moe.html", wait_until="load")
    page.locator("details.fold:has(.cite-this) > summary").click()
    block = page.locator(".cite-this div.highlight").first
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    today = page.evaluate("new Date().toLocaleDateString('sv')")
    canonical = page.locator("link[rel=canonical]")
    if canonical.count():
        public = canonical.get_attribute("href").removesuffix("/book/model/moe.html")
    address = f"{public}/id/moe.html" if public else "网址"
    assert f"[{today}]. {address}." in copied


def test_icons_are_drawn(page):
    page.goto("/book/model/moe.html", wait_until="networkidle")
    missing = page.evaluate(
        """async () => {
          // a character that the font lacks is as wide as one that is certainly missing
          const pen = document.createElement("canvas").getContext("2d"), missing = [];
          for (const icon of document.querySelectorAll("i[class*='fa-']")) {
            const style = getComputedStyle(icon, "::before"), sign = style.content.slice(1, -1);
            const family = style.fontFamily.split(",")[0];
            const font = `${style.fontWeight} 100px ${family}`;
            const faces = await document.fonts.load(font, sign);
            const draw = (text) => { pen.font = `${font}, monospace`;
              return pen.measureText(text).actualBoundingBoxAscent; };
            if (!faces.length || draw(sign) === draw("\\uf8fe")) missing.push(icon.className);
          }
          return missing;
        }"""
    )
    assert missing == []
