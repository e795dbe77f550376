"""What holds for every interactive figure: each handle and control moves it by mouse, finger and
keys; the address keeps its state; it fits a phone, rests where motion is unwelcome, and leaves a
picture on paper and without scripts."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pytest
from axe_playwright_python.sync_playwright import Axe
from moving import LABS, PLACES, LabPage

AXE = Axe()
T = TypeVar("T")


def tabs(lab: LabPage) -> list[str]:
    """The values of its tabs, or one empty value."""
    found = lab.lab.locator("fieldset.tabs input").evaluate_all("all => all.map(e => e.value)")
    return found or [""]


def to_tab(lab: LabPage, value: str) -> None:
    if value:
        lab.lab.locator(f'fieldset.tabs input[value="{value}"]').check(force=True)


def in_turn(lab: LabPage, things: Callable[[LabPage], Iterable[T]]) -> Iterator[T]:
    """What there is on each tab, one after the other, each from the state the figure opens in."""
    for tab in tabs(lab):
        to_tab(lab, tab)
        for thing in things(lab):
            yield thing
            lab.button("恢复")
            to_tab(lab, tab)


def handles(lab: LabPage) -> list[str]:
    return lab.lab.locator(".handle").evaluate_all("all => all.map(e => e.dataset.name)")


def value(lab: LabPage, name: str) -> float:
    return float(lab.handle(name).get_attribute("aria-valuenow"))


def elsewhere(lab: LabPage, name: str) -> tuple[float, float]:
    """A value of a handle that is well away from the present one, and what may be missed of it."""
    low, high, step = lab.handle(name).evaluate(
        """e => [e.getAttribute("aria-valuemin"), e.getAttribute("aria-valuemax"),
                 e.dataset.step].map(x => Number(x) || 0)"""
    )
    far = 0.3 if value(lab, name) > (low + high) / 2 else 0.7
    return low + far * (high - low), 0.05 * (high - low) + step / 2


@pytest.mark.parametrize("name", LABS)
def test_every_handle_follows_the_mouse_and_the_keys(open_lab, name):
    lab = open_lab(name)
    for handle in in_turn(lab, handles):
        drawn, (goal, off) = lab.drawn(), elsewhere(lab, handle)
        lab.drag(handle, goal)
        assert value(lab, handle) == pytest.approx(goal, abs=off), f"{handle} and the mouse"
        assert lab.drawn() != drawn
        assert lab.page.evaluate("document.activeElement.dataset.name") == handle
        lab.key(handle, "Home")
        lab.key(handle, "ArrowUp", 3)
        first = lab.state()
        lab.key(handle, "End")
        assert lab.state() != first, f"the keys do not move {handle}"


@pytest.mark.parametrize("name", LABS)
def test_every_handle_follows_a_finger_and_the_page_stays(touch_lab, name):
    lab = touch_lab(name)
    for handle in in_turn(lab, handles):
        lab.bring(lab.handle(handle))
        at, (goal, off) = lab.page.evaluate("scrollY"), elsewhere(lab, handle)
        lab.touch(handle, goal)
        assert value(lab, handle) == pytest.approx(goal, abs=off), f"{handle} and a finger"
        assert abs(lab.page.evaluate("scrollY") - at) < 2, "the page scrolled away"


@pytest.mark.parametrize("name", LABS)
def test_everything_that_can_be_pressed_answers_to_mouse_and_keys(open_lab, name):
    lab = open_lab(name)
    for i in in_turn(lab, lambda lab: range(2 * lab.lab.locator(".press").count())):
        press = lab.lab.locator(".press").nth(i // 2)
        label, given = press.get_attribute("aria-label"), press.get_attribute("data-value")
        if press.get_attribute("aria-pressed") == "true" and "false" not in given:
            continue  # the one of several that is chosen already
        before = lab.state()
        if i % 2:
            press.focus()
            lab.page.keyboard.press("Enter")
        else:
            press.click()
        assert lab.state() != before, label


def fields(lab: LabPage) -> list[str]:
    """The names of the controls that are shown."""
    shown = lab.lab.locator(".lab-controls :is(input, select, textarea):visible")
    return shown.evaluate_all("all => [...new Set(all.map(e => e.dataset.name))]")


@pytest.mark.parametrize("name", LABS)
def test_every_control_changes_the_state_by_keys(open_lab, name):
    lab = open_lab(name)
    for field in in_turn(lab, fields):
        control, before = lab.control(field).first, lab.state()
        kind = control.evaluate("e => e.type")
        if kind == "radio":
            lab.lab.locator(f'input[data-name="{field}"]:checked').focus()
            lab.page.keyboard.press("ArrowRight")
        elif kind == "checkbox":
            control.focus()
            lab.page.keyboard.press("Space")
        elif kind in ("text", "textarea"):
            control.focus()
            lab.page.keyboard.type("42")
        elif kind == "select-one":
            options = control.evaluate("e => [...e.options].map(o => o.value)")
            control.select_option(next(o for o in options if o != control.input_value()))
        else:
            control.focus()
            at, most = control.evaluate("e => [+e.value, +e.max]")
            lab.page.keyboard.press("Home" if at == most else "End")
        assert lab.state() != before, f"{field} does nothing"


@pytest.mark.parametrize("name", LABS)
def test_the_address_brings_the_state_back(open_lab, name):
    lab = open_lab(name)
    presets = lab.lab.locator(".lab-presets button").all_inner_texts()
    lab.preset(presets[-1])
    state, said = lab.state(), lab.said()
    lab.page.wait_for_url("**#lab-*")
    address = "#" + lab.page.url.split("#")[1]
    assert address.startswith(f"#lab-{name}")
    other = open_lab(name, address)
    assert other.state() == state
    assert other.said() == said
    top = other.lab.evaluate("e => e.closest('figure').getBoundingClientRect().top")
    assert -50 < top < 500  # the reader is where the link leads
    other.button("恢复")
    assert other.state() != state


@pytest.mark.parametrize("name", LABS)
@pytest.mark.browser_context_args(viewport={"width": 390, "height": 844})
def test_it_fits_a_phone_with_the_plot_above_the_controls(open_lab, name):
    lab = open_lab(name)
    for tab in tabs(lab):
        to_tab(lab, tab)
        wide = lab.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, "the page scrolls sideways"
        top = "e => e.getBoundingClientRect().top"
        plot = lab.lab.locator(".lab-plot").evaluate(top)
        assert plot < lab.lab.locator(".lab-controls").evaluate(top)
        small = lab.lab.evaluate(
            """lab => [...lab.querySelectorAll(".lab-plot text")].filter((t) => {
              const svg = t.ownerSVGElement;
              const zoom = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
              return zoom * parseFloat(getComputedStyle(t).fontSize) < 11; })
              .map((t) => t.textContent)"""
        )
        assert not small, "too small to read"
        beyond = lab.lab.evaluate(
            """lab => [...lab.querySelectorAll(".lab-plot text")].filter((t) => {
              const box = t.getBoundingClientRect(), side = lab.getBoundingClientRect();
              return box.width && (box.left < side.left - 4 || box.right > side.right + 4); })
              .map((t) => t.textContent)"""
        )
        assert not beyond, "beyond the side of the figure"


@pytest.mark.parametrize("name", LABS)
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.browser_context_args(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
def test_axe_finds_nothing(open_lab, name, theme):
    lab = open_lab(name)
    lab.page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    for tab in tabs(lab):
        to_tab(lab, tab)
        found = AXE.run(
            lab.page,
            context=f'.lab[data-lab="{name}"]',
            options={"resultTypes": ["violations"]},
        ).response["violations"]
        assert not [(v["id"], [n["html"][:120] for n in v["nodes"][:3]]) for v in found]


@pytest.mark.parametrize("name", LABS)
@pytest.mark.browser_context_args(reduced_motion="reduce")
def test_nothing_moves_where_motion_is_unwelcome(open_lab, name):
    lab = open_lab(name)
    eased = lab.lab.evaluate(
        """lab => [...lab.querySelectorAll("*")].filter((e) => {
          const s = getComputedStyle(e);
          return parseFloat(s.transitionDuration) > 0.01 || s.animationName !== "none"; }).length"""
    )
    assert eased == 0
    drawn = lab.drawn()
    lab.page.wait_for_timeout(500)
    assert lab.drawn() == drawn  # not by itself


@pytest.mark.parametrize("name", LABS)
@pytest.mark.browser_context_args(java_script_enabled=False)
def test_without_scripts_there_is_a_picture(page, name):
    page.goto(f"/{PLACES[name]}.html", wait_until="load")
    lab = page.locator(f'.lab[data-lab="{name}"]')
    assert lab.locator(".lab-still.wide svg").first.is_visible()
    assert not lab.locator(".lab-still.narrow svg").first.is_visible()
    assert lab.locator(".lab-off").is_visible()


@pytest.mark.parametrize("name", LABS)
def test_on_paper_there_is_the_picture_alone(open_lab, name):
    lab = open_lab(name)
    lab.page.emulate_media(media="print")
    assert lab.lab.locator(".lab-still.wide svg").first.is_visible()
    assert not lab.lab.locator(".lab-live").is_visible()


@pytest.mark.parametrize("name", LABS)
def test_it_works_from_a_file(browser, html, name):
    page = browser.new_page()
    trouble = []
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(f"file://{html}/{PLACES[name]}.html", wait_until="load")
    lab = page.locator(f'.lab.live[data-lab="{name}"]')
    lab.locator(".lab-presets button").last.click()
    page.wait_for_url("**#lab-*")
    assert not trouble
    assert page.url.split("#")[1].startswith(f"lab-{name}")
    page.close()
