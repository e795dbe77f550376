"""Fooling graders: the figure judges as the naive graders of the notebook and as dsnotes.rl do."""

import json
import random
import re
import unicodedata
import warnings
from pathlib import Path

import pytest

from dsnotes.rl import reward
from dsnotes.rl.answers import final_answer, normalise, parse_number
from dsnotes.rl.reward import (
    _KINDS,
    accuracy_reward,
    expression_reward,
    format_reward,
    language_reward,
)

ROOT = Path(__file__).parents[4]
GOOD = "<think>\n先算十七乘二十，得 340，再加 51\n</think>\n<answer>\n391\n</answer>"
OBJECT = "type('', (), {'__eq__': lambda *_: True})()"
TAGS = ["<think>", "</think>", "<answer>", "</answer>"]
# what the graders look at, and what Python and JavaScript read in different ways
NUMBERS = r"""391 ３９１ 39_1 3.91e2 ٣٩١ 391.0 391。 39100% 391/1 782/2 1,391 $391$ \text{391}
**391** nan -inf 24 17*23 (7-8/8)*4 8/(3-8/3) 0+391"""
SIGNS = r"""\boxed{ { } \frac {1}{2} \frac12 \left( \times \div $ \, {,} % / // ** * × ÷ ^ − － + -
( ) . , 0 7 8 4"""
LETTERS = "abc it's x2 é ½ ① ² 𝑥 ﬁ 好 嗯 先算 〇 豈 𠀀 ' ’ ! ？"
BLANKS = [" ", "\n", "\r", "\t", "\x85", "\x1c", "\u2028", "\u3000", "\u2009", "\ufeff", "\u0301"]
PIECES = [*f"{NUMBERS} {SIGNS} {LETTERS}".split(), *BLANKS, OBJECT]
UNDECIDED = ("unknown", "endless")


@pytest.fixture(scope="module")
def notebook() -> dict:
    """The names of the notebook after its cells on rules and on their hacks."""
    cells = json.loads((ROOT / "notebooks" / "reward.ipynb").read_text("utf8"))["cells"]
    source = {cell["id"]: "".join(cell["source"]) for cell in cells}
    space = {"re": re, "final_answer": final_answer} | vars(reward)
    for cell in ("rules", "naive", "hack"):
        exec(source[cell], space)
    return space


@pytest.fixture(scope="module")
def naive(notebook) -> dict:
    found = {name[6:]: rule for name, rule in notebook.items() if name.startswith("naive_")}
    return {"evaluated" if name == "eval" else name: rule for name, rule in found.items()}


def mark(rule, text: str) -> float | str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python warns of 2(3)
            return float(rule(text))
    except Exception:
        return "error"


def ours(text: str) -> dict[str, float]:
    return {
        "format": format_reward([text])[0],
        "accuracy": accuracy_reward([text], answer=["391"])[0],
        "game": expression_reward([text], numbers=[[4, 7, 8, 8]], target=[24])[0],
        "chinese": language_reward([text], language=["zh"])[0],
    }


def compare(graders, naive, text: str) -> dict[str, float | str]:
    """The marks of the figure, after they were found equal; `eval` is asked only where it is."""
    found = graders.call("GradersLab.judge", text)
    assert found["ours"] == ours(text), text
    marks = {grader["name"]: grader["mark"] for grader in found["graders"]}
    assert set(marks) == set(naive)
    for name, given in marks.items():
        if given not in UNDECIDED:
            assert given == mark(naive[name], text), (name, text)
    return marks


@pytest.mark.parametrize("row", range(12))
def test_every_row_of_the_table_fools_its_grader(lab, notebook, naive, row) -> None:
    """The string of the row, and the gap that the figure names."""
    assert len(notebook["hacks"]) == 12
    graders, text = lab("graders"), notebook["hacks"][row][3]
    compare(graders, naive, text)
    fooled = [g["fooled"] for g in graders.call("GradersLab.judge", text)["graders"]]
    assert row in fooled


def test_honest_answers(lab, naive) -> None:
    graders = lab("graders")
    marks = compare(graders, naive, GOOD)
    assert marks["format"] == 0  # without DOTALL it refuses what it asks for
    judged = graders.call("GradersLab.judge", GOOD)
    assert judged["ours"] == {"format": 1, "accuracy": 1, "game": 0, "chinese": 1}
    assert all(grader["fooled"] is None for grader in judged["graders"])
    game = "<think>\n先凑三\n</think>\n<answer>\n(7-8/8)*4\n</answer>"
    assert graders.call("GradersLab.judge", game)["ours"]["game"] == 1


def test_any_text(lab, naive) -> None:
    """A thousand texts from pieces that matter."""
    graders, rng = lab("graders"), random.Random(0)
    inside = lambda most: "".join(rng.choices(PIECES, k=rng.randint(0, most)))  # noqa: E731
    seen = set()
    for _ in range(500):
        loose = "".join(rng.choices(TAGS * 8 + PIECES, k=rng.randint(1, 14)))
        framed = f"<think>{inside(8)}</think>{inside(1)}<answer>{inside(3)}</answer>"
        for text in (loose, framed):
            seen |= {(name, str(m)) for name, m in compare(graders, naive, text).items()}
            assert graders.call("GradersLab.normalise", text) == normalise(text)
    for name in naive:
        assert {(name, "0"), (name, "1")} & seen


def test_numbers(lab, naive) -> None:
    """Answers that are nearly numbers: of the book's grammar, and of float()."""
    graders, rng = lab("graders"), random.Random(1)
    parts = ["391", "3", "91", "0", ".", "/", "%", "$", "-", "+", ",", "_", "e", " ", "\\frac", "{",
             "}", "１", "nan", "inf", "٣", "\\,", "1,000"]  # fmt: skip
    for _ in range(500):
        text = "".join(rng.choices(parts, k=rng.randint(1, 6)))
        expected = parse_number(text)
        if expected is not None:
            expected = [str(expected.numerator), str(expected.denominator)]
        assert graders.call("GradersLab.parse_number", text) == expected
        try:
            number = float(text)
        except ValueError:
            number = None
        assert graders.call("GradersLab.python_float", text) == pytest.approx(number, nan_ok=True)
        compare(graders, naive, f"<answer>{text}</answer>")


def test_arithmetic_is_calculated_as_python_does(lab, naive) -> None:
    graders, rng = lab("graders"), random.Random(2)
    signs = ["+", "-", "*", "/", "//", "%", "**", "(", ")", " ", "."]
    agreed, right = 0, 0
    for _ in range(400):
        text = "".join(
            rng.choice([rng.choice(signs), str(rng.randint(0, 30))])
            for _ in range(rng.randint(1, 9))
        )
        marks = compare(graders, naive, f"<answer>{text}</answer>")
        agreed += marks["evaluated"] not in UNDECIDED
    for n in range(400):  # the game, right and wrong; half of it with the signs of print
        signs = "+-*/" if n % 2 else "+-×÷"
        numbers = rng.sample(["4", "7", "8", "8"], 4)
        text = numbers[0]
        for number in numbers[1:]:
            a, b = rng.sample([text, number], 2)
            text = f"({a}{rng.choice(signs)}{b})"
        right += ours(f"<answer>{text}</answer>")["game"]
        agreed += compare(graders, naive, f"<answer>{text}</answer>")["target"] not in UNDECIDED
    assert agreed > 300
    assert right >= 1


def test_what_eval_would_do_with_the_rest_is_left_open(lab) -> None:
    """Names, calls, texts: Python may do anything with them, so the figure says that it does not
    know. What would not come back is said to be so."""
    graders = lab("graders")
    texts = "abs(-391)|int('391')|391 if 1 else 0|0x187|3.91e2|[391][0]|__import__('os')|1==1"
    for text in [*texts.split("|"), "300+91 # 391", "391j", "2**0.5", "三百九十一"]:
        found = graders.call("GradersLab.judge", f"<answer>{text}</answer>")["graders"]
        marks = {grader["name"]: grader["mark"] for grader in found}
        assert marks["evaluated"] == marks["target"] == "unknown", text
    found = graders.call("GradersLab.judge", "<answer>9**9**9</answer>")["graders"]
    assert {g["mark"] for g in found if g["name"] in ("evaluated", "target")} == {"endless"}


def test_every_character_is_of_the_same_kind(lab) -> None:
    """Words of a language, for each character that this Python and this engine both know."""
    graders = lab("graders")
    known = [
        c for c in map(chr, range(0x20, 0x30000)) if unicodedata.category(c) not in ("Cs", "Cn")
    ]
    text = json.dumps("".join(known))
    found = graders.eval(f"[...{text}].map(GradersLab.kind).join('')")
    different = [c for c, kind in zip(known, found, strict=True) if kind != _KINDS[ord(c)]]
    assert not different
    spelled = graders.eval(f"[...{text}].map((sign) => GradersLab.normalise('a' + sign + 'a'))")
    assert spelled == [normalise(f"a{c}a") for c in known]


def test_answers_to_choose_from(lab, naive) -> None:
    """Each beats what its name says, the opening one among them; together they beat the table."""
    graders = lab("graders")
    tricks = graders.eval("GradersLab.TRICKS")
    beaten = set()
    for _, _, text in tricks:
        assert len(text) <= 400
        compare(graders, naive, text)
        beaten |= {g["fooled"] for g in graders.call("GradersLab.judge", text)["graders"]}
    assert beaten >= set(range(12))
    opening = graders.state()
    assert opening["answer"] == {key: text for key, _, text in tricks}[opening["trick"]]
    assert graders.call(f"{graders.spec}.tidy", opening, None, None) == opening


def test_what_was_beaten_stays_beaten(lab) -> None:
    graders = lab("graders")
    tidy = f"{graders.spec}.tidy"
    first = graders.state()
    second = graders.call(tidy, {**first, "trick": "nan"}, None, first)
    assert second["answer"] == "<answer>nan</answer>"
    assert second["beaten"] == [1, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 1]
    typed = graders.call(tidy, {**second, "answer": "391!"}, None, second)
    assert typed["trick"] == "own"
    assert typed["answer"] == "391!"
    assert sum(typed["beaten"]) == 6  # the text holds 391, and is no answer


def test_goals_and_presets(lab) -> None:
    graders = lab("graders")
    plenty = (
        "<think> </think><think>it's 嗯 don't we're they're let's o'clock \\boxed{391}</think>"
        "<answer>0+391</answer>"
    )
    for index, answer in enumerate(["<answer>nan</answer>", GOOD, plenty]):
        assert graders.goal(index, graders.state(answer=answer))
        assert not graders.goal(index, graders.state())
    assert not graders.goal(0, graders.state(answer=plenty))
    judged = graders.call("GradersLab.judge", plenty)["graders"]
    assert sum(grader["fooled"] is not None for grader in judged) == 9
    presets = graders.eval(f"{graders.spec}.presets.map((preset) => preset.state)")
    said = [graders.say(graders.state(**preset)) for preset in presets]
    assert "冤枉" in said[0]
    assert all("骗过" in sentence for sentence in said[1:])
    typed = graders.state(answer="<answer>24</answer><think><b>1 2 3</b></think><answer>24")
    assert "<b>1 2" not in graders.eval(f"{graders.spec}.draw({json.dumps(typed)}, null, 700)")
