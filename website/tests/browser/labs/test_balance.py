"""The loop of the biases: step by step, by 2γ, and what one update a micro-batch does to it."""

import re


def loads(lab) -> list[int]:
    words = lab.lab.locator(".lab-plot svg").get_attribute("aria-label")
    return [int(n) for n in re.search(r"负载 ([\d、]+)", words)[1].split("、")]


def vio(lab) -> float:
    words = lab.lab.locator(".lab-plot svg").get_attribute("aria-label")
    return float(re.search(r"MaxVio ([\d.]+)", words)[1])


def test_one_step_sends_the_token_elsewhere(open_lab):
    lab = open_lab("balance")
    assert "再走 1 步改选" in lab.said()
    before = loads(lab)
    lab.button("一步")
    assert lab.state()["steps"] == 5
    assert "已从专家 1 改选专家 3" in lab.said()
    after = loads(lab)
    assert sum(after) == sum(before) == 512
    assert after[0] < before[0]
    assert after[2] > before[2]


def test_the_step_is_worked_out_by_2_gamma(open_lab):
    lab = open_lab("balance")
    lab.slide("gamma", 15)  # per cent of the way from 0.001 to 0.1, in the logarithm
    gamma = lab.state()["gamma"]
    expected = lab.page.evaluate("gamma => BalanceLab.expected(gamma)", gamma)
    lab.slide("steps", expected - 1)
    assert "再走 1 步改选" in lab.said()
    assert not lab.goals()[0]
    lab.slide("steps", expected)
    assert "已从专家 1 改选专家 3" in lab.said()
    assert lab.goals()[0].startswith("做到了")


def test_play_levels_the_load_and_stops(open_lab):
    lab = open_lab("balance")
    lab.button("播放")
    lab.page.wait_for_function("document.querySelector('.lab').labState.steps > 6")
    lab.button("暂停")
    stopped = lab.state()["steps"]
    lab.page.wait_for_timeout(500)
    assert lab.state()["steps"] == stopped
    lab.slide("steps", 59)
    lab.button("播放")
    lab.page.wait_for_function("document.querySelector('.lab').labState.steps === 60")
    lab.lab.get_by_role("button", name="播放", exact=True).wait_for()
    assert vio(lab) < 0.1


def test_one_update_a_micro_batch_raises_the_overloaded(open_lab):
    lab = open_lab("balance")
    lab.preset("常见错误 2：逐个微批次")
    assert vio(lab) > 0.3
    assert "偏置反而加 2γ" in lab.said()
    quiet = loads(lab).index(min(loads(lab)))
    lab.press("pick", quiet).click()
    assert not lab.goals()[1]
    lab.press("pick", 3).focus()
    lab.page.keyboard.press("Enter")
    assert lab.state()["pick"] == 4
    assert "专家 4 从四个微批次里收" in lab.said()
    assert lab.goals()[1].startswith("做到了")
    lab.slide("steps", 60)
    wrong = vio(lab)
    lab.choose("rule", "sign")
    assert vio(lab) < 0.1 < 0.25 < wrong


def test_steps_too_long_swing_and_raw_counts_jump(touch_lab):
    lab = touch_lab("balance")
    lab.preset("步长太大")
    assert "来回摆动" in lab.said()
    lab.preset("常见错误 3：乘原始计数")
    assert "token 成批搬家" in lab.said()
    assert vio(lab) > 1
    lab.choose("rule", "share")
    assert "快到平衡时自己变小" in lab.said()
    assert vio(lab) < 0.3


def test_a_length_that_is_fast_and_fine(open_lab):
    lab = open_lab("balance")
    lab.slide("steps", 15)
    assert not lab.goals()[2]
    lab.slide("gamma", 60)
    assert lab.state()["gamma"] == 0.0158
    assert lab.goals()[2].startswith("做到了")
