r"""Answers as people write them: where a completion gives its answer, and when two are the same.

`normalise` first gives a text one spelling. Then a small grammar reads numbers, which are compared
exactly, as fractions; everything else is compared as text, except for white space. Nothing is
computed or executed, and the time is proportional to the length of the text.

No equation of a paper: R1 (arXiv 2501.12948) v1 section 2.2.2 says that a mathematical answer is
given in a required form, a box for example, and is verified by rules.

The grammar, after `normalise`; white space is allowed between its parts, not inside a number
    number   = [sign] (decimal [%] | \frac whole whole [%] | whole / whole), a dollar sign at an end
    whole    = digits, or digits in groups of three: 1,000
    decimal  = whole [. digits] | . digits

The grammar is small on purpose. It does not know 2+3 for 5, x+1 for 1+x, mixed numbers, powers of
ten, roots, sets in another order, and units other than % and $. These are not numbers here, so they
earn a reward only when the reference is the same text.
"""

import re
import unicodedata
from fractions import Fraction

MAX_LENGTH = 200  # characters of a number
MAX_WRAPPERS = 8  # one in another: \text in $ in \[ …
HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"

# Of NFKC only what is the same sign in another width: the rest makes 102 of 10² and 11/2 of 1½.
_SIGNS: dict[int, str] = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (0x3000, *range(0xFE50, 0xFFEF))
    if unicodedata.decomposition(chr(code)).startswith(("<wide>", "<small>"))
}
_SIGNS |= dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212"), "-")
_SIGNS |= dict.fromkeys(map(ord, "\u2044\u2215"), "/")
_SIGNS |= dict.fromkeys(map(ord, "\u2009\u202f"), "\\,")  # thin spaces
_WRAPPED = re.compile(  # possessive (++): no way back, so no time for one
    r"\$\$((?:[^$\\]|\\.)++)\$\$|\$((?:[^$\\]|\\.)++)\$"
    r"|\\\(((?:[^\\]|\\[^()])++)\\\)|\\\[((?:[^\\]|\\[^\[\]])++)\\\]"
    r"|\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\s*\{([^{}]++)\}|\*\*([^*]++)\*\*",
    re.DOTALL,
)
_GROUPED = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:(?:\\,|\{,\})[0-9]{3})+(?![0-9])")
_CONTROL = re.compile(r"\\(?:[A-Za-z]+|.)", re.DOTALL)
_SPELLINGS = {
    **dict.fromkeys(("\\dfrac", "\\tfrac", "\\cfrac"), "\\frac"),
    **dict.fromkeys(("\\left", "\\right", "\\quad", "\\qquad", "\\thinspace"), " "),
    **dict.fromkeys(("\\,", "\\:", "\\;", "\\!", "\\>", "\\ ", "\\\n"), " "),
    **{"\\%": "%", "\\$": "$"},
}
_WHOLE = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)"
_PART = rf"\{{\s*[+-]?\s*{_WHOLE}\s*\}}|[0-9]"
_NUMBER = re.compile(
    rf"(?:\$\s*)?(?P<sign>[+-]?)\s*(?:\$\s*)?"
    rf"(?:(?:(?P<decimal>{_WHOLE}(?:\.[0-9]+)?|\.[0-9]+)"
    rf"|\\frac\s*(?P<above>{_PART})\s*(?P<below>{_PART}))\s*(?P<percent>%?)"
    rf"|(?P<left>{_WHOLE})\s*/\s*(?P<right>{_WHOLE}))(?:\s*\$)?"
)
_AROUND_DIGITS = re.compile(r"[{},\s]")
_TOKEN = re.compile(
    rf"\\(?:[A-Za-z]+|.)|[0-9]*\.[0-9]+|[0-9]+|[{HAN}]|[^\W\d_{HAN}]+|\S", re.DOTALL
)
_BRACE = re.compile(r"\\[{}]|(\\boxed\s*\{)|([{}])")


def normalise(text: str) -> str:
    r"""One spelling for what can be written in several ways; no number changes its value.

    Full-width signs and digits become plain, and minus and slash have one sign each. What encloses
    the whole text is removed: $…$, \(…\), \[…\], \text{…}, **…**, and one full stop. \, and {,}
    between groups of three digits, \left and \right are removed too. Other spaces of LaTeX become
    blanks, and \dfrac becomes \frac. TypeError unless it is a text.

        >>> normalise(r"$\dfrac{ 1 }{２}$。"), normalise(r"10\,000")
        ('\\frac{ 1 }{2}', '10000')
    """
    text = _string("text", text).translate(_SIGNS)
    for _ in range(MAX_WRAPPERS):
        text = text.strip()
        text = text[:-1].rstrip() if text.endswith((".", "。", "｡")) else text
        found = _WRAPPED.fullmatch(text)
        if found is None or found.lastindex is None:
            break
        text = found[found.lastindex]
    text = _GROUPED.sub(lambda m: m[0].replace("\\,", "").replace("{,}", ""), text)
    return _CONTROL.sub(lambda m: _SPELLINGS.get(m[0], m[0]), text).strip()


def parse_number(text: str) -> Fraction | None:
    r"""The exact number that a text is; None when the text is anything but one number.

    It may be a decimal, with groups of thousands, or a ratio of whole numbers, a/b or \frac{a}{b}.
    % divides by a hundred, and a dollar sign is ignored. Other units, powers of ten and mixed
    numbers give None. So does 1/2%, which can be read in two ways.

        >>> parse_number("-1,250.50"), parse_number(r"\tfrac34"), parse_number("1e999999999")
        (Fraction(-2501, 2), Fraction(3, 4), None)
    """
    return _number(normalise(text))


def _number(text: str) -> Fraction | None:
    found = _NUMBER.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if found is None:
        return None
    first, *rest = (
        _AROUND_DIGITS.sub("", part)
        for part in found.group("decimal", "above", "below", "left", "right")
        if part
    )
    if rest and int(rest[0]) == 0:
        return None
    number = Fraction(int(first), int(rest[0])) if rest else Fraction(first)
    number = number / 100 if found["percent"] else number
    return -number if found["sign"] == "-" else number


def same_answer(found: str, reference: str) -> bool:
    r"""Whether two answers are the same number or, when neither is a number, the same text.

    White space does not count in a text: (1, 2) is (1,2), and 2 \pi is 2\pi. But it separates words
    and numbers: "1 2" is not 12.

        >>> same_answer("50％", r"$\frac{1}{2}$"), same_answer("[0, 1)", "[0,1)")
        (True, True)
    """
    if _string("found", found).split() == _string("reference", reference).split():
        return True
    texts = normalise(found), normalise(reference)
    a, b = map(_number, texts)
    if a is not None or b is not None:
        return a == b
    tokens, expected = map(_TOKEN.findall, texts)
    return bool(tokens) and tokens == expected


def final_answer(text: str) -> str | None:
    r"""The one final answer of a completion; None when it gives none, or more than one.

    The answer is looked for after the last </think>, so the thinking may contain anything; after a
    <think> that is never closed there is no answer. It is the content of the one <answer> block; if
    there is no such block, the content of \boxed{...}; if there is no box, the whole rest. Several
    boxes must have the same content.

        >>> final_answer(r"<think>\boxed{4}?</think> So \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
    """
    _string("text", text)
    rest = text.rpartition("</think>")[2]
    if "<think>" in rest:
        return None
    tags = rest.count("<answer>"), rest.count("</answer>")
    if tags != (0, 0):
        start, end = rest.find("<answer>"), rest.find("</answer>")
        if tags != (1, 1) or end < start:
            return None
        rest = rest[start + len("<answer>") : end]
    boxes = set(_boxes(rest))
    if len(boxes) > 1:
        return None
    return (boxes.pop() if boxes else rest).strip()


def _boxes(text: str) -> list[str]:
    """The contents of the outermost \\boxed{...} with balanced braces, found in one pass."""
    found, opened, start = [], [], None  # opened: for each open brace, whether it opens that box
    for brace in _BRACE.finditer(text):
        if brace[1] and start is None:
            start = brace.end()
            opened.append(True)
        elif brace[1] or brace[2] == "{":
            opened.append(False)
        elif brace[2] == "}" and opened and opened.pop():
            found.append(text[start : brace.start()].strip())
            start = None
    return found


def _string(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {type(value).__name__} {value!r:.80}")
    return value
