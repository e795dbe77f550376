"""The timelines of schedules: what a rank does at a moment, and whom it waits for."""

import pytest

PLACE = """(lab, [plot, rank, time]) => {
  const svg = lab.querySelector(".lab-plot svg"), box = svg.getBoundingClientRect();
  const wide = svg.viewBox.baseVal.width, zoom = box.width / wide;
  const spec = Kit.figures.pipeline, data = JSON.parse(lab.querySelector("script").textContent);
  const { x, tops, row } = PipelineLab.layout(lab.labState, data, wide);
  return [box.left + x(time) * zoom, box.top + (tops[plot] + (rank + 0.5) * row) * zoom];
}"""


def place(lab, plot: int, rank: int, time: float) -> tuple[float, float]:
    """Where this moment of a rank is on the screen."""
    lab.lab.locator(".lab-plot").scroll_into_view_if_needed()
    return tuple(lab.lab.evaluate(PLACE, [plot, rank, time]))


def test_it_opens_in_the_wait_of_the_middle(open_lab):
    lab = open_lab("pipeline")
    assert "rank 1 空闲（21 到 22）" in lab.said()
    assert "等 rank 0" in lab.said()
    assert "rank 0 先得做完一对" in lab.said()


def test_the_mouse_shows_why_a_rank_is_idle_and_a_click_keeps_it(open_lab):
    lab = open_lab("pipeline")
    opened, said = lab.state(), lab.said()
    lab.page.mouse.move(*place(lab, 1, 0, 6.5))
    assert "1F1B 的 rank 0 空闲（4 到 10）" in lab.said()
    assert "等 rank 1" in lab.said()
    lab.page.mouse.move(*place(lab, 1, 3, 0.5))
    assert "等 rank 2 做完微批次 0 的前向" in lab.said()
    lab.page.mouse.move(0, 0)
    assert (lab.state(), lab.said()) == (opened, said)  # it only showed
    lab.page.mouse.click(*place(lab, 0, 0, 18.6))
    lab.page.mouse.move(0, 0)
    assert "在做一对（微批次 7 的前向与 1 的反向）" in lab.said()
    assert lab.state() == {**opened, "row": 0, "at": 18.5}


def test_a_finger_keeps_what_it_points_at(touch_lab):
    lab = touch_lab("pipeline")
    lab.page.touchscreen.tap(*place(lab, 0, 2, 0.5))
    assert "rank 2 空闲（0 到 1）" in lab.said()
    assert "等 rank 3" in lab.said()
    assert lab.state()["row"] == 2


def test_keys_walk_among_actions_and_ranks(open_lab):
    lab = open_lab("pipeline")
    lab.key("at", "ArrowLeft")
    assert "在做微批次 2 的完整反向（19 到 21）" in lab.said()
    lab.key("at", "ArrowRight", 2)
    assert "在做微批次 7 的输入梯度（22 到 23）" in lab.said()
    lab.key("at", "ArrowDown", 3)
    assert "1F1B 的 rank 0" in lab.said()
    lab.key("at", "Home")
    assert lab.state()["at"] == 0
    assert lab.page.evaluate("document.activeElement.dataset.name") == "at"
    assert lab.handle("at").get_attribute("aria-valuetext") == "0，rank 0 F0"


def test_the_handle_scrubs_over_time(open_lab):
    lab = open_lab("pipeline")
    lab.drag("at", 6)
    assert lab.state()["at"] == 6
    assert "rank 1 在做微批次 4 的完整反向" in lab.said()
    lab.page.mouse.move(0, 0)
    assert lab.state()["at"] == 6


def test_playing_comes_to_the_end_and_begins_again(open_lab):
    lab = open_lab("pipeline")
    lab.drag("at", 30)
    lab.button("播放")
    lab.page.wait_for_function(
        "document.querySelector('.lab[data-lab=pipeline]').labState.at === 33"
    )
    assert "已经收工；总时间 26" in lab.said()
    lab.button("播放")
    lab.page.wait_for_timeout(400)
    lab.button("暂停")
    assert 0 < lab.state()["at"] < 20
    assert lab.state()["row"] == 1


def test_eight_steps_have_names(open_lab):
    lab = open_lab("pipeline")
    lab.preset("论文图 5")
    assert "总时间 66" in lab.drawn()
    assert "第 4 步：成对" in lab.said()
    assert "8 还清 W" not in lab.drawn()
    lab.choose("colour", "step")
    for word in ("1 近头的前向", "4 成对", "8 还清 W"):
        assert word in lab.drawn()
    lab.preset("反向时的等待")
    assert "rank 2 空闲（52 到 54）" in lab.said()


def test_two_schedules_are_compared(open_lab):
    lab = open_lab("pipeline")
    assert "总时间 26" in lab.drawn()
    assert "总时间 33" in lab.drawn()
    lab.choose("second", "ZB1P")
    assert "总时间 27" in lab.drawn()
    lab.choose("second", "none")
    assert "ZB1P" not in lab.drawn()
    lab.choose("name", "1F1B")
    assert "总时间 33" in lab.drawn()
    options = lab.control("second").evaluate("e => [...e.options].map(o => o.value)")
    assert options == ["none", "ZB1P", "DualPipe", "DualPipeV"]


def test_three_questions_are_answered_by_playing(open_lab):
    lab = open_lab("pipeline")
    lab.choose("micro", 16)
    assert "不变" in lab.goals()[0]
    lab.preset("论文图 5")
    lab.slide("pair", 2.5)
    assert "两端的对少" in lab.goals()[1]
    lab.preset("比 ZB1P")
    assert not lab.goals()[2]
    lab.slide("pair", 3.5)
    assert "抢资源" in lab.goals()[2]


def test_one_press_restores_the_timeline(open_lab):
    lab = open_lab("pipeline")
    form = lab.lab.locator(".lab-controls")
    values = "form => [...form.elements].map(e => e.value)"
    before, state = form.evaluate(values), lab.state()
    lab.slide("input", 0.5)
    lab.slide("weight", 3)
    assert form.evaluate(values) != before
    lab.button("恢复")
    assert form.evaluate(values) == before
    assert lab.state() == state


@pytest.mark.browser_context_args(viewport={"width": 390, "height": 844})
def test_on_a_phone_every_rank_says_what_it_does(open_lab):
    lab = open_lab("pipeline")
    words = lab.lab.locator(".lab-plot").inner_text()
    for cell in ("B7", "等 rank 0", "等 rank 3", "B3"):
        assert cell in words
