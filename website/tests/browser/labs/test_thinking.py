"""Sixty steps of RL: what one scrubs to is what the model wrote there."""

import re


def words(lab) -> list[str]:
    """The words in the drawing: what the four answers have written so far."""
    shown = lab.lab.locator(".lab-plot text").all_text_contents()
    return [t for t in shown if re.fullmatch("one|two|three|four|five|[一二三四五]", t)]


def test_it_learns_to_write_all_steps(open_lab):
    lab = open_lab("thinking")
    assert len(words(lab)) < 20
    assert "23%" in lab.said()
    lab.drag("step", 60)
    assert lab.state()["step"] == 60
    assert len(words(lab)) == 24
    assert lab.drawn().count("✓") == 4
    assert "96%" in lab.said()
    lab.key("step", "ArrowLeft", 36)
    assert lab.state()["step"] == 24
    assert lab.goals()[0].startswith("做到了")


def test_rewards_choose_what_becomes_common(open_lab):
    lab = open_lab("thinking", "#lab-thinking?step=60")
    assert {w.isascii() for w in words(lab)} == {True, False}
    lab.choose("variant", "language")
    assert {w.isascii() for w in words(lab)} == {False}
    assert lab.goals()[1].startswith("做到了")
    lab.choose("variant", "random")
    assert lab.drawn().count("✓") == 0
    assert "没有方向" in lab.said()
    lab.choose("variant", "forbidden")
    assert words(lab) == []
    assert "离瞎猜不远" in lab.said()


def test_it_plays_to_the_end_and_from_the_start_again(open_lab):
    lab = open_lab("thinking", "#lab-thinking?step=55&variant=language")
    lab.button("播放")
    lab.page.wait_for_function(
        "() => document.querySelector('.lab[data-lab=thinking]').labState.step === 60"
    )
    assert lab.lab.locator("button.play").inner_text() == "播放"
    lab.button("播放")
    lab.page.wait_for_function(
        "() => document.querySelector('.lab[data-lab=thinking]').labState.step === 3"
    )
    lab.button("暂停")
    assert lab.state()["variant"] == "language"


def test_a_finger_scrubs_and_examples_keep_the_reward(touch_lab):
    lab = touch_lab("thinking")
    lab.touch("step", 40)
    assert lab.state()["step"] == 40
    lab.choose("variant", "random")
    lab.preset("六十步以后")
    assert lab.state() == {"step": 60, "variant": "random", "problem": "0"}
