"""The exact value of an arithmetic expression from an unknown author, in bounded time and space.

The text gets one spelling and is parsed to a syntax tree. Only numbers, + - * / ** and brackets are
accepted; no name is looked up and nothing is executed. Expensive work is refused before it starts:
length and nesting are checked before parsing, and the size of a number before every operation.

No equation of a paper: R1 (arXiv 2501.12948) v1 section 2.2.2 only says that a mathematical answer
is verified by rules. Values are fractions, so 0.1 + 0.2 is 0.3 and nothing is rounded.
"""

import ast
import re
from fractions import Fraction
from typing import NamedTuple

from dsnotes.rl.answers import normalise

MAX_LENGTH = 200  # characters
MAX_DEPTH = 20  # open brackets; the parser itself gives up at about 100, in ways that vary
MAX_BITS = 256  # of a numerator or denominator
_ALPHABET = re.compile(r"[0-9+\-*/(). ]+")
_SIGNS = {  # blanks keep two signs from becoming a third: 2××3 is no power
    **dict.fromkeys(("×", "·", "⋅", "∗", "\\times", "\\cdot"), " * "),
    **dict.fromkeys(("÷", "\\div"), " / "),
    "^": " ** ",
}
_SIGN = re.compile(r"\\[a-z]+|[×·⋅∗÷^]")


class Value(NamedTuple):
    """The value of an expression, and the numbers written in it from left to right."""

    value: Fraction
    numbers: tuple[Fraction, ...]


def evaluate(expression: str) -> Value:
    """The exact value of `expression` and the numbers that it uses.

    The signs of print and LaTeX (× · ÷ − ^ \\times \\cdot \\div) are allowed, full-width signs and
    $…$ around the text too: see `answers.normalise`. An exponent must be a whole number. ValueError
    when the text is not arithmetic, when it divides by zero, and when it exceeds `MAX_LENGTH`,
    `MAX_DEPTH` or `MAX_BITS`; TypeError unless it is a text.

        >>> evaluate("(7 - 8/8) * 4").value
        Fraction(24, 1)
    """
    if not isinstance(expression, str):
        raise TypeError(f"expression must be a text, got {type(expression).__name__}")
    text = normalise(expression)
    if len(text) > MAX_LENGTH:
        raise ValueError(
            f"expression must have at most {MAX_LENGTH} characters, got {len(expression)}"
        )
    text = " ".join(_SIGN.sub(lambda m: _SIGNS.get(m[0], m[0]), text).split())
    if not _ALPHABET.fullmatch(text):
        raise ValueError(f"expression must consist of numbers and + - * / ** ( ), got {text!r}")
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth > MAX_DEPTH:
            raise ValueError(f"expression must be nested at most {MAX_DEPTH} deep, got {text!r}")
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"expression must be arithmetic, got {text!r}") from error
    numbers: list[Fraction] = []
    return Value(_value(tree.body, text, numbers), tuple(numbers))


def _value(node: ast.expr, text: str, numbers: list[Fraction]) -> Fraction:
    match node:
        case ast.Constant():
            # From the text, not from node.value: the float 0.1 is not one tenth.
            number = Fraction(text[node.col_offset : node.end_col_offset])
            _check_size(_bits(number))
            numbers.append(number)
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, text, numbers)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand, text, numbers)
        case ast.BinOp(left=left, op=op, right=right):
            return _combine(_value(left, text, numbers), op, _value(right, text, numbers))
        case _:
            raise ValueError(f"expression must be arithmetic, got {text!r}")


def _combine(a: Fraction, op: ast.operator, b: Fraction) -> Fraction:
    match op:
        case ast.Add() | ast.Sub():
            _check_size(_bits(a) + _bits(b))
            return a + b if isinstance(op, ast.Add) else a - b
        case ast.Mult():
            _check_size(_bits(a) + _bits(b))
            return a * b
        case ast.Div():
            if b == 0:
                raise ValueError("expression divides by zero")
            _check_size(_bits(a) + _bits(b))
            return a / b
        case ast.Pow():
            if b.denominator != 1:
                raise ValueError(f"an exponent must be a whole number, got {b}")
            if a == 0 and b < 0:
                raise ValueError("expression divides by zero")
            _check_size(_bits(a) * abs(b.numerator))
            return Fraction(a**b.numerator)
        case _:
            raise ValueError("expression must use + - * / ** only")


def _bits(number: Fraction) -> int:
    return max(number.numerator.bit_length(), number.denominator.bit_length())


def _check_size(bits: int) -> None:
    if bits > MAX_BITS:
        raise ValueError(f"numbers must stay below {MAX_BITS} bits, an operation needs {bits}")
