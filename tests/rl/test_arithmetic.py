"""arithmetic: exact values, everything else refused, bounded whatever the text."""

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsnotes.rl.arithmetic import MAX_BITS, MAX_DEPTH, MAX_LENGTH, evaluate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("24", 24),
        (" (7 - 8/8) * 4 ", 24),
        ("8/(3-8/3)", 24),  # thirds on the way: floats miss it
        ("0.1+0.2", Fraction(3, 10)),
        ("-2**2", -4),
        ("2**-2", Fraction(1, 4)),
        ("2**3**2", 512),
        ("+-+3", -3),
        ("1/3*3", 1),
        (".5", Fraction(1, 2)),
        ("４２", 42),
        ("(7-8÷8)×4", 24),
        ("（7-8/8）*4", 24),
        ("（７－８／８）＊４", 24),
        ("(7−8/8)·4", 24),
        ("(7\u00a0-\u00a08/8)*4", 24),
        (r"$(7-8\div 8)\times4$", 24),
        (r"\left(7-8/8\right)\cdot 4", 24),
        ("2^3^2", 512),
        ("-2^2", -4),
        ("(7-8/8)*4.", 24),
        ("1+\n2", 3),
    ],
)
def test_values_are_exact(expression: str, value: Fraction | int) -> None:
    assert evaluate(expression).value == value


def test_numbers_in_the_order_written() -> None:
    assert evaluate("(7-8/8)*4").numbers == (7, 8, 8, 4)
    assert evaluate("-0.5+2**10").numbers == (Fraction(1, 2), 2, 10)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "   ",
        "x",
        "__import__('os')",
        "(lambda: 1)()",
        "[1][0]",
        "1 if 1 else 2",
        "True",
        "1j",
        "1e3",
        "0x10",
        "1_000",
        "1,2",
        "1(2)",
        "7//2",
        "7%2",
        "1<2",
        "1\n2",
        "1;2",
        "(1",
        "1+",
        "007",
        "1..real",
        "²",
        "10²",
        "½",
        "2××3",  # two signs are no third
        "2÷÷3",
        "2·×3",
        "2^^3",
        "2\\pi3",
        "2x3",
        "1\u30002",
        "1/0",
        "0**-1",
        "2**0.5",
        "1=1",
        "\x00",
    ],
)
def test_everything_else_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"expression|exponent"):
        evaluate(expression)


@pytest.mark.parametrize(
    ("expression", "what"),
    [
        ("9**9**9", "bits"),
        ("9**9**9**9**9", "bits"),
        ("(9**9)**(9**9)", "bits"),
        ("1/9**9**9", "bits"),
        ("*".join(["9" * 60] * 3), "bits"),
        ("9" * 150, "bits"),
        ("0." + "1" * 150, "bits"),
        ("(" * 50 + "1" + ")" * 50, "nested at most 20"),
        ("(" * 10**6 + "1" + ")" * 10**6, "at most 200 characters"),
        ("1+" * 10**6 + "1", "at most 200 characters"),
        ("-" * 10**6 + "1", "at most 200 characters"),
    ],
)
def test_what_would_take_long_is_refused(expression: str, what: str) -> None:
    """Computed instead of refused, most of these would not end, or exhaust memory or stack."""
    with pytest.raises(ValueError, match=what):
        evaluate(expression)


def test_the_limits_themselves_are_allowed() -> None:
    assert evaluate("(" * MAX_DEPTH + "1" + ")" * MAX_DEPTH).value == 1
    assert evaluate("-" * (MAX_LENGTH - 1) + "1").value == -1
    assert evaluate("1**" * 66 + "1").value == 1  # as deep as a chain of powers gets
    assert evaluate(f"2**{MAX_BITS // 2}").value == 2 ** (MAX_BITS // 2)
    with pytest.raises(ValueError, match=f"below {MAX_BITS} bits, an operation needs 258"):
        evaluate("2**129")


@settings(deadline=None)
@given(st.text(max_size=300) | st.text("0123456789+-*/(). ", max_size=MAX_LENGTH))
def test_any_text_has_a_bounded_value_or_is_refused(text: str) -> None:
    try:
        value = evaluate(text).value
    except ValueError:
        return
    assert max(abs(value.numerator), value.denominator).bit_length() <= 2 * MAX_BITS


def test_random_expressions_agree_with_python() -> None:
    """Python itself computes the same trees, written with Fraction around every number."""
    rng = random.Random(0)

    def expression(depth: int) -> tuple[str, str]:
        if depth == 0 or rng.random() < 0.2:
            number = str(rng.randrange(10))
            return number, f"Fraction({number})"
        (a, x), (b, y) = expression(depth - 1), expression(depth - 1)
        op = rng.choice("+-*/")
        return f"({a}{op}{b})", f"({x}{op}{y})"

    compared = 0
    for _ in range(300):
        ours, theirs = expression(3)
        try:
            expected = eval(theirs, {"Fraction": Fraction})  # written by this test, not by a model
        except ZeroDivisionError:
            with pytest.raises(ValueError, match="divides by zero"):
                evaluate(ours)
            continue
        assert evaluate(ours).value == expected
        compared += 1
    assert compared > 200
