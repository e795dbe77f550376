"""The shell game: a task that a program can check and that is easy only with written steps.

A ball lies under one of five cups, pairs of cups are swapped, and the question is where it ends up.
Step by step this is easy. At once it is a composition of permutations, and a guess is right in one
of five cases.

The language has one token per symbol. A problem is `ball swap swap ... =`, and a completion has the
layout of the R1-Zero template (R1, arXiv 2501.12948v1, table 1), so that the rules of
`dsnotes.rl.reward` apply to its text:

    3 1-2 3-5 ... =        <think>  5 4 4 ...  </think>  <answer>  2  </answer>

Departures
    - Positions can be written as digits, English words or Chinese characters. A text that mixes
      them stands for the language mixing of R1-Zero; the answer is always a digit.
    - The base text stands for pre-training. It is bad on purpose: most thoughts stop early and end
      in a guess, and each step is wrong with a certain probability.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from dsnotes.checks.arguments import checked

CUPS = 5
_PAIRS = tuple(combinations(range(CUPS), 2))
Script = Literal["digit", "en", "zh", "mixed"]
SYMBOLS = (
    *("<pad>", "=", "<think>", "</think>", "<answer>", "</answer>"),
    *("1", "2", "3", "4", "5"),
    *(f"{a + 1}-{b + 1}" for a, b in _PAIRS),
    *("one", "two", "three", "four", "five"),
    *("一", "二", "三", "四", "五"),
)
VOCAB_SIZE = len(SYMBOLS)
_ID = {symbol: i for i, symbol in enumerate(SYMBOLS)}
PAD, EQUALS, THINK, END_THINK, ANSWER, END_ANSWER = range(6)
_FIRST = {"digit": _ID["1"], "en": _ID["one"], "zh": _ID["一"]}  # token of position 0
_FIRST_SWAP = _ID["1-2"]
_HELD_OUT_OF = 10
NO_THOUGHT = (THINK, END_THINK, ANSWER)  # what thinking forbidden looks like


class Problems(NamedTuple):
    """Prompts as tokens, and the true position (0 to 4) of the ball after each swap."""

    prompts: Int[Tensor, "batch seq"]
    path: Int[Tensor, "batch swaps"]

    @property
    def answers(self) -> list[str]:
        """The right answer of each problem as text, '1' to '5'."""
        return [str(position + 1) for position in self.path[:, -1].tolist()]


@checked
def encode(text: str) -> list[int]:
    """The tokens of symbols that are separated by white space; ValueError for other symbols.

    >>> encode("3 1-2 =")
    [8, 11, 1]
    """
    unknown = [symbol for symbol in text.split() if symbol not in _ID]
    if unknown:
        raise ValueError(f"text must consist of the symbols of the shell game, got {unknown[0]!r}")
    return [_ID[symbol] for symbol in text.split()]


@checked
def decode(tokens: Sequence[int]) -> str:
    """The text of tokens, with every tag on its own line and without padding.

    ValueError for a token that is no symbol.

        >>> decode([2, 8, 9, 3, 4, 9, 5])
        '<think>\\n3 4\\n</think>\\n<answer>\\n4\\n</answer>'
    """
    unknown = [token for token in tokens if not 0 <= token < VOCAB_SIZE]
    if unknown:
        raise ValueError(f"tokens must lie in 0 to {VOCAB_SIZE - 1}, got {unknown[0]}")
    symbols = [SYMBOLS[token] for token in tokens if token != PAD]
    text = ""
    for before, symbol in zip(["", *symbols], symbols, strict=False):
        tag = before.startswith("<") or symbol.startswith("<")
        text += ("\n" if tag else " ") * bool(before) + symbol
    return text


@checked
def problems(
    count: int, *, swaps: int = 6, held_out: bool = False, generator: torch.Generator
) -> Problems:
    """Draw problems with equal probabilities; ValueError for sizes below 1.

    One problem in ten is held out: `held_out=True` draws only these, `held_out=False` only the
    others. A checksum of ball and swaps decides; it does not tell where the ball ends.

        >>> problems(2, generator=torch.Generator().manual_seed(0)).prompts.shape
        torch.Size([2, 8])
    """
    if count < 1 or swaps < 1:
        raise ValueError(f"count and swaps must be at least 1, got {count} and {swaps}")
    ball = torch.randint(CUPS, (count,), generator=generator)
    swap = torch.randint(len(_PAIRS), (count, swaps), generator=generator)
    low, high = (0, 1) if held_out else (1, _HELD_OUT_OF)
    checksum = torch.randint(low, high, (count,), generator=generator)
    rest = ball + swap[:, 1:] @ torch.arange(2, swaps + 1)
    swap[:, 0] = (checksum - rest) % _HELD_OUT_OF  # as many checksums as pairs: one swap fits
    ends = (_FIRST["digit"] + ball)[:, None], torch.full((count, 1), EQUALS)
    return read(torch.cat([ends[0], _FIRST_SWAP + swap, ends[1]], dim=1))


@checked
def read(prompts: Int[Tensor, "batch seq"]) -> Problems:
    """The problems that the prompts describe, with the position of the ball after each swap.

    >>> read(torch.tensor([encode("3 1-3 4-5 =")])).path
    tensor([[0, 0]])
    """
    path, position = [], prompts[:, 0] - _FIRST["digit"]
    for token in prompts[:, 1:-1].unbind(1):
        position = _moved(position, token - _FIRST_SWAP)
        path.append(position)
    return Problems(prompts, torch.stack(path, dim=1))


@checked
def is_held_out(prompts: Int[Tensor, "batch seq"]) -> list[bool]:
    """For each problem, whether it is held out."""
    ball, swap = prompts[:, 0] - _FIRST["digit"], prompts[:, 1:-1] - _FIRST_SWAP
    checksum = ball + swap @ torch.arange(1, swap.shape[1] + 1)
    held_out: list[bool] = (checksum % _HELD_OUT_OF == 0).tolist()
    return held_out


@checked
def completions(
    given: Problems,
    *,
    lengths: Sequence[float] | None = None,
    error: float = 0.0,
    script: Script = "digit",
    generator: torch.Generator,
) -> Int[Tensor, "batch new"]:
    """Completions of the problems, written by a rule and padded at the end.

    `lengths[k]` is the relative frequency of thoughts that stop after k swaps; None means that all
    are complete. Each step is wrong with probability `error`, and the next step starts from the
    wrong position. A complete thought answers with its last position, a shorter one guesses. With
    no `error` and no `lengths` the completions are perfect solutions. ValueError when `lengths` has
    the wrong length or is negative, when `error` lies outside 0 to 1, and for an unknown script.

        >>> g = torch.Generator().manual_seed(0)
        >>> completions(problems(2, generator=g), generator=g).shape
        torch.Size([2, 11])
    """
    batch, swaps = given.path.shape
    weights = torch.tensor([0.0] * swaps + [1.0] if lengths is None else lengths).float()
    if len(weights) != swaps + 1 or bool((weights < 0).any()) or not weights.sum() > 0:
        raise ValueError(
            f"lengths must hold {swaps + 1} frequencies (0 to {swaps} swaps), at least 0 and not "
            f"all 0, got {lengths}"
        )
    if not 0 <= error <= 1:
        raise ValueError(f"error must lie between 0 and 1, got {error}")
    if script not in get_args(Script):
        raise ValueError(f"script must be one of {get_args(Script)}, got {script!r}")
    written, position = [], given.prompts[:, 0] - _FIRST["digit"]
    for token in given.prompts[:, 1:-1].unbind(1):
        position = _moved(position, token - _FIRST_SWAP)
        wrong = torch.rand(batch, generator=generator) < error
        other = position + torch.randint(1, CUPS, (batch,), generator=generator)
        position = torch.where(wrong, other % CUPS, position)
        written.append(position)
    steps = torch.stack(written, dim=1)
    stop = torch.multinomial(weights, batch, replacement=True, generator=generator)
    guess = torch.randint(CUPS, (batch,), generator=generator)
    answer = _FIRST["digit"] + torch.where(stop == swaps, position, guess)
    place = torch.arange(swaps + 5) - stop[:, None]  # 0: last step, 1: end of the thought
    out = torch.full((batch, swaps + 5), PAD)
    out[:, 1 : swaps + 1] = steps + _first_token(script, steps, generator)
    out = torch.where(place == 3, answer[:, None], out)
    for i, tag in ((1, END_THINK), (2, ANSWER), (4, END_ANSWER)):
        out = out.masked_fill(place == i, tag)
    out[:, 0] = THINK
    return out.masked_fill(place > 4, PAD)


def _moved(position: Tensor, pair: Tensor) -> Tensor:
    """The position of the ball after cups a and b have changed places."""
    a, b = torch.tensor(_PAIRS)[pair].unbind(1)
    return torch.where(position == a, b, torch.where(position == b, a, position))


def _first_token(script: Script, steps: Tensor, generator: torch.Generator) -> Tensor:
    if script != "mixed":
        return torch.full_like(steps, _FIRST[script])
    either = torch.tensor([_FIRST["en"], _FIRST["zh"]])
    return either[torch.randint(2, steps.shape, generator=generator)]
