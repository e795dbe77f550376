"""The calculator of cache and reads: what waits for what, and where decompressing pays."""


def test_two_new_tokens_and_absorption_waits_for_the_arithmetic(open_lab):
    lab = open_lab("cache")
    assert "等的是读" in lab.said()
    assert "156 ms" in lab.drawn()
    slider = lab.control("fresh")
    slider.focus()
    slider.press("ArrowRight")
    assert lab.state()["fresh"] == 2
    assert "等的是算" in lab.said()
    assert lab.goals()[0].startswith("做到了")
    lab.preset("V2-Lite")
    assert "等的是读" in lab.said()


def test_the_crossing_of_the_exercise(open_lab):
    lab = open_lab("cache")
    lab.choose("view", "work")
    assert "从 171 个起" in lab.drawn()
    lab.drag("fresh", 100)
    assert "吸收的乘加少" in lab.said()
    lab.drag("fresh", 300)
    assert "展开的乘加少" in lab.said()
    lab.key("fresh", "Home")
    lab.key("fresh", "ArrowUp", 2)
    assert lab.state()["fresh"] == 3  # one at least, where a share would be less
    lab.slide("heads", 30)
    assert "从 171 个起" in lab.drawn()  # the heads do not move it
    lab.slide("latent", 256)
    assert "从 171 个起" not in lab.drawn()
    assert lab.goals()[1].startswith("做到了")


def test_what_is_cached_and_the_traps(open_lab):
    lab = open_lab("cache")
    lab.choose("view", "bytes")
    assert "70,272 字节" in lab.said()
    lab.slide("heads", 0)
    assert "不比多头存得少" in lab.said()
    lab.preset("常见错误 1")
    assert "8,704" in lab.said()
    lab.preset("常见错误 5")
    assert "71.1 倍" in lab.said()
    lab.choose("wrong", "none")
    lab.slide("latent", 192)
    assert lab.goals()[2].startswith("做到了")


def test_a_finger_moves_the_new_tokens(touch_lab):
    lab = touch_lab("cache")
    lab.choose("view", "work")
    lab.touch("fresh", 500)
    assert 400 < lab.state()["fresh"] < 620
    assert "展开的乘加少" in lab.said()
