"""What the pages teach with, in a browser: a guess before a result, equation beside code, the
drawing of the model, the sides of a section, folds."""

import pytest
from playwright.sync_api import expect

PAGE = "/book/model/moe.html"
# contrast of every coloured symbol of the page against what is behind it
CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (box) => {
    const found = rgb(getComputedStyle(box).backgroundColor);
    return found.length === 3 || found[3] === 1 ? found : ground(box.parentElement);
  };
  return [...document.querySelectorAll(".eqcode .sym")].map((symbol) => {
    const both = [getComputedStyle(symbol).color, null].map((c) => (c ? rgb(c) : ground(symbol)));
    const pair = both.map(light).sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  });
}"""


def _first_guess(page, kind):
    return page.locator(f".guess:has(input[type={kind}])").first


def test_a_result_unfolds_after_a_guess(page):
    page.goto(PAGE, wait_until="load")
    guess = _first_guess(page, "radio")
    result = guess.locator(".predict-result")
    assert result.evaluate("fold => fold.open") is False
    expect(guess.locator("summary")).to_be_hidden()
    guess.get_by_role("button", name="看结果").click()
    assert result.evaluate("fold => fold.open") is False  # nothing was chosen
    guess.get_by_role("radio").last.check()
    guess.get_by_role("button", name="看结果").press("Enter")
    assert result.evaluate("fold => fold.open") is True
    chosen = guess.get_by_role("radio").last.get_attribute("value")
    expect(guess.get_by_role("status")).to_contain_text(f"你猜“{chosen}”")
    page.reload(wait_until="load")
    expect(_first_guess(page, "radio").get_by_role("status")).to_contain_text(chosen)


@pytest.mark.parametrize(
    ("answer", "guess", "said"),
    [
        ("0.31", "0.5", "你猜 0.5，答案是 0.31：猜高了。"),
        ("0.31", "30%", "你猜 0.3，答案是 0.31：猜得很准。"),
        ("-1200", "−3,000", "你猜 −3000，答案是 −1200：猜低了。"),
        ("12", "很多", "请填一个数。"),
        ("", "很多", "你猜“很多”。"),
    ],
)
def test_a_number_is_measured_against_the_answer(page, answer, guess, said):
    form = f"""<div class="guess" id="g"><form class="predict-form" data-answer="{answer}"
        data-tolerance="0.05"><input name="g" required> <button>看结果</button></form>
        <p class="predict-said" role="status"></p>
        <details class="predict-result"></details></div>"""
    page.route("**" + PAGE, lambda route: route.fulfill(
        body=route.fetch().text().replace("<article", form + "<article", 1),
        content_type="text/html",
    ))  # fmt: skip
    page.goto(PAGE, wait_until="load")
    page.locator("#g input").fill(guess)
    page.locator("#g button").click()
    expect(page.locator("#g .predict-said")).to_have_text(said)
    assert page.locator("#g details").evaluate("fold => fold.open") is not said.startswith("请")


def test_without_scripts_a_result_is_a_fold(browser, base_url):
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{base_url}{PAGE}")
    guess = page.locator(".guess").first
    expect(guess.locator("form")).to_be_hidden()
    expect(guess.locator("summary")).to_be_visible()
    page.close()


def test_paper_gets_what_is_folded(page):
    page.goto(PAGE, wait_until="load")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    expect(page.locator(".predict-result > p").first).to_be_visible()
    expect(page.locator(".predict-form").first).to_be_hidden()
    expect(page.locator("details.fold .citation").first).to_be_visible()
    expect(page.locator(".trap.dropdown > :not(.admonition-title)").first).to_be_visible()
    expect(page.locator(".sides")).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_coloured_symbols_stand_out(page, theme):
    page.emulate_media(color_scheme=theme)
    page.goto(PAGE, wait_until="load")
    found = page.evaluate(CONTRAST)
    assert found
    assert min(found) >= 4.5


def test_what_has_one_colour_lights_up_together(page):
    page.goto(PAGE, wait_until="load")
    pair = page.locator(".eqcode").first
    pair.locator(".eqcode-code .sym").first.hover()
    lit = pair.locator(".sym.on")
    assert lit.count() >= 2
    assert pair.locator(".eqcode-math .sym.on").count() >= 1
    colours = "all => all.map((e) => [...e.classList].find((name) => name.startsWith('sym-')))"
    assert len(set(lit.evaluate_all(colours))) == 1
    page.mouse.move(5, 5)
    expect(lit).to_have_count(0)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_of_a_pair_is_cut_off(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(PAGE, wait_until="load")
    wide = """all => all.filter((e) => e.scrollWidth > e.clientWidth + 1).length"""
    assert page.locator(".eqcode, .eqcode-code, .eqcode-code pre").evaluate_all(wide) == 0


def test_the_drawing_leads_to_the_other_sections(page):
    page.goto(PAGE, wait_until="load")
    drawing = page.locator(".block-small svg")
    expect(drawing.locator("g.lit")).to_have_count(1)
    assert drawing.locator("g.lit").evaluate("g => getComputedStyle(g).opacity") == "1"
    assert drawing.locator("a g").first.evaluate("g => +getComputedStyle(g).opacity") < 0.6
    drawing.locator("a[aria-label='GRPO'] text").first.click()
    page.wait_for_url("**/book/rl/grpo.html")


def test_a_section_has_four_sides(page):
    page.goto(PAGE, wait_until="load")
    for name in ("笔记本", "代码", "测试", "讲解"):
        page.locator(".sides").get_by_role("link", name=name).click()
        expect(page.locator(".sides [aria-current=page]")).to_have_text(name)
    assert page.url.partition("#")[0].endswith(PAGE)


def test_who_follows_a_citation_sees_the_reference(page):
    page.goto(PAGE, wait_until="load")
    fold = page.locator("details.fold:has(.citation)")
    assert fold.evaluate("fold => fold.open") is False
    page.evaluate("""() => [...document.querySelectorAll("article a[href^='#']")]
      .find((a) => document.getElementById(a.hash.slice(1))?.matches(".citation")).click()""")
    assert fold.evaluate("fold => fold.open") is True


MOVING = """() => document.querySelector("figure.verses").getAnimations({subtree: true}).length"""


@pytest.mark.parametrize(("motion", "moves"), [("reduce", False), ("no-preference", True)])
def test_poems_are_written_unless_motion_is_unwanted(page, motion, moves):
    page.emulate_media(reduced_motion=motion)
    page.goto("/book/index.html", wait_until="load")
    verses = page.locator("figure.verses")
    assert bool(page.evaluate(MOVING)) is moves
    first = verses.locator(".pair:visible").inner_text()
    verses.get_by_role("button", name="换一首").click()
    assert bool(page.evaluate(MOVING)) is moves
    expect(verses.locator(".pair:visible")).to_have_count(1)
    assert verses.locator(".pair:visible").inner_text() != first
