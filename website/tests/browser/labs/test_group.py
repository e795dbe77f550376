"""Eight answers and one token: what a hand does to them has the effect the page tells of."""


def pushes(lab) -> list[float]:
    """What each token of the eight answers is pushed by, as it stands at the right."""
    shown = lab.lab.locator(".lab-plot text").all_text_contents()
    return [float(t.replace("−", "-")) for t in shown if len(t) == 7 and t[0] in "+−"]


def test_a_longer_wrong_answer_is_punished_less(open_lab):
    lab = open_lab("group")
    before = pushes(lab)
    lab.drag("lengths.4", 30)
    after = pushes(lab)
    assert lab.state()["lengths"][4] == 30
    assert before[4] * 5 < after[4] * 5 * 4.5 < 0
    assert [b == a for b, a in zip(before, after, strict=True)].count(False) == 1
    assert lab.goals()[1].startswith("做到了")
    lab.choose("objective", "dapo")
    wrong = [p for p, r in zip(pushes(lab), lab.state()["right"], strict=True) if not r]
    assert len(set(wrong)) == 1  # the same for every token of every wrong answer
    assert "所有的" in lab.said()


def test_all_right_or_all_wrong_nothing_is_pushed(open_lab):
    lab = open_lab("group")
    for i in (0, 3, 5):
        lab.press(f"right.{i}").click()
    assert not any(lab.state()["right"])
    assert pushes(lab) == []
    assert "一支箭头也没有" in lab.said()
    assert lab.goals()[0].startswith("做到了")
    lab.choose("wrong", "trap5")
    assert len(pushes(lab)) == 8  # out of rounding
    assert "舍入误差" in lab.said()


def test_a_finger_drags_a_length(touch_lab):
    lab = touch_lab("group")
    lab.touch("lengths.2", 10)
    assert lab.state()["lengths"][2] == 10
    lab.key("lengths.2", "ArrowRight", 2)
    assert lab.state()["lengths"][2] == 12


def test_the_gradient_brings_back_only_where_the_smaller_is_taken(open_lab):
    lab = open_lab("group")
    lab.preset("常见错误 1")
    lab.button("按梯度走一步")
    assert lab.state()["rho"] == 1.5
    assert "再也拉不回来" in lab.said()
    lab.choose("form", "none")
    assert "照样拉回来" in lab.said()
    for _ in range(7):
        lab.button("按梯度走一步")
    assert lab.state()["rho"] < 0.8
    assert "放手" in lab.said()
    assert lab.goals()[2].startswith("做到了")


def test_in_all_four_quadrants_it_lets_go_only_of_what_went_too_far(open_lab):
    lab = open_lab("group", "#lab-group?tab=clip")
    for sign, rho, lets_go in ((2, 1.6, True), (2, 0.4, False), (-2, 0.4, True), (-2, 1.6, False)):
        lab.choose("sign", sign)
        lab.drag("rho", rho)
        assert ("放手" in lab.said()) is lets_go
        assert ("照样拉回来" in lab.said()) is not lets_go
