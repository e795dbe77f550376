"""The register of 14 bits: what one turns has the effect the page tells of."""

import re


def shown(lab) -> dict[str, float]:
    """The two errors beside their lines, in percent."""
    words = " ".join(lab.lab.locator(".lab-plot text").all_text_contents())
    found = re.findall(r"(不提升|提升|两者都差) ([\d.]+)%", words)
    return {name: float(value) for name, value in found}


def test_the_error_grows_with_k_and_promotion_bounds_it(open_lab):
    lab = open_lab("fp8-accumulation")
    before = shown(lab)
    assert before["不提升"] > 100 * before["提升"]
    lab.drag("k", 13)
    after = shown(lab)
    assert 1.8 < after["不提升"] / before["不提升"] < 2.2
    assert 0.9 < after["提升"] / before["提升"] < 1.1
    lab.key("k", "ArrowLeft", 2)
    assert lab.state()["k"] == 11
    assert lab.goals()[0].startswith("做到了")


def test_a_longer_interval_lets_more_be_lost(open_lab):
    lab = open_lab("fp8-accumulation")
    errors = []
    for n in (5, 7, 9, 11):
        lab.drag("n", n)
        errors.append(shown(lab)["提升"])
    assert errors == sorted(errors)
    assert errors[-1] > 100 * errors[0]
    lab.drag("n", 13)
    assert "不提升" not in shown(lab)  # the two lines are one
    assert "一直留在 14 位的累加器里" in lab.said()
    lab.drag("n", 8)
    assert lab.goals()[2].startswith("做到了")


def test_a_finger_moves_both(touch_lab):
    lab = touch_lab("fp8-accumulation")
    lab.touch("n", 10)
    lab.touch("k", 9)
    assert (lab.state()["n"], lab.state()["k"]) == (10, 9)
    assert "还没有超过提升的间隔" in lab.said()


def test_the_example_of_the_page(open_lab):
    lab = open_lab("fp8-accumulation")
    lab.preset("2¹⁴ 加 63 个 1")
    assert "应是 16447，得到 16384" in lab.said()
    assert "乘积 1 留下 0" in lab.drawn()
    assert "乘积 1 留下 1" in lab.drawn()  # after promotion


def test_bits_rounding_and_data(open_lab):
    lab = open_lab("fp8-accumulation")
    before = shown(lab)["不提升"]
    lab.slide("bits", 14)
    assert 1.7 < before / shown(lab)["不提升"] < 2.3  # one bit more: half the error
    lab.slide("bits", 13)
    lab.toggle("nearest")
    assert shown(lab)["不提升"] < before / 10
    lab.toggle("nearest")
    lab.choose("kind", "normal")
    assert shown(lab)["不提升"] < before / 10
    assert lab.goals()[1].startswith("做到了")
