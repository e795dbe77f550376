"""What a reader does with a page: scroll sideways, unfold, copy, jump, go to the end."""

import re
from urllib.parse import quote, unquote

import pytest
from playwright.sync_api import expect

# all that is folded or laid out late is there, as if it had been read
UNFOLD = """() => {
  const style = document.createElement("style");
  style.textContent = "* { content-visibility: visible !important; transition: none !important }";
  document.head.append(style);
  for (const fold of document.querySelectorAll("article details")) fold.open = true;
  for (const box of document.querySelectorAll("article .admonition.dropdown")) {
    box.classList.remove("toggle-hidden");
    box.classList.add("toggle-shown");
  }
}"""
# [what it is, its beginning, width of the box, width of what is in it, has it the sign]
CUT = """() => [...document.querySelectorAll("article *")].filter((box) =>
    box.clientWidth > 0 && box.scrollWidth > box.clientWidth + 1
    && getComputedStyle(box).overflowX !== "visible" && !box.closest(".katex-mathml, .katex-html"))
  .map((box) => [box.matches("pre") ? "code" : "formula or table",
    box.textContent.trim().slice(0, 60), box.clientWidth, box.scrollWidth,
    getComputedStyle(box).backgroundImage.split("linear-gradient").length > 4])"""


# --- nothing is cut off ---


def test_what_is_wider_than_the_page_says_so(page, name):
    page.goto(f"/{name}.html", wait_until="load")
    page.evaluate(UNFOLD)
    wide = page.evaluate(CUT)
    assert [box for box in wide if box[0] != "code"] == []  # on a desk all is seen
    assert all(box[-1] for box in wide), wide
    page.set_viewport_size({"width": 390, "height": 800})
    assert [box for box in page.evaluate(CUT) if not box[-1]] == []


def test_no_raw_latex_in_tables(soup, name):
    page = soup(name)
    for formula in page.select(".katex, code"):
        formula.decompose()
    cells = [cell.get_text() for cell in page.select("article :is(td, th)")]
    assert [c for c in cells if re.search(r"\$[^$]+\$|\\[a-z]{2}|[_^]\{", c)] == []


# --- folds ---


@pytest.mark.parametrize("media", ["screen", "print"])
def test_a_fold_of_code_has_one_name(page, media):
    page.goto("/notebooks/moe.html", wait_until="load")
    page.emulate_media(media=media)
    fold = page.locator("details.hide:has(> summary)").first
    names = fold.locator("summary > span:visible")
    for name in ("显示代码", "收起代码"):
        expect(names).to_have_text([name] if media == "screen" or name == "显示代码" else [])
        fold.evaluate("fold => { fold.open = true; }")
    if media == "screen":
        fold.evaluate("fold => { fold.open = false; }")
        assert "▸" in fold.locator("summary").evaluate(
            "e => getComputedStyle(e, '::before').content"
        )


def test_paper_gets_the_code_that_is_folded(page):
    page.goto("/notebooks/moe.html", wait_until="load")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("article details.hide:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("article details.hide[open]").count() == 0


# --- copying ---


def _copied(page, selector, index=0):
    page.evaluate(UNFOLD)
    page.evaluate(
        """([selector, index]) => { const box = document.querySelectorAll(selector)[index];
        box.scrollIntoView(); getSelection().selectAllChildren(box); }""",
        [selector, index],
    )
    page.keyboard.press("Control+C")
    return page.evaluate("navigator.clipboard.readText()")


def test_a_copied_formula_is_its_tex_once(page):
    page.goto("/book/model/mla.html", wait_until="load")
    inline = page.evaluate(
        """() => [...document.querySelectorAll("article p")].findIndex(
             (p) => p.querySelectorAll(".katex").length > 1)"""
    )
    text = _copied(page, "article p", inline)
    formulas = page.locator("article p").nth(inline).locator("annotation").all_text_contents()
    assert [f"${f}$" for f in formulas] == re.findall(r"\$[^$]+\$", text)
    rest = (
        page.locator("article p")
        .nth(inline)
        .evaluate(
            """p => { p = p.cloneNode(true); p.querySelectorAll('.katex').forEach(e => e.remove());
            return p.textContent; }"""
        )
    )
    assert "".join(re.sub(r"\$[^$]+\$", "", text).split()) == "".join(rest.split())

    tex = page.locator("article div.math annotation").first.text_content()
    assert "".join(_copied(page, "article div.math").split()) == "".join(f"$${tex}$$".split())


def test_a_copied_table_keeps_its_cells(page):
    page.goto("/book/model/mla.html", wait_until="load")
    page.evaluate("document.querySelector('article table:has(.katex)').id = 'here'")
    lines = [line for line in _copied(page, "#here").splitlines() if "\t" in line]
    assert len(lines) == page.locator("#here tr").count()
    assert any(re.search(r"\$[^$]+\$", line) for line in lines)
    assert "\u200b" not in "".join(lines)  # of the drawn formula


def test_half_a_formula_is_copied_whole(page):
    page.goto("/book/model/mla.html", wait_until="load")
    page.evaluate(
        """() => { const base = document.querySelector("article p .katex-html");
        base.scrollIntoView();
        const range = document.createRange(); range.selectNodeContents(base.firstChild);
        const s = getSelection(); s.removeAllRanges(); s.addRange(range); }"""
    )
    page.keyboard.press("Control+C")
    text = page.evaluate("navigator.clipboard.readText()")
    tex = page.locator("article p .katex annotation").first.text_content()
    assert text.strip() == f"${tex}$"


# --- places in a page ---


def test_headings_have_addresses_that_stay(soup, name):
    page = soup(name)
    links = page.select("article :is(h1, h2, h3, h4, h5, h6) > a.headerlink")
    anchors = [unquote(a["href"]) for a in links]
    assert anchors
    assert [a for a in anchors if re.fullmatch(r"#id\d+", a)] == []
    ids = [e["id"] for e in page.select("[id]")]
    assert [a for a in anchors if ids.count(a[1:]) != 1] == []


def test_the_contents_mark_where_one_arrives(page):
    for anchor in ("rope-为什么要解耦", "fig-mla-cache"):
        page.goto("about:blank")
        page.goto(f"/book/model/mla.html#{quote(anchor)}", wait_until="load")
        marked = page.locator("#pst-page-toc-nav a.active")
        expect(marked).to_have_count(1)
        wanted = "缓存" if anchor.startswith("fig") else "RoPE 为什么要解耦"
        expect(marked).to_contain_text(wanted)


@pytest.mark.browser_context_args(viewport={"width": 390, "height": 800}, has_touch=True)
def test_the_contents_on_a_phone_close_on_a_choice(page):
    page.goto("/book/model/mla.html", wait_until="load")
    page.locator("button.secondary-toggle").click()
    dialog = page.locator("dialog#pst-secondary-sidebar-modal")
    expect(dialog).to_be_visible()
    dialog.get_by_role("link", name="常见错误").click()
    expect(dialog).to_be_hidden()
    assert unquote(page.url).endswith("#常见错误")
    page.wait_for_timeout(300)
    top = page.evaluate("document.getElementById('常见错误').getBoundingClientRect().top")
    assert -5 < top < 200


@pytest.mark.parametrize("name", ["book/rl/grpo", "notebooks/grpo"])
def test_one_press_of_end_comes_to_the_end(page, name):
    page.goto(f"/{name}.html", wait_until="load")
    page.keyboard.press(
        "End"
    )  # a page that grows later leaves a rest for ever; a slow machine only scrolls slowly
    left = "document.documentElement.scrollHeight - innerHeight - scrollY"
    page.wait_for_function(f"{left} < 5", timeout=15_000)
    page.wait_for_function("document.documentElement.dataset.settled")
    page.wait_for_timeout(300)
    assert page.evaluate(left) < 5


def test_a_page_does_not_grow_while_it_is_read(page):
    page.goto("/notebooks/grpo.html", wait_until="load")
    page.wait_for_function("document.documentElement.dataset.settled", timeout=20_000)
    heights = []
    for part in range(6):
        page.evaluate("part => scrollTo(0, document.documentElement.scrollHeight * part / 5)", part)
        page.wait_for_timeout(150)
        heights.append(page.evaluate("document.documentElement.scrollHeight"))
    assert max(heights) - min(heights) < 0.02 * max(heights), heights


def test_home_and_search_stay_in_sight(page):
    page.set_viewport_size({"width": 1280, "height": 500})
    page.goto("/book/appendix/status.html", wait_until="load")
    page.evaluate("document.querySelector('.bd-sidebar-primary').scrollTop = 9999")
    for part in (".navbar-brand", ".search-button-field"):
        box = page.locator(f".bd-sidebar-primary {part}").first.bounding_box()
        assert 0 <= box["y"] < 200
    # and nothing of the list shows above or between them
    tops = page.evaluate(
        """() => [8, 40, 80, 110].map(
             (y) => document.elementFromPoint(60, y)?.closest("nav.bd-links") !== null)"""
    )
    assert not any(tops)


def test_a_permalink_keeps_the_place(page):
    page.goto(f"/id/mla.html#{quote('权重吸收')}", wait_until="load")
    page.wait_for_url("**/book/model/mla.html#*")
    assert unquote(page.url).endswith("#权重吸收")


# --- citing ---


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_citation_has_no_address_of_this_machine(page, base_url, host):
    page.goto(f"{base_url.replace('127.0.0.1', host)}/book/model/moe.html", wait_until="load")
    text = page.locator(".cite-this").first.text_content()
    assert host not in text
    assert "网址" in text


def test_the_book_is_cited_where_the_button_leads(page):
    page.goto("/book/index.html", wait_until="load")
    page.locator("article a", has_text="引用本书").click()
    page.wait_for_url("**/book/appendix/cite.html#*")
    boxes = page.locator(".cite-this")
    expect(boxes).to_have_count(1)
    expect(boxes.locator("pre").first).to_contain_text("DeepSeek 关键技术")
    assert (
        "//" not in boxes.locator("pre").first.text_content().split("网址")[0]
    )  # in no other book


def test_the_picture_of_the_readme_is_not_shipped(html):
    assert not (html / "_static" / "readme.png").exists()
