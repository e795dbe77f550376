"""Readers who ask the system for contrast or for colours of their own; keys in the figures."""

import pytest

# a section with formulas, code and a figure; a notebook; a figure of the whole model
PAGES = ["book/model/moe", "notebooks/moe", "book/whole/poet"]
CONTRAST = """elements => {
  const channel = c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor, n = numbers(colour);
      if (n.length < 4 || n[3] > .99) return n;
    }
    return [255, 255, 255];
  };
  return elements.map(e => {
    const [a, b] = [light(numbers(getComputedStyle(e).color)), light(ground(e))].sort();
    return [(b + .05) / (a + .05), e.textContent.trim().slice(0, 30)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_more_contrast_is_given_to_who_asks_for_it(page, name, scheme):
    page.emulate_media(contrast="more", color_scheme=scheme)
    page.goto(f"/{name}.html", wait_until="load")
    assert page.evaluate("document.documentElement.dataset.theme") == scheme
    where = page.locator("article :is(p, h1, h2, figcaption, summary, p > a), nav.bd-links a")
    found = where.evaluate_all(CONTRAST)
    assert len(found) > 20
    assert [(round(ratio, 1), text) for ratio, text in found if ratio < 7] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_colours_of_the_system_leave_nothing_unseen(page, name, scheme):
    page.emulate_media(forced_colors="active", color_scheme=scheme)
    page.goto(f"/{name}.html", wait_until="load")
    assert page.evaluate("matchMedia('(forced-colors: active)').matches")
    # figures stand on the ground that they are drawn for, under whatever the system has around
    for svg in page.locator("article .lab.live .lab-plot svg").all():
        ground = svg.evaluate("e => getComputedStyle(e).backgroundColor")
        assert ground == svg.evaluate(
            """e => { const probe = document.createElement("i");
            probe.style.cssText = "forced-color-adjust: none; "
              + "background: var(--pst-color-background)";
            document.body.append(probe);
            const colour = getComputedStyle(probe).backgroundColor;
            probe.remove();
            return colour; }"""
        )
    # no picture in the ground covers the text
    painted = page.locator(
        "article :is(.katex-display, .pst-scrollable-table-container, pre)"
    ).evaluate_all("all => all.filter(e => getComputedStyle(e).backgroundImage !== 'none').length")
    assert painted == 0


def test_what_is_chosen_is_seen_without_colours(page):
    page.emulate_media(forced_colors="active")
    page.goto("/book/model/moe.html", wait_until="load")
    buttons = page.locator(".lab-presets button")
    buttons.nth(1).click()
    for button in buttons.all():
        pressed = button.get_attribute("aria-pressed") == "true"
        outlined = button.evaluate("e => getComputedStyle(e).outlineStyle") == "solid"
        focused = button.evaluate("e => e.matches(':focus-visible')")
        assert outlined == pressed or focused
    assert page.locator(".lab-presets button[aria-pressed=true]").count() == 1


def test_nothing_moves_for_who_asks_for_it(page):
    page.emulate_media(reduced_motion="reduce")
    for name in PAGES:
        page.goto(f"/{name}.html", wait_until="load")
        moving = page.evaluate(
            """() => [...document.querySelectorAll(".lab svg *, article *")].filter(e => {
              const s = getComputedStyle(e);
              return s.animationName !== "none" && parseFloat(s.animationDuration) > 0
                || e.closest(".lab svg") && parseFloat(s.transitionDuration) > 0;
            }).map(e => e.outerHTML.slice(0, 80))"""
        )
        assert moving == []


def test_the_keyboard_goes_through_a_figure_in_the_order_in_which_it_is_read(page):
    """Examples, then the drawing, then its controls, then the questions; never back up."""
    page.goto("/book/model/moe.html", wait_until="load")
    lab = page.locator(".lab.live").first
    lab.locator("button").first.focus()
    tops = []
    while lab.evaluate("lab => lab.contains(document.activeElement)"):
        tops.append(
            page.evaluate(
                """() => { const e = document.activeElement;
                return e.closest(".lab-presets, .tabs, .lab-plot, .lab-controls, .lab-goals")
                  .getBoundingClientRect().top + scrollY; }"""
            )
        )
        page.keyboard.press("Tab")
    assert len(tops) > 8
    assert tops == sorted(tops)
