"""Matrices multiplied over depth: what one turns has the effect the page tells of."""

import re


def gains(lab) -> list[float]:
    """Forward and backward, as they stand above the curves."""
    return [float(x) for x in re.findall(r"向[前后] ([\d.]+) 倍", lab.drawn())[:2]]


def test_without_a_constraint_the_gain_grows_with_depth_and_noise(open_lab):
    lab = open_lab("hyper")
    deep = gains(lab)
    assert min(deep) > 3
    lab.drag("depth", 10)
    assert lab.state()["depth"] == 10
    assert max(gains(lab)) < min(deep)
    lab.key("depth", "End")
    lab.slide("noise", 0.01)
    assert max(gains(lab)) < 2
    assert lab.goals()[0].startswith("做到了")


def test_rows_alone_keep_the_forward_gain_and_both_sums_keep_both(open_lab):
    lab = open_lab("hyper")
    lab.choose("rule", "rows")
    forward, backward = gains(lab)
    assert forward == 1
    assert 1.1 < backward < 4
    lab.choose("rule", "sinkhorn")
    assert gains(lab) == [1, 1]
    assert "两边都守住了" in lab.said()


def test_sharp_scores_leave_the_columns_off(open_lab):
    lab = open_lab("hyper")
    lab.choose("rule", "sinkhorn")
    lab.slide("sharp", 6)
    assert "迭代得越慢" in lab.said()
    assert lab.goals()[2].startswith("做到了")


def test_a_finger_moves_the_depth(touch_lab):
    lab = touch_lab("hyper")
    said = lab.said()
    lab.touch("depth", 40)
    assert lab.state()["depth"] == 40
    assert lab.said() != said
