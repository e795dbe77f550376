"""reward: what counts as right, the format, words of a language, naive rewards and their hacks."""

import math
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dsnotes.rl.answers import final_answer
from dsnotes.rl.reward import (
    accuracy_reward,
    expression_reward,
    format_reward,
    language_reward,
    think_reward,
    weighted_sum,
)

GOOD = "<think>\n2 + 3\n是 5\n</think>\n<answer>\n5\n</answer>"


def chat(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


# --- final answer and accuracy ---


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (GOOD, "5"),
        ("<answer> 5 </answer>", "5"),
        ("<think>a</think> So it is\n<answer>5</answer>, I think.", "5"),
        (r"<think>a</think><answer>\boxed{5}</answer>", "5"),
        (r"So \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{5} and again \boxed{ 5 }", "5"),
        (r"\boxed{\boxed{5}}", r"\boxed{5}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"{\boxed{5}}} \boxed{5}", "5"),
        ("<think>a</think>\n5\n", "5"),
        ("5", "5"),
        (r"<think>\boxed{4} <answer>4</answer>?</think><answer>5</answer>", "5"),
        ("<think>a</think>4<think>b</think><answer>5</answer>", "5"),
        ("", ""),
        # none, or more than one
        ("<think>2+3 is 5", None),
        ("<think>a</think><answer>5</answer><answer>6</answer>", None),
        ("<think>a</think><answer>5", None),
        ("<think>a</think></answer>5<answer>", None),
        (r"\boxed{5} or \boxed{6}", None),
        (r"<answer>\boxed{5} or \boxed{6}</answer>", None),
        ("<think>a</think><answer>5</answer><think>b", None),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("found", "reference", "right"),
    [
        ("5", "5", True),
        ("5.0", "5", True),
        ("1/2", "0.5", True),
        (r"$\frac{1}{2}$", "50%", True),
        ("1,250", "1250", True),
        ("x  +\n1", "x + 1", True),
        ("北京", "北京", True),
        ("B", "B", True),
        ("b", "B", False),
        ("6", "5", False),
        ("-5", "5", False),
        ("0.333", "1/3", False),
        ("2+3", "5", False),
        ("5 apples", "5", False),
        ("nan", "5", False),
        ("", "5", False),
        ("nan", "nan", True),  # as a word
        ("５０％", r"\frac12", True),
        ("1{,}000", "1000", True),
        ("[0, 1)", "[0,1)", True),
        ("10²", "102", False),
        ("0,123", "123", False),
        ("1, 234", "1234", False),
    ],
)
def test_equality(found: str, reference: str, right: bool) -> None:
    completion = f"<think>a</think><answer>{found}</answer>"
    assert accuracy_reward([completion], answer=[reference]) == [float(right)]


# --- format ---


@pytest.mark.parametrize(
    ("text", "template", "think"),
    [
        (GOOD, 1, 1),
        ("<think>a</think><answer>5</answer>", 1, 1),
        (" \n<think>a</think>\n\n<answer>5</answer>\n", 1, 1),
        ("<think>a</think> It is 5.", 0, 1),
        ("<think>a</think> It is <answer>5</answer>", 0, 1),
        ("<think>a</think><answer>5</answer> trailing", 0, 1),
        ("<think>a</think><answer>5</answer><answer>5</answer>", 0, 1),
        ("<think>a</think><answer></answer>", 0, 1),
        ("<think>a</think><answer>", 0, 1),
        ("<think>a</think></answer>5<answer>", 0, 1),
        ("<answer>5</answer><think>a</think>", 0, 0),
        ("Hm. " + GOOD, 0, 0),
        (GOOD + GOOD, 0, 0),
        ("<think>a</think><think>b</think><answer>5</answer>", 0, 0),
        ("<think><think>a</think></think><answer>5</answer>", 0, 0),
        ("<think> \n </think><answer>5</answer>", 0, 0),
        ("</think>a<think><answer>5</answer>", 0, 0),
        ("<think>a<answer>5</answer></think>", 0, 0),
        ("<think>a</think>", 0, 0),
        ("<THINK>a</THINK><ANSWER>5</ANSWER>", 0, 0),
        ("<think >a</think ><answer>5</answer>", 0, 0),
        ("5", 0, 0),
        ("", 0, 0),
    ],
)
def test_formats(text: str, template: float, think: float) -> None:
    assert format_reward([text]) == [template]
    assert think_reward([text]) == [think]


# --- language ---


@pytest.mark.parametrize(
    ("thinking", "zh", "en"),
    [
        ("先算二加三", 1.0, 0.0),
        ("first two and three", 0.0, 1.0),
        ("先算 two", 2 / 3, 1 / 3),
        ("2 + 3 = 5，所以是 5。", 1.0, 0.0),
        ("don't", 0.0, 1.0),
        (r"设 $x$，得 \frac{1}{2}", 2 / 4, 2 / 4),
        ("два три", 0.0, 0.0),
        ("これは漢字", 2 / 3, 0.0),  # one run of kana, two Han characters
        ("\U00020000\U00030000", 1.0, 0.0),
        ("123 + _ = ?", 0.0, 0.0),
        # digits and signs of any kind
        ("①先算，②再加", 1.0, 0.0),
        ("面积是 10² 平方米", 1.0, 0.0),
        ("二〇二五年", 1.0, 0.0),
        ("第 Ⅳ 步，约 ½，４２ ％，25℃，⑴ ㎡ ∑ ≤ → 🙂", 1.0, 0.0),
        ("x₁ and x₂", 0.0, 1.0),
        ("the area is 5 m² now", 0.0, 1.0),
        ("٤٢ ४२ ½ ①", 0.0, 0.0),
        # letters in another form are letters
        ("𝑥 and Ａ and ⁿ and ﬁrst", 0.0, 1.0),
        ("μ and naïve", 0.0, 1 / 3),
        # marks belong to their word, composed or not
        ("re\u0301sume\u0301", 0.0, 0.0),
        ("हिन्दी two", 0.0, 1 / 2),
        ("算\ufe00", 1.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_language(thinking: str, zh: float, en: float) -> None:
    completions = [f"<think>{thinking}</think><answer>five</answer>"] * 2
    assert language_reward(completions, language=["zh", "en"]) == pytest.approx([zh, en])


def test_language_looks_at_the_thinking_alone() -> None:
    text = "<think>先算</think> The answer is <answer>five</answer>"
    assert language_reward([text, "先算", "<think>先算"], language=["zh"] * 3) == [1.0, 0.0, 0.0]


# --- expressions ---


@pytest.mark.parametrize(
    ("expression", "right"),
    [
        ("(7-8/8)*4", True),
        ("4 * (7 - 8 / 8)", True),
        ("24", False),
        ("(7-8/8)*4*1", False),
        ("7*4-4", False),
        ("(7-8/8)*4 = 24", False),
        ("4+7+8+8", False),
        ("9**9**9", False),
        ("__import__('os')", False),
        ("", False),
        ("(7-8÷8)×4", True),
        ("（7-8/8）*4", True),
        ("(7−8/8)*4", True),
        (r"$(7-8\div8)\times4$", True),
        ("2××4", False),
    ],
)
def test_game_of_24(expression: str, right: bool) -> None:
    text = f"<think>a</think><answer>{expression}</answer>"
    assert expression_reward([text], numbers=[[8, 7, 4, 8]], target=[24]) == [float(right)]


# --- signature ---


def test_plain_and_conversational_completions_score_alike() -> None:
    texts = [GOOD, "<think>先 a</think> 5", "5", "<think>"]
    columns = {"answer": ["5"] * 4, "language": ["zh"] * 4, "prompts": texts, "trainer_state": None}
    columns |= {"numbers": [[5]] * 4, "target": [5] * 4}
    for function in (
        *(accuracy_reward, format_reward, think_reward, language_reward, expression_reward),
        weighted_sum([accuracy_reward, format_reward]),
    ):
        plain = function(texts, **columns)
        assert function([chat(text) for text in texts], **columns) == plain
        assert len(set(plain)) > 1
        assert all(type(value) is float for value in plain)


def test_messages_without_text() -> None:
    parts = [{"role": "assistant", "content": [{"type": "text", "text": GOOD}, {"type": "image"}]}]
    empty = [{"role": "assistant", "content": None}]
    tools = [*chat("calling"), {"role": "tool", "content": "5"}, *chat(GOOD)]
    assert format_reward([parts, empty, [], tools]) == [1.0, 0.0, 0.0, 1.0]


def test_weighted_sum() -> None:
    texts, columns = [GOOD, "5", "<think>a</think><answer>6</answer>", ""], {"answer": ["5"] * 4}
    equal = weighted_sum([accuracy_reward, format_reward])
    assert equal(texts, **columns) == [2.0, 1.0, 1.0, 0.0]
    tenth = weighted_sum([accuracy_reward, format_reward], weights=[1.0, 0.1])
    assert tenth(texts, **columns) == pytest.approx([1.1, 1.0, 0.1, 0.0])
    minus = weighted_sum([accuracy_reward, lambda completions, **_: [1.0] * 4], weights=[1.0, -0.5])
    assert minus(texts, **columns) == [0.5, 0.5, -0.5, -0.5]


def test_no_completions() -> None:
    assert format_reward([]) == accuracy_reward([], answer=[]) == []


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"answer must be a list, one per completion \(2\), got 1"):
        accuracy_reward([GOOD, GOOD], answer=["5"])
    with pytest.raises(ValueError, match=r"answer must hold texts that are not empty, got ' '"):
        accuracy_reward([""], answer=[" "])
    with pytest.raises(ValueError, match=r"language must be one of \['en', 'zh'\], got 'fr'"):
        language_reward([GOOD], language=["fr"])
    with pytest.raises(
        ValueError, match=r"numbers must be a list, one per completion \(1\), got 0"
    ):
        expression_reward([GOOD], numbers=[], target=[5])
    with pytest.raises(ValueError, match=r"weights must be one per function \(1\), got \[\]"):
        weighted_sum([format_reward], weights=[])
    with pytest.raises(ValueError, match="functions must hold at least one"):
        weighted_sum([])
    with pytest.raises(ValueError, match=r"weights must be finite, got \[nan\]"):
        weighted_sum([format_reward], weights=[math.nan])
    for wrong in ([None], [], [math.nan], ["1"]):
        with pytest.raises(ValueError, match=r"functions\[1\] must return one finite number per"):
            weighted_sum([format_reward, lambda completions, wrong=wrong, **_: wrong])([GOOD])


def test_wrong_arguments_are_named_without_run_time_annotations() -> None:
    """The annotations that tests switch on refuse these first; a reader runs without them."""
    calls = [
        ("reward.format_reward('one string')", "completions must be a list"),
        ("reward.think_reward(None)", "completions must be a list"),
        ("reward.format_reward([{'role': 'assistant', 'content': 'a'}])", "completions must hold"),
        ("reward.accuracy_reward([{'role': 'a', 'content': 'b'}], answer=['5'])", "completions"),
        ("reward.format_reward([None])", "completions must hold texts"),
        ("reward.format_reward([5])", "completions must hold texts"),
        ("reward.format_reward([['<think>']])", "completions must hold texts"),
        ("reward.format_reward([[{'content': 5}]])", "completions must hold texts"),
        ("reward.format_reward([[{'content': ['a']}]])", "completions must hold texts"),
        ("reward.accuracy_reward(['5'], answer='5')", "answer must be a list"),
        ("reward.accuracy_reward(['5'], answer=[5])", "answer must hold texts"),
        ("reward.accuracy_reward(['5'], answer=[None])", "answer must hold texts"),
        ("reward.language_reward(['5'], language=[['zh']])", "language must be one of"),
        ("reward.language_reward(['5'], language='zh')", "language must be a list"),
        ("reward.expression_reward(['5'], numbers=[['4']], target=[4])", "numbers must be lists"),
        ("reward.expression_reward(['5'], numbers=[4], target=[4])", "numbers must be lists"),
        ("reward.expression_reward(['5'], numbers=['4'], target=[4])", "numbers must be lists"),
        ("reward.expression_reward(['5'], numbers=[[0.5]], target=[4])", "numbers must be lists"),
        ("reward.expression_reward(['5'], numbers=[[True]], target=[1])", "numbers must be lists"),
        ("reward.expression_reward(['5'], numbers=[[4]], target=['4'])", "target must hold whole"),
        ("reward.weighted_sum(reward.format_reward)", "functions must be a list"),
        ("reward.weighted_sum(['format_reward'])", "functions must be a list"),
        ("reward.weighted_sum([reward.format_reward], weights=['1'])", "weights must be finite"),
        ("reward.weighted_sum([reward.format_reward], weights=1.0)", "weights must be one per"),
        ("answers.normalise(5)", "text must be a text, got int 5"),
        ("answers.parse_number(5)", "text must be a text, got int 5"),
        ("answers.final_answer(None)", "text must be a text, got NoneType None"),
        ("answers.same_answer('5', 5)", "reference must be a text, got int 5"),
        ("arithmetic.evaluate(24)", "expression must be a text, got int"),
        ("arithmetic.evaluate(None)", "expression must be a text, got NoneType"),
    ]
    code = "from dsnotes.rl import answers, arithmetic, reward\n" + "".join(
        f"try: print('accepted', {call})\n"
        "except (ValueError, TypeError) as error: print(str(error).splitlines()[0])\n"
        for call, _ in calls
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = run.stdout.splitlines()
    assert len(lines) == len(calls), run.stderr
    for (call, expected), line in zip(calls, lines, strict=True):
        assert line.startswith(expected), (call, line)


# --- any text ---

PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "\\boxed{",
    "{",
    "}",
    "5",
    "\n",
    "好",
    "a",
]
ANYTHING = st.text() | st.lists(st.sampled_from(PIECES), max_size=30).map("".join)


@settings(deadline=None)
@given(ANYTHING, st.text().filter(str.strip))
@example("<answer>1e999999999</answer>", "1")
@example("<answer>9**9**9</answer>", "1")
@example("\ud800", "1")
def test_any_text_has_a_finite_reward(text: str, reference: str) -> None:
    columns = {"answer": [reference], "numbers": [[1, 2]], "target": [3]}
    for language in ("zh", "en"):
        (share,) = language_reward([text], language=[language])
        assert 0.0 <= share <= 1.0
    for function in (accuracy_reward, format_reward, think_reward, expression_reward):
        assert function([text], **columns)[0] in (0.0, 1.0)
    assert format_reward([text]) <= think_reward([text])


@settings(deadline=None, max_examples=50)
@given(ANYTHING.filter(lambda text: "<" not in text and text.strip()))
def test_any_text_fits_into_the_template(text: str) -> None:
    assert format_reward([f"<think>{text}</think><answer>{text}</answer>"]) == [1.0]


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 200_000,
        "<think>" * 200_000,
        "<think>" + "</think>" * 200_000 + "<answer>",
        "<think>a</think>" + " " * 1_000_000,
        " " * 1_000_000,
        "<think>" + "a" * 1_000_000 + "</think><answer>" + "9" * 1_000_000 + "</answer>",
        "<think>" + "a'" * 500_000 + "</think><answer>" + "(" * 1_000_000 + "</answer>",
        "<think>" + "{" * 500_000 + "}" * 500_000,
        "<think>" + "\u0301" * 400_000 + "e\u0301\u0323" * 200_000 + "</think>" + "−" * 1_000_000,
        "<think>" + "'" * 500_000 + "的'" * 200_000 + "</think>" + "×" * 1_000_000,
        "<think>a</think>" + "\\left(" * 150_000 + "１" + "）" * 150_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_million_characters(text: str) -> None:
    """Anything quadratic in the length takes 10^12 steps here and does not come back."""
    columns = {"answer": ["1"], "language": ["en"], "numbers": [[1]], "target": [1]}
    for function in (accuracy_reward, format_reward, language_reward, expression_reward):
        assert math.isfinite(function([text], **columns)[0])


# --- naive rewards, a text that fools each, and ours on the same text ---


class Hack(NamedTuple):
    naive: Callable[[str], float]
    ours: Callable[[str], float]
    fooled_by: str
    honest: str
    naive_on_honest: float = 1.0


def one(function: Callable[..., list[float]], **columns: Any) -> Callable[[str], float]:
    return lambda text: function([text], **{name: [value] for name, value in columns.items()})[0]


def naive_format(text: str) -> float:
    return float(bool(re.fullmatch(r"<think>.*</think>\s*<answer>.*</answer>", text)))


def naive_format_dotall(text: str) -> float:
    return float(bool(re.search(r"<think>.*</think>\s*<answer>.*</answer>", text, re.DOTALL)))


def naive_format_tags(text: str) -> float:
    return float(all(tag in text for tag in ("<think>", "</think>", "<answer>", "</answer>")))


def naive_substring(text: str) -> float:
    return float("391" in text)


def naive_suffix(text: str) -> float:
    return float(text.removesuffix("</answer>").endswith("391"))


def naive_any_box(text: str) -> float:
    return float("391" in re.findall(r"\\boxed\{(.*?)\}", text))


def naive_difference(text: str) -> float:
    try:
        return 0.0 if abs(float(final_answer(text) or "") - 391) > 1e-6 else 1.0
    except ValueError:
        return 0.0


def naive_eval(text: str) -> float:
    try:
        return float(eval(final_answer(text) or "") == 391)
    except Exception:
        return 0.0


def naive_target(text: str) -> float:
    try:
        return float(eval(final_answer(text) or "", {"__builtins__": {}}) == 24)
    except Exception:
        return 0.0


def naive_some_chinese(text: str) -> float:
    return float(bool(re.search(r"[\u4e00-\u9fff]", text)))


def naive_no_english(text: str) -> float:
    thinking = re.search(r"<think>(.*)</think>", text, re.DOTALL)
    words = thinking[1].split() if thinking else []
    return 1.0 - sum(word.isascii() and word.isalpha() for word in words) / max(len(words), 1)


def naive_unanswered(text: str, reference: str = "") -> float:
    return float((final_answer(text) or "") == reference)


ACCURACY = one(accuracy_reward, answer="391")
GAME = one(expression_reward, numbers=[4, 7, 8, 8], target=24)
CHINESE = one(language_reward, language="zh")
RIGHT = "<think>17×23，先算 17×20</think><answer>391</answer>"
ALL_CHINESE = "<think>先算十七乘二十</think><answer>391</answer>"
HACKS = {
    "format without DOTALL refuses what it asks for": Hack(
        naive_format, one(format_reward), "<think> </think><answer> </answer>", GOOD, 0.0
    ),
    "format without anchors": Hack(
        naive_format_dotall, one(format_reward), GOOD + GOOD + " 谢谢", GOOD
    ),
    "format by the presence of tags": Hack(
        naive_format_tags, one(format_reward), "</answer></think><answer><think>", GOOD
    ),
    "answer anywhere in the text": Hack(
        naive_substring, ACCURACY, " ".join(map(str, range(300, 400))), RIGHT
    ),
    "answer at the end of the text": Hack(naive_suffix, ACCURACY, "<answer>1391</answer>", RIGHT),
    "one of many boxes": Hack(
        naive_any_box,
        ACCURACY,
        "".join(rf"\boxed{{{n}}}" for n in range(300, 400)),
        r"\boxed{391}",
    ),
    "not a number": Hack(naive_difference, ACCURACY, "<answer>nan</answer>", RIGHT),
    "the question as answer": Hack(naive_eval, ACCURACY, "<answer>17*23</answer>", RIGHT),
    "an object equal to everything": Hack(
        naive_eval,
        ACCURACY,
        "<answer>type('', (), {'__eq__': lambda *_: True})()</answer>",
        RIGHT,
    ),
    "the target instead of an expression": Hack(
        naive_target, GAME, "<answer>24</answer>", "<answer>(7-8/8)*4</answer>"
    ),
    "one Chinese character": Hack(
        naive_some_chinese,
        lambda text: float(CHINESE(text) > 0.5),
        "<think>嗯 let me compute this in plain English</think><answer>391</answer>",
        ALL_CHINESE,
    ),
    "no thinking, no foreign word": Hack(
        naive_no_english, CHINESE, "<think></think><answer>391</answer>", ALL_CHINESE
    ),
}


@pytest.mark.parametrize("name", HACKS)
def test_hack(name: str) -> None:
    hack = HACKS[name]
    assert hack.naive(hack.fooled_by) == 1.0
    assert hack.ours(hack.fooled_by) == 0.0
    assert hack.naive(hack.honest) == hack.naive_on_honest
    assert hack.ours(hack.honest) == 1.0


def test_nan_fools_one_comparison_and_not_the_other() -> None:
    """nan compares false with every number, by != alone true."""
    nan = float("nan")
    assert not abs(nan - 391) > 1e-6  # "wrong only where far off": never far off
    assert not abs(nan - 391) < 1e-6  # "right only where close": never close
    assert nan != 391
    assert ACCURACY("<answer>nan</answer>") == 0.0


def test_restricting_names_does_not_make_eval_safe() -> None:
    """Without builtins the classes of the process are still reached, and 9**9**9 still computed."""
    reached = eval("().__class__.__base__.__subclasses__()", {"__builtins__": {}})
    assert len(reached) > 100
    assert expression_reward(
        ["<answer>().__class__.__base__.__subclasses__()</answer>"], numbers=[[1]], target=[1]
    ) == [0.0]


def test_what_a_rule_cannot_see() -> None:
    """Structure is checked, not sense: these keep their reward, and the page says so."""
    empty_words = "<think>嗯</think><answer>391</answer>"
    assert (format_reward([empty_words]), ACCURACY(empty_words)) == ([1.0], 1.0)
    padded = "<think>" + "English " + "的" * 99 + "</think>"
    assert CHINESE(padded) == pytest.approx(0.99)


def test_fraction_of_a_long_exponent_is_never_built() -> None:
    """`Fraction("1e999999")` would be an integer of a million digits."""
    assert Fraction("1e30") == 10**30
    assert ACCURACY("<answer>1e999999999</answer>") == 0.0
