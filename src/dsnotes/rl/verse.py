"""The rules of the regulated quatrain (絕句), as checks and as a reward between 0 and 1.

A quatrain has four lines of five or seven characters. Each character has a tone, level (平) or
oblique (仄), and the level ones belong to thirty rhyme groups (平水韻). A program can therefore say
of any text whether it keeps the rules, though not whether it is a good poem.

Rules
    form    four different lines of five or seven Han characters, with ， and 。 in turn
    rhyme   lines 2 and 4 end in the group asked for; line 1 may. No rhyme word occurs twice
    tones   the even places of a line alternate; the second line of a couplet is the opposite of
            the first (對), and the third line begins as the second (粘). Lines 1 and 3 end oblique,
            unless line 1 rhymes. The two patterns follow from the tone of the second character

Departures and open points
    - Odd places are free (一三五不論): a lone level tone (孤平), three equal tones at the end of a
      line and the patterns that make up for a broken one (拗救) are not looked at. Poets allow more
      than these rules here and less there: of the quatrains that rhyme, 58 in 100 of those of
      five characters a line keep all of them, and 70 in 100 of those of seven.
    - Some eighty characters of the quatrains have both tones in use (看, 過, 思) and fit either.
      Which they are was decided once, from the corpus (`data/README.md`); the others of two
      readings have the one that poets use. A policy could still write with these jokers alone, so
      that at most `MAX_JOKERS` of a poem count as fitting.
    - A character that the table does not know has no tone, fits nowhere and rhymes with nothing.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from dsnotes.data.poems import FORMS, OBLIQUE, asked_for, readings
from dsnotes.rl.answers import HAN

LEVEL = "平"
MAX_JOKERS = 2
WEIGHTS = {"form": 0.2, "rhyme": 0.4, "tones": 0.4}
_TEXT = re.compile(rf"([{HAN}]+)，([{HAN}]+)。([{HAN}]+)，([{HAN}]+)。")


class Verdict(NamedTuple):
    """How far a text keeps the rules: form is kept or not, the others are shares from 0 to 1."""

    form: bool
    rhyme: float  # of the two rhyming places
    tones: float  # of the places whose tone is prescribed

    @property
    def keeps_all_rules(self) -> bool:
        return self.form and self.rhyme == 1 and self.tones == 1

    @property
    def reward(self) -> float:
        """The weighted sum by `WEIGHTS`; 0 for a text without the form."""
        parts = self.form, self.rhyme, self.tones
        return sum(weight * part for weight, part in zip(WEIGHTS.values(), parts, strict=True))


def tones(character: str) -> str:
    """The tones of a character: 平, 仄, both, or none where the table does not know it.

    >>> [tones(c) for c in "東不看x"]
    ['平', '仄', '平仄', '']
    """
    found = readings().get(character, "")
    level = LEVEL if set(found) - {OBLIQUE} else ""
    return level + (OBLIQUE if OBLIQUE in found else "")


def rhymes(character: str) -> str:
    """The level rhyme groups of a character; none for an oblique one, which does not rhyme.

    >>> rhymes("流"), rhymes("不")
    ('尤', '')
    """
    return readings().get(character, "").replace(OBLIQUE, "")


def pattern(length: int, first: str) -> list[tuple[int, int, str]]:
    """The prescribed tones (line, place, tone) of a quatrain whose second character is `first`.

    Lines and places count from 0. The ends of lines 1 and 3 are not among them.

        >>> pattern(5, "仄")[:4]
        [(0, 1, '仄'), (0, 3, '平'), (1, 1, '平'), (1, 3, '仄')]
    """
    other = LEVEL if first == OBLIQUE else OBLIQUE
    return [
        (line, place, (start, opposite)[place // 2 % 2])
        for line, (start, opposite) in enumerate(
            [(first, other), (other, first), (other, first), (first, other)]
        )
        for place in range(1, length - 1, 2)
    ]


def split(text: str) -> list[str] | None:
    """The four lines of a text that has the form, else None.

    >>> split("白日依山盡，黃河入海流。欲窮千里目，更上一層樓。")[3]
    '更上一層樓'
    """
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    lines = list(found.groups())
    lengths = {len(line) for line in lines}
    one_length = len(lengths) == 1 and lengths <= set(FORMS.values())
    return lines if one_length and len(set(lines)) == 4 else None


def tone_places(lines: Sequence[str], rhyme: str) -> list[tuple[int, int, bool]]:
    """Every place with a prescribed tone (line, place, fits), by the pattern that fits better.

    >>> poem = ["白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓"]
    >>> sum(fits for _, _, fits in tone_places(poem, "尤")), len(tone_places(poem, "尤"))
    (10, 10)
    """
    length = len(lines[0])
    ends = [(2, length - 1, OBLIQUE)]
    if rhyme not in rhymes(lines[0][-1]):
        ends.insert(0, (0, length - 1, OBLIQUE))
    candidates = []
    for first in (LEVEL, OBLIQUE):
        places, jokers = [], 0
        for line, place, tone in pattern(length, first) + ends:
            found = tones(lines[line][place])
            jokers += len(found) == 2
            places.append((line, place, tone in found and (len(found) < 2 or jokers <= MAX_JOKERS)))
        candidates.append(places)
    return max(candidates, key=lambda places: sum(fits for _, _, fits in places))


def rhyme_places(lines: Sequence[str], rhyme: str) -> tuple[bool, bool]:
    """Whether lines 2 and 4 end in the group `rhyme`, with a word that no rhyme before had.

    >>> rhyme_places(["去去復來來", "今年春又來", "不知何處去", "昨夜一枝開"], "灰")
    (False, True)
    """
    words = [lines[line][-1] for line in (0, 1, 3)]
    second, fourth = (
        rhyme in rhymes(word) and word not in words[:i] for i, word in enumerate(words) if i
    )
    return second, fourth


def judge(text: str, *, form: str, rhyme: str) -> Verdict:
    """Judge a text as a quatrain of the `form` 五 or 七 in a rhyme group; see the module.

    ValueError for another form or group.

        >>> judge("白日依山盡，黃河入海流。欲窮千里目，更上一層樓。", form="五", rhyme="尤")
        Verdict(form=True, rhyme=1.0, tones=1.0)
    """
    asked_for(form, rhyme)
    lines = split(text)
    if lines is None or len(lines[0]) != FORMS[form]:
        return Verdict(False, 0.0, 0.0)
    kept = [fits for _, _, fits in tone_places(lines, rhyme)]
    return Verdict(True, sum(rhyme_places(lines, rhyme)) / 2, sum(kept) / len(kept))


def verse_reward(
    completions: list[str], form: list[str], rhyme: list[str], **columns: Any
) -> list[float]:
    """The reward of each text, in the signature of TRL's reward functions; see `judge`.

    >>> poem = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
    >>> [round(r, 2) for r in verse_reward([poem, poem], form=["五", "五"], rhyme=["尤", "東"])]
    [1.0, 0.6]
    """
    return [judge(t, form=f, rhyme=r).reward for t, f, r in asked(completions, form, rhyme)]


def asked(
    completions: Sequence[str], form: Sequence[str], rhyme: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Each text with the form and the rhyme group that it was asked for.

    ValueError unless there are as many of each.

        >>> asked(["白日"], ["五"], [])
        Traceback (most recent call last):
        ValueError: rhyme must be a list, one per completion (1), got 0
    """
    for name, column in {"form": form, "rhyme": rhyme}.items():
        if len(column) != len(completions):
            raise ValueError(
                f"{name} must be a list, one per completion ({len(completions)}), got {len(column)}"
            )
    return list(zip(completions, form, rhyme, strict=True))
