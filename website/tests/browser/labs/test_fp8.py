"""FP8 under the microscope: what one turns has the effect the page tells of."""

import re

import pytest


def lost(lab) -> int:
    """The number of cells that became 0, as the drawing counts them."""
    return int(re.search(r"归零 (\d+)", lab.lab.locator(".lab-plot").inner_text())[1])


def bits(lab, name: str) -> str:
    """The bits of a format, read off its boxes."""
    all_ = lab.lab.locator(f'.press[aria-label^="{name} "]')
    return "".join(all_.all_text_contents())


def test_seventeen_is_not_there(open_lab):
    lab = open_lab("fp8")
    assert "夹在 16 与 18 之间" in lab.said()
    assert bits(lab, "E4M3") == "01011000"
    lab.drag("x", 18)
    assert "E4M3 正好有这个数" in lab.said()


def test_a_number_is_typed(open_lab):
    lab = open_lab("fp8")
    lab.type("x", "0.0003")
    assert lab.state()["x"] == 0.0003
    assert "归零" in lab.said()
    assert lab.goals()[0].startswith("做到了")
    lab.type("x", "-1.5")
    assert (lab.state()["x"], lab.state()["minus"]) == (1.5, True)
    assert bits(lab, "E4M3") == "10111100"
    lab.type("x", "1e")  # not yet a number
    assert lab.state()["x"] == 1.5
    lab.type("x", "1e30")
    assert lab.state()["x"] == 2**17
    assert "截到它" in lab.said()


def test_a_bit_is_turned_and_keeps_the_focus(open_lab):
    lab = open_lab("fp8")
    lab.type("x", "16")
    bit = lab.lab.get_by_role("button", name="E4M3 的第 2 位尾数", exact=True)
    bit.click()
    assert lab.state()["x"] == 20
    assert bit.get_attribute("aria-pressed") == "true"
    bit.focus()
    for value in (16, 20, 16):
        lab.page.keyboard.press("Enter")
        assert lab.state()["x"] == value
    lab.lab.get_by_role("button", name="E5M2 的符号位", exact=True).click()
    assert lab.said().startswith("−16")


def test_the_largest_number_has_no_last_bit_to_turn(open_lab):
    lab = open_lab("fp8")
    lab.type("x", "448")
    assert lab.goals()[1].startswith("做到了")
    assert bits(lab, "E4M3") == "0111111"  # the eighth would make it NaN: it is no button
    lab.preset("常见错误 3")
    assert "成了 ∞" in lab.said()
    lab.toggle("clamp")
    assert "∞" not in lab.drawn()


def test_an_outlier_of_100_hurts_whole_numbers_and_not_e4m3(open_lab):
    lab = open_lab("fp8")
    lab.choose("tab", "matrix")
    assert "没有一个归零" in lab.said()
    lab.choose("format", "INT8")
    assert lost(lab) > 40
    lab.choose("format", "E5M2")
    lab.drag("power", 6)
    assert lost(lab) == 0


@pytest.mark.parametrize("move", ["drag", "touch", "keys"])
def test_a_tile_contains_the_damage(open_lab, touch_lab, move):
    lab = (touch_lab if move == "touch" else open_lab)("fp8", "#lab-fp8?tab=matrix")
    if move == "keys":
        lab.key("power", "End")
    else:
        getattr(lab, move)("power", 6)
    assert lab.state()["power"] == 6
    assert lost(lab) == 127
    lab.choose("group", "block")
    assert lost(lab) == 63
    lab.choose("group", "tile")
    assert lost(lab) == 7
    assert lab.goals()[2].startswith("做到了")


def test_a_block_mixes_tokens_of_different_size(open_lab):
    lab = open_lab("fp8")
    lab.preset("常见错误 5")
    assert lost(lab) > 50
    lab.choose("group", "tile")
    assert lost(lab) == 0
    assert "毫不受影响" in lab.said()
