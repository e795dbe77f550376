"""axe-core finds no violation on any page, in the light and in the dark; the keyboard suffices.

`pytest … -k "kind or keyboard"` looks at one page of every kind, for CI.
"""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

AXE = Axe()
ALL = {"resultTypes": ["violations"]}
KINDS = [  # home, list, English door, part, section, its notebook, results; of the whole model its
    # results, a quiz, a figure with weights; of what came after, a section and a notebook; course;
    # appendix, exercises, citations, search, source, module
    "book/index.html", "book/papers.html", "book/english.html", "book/rl/index.html",
    "book/training/dualpipe.html", "notebooks/fp8.html", "book/results/r1.html",
    "book/whole/results.html", "book/whole/quiz.html", "book/whole/poet.html",
    "book/after/compressed.html", "notebooks/hyper.html", "book/course/slides.html",
    "book/course/quizzes.html", "book/appendix/notation.html",
    "book/appendix/solutions.html", "book/appendix/cite.html", "search.html?q=负载均衡",
    "source/dsnotes/model/deepseek.html", "src/dsnotes/model/moe.html",
]  # fmt: skip
COLOURS = {**ALL, "runOnly": ["color-contrast", "link-in-text-block"]}  # what the theme changes


@pytest.mark.parametrize(("theme", "rules"), [("light", ALL), ("dark", COLOURS)])
def test_no_violation(opened, theme, rules):
    assert not (found := _violations(opened.page, theme, rules)), found


@pytest.mark.browser_context_args(viewport={"width": 375, "height": 800})  # most boxes scroll
@pytest.mark.parametrize("address", KINDS)
def test_no_violation_on_a_page_of_each_kind(page, address):
    page.goto(f"/{address}", wait_until="networkidle")
    found = [_violations(page, "light", ALL), _violations(page, "dark", COLOURS)]
    assert not any(found), found


def _violations(page, theme, rules):
    """Rule, impact and first places, a line each."""
    # no colours in between (what is unfolded fades in), no shadows at the sides (behind which
    # axe does not measure contrast), and everything laid out and unfolded as if it had been read
    style = """* { transition: none !important; animation: none !important; }
        * { content-visibility: visible !important; }
        article :is(pre, div, span) { background-image: none !important; }"""
    page.add_style_tag(content=style)
    page.evaluate(
        """() => { for (const button of document.querySelectorAll(
             "article .toggle-hidden button.toggle-button"))
             button.click();
           for (const fold of document.querySelectorAll("article details")) fold.open = true; }"""
    )
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    page.wait_for_function(  # page.js takes its time to find what scrolls
        """() => [...document.querySelectorAll("article :is(pre, .katex-display, .output,"
             + " .pst-scrollable-table-container)")].every(
             (box) => box.scrollWidth <= box.clientWidth || box.tabIndex >= 0)"""
    )
    found = AXE.run(page, options=rules).response["violations"]
    return "\n".join(
        f"{rule['id']} ({rule['impact']}): {[node['html'][:120] for node in rule['nodes'][:4]]}"
        for rule in found
    )


def _focused(page):
    """(name, has it a visible mark) of what the keyboard is on."""
    return page.evaluate(
        """() => { const e = document.activeElement, s = getComputedStyle(e);
        const name = e.getAttribute("aria-label") || e.getAttribute("title")
          || e.querySelector("img[alt]")?.alt || e.textContent;
        return [name.trim(), s.outlineStyle !== "none" || s.boxShadow !== "none"]; }"""
    )


def test_the_keyboard_reaches_the_text_at_once(page):
    page.goto("/book/model/moe.html", wait_until="load")
    page.keyboard.press("Tab")
    name, seen = _focused(page)
    assert "跳" in name  # the link over the navigation
    assert seen
    page.keyboard.press("Enter")
    assert page.url.endswith("#main-content")


def test_everything_the_keyboard_reaches_has_a_name_and_a_mark(page):
    page.goto("/notebooks/papers.html", wait_until="networkidle")
    bare, names = [], []
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement !== document.body"):
        name, seen = _focused(page)
        names.append(name)
        code = page.evaluate("document.activeElement.matches('pre')")
        english = not code and re.search("[A-Za-z]{3} [a-z]{3}", name)
        if english or not (name and seen):
            bare.append(page.evaluate("document.activeElement.outerHTML.slice(0, 120)"))
        page.keyboard.press("Tab")
    assert bare == []
    assert len(names) > 60  # the navigation and the text


@pytest.mark.browser_context_args(viewport={"width": 390, "height": 800}, color_scheme="light")
def test_the_keyboard_works_the_theme_the_folds_and_the_contents(page):
    page.goto("/book/model/moe.html", wait_until="load")
    page.locator("button.theme-switch-button").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.mode") in ("light", "dark")
    answer = page.locator(".admonition.dropdown button.toggle-button").first
    answer.focus()
    assert answer.get_attribute("aria-expanded") == "false"
    page.keyboard.press("Enter")
    assert answer.get_attribute("aria-expanded") == "true"
    page.locator("button.primary-toggle").first.focus()
    page.keyboard.press("Enter")
    contents = page.get_by_role("dialog").locator("nav a").first
    expect(contents).to_be_visible()
    page.keyboard.press("Escape")
    expect(contents).to_be_hidden()
