"""Stale samples: what the ratio mends, and which answers the sequence mask drops."""


def test_the_ratio_puts_the_marks_on_the_bars(open_lab):
    lab = open_lab("offpolicy")
    assert "偏了 127%" in lab.said()
    lab.choose("way", "unbiased")
    assert "记号全在柱顶" in lab.said()
    lab.drag("now.1", 1.5)
    assert lab.state()["now"][1] > 1
    assert "记号全在柱顶" in lab.said()
    lab.choose("way", "detached")
    assert "值总是对的" in lab.said()
    lab.preset("样本新鲜")
    assert "样本新鲜，值是对的" in lab.said()
    assert lab.goals()[0].startswith("做到了")


def test_a_good_answer_stays_however_far_it_is_dragged(open_lab):
    lab = open_lab("offpolicy")
    lab.preset("序列掩码")
    assert "丢了 2 份" in lab.said()
    lab.drag("drift.3", 1.4)  # a right one
    assert "丢了 2 份" in lab.said()
    lab.drag("drift.1", 1.2)  # a wrong one
    assert "丢了 3 份" in lab.said()
    lab.choose("wrong", "trap3")
    assert "份是好的" in lab.said()


def test_a_finger_drags_an_answer_over_the_threshold(touch_lab):
    lab = touch_lab("offpolicy")
    lab.choose("view", "mask")
    lab.touch("drift.7", 1.0)
    assert "丢了 3 份" in lab.said()
