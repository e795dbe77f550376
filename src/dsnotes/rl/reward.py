"""Rewards by rule: is the answer right, is the format kept, is the thinking in one language.

Each function has the signature of TRL's reward functions: it takes all completions of a batch and
the columns of the data set by keyword, and returns one float per completion. So the same function
scores the toy runs of this book and trains a model of any size with TRL. Nothing in a completion is
executed, and the time is proportional to the length of the text.

Equations
    R1 (arXiv 2501.12948) v1 section 2.2.2, v2 eq 4: accuracy + format, equal weights
    R1 v1 section 2.3.2, v2 eq 7: words of the target language / words, in the chain of thought

Departures and open points
    - The format reward of the paper names only <think> and </think>: `think_reward`. <answer> is
      in the template of v1 table 1: `format_reward` requires both, and nothing else.
    - The size of the format reward is not published. Here it is 0 or 1; `weighted_sum` scales it.
    - The paper mentions answers in a box and answers in <answer>, but not how they relate. Here
      `answers.final_answer` takes <answer> if there is one, and otherwise a box; two different
      answers count as none.
    - The paper does not define a word. Here it is one Han character, or a run of other letters with
      their marks. Digits and signs of any kind (５ ² ₁ ① Ⅳ ℃) do not count; 〇 is a numeral.
      Variables and LaTeX commands are Latin words, and English ones if their letters are A to Z.
    - A chat template that ends in <think> leaves the tag out of the completion: add it first.
"""

import math
import numbers as numeric
import operator
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

from dsnotes.rl.answers import HAN, final_answer, same_answer
from dsnotes.rl.arithmetic import evaluate

Completions: TypeAlias = list[str] | list[list[dict[str, Any]]]
RewardFunction: TypeAlias = Callable[..., list[float]]

_TEMPLATE = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_THINK = re.compile(r"\s*<think>(.*)</think>(.*)", re.DOTALL)
_ONE_HAN = re.compile(rf"[{HAN}]")


class _Kinds(dict[int, str]):
    """A character to its kind: h Han, a one of A to Z in any form, l other letter, m mark."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        base = unicodedata.normalize("NFKC", character)  # of ⁿ, 𝑥, Ａ
        category = unicodedata.category(character)[0]
        kind = " "
        if _ONE_HAN.match(character):
            kind = "h"
        elif category == "L":
            kind = "h" if _ONE_HAN.match(base) else "a" if base.isascii() else "l"
        elif category == "M":
            kind = "m"
        elif character in "'’＇":
            kind = "'"
        self[code] = kind
        return kind


_KINDS = _Kinds()
_WORD = re.compile(r"h|[al][alm]*(?:'[al][alm]*)*")
_LANGUAGES = {"zh": re.compile("h"), "en": re.compile("[a']+")}


def accuracy_reward(completions: Completions, answer: list[str], **columns: Any) -> list[float]:
    """1.0 where the final answer of a completion equals the reference, else 0.0.

    Equal means the same number, or the same text except for white space: 0.5, 1/2, \\frac12, ５０％
    and $50\\%$ are equal; 0.333 and 1/3 are not. An expression such as 2+3 is not a number, and the
    only units are percent and dollar. `dsnotes.rl.answers` defines the grammar and where the answer
    is read. ValueError for an empty reference, which an empty answer would match.

        >>> accuracy_reward(["<think>2+3</think><answer>5.0</answer>"], answer=["5"])
        [1.0]
    """
    texts = _texts(completions, answer=answer)
    for reference in answer:
        if not isinstance(reference, str) or not reference.strip():
            raise ValueError(f"answer must hold texts that are not empty, got {reference!r}")
    pairs = zip(texts, answer, strict=True)
    return [float(_right(final_answer(text), reference)) for text, reference in pairs]


def format_reward(completions: Completions, **columns: Any) -> list[float]:
    """1.0 where a completion is the template of R1 v1 table 1 and nothing else, else 0.0.

    The template is one <think> block, then one <answer> block. Neither is blank, and only white
    space stands around them; they may contain newlines. Each of the four tags occurs exactly once.

        >>> format_reward(["<think>\\n2+3\\n</think>\\n<answer>5</answer>", "<answer>5</answer>"])
        [1.0, 0.0]
    """
    return [float(_kept(text, _TEMPLATE, ("think", "answer"))) for text in _texts(completions)]


def think_reward(completions: Completions, **columns: Any) -> list[float]:
    """1.0 where a completion starts with one <think> block and goes on after it, else 0.0.

    This is the part of the format that the reward of R1 names (v1 section 2.2.2). Neither the
    thinking nor the text after it may be blank, and each of the two tags occurs exactly once.

        >>> think_reward(["<think>2+3</think> It is 5.", "It is 5."])
        [1.0, 0.0]
    """
    return [float(_kept(text, _THINK, ("think",))) for text in _texts(completions)]


def language_reward(completions: Completions, language: list[str], **columns: Any) -> list[float]:
    """Share of the words of the thinking that are in the target language (R1 v2 eq 7), 0.0 to 1.0.

    `language` is "zh" or "en" for each completion. The reward is 0.0 without a closed <think> block
    and without a word in it. ValueError for another language.

        >>> language_reward(["<think>先算 two</think>"], language=["zh"])  # 先, 算, two
        [0.6666666666666666]
    """
    texts = _texts(completions, language=language)
    rewards = []
    for text, target in zip(texts, language, strict=True):
        if not isinstance(target, str) or target not in _LANGUAGES:
            raise ValueError(f"language must be one of {sorted(_LANGUAGES)}, got {target!r}")
        block = _THINK.fullmatch(text)
        words = _WORD.findall(block[1].translate(_KINDS)) if block else []
        hits = sum(_LANGUAGES[target].fullmatch(word) is not None for word in words)
        rewards.append(hits / len(words) if words else 0.0)
    return rewards


def expression_reward(
    completions: Completions, numbers: list[list[int]], target: list[int], **columns: Any
) -> list[float]:
    """1.0 where the final answer is an expression of exactly these numbers with this value.

    Each of `numbers` must be used once, and no other number (the game of 24): otherwise the target
    itself would be a solution. An answer that `arithmetic.evaluate` refuses earns 0.0. ValueError
    when the numbers or the target are not whole numbers; a text such as "24" is not one.

        >>> expression_reward(["<answer>(7-8÷8)×4</answer>"], numbers=[[4, 7, 8, 8]], target=[24])
        [1.0]
    """
    texts = _texts(completions, numbers=numbers, target=target)
    rewards = []
    for text, given, wanted in zip(texts, numbers, target, strict=True):
        if not isinstance(given, Sequence) or not all(map(_whole, given)):
            raise ValueError(f"numbers must be lists of whole numbers, got {given!r}")
        if not _whole(wanted):
            raise ValueError(f"target must hold whole numbers, got {wanted!r}")
        try:
            found = evaluate(final_answer(text) or "")
        except ValueError:
            rewards.append(0.0)
        else:
            rewards.append(float(sorted(found.numbers) == sorted(given) and found.value == wanted))
    return rewards


def weighted_sum(
    functions: Sequence[RewardFunction], *, weights: Sequence[float] | None = None
) -> RewardFunction:
    """One reward function, the weighted sum of several; weights are 1.0 by default (R1 v2 eq 4).

    Each function takes its columns by name and ignores the others. TypeError for an object that is
    not a function. ValueError when there is no function, when a weight is missing or not a finite
    number, and, in a call, when a function does not return one finite number per completion.

        >>> weighted_sum([accuracy_reward, format_reward])(["<answer>5</answer>"], answer=["5"])
        [1.0]
    """
    if not isinstance(functions, Sequence) or not all(map(callable, functions)):
        raise TypeError(f"functions must be a list of reward functions, got {functions!r}")
    weights = [1.0] * len(functions) if weights is None else weights
    if not functions:
        raise ValueError("functions must hold at least one reward function, got none")
    if not isinstance(weights, Sequence) or len(weights) != len(functions):
        raise ValueError(f"weights must be one per function ({len(functions)}), got {weights}")
    if not all(map(_finite, weights)):
        raise ValueError(f"weights must be finite, got {weights}")

    def weighted(completions: Completions, **columns: Any) -> list[float]:
        pairs = enumerate(functions)
        parts = [scored(f"functions[{i}]", f, completions, **columns) for i, f in pairs]
        return [sum(map(operator.mul, weights, values)) for values in zip(*parts, strict=True)]

    return weighted


def scored(name: str, function: RewardFunction, texts: Completions, **columns: Any) -> list[float]:
    """What a reward function returns; ValueError unless one finite number per completion."""
    values, n = function(texts, **columns), len(texts)
    if not isinstance(values, Collection) or len(values) != n or not all(map(_finite, values)):
        raise ValueError(
            f"{name} must return one finite number per completion ({n}), got {values!r:.80}"
        )
    return [float(value) for value in values]


def _right(found: str | None, reference: str) -> bool:
    return found is not None and same_answer(found, reference)


def _whole(value: object) -> bool:
    return isinstance(value, numeric.Integral) and not isinstance(value, bool)


def _finite(value: object) -> bool:
    return isinstance(value, numeric.Real) and math.isfinite(value)


def _kept(text: str, pattern: re.Pattern[str], tags: tuple[str, ...]) -> bool:
    # Counted first: with every tag there once, the pattern has one way to match.
    if any(text.count(f"<{tag}>") != 1 or text.count(f"</{tag}>") != 1 for tag in tags):
        return False
    found = pattern.fullmatch(text)
    return found is not None and all(block.strip() for block in found.groups())


def _texts(completions: Completions, **columns: list[Any]) -> list[str]:
    """The text of each completion, plain or conversational; each column must be as long."""
    if not isinstance(completions, list | tuple):
        raise TypeError(
            f"completions must be a list, one entry each, got {type(completions).__name__}"
        )
    for name, values in columns.items():
        if not isinstance(values, list) or len(values) != len(completions):
            got = f"{len(values)}" if isinstance(values, list) else repr(values)
            raise ValueError(
                f"{name} must be a list, one per completion ({len(completions)}), got {got}"
            )
    return [_text(completion) for completion in completions]


def _text(completion: str | list[dict[str, Any]]) -> str:
    """A completion itself, or the text of its last message; "" for a message without text."""
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list) and all(isinstance(message, dict) for message in completion):
        content = completion[-1].get("content") if completion else None
        if isinstance(content, str) or content is None:
            return content or ""
        if isinstance(content, list) and all(isinstance(part, dict) for part in content):
            # parts, as multimodal chat templates have them
            return "".join(part.get("text") or "" for part in content)
    raise TypeError(
        "completions must hold texts, or lists of messages with a text as content, got "
        f"{completion!r:.80}"
    )
