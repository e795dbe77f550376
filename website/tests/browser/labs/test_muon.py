"""Singular values on their way to 1: what one turns has the effect the page tells of."""


def test_two_last_steps_make_the_circle(open_lab):
    lab = open_lab("muon")
    assert "椭圆成了圆" in lab.said()
    lab.slide("steps", 8)
    assert "椭圆成了圆" not in lab.said()
    lab.slide("steps", 0)
    assert "还没有走" in lab.said()


def test_five_steps_of_the_first_coefficients_do_not_settle(open_lab):
    lab = open_lab("muon")
    lab.preset("五步")
    assert "停不住" in lab.said()


def test_a_value_too_small_does_not_arrive(open_lab):
    lab = open_lab("muon")
    lab.drag("power.1", -5)
    assert "十万分之二" in lab.goals()[1]
    assert not lab.goals()[0]
