"""Fooling graders: what is typed is judged at once, and never run."""


def beaten(lab) -> int:
    return sum(lab.state()["beaten"])


def test_copying_the_question_fools_the_one_that_runs_it(open_lab):
    lab = open_lab("graders")
    assert beaten(lab) == 4
    lab.type("answer", "<answer>17*23</answer>")
    assert "骗过：抄题" in lab.drawn()
    assert "评分器替人把题算了" in lab.said()
    assert beaten(lab) == 5  # what was beaten before stays
    assert lab.goals()[0].startswith("做到了")


def test_an_honest_answer_is_wronged(open_lab):
    lab = open_lab("graders")
    lab.preset("老实的回答")
    assert "没有骗过谁" in lab.said()
    assert "冤枉" in lab.said()
    assert "冤枉" in lab.drawn()
    assert lab.goals()[1].startswith("做到了")
    assert beaten(lab) == 4
    lab.button("恢复")
    assert not any(lab.goals())


def test_keys_write_one_s_own_answer(open_lab):
    lab = open_lab("graders")
    lab.control("answer").fill("")
    lab.control("answer").press_sequentially("nan")
    assert lab.state()["answer"] == "nan"
    assert lab.state()["trick"] == "own"
    assert "nan 与什么比都是假" in lab.said()


def test_all_gaps_of_the_table_by_finger(touch_lab):
    lab = touch_lab("graders")
    options = lab.control("trick").evaluate("e => [...e.options].map((o) => o.value)")
    for option in options[:-1]:
        lab.choose("trick", option)
    assert beaten(lab) == 12
    assert "已攻破 12 处" in lab.drawn()


def test_what_it_cannot_judge_it_leaves_and_what_is_typed_is_text(open_lab):
    lab = open_lab("graders")
    lab.type("answer", "<answer>__import__('os').getpid()</answer>")
    assert lab.drawn().count("不会判") == 2
    lab.type("answer", "<answer>9**9**9</answer>")
    assert lab.drawn().count("算不完") == 2
    lab.type("answer", "<think>嗯</think><answer><img src=x onerror=alert(1)></answer>")
    assert not lab.lab.locator("img").count()
    assert "<img" in lab.lab.locator(".lab-plot").inner_text()
