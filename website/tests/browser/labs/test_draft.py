"""Checking a draft: what one moves has the effect the page tells of."""

import pytest


@pytest.mark.parametrize("way", ["mouse", "keys"])
def test_whatever_the_draft_says_the_model_writes_p(open_lab, way):
    lab = open_lab("draft")
    p = lab.state()["p"]
    assert "接受率 a = Σmin(p, q) = 0.56" in lab.said()
    if way == "mouse":
        lab.drag("q.2", 0.9)
    else:
        lab.key("q.2", "PageUp", 4)
        lab.key("q.2", "ArrowUp", 2)
    state = lab.state()
    assert state["p"] == p
    assert state["q"][2] == 0.9
    assert sum(state["q"]) == pytest.approx(1, abs=1e-3)  # the others made room
    assert "接受率 a = Σmin(p, q) = 0.25" in lab.said()
    assert "处处等于 p" in lab.said()
    assert "多了" not in lab.drawn()


def test_a_finger_brings_the_draft_near_the_model(touch_lab):
    lab = touch_lab("draft")
    lab.touch("q.2", 0.15)
    lab.touch("q.0", 0.4)
    assert float(lab.said().split("=")[2].split("；")[0]) > 0.8
    assert "处处等于 p" in lab.said()


def test_drawn_again_from_p_the_result_leaves_p(open_lab):
    lab = open_lab("draft")
    lab.choose("redraw", "p")
    assert "总变差是 0.12" in lab.said()
    assert "多了" in lab.drawn()
    assert "少了" in lab.drawn()
    for token in range(4):  # until the draft is the model
        lab.drag(f"q.{token}", lab.state()["p"][token])
    for _ in range(12):
        for token in range(5):
            lab.drag(f"q.{token}", lab.state()["p"][token])
    assert "从不拒绝" in lab.said()
    assert lab.goals()[1].startswith("做到了")


def test_the_tape_and_its_expectation(open_lab):
    lab = open_lab("draft")
    lab.choose("view", "tape")
    assert "1 + a = 1.85" in lab.said()
    lab.slide("depth", 2)
    assert "1 + a + a² = 2.57" in lab.said()
    before = lab.drawn()
    lab.button("再抽一次")
    assert lab.drawn() != before
    assert "1 + a + a² = 2.57" in lab.said()
    lab.toggle("bonus")
    assert "1 + a = 1.85" in lab.said()  # as with one draft less
    lab.slide("depth", 1)
    assert "20 步" in lab.said()
    assert "每步只有 1 个" in lab.said()


def test_the_acceptance_of_the_rule_goes_to_the_tape(open_lab):
    lab = open_lab("draft")
    lab.button("用这个 a 接连解码")
    assert lab.state()["a"] == 0.56
    assert "1 + a = 1.56" in lab.said()
    assert not lab.handle("q.2").count()
    lab.slide("a", 0.5)
    lab.slide("depth", 6)
    assert lab.goals()[2].startswith("做到了")
