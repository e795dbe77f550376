"""An interactive figure in the browser, moved by mouse, finger and keys as a reader would."""

import re
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page

ROOT = Path(__file__).parents[4]
LABS = sorted(p.stem for p in (ROOT / "website/assets/labs").glob("*.js") if p.stem != "kit")
PLACES = {  # figure → the page it stands on
    name: path.relative_to(ROOT).with_suffix("").as_posix()
    for folder in ("book", "notebooks")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".md", ".ipynb")
    for name in re.findall(r"\{lab\} ([\w-]+)", path.read_text("utf8"))
}


class LabPage:
    """One figure on its page. Names of handles are those of the state: `scores.3`."""

    def __init__(self, page: Page, name: str, address: str = "") -> None:
        self.page, self.name = page, name
        page.goto(f"/{PLACES[name]}.html{address}", wait_until="load")
        self.lab = page.locator(f'.lab.live[data-lab="{name}"]')
        self.bring(self.lab)

    def bring(self, place: Locator) -> None:
        """Into view, and wait until the page holds still: what is far is laid out late."""
        place.evaluate(
            """async (node) => {
              const frame = () => new Promise(requestAnimationFrame);
              const top = () => node.getBoundingClientRect().top;
              for (let still = 0, turn = 0, last = NaN; still < 3 && turn < 60; turn++) {
                // 70: the bar; 90: the button back to the top, which comes when one scrolls up
                if (top() < 70 || node.getBoundingClientRect().bottom > innerHeight - 90)
                  node.scrollIntoView({ block: "center", behavior: "instant" });
                await frame();
                still = top() === last ? still + 1 : 0;
                last = top();
              }
            }"""
        )

    def state(self) -> dict[str, Any]:
        return self.lab.evaluate("lab => lab.labState")

    def said(self) -> str:
        return self.lab.locator(".lab-say").inner_text()

    def drawn(self) -> str:
        return self.lab.locator(".lab-plot").inner_html()

    def goals(self) -> list[str]:
        """The reply to every goal, empty where it is not reached."""
        return self.lab.locator(".lab-goals .reply").all_inner_texts()

    def preset(self, label: str) -> None:
        self.lab.locator(".lab-presets").get_by_role("button", name=label, exact=True).click()

    def button(self, label: str) -> None:
        self.lab.get_by_role("button", name=label, exact=True).click()

    # what can be dragged and pressed in the drawing
    def handle(self, name: str) -> Locator:
        return self.lab.locator(f'.handle[data-name="{name}"]')

    def press(self, name: str, nth: int = 0) -> Locator:
        return self.lab.locator(f'.press[data-name="{name}"]').nth(nth)

    def _way(self, name: str, value: float) -> tuple[float, float, float, float]:
        """Where the handle is on the screen, and where it is at another value."""
        handle = self.handle(name)
        self.bring(handle)
        return tuple(
            handle.evaluate(
                """(node, value) => {
                  const box = node.querySelector(".reach").getBoundingClientRect();
                  const svg = node.ownerSVGElement, drawing = svg.getBoundingClientRect();
                  const zoom = drawing.width / svg.viewBox.baseVal.width;
                  const at = (key) => Number(node.getAttribute(key));
                  const [min, max, now] = ["min", "max", "now"].map((k) => at(`aria-value${k}`));
                  const share = (v) => node.dataset.log ? Math.log(v / min) / Math.log(max / min)
                    : (v - min) / (max - min);
                  const { from, to } = node.dataset;
                  const by = (share(value) - share(now)) * (to - from) * zoom;
                  const x = box.x + box.width / 2, y = box.y + box.height / 2;
                  return node.dataset.axis === "y" ? [x, y, x, y + by] : [x, y, x + by, y];
                }""",
                value,
            )
        )

    def drag(self, name: str, value: float) -> None:
        """With the mouse, to this value."""
        x, y, to_x, to_y = self._way(name, value)
        mouse = self.page.mouse
        mouse.move(x, y)
        mouse.down()
        mouse.move((x + to_x) / 2, (y + to_y) / 2)
        mouse.move(to_x, to_y)
        mouse.up()

    def touch(self, name: str, value: float) -> None:
        """With a finger, to this value."""
        x, y, to_x, to_y = self._way(name, value)
        session = self.page.context.new_cdp_session(self.page)

        def send(kind: str, *points: tuple[float, float]) -> None:
            session.send(
                "Input.dispatchTouchEvent",
                {"type": kind, "touchPoints": [{"x": px, "y": py} for px, py in points]},
            )

        send("touchStart", (x, y))
        for share in (0.25, 0.5, 0.75, 1):
            send("touchMove", (x + share * (to_x - x), y + share * (to_y - y)))
        send("touchEnd")

    def key(self, name: str, key: str, times: int = 1) -> None:
        self.handle(name).focus()
        for _ in range(times):
            self.page.keyboard.press(key)

    # the controls below it
    def control(self, name: str) -> Locator:
        return self.lab.locator(f'.lab-live :is(input, select, textarea)[data-name="{name}"]')

    def choose(self, name: str, value: Any) -> None:
        """One of a choice, of tabs or of a list, by its value."""
        value = str(value)
        if self.control(name).first.evaluate("node => node.tagName") == "SELECT":
            self.control(name).select_option(value)
        else:
            self.lab.locator(f'input[data-name="{name}"][value="{value}"]').check(force=True)

    def toggle(self, name: str) -> None:
        self.control(name).click()

    def type(self, name: str, words: str) -> None:
        self.control(name).fill(words)

    def slide(self, name: str, value: float) -> None:
        """Sets a slider; where it is logarithmic, to the nearest value it has."""
        self.control(name).evaluate(
            "(node, value) => { node.value = value; "
            "node.dispatchEvent(new Event('input', { bubbles: true })); }",
            value,
        )
