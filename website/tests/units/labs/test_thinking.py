"""看它学会思考: it shows the record, and reads and scores a text as dsnotes does."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch

from dsnotes.rl import shellgame
from dsnotes.rl.answers import final_answer
from dsnotes.rl.r1_zero import RULES
from dsnotes.rl.reward import accuracy_reward, format_reward, language_reward, weighted_sum

RUNS = Path(__file__).parents[4] / "book" / "data" / "runs"
RECORD = json.loads((RUNS / "thinking.json").read_text("utf8"))
FIRST = RECORD["runs"][0]
PROBLEMS = RECORD["settings"]["problems"]
VARIANTS = ("zero", "language", "random", "forbidden")


@pytest.fixture
def thinking(lab):
    return lab("thinking")


def text(letters: str) -> str:
    return shellgame.decode([RECORD["settings"]["alphabet"].index(letter) for letter in letters])


def paths() -> list[list[int]]:
    given = torch.tensor([shellgame.encode(problem) for problem in PROBLEMS])
    return shellgame.read(given).path.tolist()


def chinese(completions: list[str], **columns) -> list[float]:
    return language_reward(completions, language=["zh"] * len(completions))


def shown(thinking, variant: str) -> list:
    """Every answer of a variant, as the figure has it: by step, problem, answer."""
    return thinking.eval(
        f"((data) => Array.from({{ length: 61 }}, (_, step) => ['0', '1', '2'].map((problem) => "
        f"ThinkingLab.answers({{ step, variant: '{variant}', problem }}, data))))"
        f"({json.dumps(thinking.data)})"
    )


def test_the_data_are_the_record(thinking) -> None:
    data = thinking.data
    assert tuple(data["variants"]) == VARIANTS == tuple(FIRST["variants"])
    for variant, curve in product(VARIANTS, ("accuracy", "length", "chinese")):
        recorded = [run["variants"][variant][curve] for run in RECORD["runs"]]
        assert data["variants"][variant][curve] == recorded
        assert {len(values) for values in recorded} == {61}
    for variant in VARIANTS:
        texts = [[" ".join(one) for one in step] for step in FIRST["variants"][variant]["texts"]]
        assert data["variants"][variant]["texts"] == texts
    assert [p["path"] for p in data["problems"]] == paths()
    assert [f"{p['start']} {' '.join(p['swaps'])} =" for p in data["problems"]] == PROBLEMS


def test_it_begins_and_ends_as_the_miniature() -> None:
    """The base and R1-Zero of r1.json: the same texts, and the same scores on all seeds."""
    recorded = json.loads((RUNS / "r1.json").read_text("utf8"))["runs"]
    for run, of_r1 in zip(RECORD["runs"], recorded, strict=True):
        assert run["after"]["zero"] == of_r1["stages"]["zero"]
        for step, stage in ((0, "base"), (-1, "zero")):
            wrote = run["variants"]["zero"]["texts"][step][0]
            assert [text(letters) for letters in wrote] == [
                w["text"] for w in of_r1["texts"][stage]
            ]
            assert {w["problem"] for w in of_r1["texts"][stage]} == {PROBLEMS[0]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_text_is_read_and_scored_as_dsnotes_does(thinking, variant: str) -> None:
    """All 732 answers: words, answer, right or wrong, format, steps, share of Chinese, points."""
    three = weighted_sum([accuracy_reward, format_reward, chinese], weights=[1.0, 0.1, 1.0])
    rule = three if variant == "language" else RULES
    for found, step in zip(
        shown(thinking, variant), FIRST["variants"][variant]["texts"], strict=True
    ):
        for answers, letters, path in zip(found, step, paths(), strict=True):
            texts = [text(one) for one in letters]
            columns = {"answer": [str(path[-1] + 1)] * len(texts)}
            right, form = accuracy_reward(texts, **columns), format_reward(texts)
            assert [a["right"] for a in answers] == right
            assert [a["format"] for a in answers] == form
            assert [a["score"] for a in answers] == pytest.approx(rule(texts, **columns), abs=5e-4)
            for answer, written in zip(answers, texts, strict=True):
                inside = written.removeprefix("<think>").split("</think>")[0].split()
                assert answer["words"] == inside
                assert len(inside) <= len(path)  # so that all of it has a place in the drawing
                if answer["answer"] is not None:
                    assert answer["answer"] == final_answer(written)
                assert answer["answer"] is not None or not answer["right"]
                if answer["format"]:  # which parts of another text are its thought is a convention
                    share = thinking.call("ThinkingLab.chinese", answer["words"])
                    assert share == pytest.approx(*chinese([written]))


def test_steps_are_right_where_the_ball_is(thinking) -> None:
    """Random thoughts against the perfect solution of random problems, in all three scripts."""
    generator = torch.Generator().manual_seed(0)
    given = shellgame.problems(120, generator=generator)
    for script in ("en", "zh", "mixed"):
        rows = shellgame.completions(given, error=0.3, script=script, generator=generator)
        for row, path in zip(rows.tolist(), given.path.tolist(), strict=True):
            words = shellgame.decode(row[1:7]).split()
            names = {name: i % 5 for i, name in enumerate(shellgame.SYMBOLS[-10:])}
            expected = [names[word] == place for word, place in zip(words, path, strict=True)]
            assert thinking.call("ThinkingLab.checked", words, path) == expected


@pytest.mark.parametrize("variant", VARIANTS)
def test_presets_say_different_things(thinking, variant: str) -> None:
    presets = thinking.eval("ThinkingLab.presets")
    said = {thinking.say(thinking.state(variant=variant, **p["state"])) for p in presets}
    assert len(said) == len(presets) == 3


REACHED = [
    {"step": 24},
    {"variant": "language", "step": 60},
    {"variant": "language", "problem": "2", "step": 60},
]


@pytest.mark.parametrize("number", range(3))
def test_goals_can_be_reached(thinking, number: int) -> None:
    assert not thinking.goal(number, thinking.state())
    assert thinking.goal(number, thinking.state(**REACHED[number]))


def test_what_the_goals_reply_is_so(thinking) -> None:
    zero, language = (shown(thinking, variant) for variant in ("zero", "language"))
    full = [sum(len(a["words"]) == 6 for a in step[0]) for step in zero]
    right = [sum(a["right"] for a in step[0]) for step in zero]
    assert full.index(4) < right.index(4) == 24
    assert any(f == 3 and r == 0 for f, r in zip(full, right, strict=True))
    for step in zero:  # nothing makes English go
        assert any(thinking.call("ThinkingLab.chinese", a["words"]) < 1 for a in step[0])
    for answer in language[60][2]:
        assert (answer["right"], answer["format"], len(answer["words"])) == (0, 1, 6)
        assert answer["score"] == pytest.approx(1.1)
        assert not thinking.call("ThinkingLab.checked", answer["words"], paths()[2])[0]
    assert 0.9 < FIRST["variants"]["language"]["accuracy"][60] < 1


def test_what_the_figure_says_holds_on_every_seed() -> None:
    """Up with rewards by rule; not without a direction, and not without a place to think."""
    for run in RECORD["runs"]:
        curves = run["variants"]
        for variant in ("zero", "language"):
            assert curves[variant]["accuracy"][0] < 0.3 < 0.9 < curves[variant]["accuracy"][60]
        for variant in ("random", "forbidden"):
            assert curves[variant]["accuracy"][60] < 0.3
        assert curves["zero"]["chinese"][60] < 0.55
        assert curves["language"]["chinese"][60] > 0.95
