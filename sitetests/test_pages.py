"""Every page: nothing from outside, nothing broken, light enough, wide enough, readable bare."""

import gzip
import re
from urllib.parse import urlsplit

LIMIT = 600_000  # bytes on first view, compressed as servers do, without the figures
TEXT = re.compile(r"text/|javascript|json|svg")


def _watch(page, site):
    """(what went wrong, bytes by kind) while the page is open; no request leaves the site."""
    trouble, loaded = [], {}

    def on_response(response):
        if response.status >= 400:
            trouble.append(f"{response.status} {response.url}")
            return
        body = response.body()
        kind = response.headers.get("content-type", "")
        size = len(gzip.compress(body)) if TEXT.search(kind) else len(body)
        loaded[response.url] = (response.request.resource_type, size)

    def on_request(route):
        if route.request.url.startswith((site + "/", "data:")):
            route.continue_()
        else:
            trouble.append(f"outside: {route.request.url}")
            route.abort()

    page.route("**/*", on_request)
    page.on("response", on_response)
    page.on("console", lambda m: m.type == "error" and trouble.append(f"console: {m.text}"))
    page.on("pageerror", lambda error: trouble.append(f"script: {error}"))
    return trouble, loaded


def test_page_needs_nothing_from_outside_and_is_light(browser, site, name):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    trouble, loaded = _watch(page, site)
    page.goto(f"{site}/{name}.html", wait_until="networkidle")
    assert trouble == []
    assert page.locator(".katex-error, .problematic, .system-message").count() == 0
    text = page.locator("main").inner_text()
    assert not re.search(r"\$\$|\\\(|\\\[|\{glue|\{numref", text)  # unrendered markup
    weight = sum(size for kind, size in loaded.values() if kind != "image")
    assert weight <= LIMIT, sorted((s, urlsplit(u).path) for u, (_, s) in loaded.items())[-8:]
    page.close()


def test_page_fits_a_phone(browser, site, name):
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(f"{site}/{name}.html", wait_until="load")
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    page.close()


def test_page_reads_without_scripts(browser, site, name):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}/{name}.html", wait_until="load")
    main = page.locator("main article").first
    assert main.is_visible()
    assert len(main.inner_text()) > 200
    assert page.locator("nav a").count() > 20  # the way to the other pages
    context.close()


def test_permalinks_lead_to_their_pages(browser, site):
    page = browser.new_page()
    page.goto(f"{site}/id/moe.html", wait_until="load")
    page.wait_for_url("**/book/model/moe.html")
    page.close()


def test_a_citation_is_copied_with_the_day_and_the_address(browser, site):
    context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.goto(f"{site}/book/model/moe.html", wait_until="load")
    block = page.locator(".cite-this div.highlight").first
    block.hover()
    block.locator("button.copybtn").click()
    copied = page.evaluate("navigator.clipboard.readText()")
    today = page.evaluate("new Date().toLocaleDateString('sv')")
    assert f"[{today}]. {site}/id/moe.html." in copied
    context.close()
