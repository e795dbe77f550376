"""The router: the bias chooses and does not weigh, a node counts its two best, 0 is not −∞."""

import re

import pytest


def weights(lab) -> dict[int, str]:
    """Chosen expert → its weight, from the words that describe the drawing."""
    words = lab.lab.locator(".lab-plot svg").get_attribute("aria-label")
    return {int(i): g for i, g in re.findall(r"专家 (\d+)（权重 ([−\d.]+)）", words)}


def kept(lab) -> str:
    words = lab.lab.locator(".lab-plot svg").get_attribute("aria-label")
    return re.search(r"留下节点 ([\d、]+)", words)[1]


def test_the_bias_of_14_chooses_it_and_does_not_weigh_it(open_lab):
    lab = open_lab("router")
    assert weights(lab) == {5: "0.33", 15: "0.27", 14: "0.15", 13: "0.24"}
    lab.drag("bias.14", 0.28)
    assert weights(lab)[14] == "0.15"
    lab.drag("bias.14", 0.16)
    assert weights(lab)[14] == "0.15"  # lower, and still the same
    lab.drag("bias.14", 0.1)
    assert set(weights(lab)) == {4, 5, 13, 15}
    assert "专家 14" not in lab.said()
    lab.drag("bias.14", 0.2)
    lab.choose("wrong", "trap1")
    assert weights(lab)[14] == "0.23"  # the wrong way it does weigh
    lab.drag("bias.14", 0.28)
    assert weights(lab)[14] == "0.25"
    assert "均衡用的偏置改变了模型的输出" in lab.said()


def test_a_finger_puts_expert_5_out_and_its_node_with_it(touch_lab):
    lab = touch_lab("router")
    lab.touch("bias.5", -0.5)
    assert kept(lab) == "0、3"
    assert lab.goals()[0].startswith("做到了")
    assert not lab.goals()[1]


def test_keys_lift_the_second_of_node_2(open_lab):
    lab = open_lab("router")
    lab.key("bias.10", "ArrowUp", 28)
    assert kept(lab) == "1、2"
    assert 8 in weights(lab)
    assert lab.goals()[1].startswith("做到了")
    lab.choose("wrong", "trap3")
    lab.key("bias.10", "Home")
    assert kept(lab) == "1、2"  # the second no longer counts


def test_zero_wins_over_what_is_below_it(open_lab):
    lab = open_lab("router")
    lab.preset("常见错误 4：关掉的填 0")
    assert set(weights(lab)) == {0, 1, 2, 3}
    lab.choose("wrong", "none")
    assert set(weights(lab)) == {4, 5, 13, 15}  # without biases that differ
    lab.button("恢复")
    lab.choose("wrong", "trap4")
    lab.slide("nodes", 1)
    lab.drag("bias.6", -0.3)
    assert lab.goals()[2].startswith("做到了")


def test_numbers_and_kinds_of_scores(open_lab):
    lab = open_lab("router")
    lab.slide("experts", 1)
    assert weights(lab) == {5: "1.00"}
    lab.toggle("normalise")
    assert weights(lab) == {5: "0.71"}
    assert "权重之和是 0.71" in lab.said()
    lab.slide("nodes", 4)
    lab.slide("experts", 2)
    assert weights(lab) == {8: "0.81", 5: "0.71"}
    lab.choose("scoring", "softmax")
    assert weights(lab)[8] == "0.28"
    lab.drag("scores.8", 0.3)
    assert "加起来是 1" in lab.said()


@pytest.mark.parametrize("axis", ["scores", "bias"])
@pytest.mark.browser_context_args(viewport={"width": 390, "height": 844})
def test_on_a_phone_every_handle_can_be_hit_at_its_middle(open_lab, axis):
    lab = open_lab("router")
    for i in range(16):
        handle = lab.handle(f"{axis}.{i}")
        handle.scroll_into_view_if_needed()
        found = handle.locator(".reach").evaluate(
            """reach => { const box = reach.getBoundingClientRect();
              return document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)
                ?.closest("[data-name]")?.dataset.name; }"""
        )
        assert found == f"{axis}.{i}"
