"""answers: every usual spelling of a number against itself, against others, and hostile texts."""

import os
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsnotes.rl.answers import MAX_LENGTH, final_answer, normalise, parse_number, same_answer
from dsnotes.rl.reward import accuracy_reward

# DSNOTES_EXAMPLES=10000 tries that many of each; CI takes fewer.
EXAMPLES = int(os.environ.get("DSNOTES_EXAMPLES", "300"))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("-5", -5),
        ("−5", -5),
        ("–5", -5),
        ("- 5", -5),
        ("+5", 5),
        ("5.0", 5),
        ("007", 7),
        ("$5$", 5),
        ("1,250", 1250),
        ("1,250.50", Fraction(2501, 2)),
        ("1/2", Fraction(1, 2)),
        ("-2/4", Fraction(-1, 2)),
        (r"\frac{1}{2}", Fraction(1, 2)),
        (r"-\dfrac{1}{2}", Fraction(-1, 2)),
        ("50%", Fraction(1, 2)),
        (r"50\%", Fraction(1, 2)),
        (".5", Fraction(1, 2)),
        # full width
        ("４２", 42),
        ("５０％", Fraction(1, 2)),
        ("－3", -3),
        ("＋3", 3),
        ("1／2", Fraction(1, 2)),
        ("1，000", 1000),
        ("３．１４", Fraction(314, 100)),
        ("＄5", 5),
        # fractions of LaTeX
        (r"\frac{-3}{4}", Fraction(-3, 4)),
        (r"-\frac{-3}{4}", Fraction(3, 4)),
        (r"\frac{3}{-4}", Fraction(-3, 4)),
        (r"\tfrac{3}{4}", Fraction(3, 4)),
        (r"\cfrac{3}{4}", Fraction(3, 4)),
        (r"\frac12", Fraction(1, 2)),
        (r"\frac 1 2", Fraction(1, 2)),
        (r"\frac1{2}", Fraction(1, 2)),
        (r"\frac{1}2", Fraction(1, 2)),
        (r"\frac{ 3 }{ 4 }", Fraction(3, 4)),
        (r"\frac{1,000}{3}", Fraction(1000, 3)),
        ("3 / 4", Fraction(3, 4)),
        ("3⁄4", Fraction(3, 4)),
        # percent and dollar
        (r"28 \%", Fraction(28, 100)),
        ("28 %", Fraction(28, 100)),
        (r"28\,\%", Fraction(28, 100)),
        (r"\frac{1}{2}\%", Fraction(1, 200)),
        (r"\$18", 18),
        ("$18", 18),
        ("-$18", -18),
        (r"\$-18", -18),
        (r"$\$18$", 18),
        # thousands
        ("1{,}000", 1000),
        (r"10\,000", 10000),
        (r"1\,000\,000", 10**6),
        ("10\u2009000", 10000),
        ("10\u202f000", 10000),
        # around it
        (r"\(7\)", 7),
        (r"\[7\]", 7),
        ("$$7$$", 7),
        ("42.", 42),
        ("42。", 42),
        ("$42$.", 42),
        ("$42.$", 42),
        (r"\text{42}", 42),
        (r"$\mathbf{42}$", 42),
        ("**42**", 42),
    ],
)
def test_numbers(text: str, number: Fraction | int) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "-",
            ".",
            "%",
            "$",
            "five",
            "5 6",
            "2+3",
            "1,25",
            "1,2,3",
            "1.2.3",
            "1/0",
            "5 apples",
        ),
        *("nan", "inf", "-Infinity", "1e5", "1e999999999", "1_000", "9" * 201, "--5", "5..", "x=5"),
        # NFKC would read these as 2, 102, 11/2, 1 and 4
        *("²", "10²", "1½", "½", "①", "Ⅳ", "٤٢"),
        # two readings: 0.123 or 123; 5 and 600; 0.005 or 50; 1.5 or 1/2
        *("0,123", "5 600", "1, 000", "1/2%", r"1\frac{1}{2}", "1 1/2", "1. 5", "1 .5"),
        *(r"\frac123", r"\frac{1}{0}", r"\frac{1}", r"\frac{\frac12}{3}", r"\frac{1}{2}3"),
        *("5%%", "1,000\\,000", r"1\,00", "1.000,5", r"\text{4}2", r"\text{4}+\text{2}"),
    ],
)
def test_no_numbers(text: str) -> None:
    """Among them what `float`, `Fraction` or `int` accept: nan, exponents, foreign digits."""
    assert parse_number(text) is None


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("[0, 1)", "[0,1)", True),
        (r"2 \pi", r"2\pi", True),
        ("(1, 2)", "(1,2)", True),
        ("（1，2）", "(1, 2)", True),
        (r"\left[0, 1\right)", "[0,1)", True),
        (r"$\dfrac{\pi}{2}$", r"\frac{\pi}{2}", True),
        ("x + 1", "x+1", True),
        (r"\{1, 2\}", r"\{1,2\}", True),
        (r"(1\,234)", "(1234)", True),
        ("北京。", "北京", True),
        ("Ｂ", "B", True),
        ("New York", "New  York.", True),
        (".", ".", True),
        # not the same
        ("[0, 1)", "[0,1]", False),
        ("1 2", "12", False),
        ("(1 2, 3)", "(12, 3)", False),
        ("1. 5", "1.5", False),
        ("(1. 5, 2)", "(1.5, 2)", False),
        ("1, 234", "1,234", False),  # two numbers, one number
        (r"(1\,234)", "(1,234)", False),
        (r"\pi r", r"\pir", False),
        ("New York", "NewYork", False),
        ("10²", "102", False),
        ("x^2", "x2", False),
        ("1½", "11/2", False),
        ("b", "B", False),
        (r"A \times B", "A*B", False),
        ("1~2", "1 2", False),
        ("1～2", "12", False),
        ("", ".", False),
        ("$$", ".", False),
        ("-x", "x", False),
        ("5", "5 apples", False),
        ("1/0", "2/0", False),
    ],
)
def test_the_same_text_up_to_white_space(a: str, b: str, same: bool) -> None:
    assert same_answer(a, b) is same
    assert same_answer(b, a) is same


# --- any rational number in any style: its value is known, never read back ---

WIDE = str.maketrans({c: chr(ord(c) + 0xFEE0) for c in "0123456789+-./,%$"})


@st.composite
def wholes(draw: st.DrawFn) -> tuple[str, int]:
    n = draw(st.integers(0, 2000) | st.integers(0, 10**9))
    between = draw(st.sampled_from(["", "", ",", "{,}", "\\,", "\u2009"]))
    return f"{n:,}".replace(",", between), n


@st.composite
def magnitudes(draw: st.DrawFn) -> tuple[str, Fraction, bool]:
    """Text, value, and whether a percent sign may follow."""
    text, n = draw(wholes())
    style = draw(st.sampled_from(["whole", "decimal", "slash", "frac", "digits"]))
    if style == "whole":
        return text, Fraction(n), True
    if style == "decimal":
        digits = draw(st.text("0123456789", min_size=1, max_size=6))
        return f"{text}.{digits}", n + Fraction(int(digits), 10 ** len(digits)), True
    if style == "digits":
        a, b = draw(st.integers(0, 9)), draw(st.integers(1, 9))
        return draw(st.sampled_from([r"\frac%d%d", r"\dfrac %d %d", r"\tfrac%d{%d}"])) % (
            a,
            b,
        ), Fraction(a, b), True  # fmt: skip
    below_text, below = draw(wholes().filter(lambda w: w[1] > 0))
    if style == "slash":
        slash = draw(st.sampled_from(["/", " / ", "⁄", "∕"]))
        return f"{text}{slash}{below_text}", Fraction(n, below), False
    above_sign, below_sign = draw(st.sampled_from(["", "-", "−"])), draw(st.sampled_from(["", "-"]))
    blank = draw(st.sampled_from(["", " "]))
    frac = draw(st.sampled_from([r"\frac", r"\dfrac", r"\tfrac", r"\cfrac"]))
    written = f"{frac}{{{blank}{above_sign}{text}{blank}}}{blank}{{{below_sign}{below_text}}}"
    value = Fraction(n, below) * (-1 if above_sign else 1) * (-1 if below_sign else 1)
    return written, value, True


@st.composite
def numbers(draw: st.DrawFn) -> tuple[str, Fraction]:
    """A rational number as somebody writes it, and its value."""
    text, value, percent_may_follow = draw(magnitudes())
    if percent_may_follow and draw(st.booleans()):
        text += draw(st.sampled_from(["%", r"\%", " %", r"\,\%"]))
        value /= 100
    elif draw(st.integers(0, 5)) == 0:
        text = draw(st.sampled_from([r"\$", "$"])) + text
    sign = draw(st.sampled_from(["", "", "+", "-", "−", "–", "- "]))
    text, value = sign + text, -value if sign.strip() in ("-", "−", "–") else value
    if draw(st.integers(0, 2)) == 0:
        # \, and {,} are LaTeX: no keyboard has them in full width
        text = text if "\\" in text or "{" in text else text.translate(WIDE)
    stopped = False
    for _ in range(draw(st.integers(0, 3))):
        around = [" {} ", "{}\n"] if stopped else [" {} ", "{}\n", "{}.", "{}。"]
        if "$" not in text and "＄" not in text:
            around += ["${}$", "$${}$$"]
        if "\\(" not in text and "\\[" not in text:
            around += [r"\({}\)", r"\[{}\]"]
        if "{" not in text and "\\" not in text:
            around += [r"\text{{{}}}", r"\mathrm{{{}}}"]
        frame = draw(st.sampled_from(around))
        stopped = stopped or frame in ("{}.", "{}。")
        text = frame.format(text)
    return text, value


def earned(found: str, reference: str) -> float:
    return accuracy_reward([f"<answer>{found}</answer>"], answer=[reference])[0]


@settings(deadline=None, max_examples=EXAMPLES)
@given(numbers(), numbers())
def test_a_number_in_any_style_is_right_against_itself_alone(
    one: tuple[str, Fraction], other: tuple[str, Fraction]
) -> None:
    (text, value), (second, another) = one, other
    assert earned(text, f"{value.numerator}/{value.denominator}") == 1.0
    assert earned(text, second) == float(value == another)


@settings(deadline=None, max_examples=EXAMPLES)
@given(numbers(), st.data())
def test_a_number_next_to_another_is_wrong(one: tuple[str, Fraction], data: st.DataObject) -> None:
    """Off by a factor of ten, a sign, a percent, a reciprocal or a little."""
    text, value = one
    wrong = data.draw(
        st.sampled_from([value * 10, value / 10, -value, value / 100, value * 100, value + 1,
                         value + Fraction(1, 10**9), 1 / value if value else Fraction(1)])
    )  # fmt: skip
    assert earned(text, f"{wrong.numerator}/{wrong.denominator}") == float(wrong == value)


# --- a second reader, written apart: character by character, values by Fraction ---


class _Reader:
    """Recursive descent over the grammar in the module's docstring."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def take(self, *options: str) -> str:
        for option in options:
            if self.text.startswith(option, self.at):
                self.at += len(option)
                return option
        return ""

    def blank(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1

    def digits(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in "0123456789":
            self.at += 1
        return self.text[start : self.at]

    def whole(self) -> int | None:
        first = self.digits()
        if not first:
            return None
        groups, kept = [first], self.at
        while self.take(","):
            group = self.digits()
            if len(group) != 3:
                break
            groups.append(group)
            kept = self.at
        if len(groups) > 1 and (len(first) > 3 or first[0] == "0"):
            raise ValueError
        self.at = kept
        return int("".join(groups))

    def part(self) -> int:
        self.blank()
        if not self.take("{"):
            self.at += 1
            digit = self.text[self.at - 1 : self.at]
            if not digit or digit not in "0123456789":
                raise ValueError
            return int(digit)
        self.blank()
        sign = -1 if self.take("+", "-") == "-" else 1
        self.blank()
        n = self.whole()
        self.blank()
        if n is None or not self.take("}"):
            raise ValueError
        return sign * n

    def number(self) -> Fraction:
        dollar = self.take("$")
        self.blank() if dollar else None
        sign = -1 if self.take("+", "-") == "-" else 1
        self.blank()
        self.take("$")
        self.blank()
        if self.take("\\frac"):
            value = Fraction(self.part()) / self.part()
            self.blank()
            value /= 100 if self.take("%") else 1
        else:
            n = self.whole()
            here = self.at
            self.blank()
            if n is not None and self.take("/"):
                self.blank()
                below = self.whole()
                if below is None:
                    raise ValueError
                value = Fraction(n) / below
            else:
                self.at = here
                fraction = ""
                if self.take("."):
                    fraction = self.digits()
                    if not fraction:
                        raise ValueError
                elif n is None:
                    raise ValueError
                value = (n or 0) + Fraction(int(fraction or 0), 10 ** len(fraction))
                self.blank()
                value /= 100 if self.take("%") else 1
        self.blank()
        self.take("$")
        if self.at != len(self.text):
            raise ValueError
        return sign * value


def read(text: str) -> Fraction | None:
    try:
        return _Reader(text).number()
    except (ValueError, ZeroDivisionError):
        return None


SIGNS = ["0", "1", "2", "9", "00", "000", "123", ",", ".", "/", "%", "-", "+", " ", "$", "\\frac"]
PIECES = [*SIGNS, *"{}", "{1}", "{ 2 }", "{,}", "\\,", "\\%", "\\$", "\\left", "x", "\\text{", "²"]


@settings(deadline=None, max_examples=EXAMPLES)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join))
def test_a_second_reader_reads_the_same(text: str) -> None:
    assert parse_number(text) == read(normalise(text)[: MAX_LENGTH + 1])


@settings(deadline=None, max_examples=EXAMPLES)
@given(numbers(), st.data())
def test_a_number_with_one_character_changed(
    one: tuple[str, Fraction], data: st.DataObject
) -> None:
    """What a slip makes of an answer is right only where the value stays."""
    text, value = one
    at = data.draw(st.integers(0, len(text)))
    removed = data.draw(st.integers(0, 1))
    changed = text[:at] + data.draw(st.sampled_from(["", *SIGNS])) + text[at + removed :]
    expected = read(normalise(changed))
    assert parse_number(changed) == expected
    assert earned(changed, f"{value.numerator}/{value.denominator}") == float(expected == value)


@settings(deadline=None)
@given(st.text() | st.text("0123456789.,/%-+$\\frac{}", max_size=250))
def test_any_text_is_a_number_or_none(text: str) -> None:
    number = parse_number(text)
    assert number is None or abs(number) < 10**201


# --- hostile texts ---

UNITS = [
    *(
        "$",
        "\\",
        "{",
        "}",
        "-",
        "−",
        "%",
        ".",
        "．",
        "９",
        "0",
        "1,000",
        "1{,}",
        "1\\,000",
        "\\,000",
    ),
    *(
        "\\frac",
        "\\frac{",
        "\\text{",
        "\\(",
        "\\[",
        "\\(a\\)",
        "\\[$$\\text{",
        "**",
        "*",
        "a'",
        "( ",
    ),
    *(
        "\\$",
        "$\\$",
        "\\left",
        "\\boxed{",
        "1/",
        "0.",
        "的",
        "²",
        "\u0301",
        "\ud800",
        "\x00",
        "\u2009",
    ),
]


@pytest.mark.parametrize("unit", UNITS, ids=repr)
def test_a_million_characters_take_seconds(unit: str) -> None:
    """Anything quadratic takes 10^12 steps here and does not come back."""
    text = unit * (10**6 // len(unit))
    start = time.process_time()
    assert not same_answer(text, "x")
    final_answer(text)
    assert time.process_time() - start < 20
