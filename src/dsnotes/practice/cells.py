"""The check below a blank cell of a notebook: it says what is wrong and never stops the notebook.

weights = ...                      # the exercise: a cell to fill in

with check("moe-2", weights):      # the check: a cell of assertions that speak
    assert len(weights) == 4, "只有选中的 4 个专家有权重。"
    assert close(sum(weights), 1), "权重之和应为 1：除以选中的得分之和。"
"""

import dis
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np


class Verdict(NamedTuple):
    """What became of a check; `message` is what was wrong, empty otherwise."""

    state: Literal["blank", "wrong", "error", "right"]
    message: str = ""


VERDICTS: dict[str, Verdict] = {}
"""The last verdict of every check that has run, by its label."""


@contextmanager
def check(label: str, *answers: object) -> Iterator[None]:
    """Print whether the answers of an exercise are right, and why not.

    Args:
        label: of the exercise, like "moe-2".
        answers: what the reader has to fill in, values or functions. One that is still `...`,
            holds `...`, or is a function with the body `...`, is blank.

    The block holds assertions with messages. An error in it is reported with its line. A bare
    `NotImplementedError` counts as blank.

    Example:
        >>> with check("moe-0", ...):
        ...     raise TypeError("not reached by a reader who has written nothing")
        moe-0：还没有写。填好上面的空格，运行它，再运行这一格。
        >>> with check("moe-0", 3):
        ...     assert 3 % 2 == 0, "应当是偶数。"
        moe-0：不对。应当是偶数。
        >>> with check("moe-0", 4):
        ...     assert 4 % 2 == 0, "应当是偶数。"
        moe-0：对。
    """
    verdict = Verdict("right")
    try:
        yield
    except Exception as error:
        verdict = _judge(error)
    if any(map(_blank, answers)):
        verdict = Verdict("blank")
    VERDICTS[label] = verdict
    said = {
        "blank": "还没有写。填好上面的空格，运行它，再运行这一格。",
        "wrong": f"不对。{verdict.message}",
        "error": f"运行时出错。{verdict.message}",
        "right": "对。",
    }
    print(f"{label}：{said[verdict.state]}")


def close(answer: object, expected: object, tolerance: float = 1e-3) -> bool:
    """Whether numbers agree; an answer of another shape or kind does not.

    Args:
        answer: of the reader: a number, a nested list, an array or a tensor.
        expected: likewise.
        tolerance: allowed difference, absolute and relative to `expected`.

    Example:
        >>> close([0.3333, 0.6667], torch.tensor([1 / 3, 2 / 3]))
        True
        >>> close([0.3333], [1 / 3, 2 / 3])
        False
    """
    try:
        a, e = _numbers(answer), _numbers(expected)
    except (TypeError, ValueError):
        return False
    return a.shape == e.shape and np.allclose(a, e, rtol=tolerance, atol=tolerance)


def _numbers(value: object) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, dtype=float)


def _blank(answer: object) -> bool:
    if isinstance(answer, (list, tuple, set)):
        return any(map(_blank, answer))
    if isinstance(answer, dict):
        return any(map(_blank, answer.values()))
    if isinstance(answer, type):
        return any(map(_blank, vars(answer).values()))
    code = getattr(answer, "__code__", None)
    if code is None:
        return answer is ...
    # a body of `...`, with or without a docstring, compiles to "return None" and nothing else
    idle = {"RESUME", "NOP", "COPY_FREE_VARS", "LOAD_CONST", "RETURN_CONST", "RETURN_VALUE"}
    steps = list(dis.get_instructions(code))
    loaded = [s.argval for s in steps if s.opname in ("LOAD_CONST", "RETURN_CONST")]
    return {s.opname for s in steps} <= idle and loaded == [None]


def _judge(error: Exception) -> Verdict:
    line = traceback.extract_tb(error.__traceback__)[-1].line or ""
    if isinstance(error, AssertionError):
        return Verdict("wrong", str(error) or f"这一行不成立：`{line}`")
    if isinstance(error, NotImplementedError) and not str(error):
        return Verdict("blank")
    if "ellipsis" in str(error).lower():  # a calculation that met a `...`
        return Verdict("blank")
    if isinstance(error, NameError) and not isinstance(error, UnboundLocalError):
        return Verdict("error", f"没有名字 {error.name}：先运行上面的各格。")
    return Verdict(
        "error", f"{type(error).__name__}: {error}" + (f"（在 `{line}`）" if line else "")
    )
