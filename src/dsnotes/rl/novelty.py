"""Whether verse is new and varied: what the rules of verse do not ask, and a policy then gives up.

A poem copied from the corpus keeps every rule, and so does one good poem written to every prompt.
These measures are cheap enough to be a term of the reward, beside `regulated_reward` and with a
weight of its own, or to be watched alone.

Measures
    novelty     the share of the lines of a poem that are no copies of known ones, near-copies
                included: all characters but one the same, in their places
    diversity   of a batch: how many characters it uses, and how much of it had come before
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from dsnotes.rl.regulated import split


class Known:
    """Lines to compare with, for instance those of the training poems.

    Every line is held once for each of its places, without the character there. A million lines
    take about a gigabyte.

        >>> known = Known(["白日依山盡", "黃河入海流"])
        >>> known.has("紅日依山盡"), known.has_like("紅日依山盡")
        (False, True)
    """

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = frozenset(lines)
        self._gaps = frozenset(gap for line in self._lines for gap in gaps(line))

    def has(self, line: str) -> bool:
        """Whether a line is one of the known ones."""
        return line in self._lines

    def has_like(self, line: str) -> bool:
        """Whether a known line of the same length has the same characters in all places but one."""
        return not self._gaps.isdisjoint(gaps(line))


class Diversity(NamedTuple):
    """How varied the poems of a batch are; the shares are from 0 to 1, and the lower the better."""

    characters: int  # different ones
    repeated_lines: float  # of all lines, those that came before
    repeated_bigrams: float  # of all pairs of neighbours in a line, those that came before
    repeated_characters: float  # of all characters, those that came before in the same poem


def gaps(line: str) -> list[str]:
    """The line with a gap in each of its places; one that differs in a place shares that gap.

    >>> gaps("白日依")
    [' 日依', '白 依', '白日 ']
    """
    return [f"{line[:i]} {line[i + 1 :]}" for i in range(len(line))]


def novelty(text: str, known: Known) -> float:
    """The share of the lines of a text that `known` has nothing like; 0 for a text without lines.

    >>> novelty("白日依山盡，黃河入海流。", Known(["紅日依山盡"]))
    0.5
    """
    lines = split(text)
    return sum(not known.has_like(line) for line in lines) / max(len(lines), 1)


def novelty_reward(completions: list[str], *, known: Known, **columns: Any) -> list[float]:
    """The novelty of each text, in the signature of TRL's reward functions once `known` is given.

    >>> from functools import partial
    >>> reward = partial(novelty_reward, known=Known(["紅日依山盡"]))
    >>> reward(["白日依山盡，黃河入海流。"], form=["五絕"], rhyme=["尤"])
    [0.5]
    """
    return [novelty(text, known) for text in completions]


def diversity(texts: Sequence[str]) -> Diversity:
    """How varied some texts are together; a text without lines does not count.

    >>> diversity(["白日依山盡，黃河入海流。", "白日依山盡，長河落日圓。"]).repeated_lines
    0.25
    """
    poems = [lines for text in texts if (lines := split(text))]
    lines = [line for poem in poems for line in poem]
    pairs = [pair for line in lines for pair in pairwise(line)]
    within = [character for poem in poems for character in set("".join(poem))]
    return Diversity(
        len(set(within)),
        _repeated(lines, len(set(lines))),
        _repeated(pairs, len(set(pairs))),
        _repeated("".join(lines), len(within)),
    )


def diversity_reward(completions: list[str], **columns: Any) -> list[float]:
    """How much of each text the others of the batch do not have, in the signature of TRL.

    The mean over the pairs of neighbours in its lines: 1 for a pair that is in this text alone, 1/n
    for one in n texts, 0 where the text itself had it before.

        >>> diversity_reward(["白日依山盡，黃河入海流。"] * 2)
        [0.5, 0.5]
    """
    poems = [[pair for line in split(text) for pair in pairwise(line)] for text in completions]
    texts = Counter(pair for poem in poems for pair in set(poem))
    return [sum(1 / texts[pair] for pair in set(poem)) / max(len(poem), 1) for poem in poems]


def _repeated(items: Sequence[Any], different: int) -> float:
    return 1 - different / len(items) if items else 0.0
