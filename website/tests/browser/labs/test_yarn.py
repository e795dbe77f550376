"""The 32 hands of V3: which go astray, and which must be slowed."""


def astray(lab) -> int:
    return lab.lab.locator(".lab-plot line.s-red").count()


def test_the_slow_hands_go_astray_until_they_are_slowed_enough(open_lab):
    lab = open_lab("yarn")
    assert astray(lab) == 9
    assert "最慢的 9 根" in lab.said()
    slider = lab.control("factor")
    slider.focus()
    slider.press("End")
    assert lab.state()["factor"] == 64
    assert astray(lab) == 0
    assert lab.lab.locator(".lab-plot text", has_text="÷64").count() == 9
    assert lab.lab.locator(".lab-plot text", has_text="不动").count() == 11
    lab.page.goto(lab.page.url.split("#")[0] + "#lab-yarn?factor=32")
    assert astray(lab) == 0
    assert lab.goals()[0].startswith("做到了")


def test_within_the_trained_length_nothing_is_new(open_lab):
    lab = open_lab("yarn")
    slider = lab.control("position")
    slider.focus()
    slider.press("Home")
    slider.press("ArrowRight")
    assert lab.state()["position"] == 2  # whole numbers, one at least
    assert astray(lab) == 0


def test_trap_7_takes_the_step_of_the_fast_hands(open_lab):
    lab = open_lab("yarn")
    lab.preset("正确（V3，s = 40）")
    wedges = lab.lab.locator(".lab-plot path.f-green").count()
    assert wedges > 10
    lab.choose("wrong", "trap7")
    assert "57.3° 变成 1.4°" in lab.said()
    assert lab.lab.locator(".lab-plot path.f-green").count() < wedges / 4
    assert lab.goals()[1].startswith("做到了")
