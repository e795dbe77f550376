"""Two arrows and the matrix between them: what one drags has the effect the page tells of."""

import re


def product(lab) -> str:
    return re.search(r"点积 (−?[\d.]+)", lab.drawn())[1]


def test_both_arrows_moved_leave_the_product(open_lab):
    lab = open_lab("rotate")
    lab.choose("view", "turn")
    before = product(lab)
    for t in (6, 11):
        lab.drag("t", t)
        assert lab.state()["t"] == t
        assert product(lab) == before
    assert lab.goals()[0].startswith("做到了")
    lab.key("distance", "ArrowLeft", 2)
    assert lab.state()["distance"] == 1
    assert product(lab) != before


def test_the_matrix_to_absorb_changes_with_the_distance_and_stays_when_decoupled(open_lab):
    lab = open_lab("rotate")
    assert "≠" in lab.drawn()
    lab.drag("distance", 0)
    assert "=" in lab.lab.locator(".lab-plot text.big").all_text_contents()
    lab.choose("view", "apart")
    lab.drag("distance", 5)
    assert "≠" not in lab.drawn()
    assert "6 个距离都用它" in lab.said()
    assert lab.goals()[2].startswith("做到了")


def test_without_a_turn_one_matrix_is_enough_and_the_position_is_gone(open_lab):
    lab = open_lab("rotate")
    lab.slide("step", 0)
    assert "位置没有了" in lab.said()
    assert lab.goals()[1].startswith("做到了")


def test_a_finger_drags_the_key_away(touch_lab):
    lab = touch_lab("rotate")
    said = lab.said()
    lab.touch("distance", 1)
    assert lab.state()["distance"] == 1
    assert lab.said() != said
