"""The rules of regulated verse (近體詩) in four forms; each can be left out, to see what it held.

`dsnotes.rl.verse` judges a quatrain by form, rhyme and tones. Here a poem has four or eight lines,
a broken pattern of tones is told apart by what broke, and a reward can do without any one rule:
what a policy then does with it is the lesson.

Rules
    form         as many lines, and characters a line, as the form has; ， and 。 in turn
    lines        no line is like an earlier one, in all places or in all but one
    rhyme        the even lines end in the group asked for (押韻); line 1 may
    words        no rhyme word comes twice (重韻)
    ends         the odd lines end oblique, unless line 1 rhymes
    alternation  the even places of a line alternate (二四六分明)
    dui          the second places of the two lines of a couplet are opposite (失對)
    nian         a couplet begins as the one before it ended, at the second place (失粘)
    guping       no line ends in 仄平仄仄平: its first level tone would stand alone (孤平)
    sanping      no line ends in three level tones (三平尾)
    jokers       of the places whose tone is prescribed, one a couplet may have a character of two

Departures and open points
    - These are conventions of handbooks; that of guping is Wang Li's (王力, 《詩詞格律》 2 §3.4).
    - What broke is told by the pattern that breaks least, alternation being given up last.
    - Places 1, 3 and 5 are free but for guping and sanping (一三五不論). Three oblique tones at the
      end, parallel couplets (對仗), words that come twice and the meaning are not looked at.
    - One way to make up for a broken tone (拗救) is accepted, since poets use it as freely as the
      pattern: 平平仄平仄 for 平平平仄仄. Making up for it in the next line is not.
    - Line 1 must rhyme in the group or not at all: a group beside it (借韻) breaks `ends`.
    - A character of two tones, decided as in `data/README.md`, keeps every rule that one of its
      tones keeps, but for jokers. One that the table does not know fits nowhere.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from dsnotes.data.poems import OBLIQUE, VERSE_FORMS, asked_for
from dsnotes.rl.answers import HAN
from dsnotes.rl.verse import LEVEL, asked, rhymes, tones

# what a rule adds to the reward of a poem that keeps it; the order is that of the module
WEIGHTS = {
    "form": 0.15,
    "lines": 0.05,
    "rhyme": 0.25,
    "words": 0.05,
    "ends": 0.05,
    "alternation": 0.15,
    "dui": 0.05,
    "nian": 0.05,
    "guping": 0.05,
    "sanping": 0.05,
    "jokers": 0.1,
}
_MADE_UP_FOR = "平平仄平仄"
_COUPLETS = re.compile(rf"(?:[{HAN}]+，[{HAN}]+。)+")
_LINE = re.compile(rf"[{HAN}]+")


class Breach(NamedTuple):
    """A place where a rule is broken; lines and places count from 0."""

    rule: str
    line: int
    place: int


class Verdict(NamedTuple):
    """How far a text keeps each of the rules asked for, from 0 to 1; all 0 without the form."""

    shares: dict[str, float]

    @property
    def keeps_all_rules(self) -> bool:
        return not self.broken

    @property
    def broken(self) -> tuple[str, ...]:
        """The rules that are not kept altogether."""
        return tuple(rule for rule, share in self.shares.items() if share < 1)

    def reward(self, weights: Mapping[str, float] = WEIGHTS) -> float:
        """The mean of the shares, weighted; ValueError if none of them has a weight."""
        total = sum(weights.get(rule, 0) for rule in self.shares)
        if not total > 0:
            raise ValueError(f"weights must weigh one of {list(self.shares)}, got {weights}")
        return sum(weights.get(rule, 0) * share for rule, share in self.shares.items()) / total


def split(text: str) -> list[str]:
    """The lines of a text, with ， and 。 in turn after them; none for anything else.

    >>> split("白日依山盡，黃河入海流。"), split("白日依山盡，黃河")
    (['白日依山盡', '黃河入海流'], [])
    """
    return _LINE.findall(text) if _COUPLETS.fullmatch(text) else []


def alike(line: str, other: str) -> bool:
    """Whether two lines of one length differ in one place at most.

    >>> alike("不知何處去", "不知何處是"), alike("不知何處去", "不見何人去")
    (True, False)
    """
    same = sum(a == b for a, b in zip(line, other, strict=False))
    return len(line) == len(other) and same >= len(line) - 1


def breaches(lines: Sequence[str], rhyme: str) -> list[Breach]:
    """Every place of some lines that breaks a rule, `form` apart, in the order of the rules.

    >>> breaches(["渭城朝雨浥輕塵", "客舍青青柳色新", "勸君更盡一杯酒", "西出陽關無故人"], "真")
    [Breach(rule='nian', line=2, place=1)]
    """
    even, ends, last = range(1, len(lines), 2), [x[-1] for x in lines], [len(x) - 1 for x in lines]
    rows = [[tones(character) for character in line] for line in lines]
    for i in (0, *even):
        if rhyme in rhymes(ends[i]):
            rows[i][-1] = LEVEL  # a rhyme word is read as it rhymes
    closed = [i for i in range(0, len(lines), 2) if i or rhyme not in rhymes(ends[0])]
    starts = _starts(rows)
    found = [
        Breach("lines", i, 0)
        for i, line in enumerate(lines)
        if any(alike(line, other) for other in lines[:i])
    ]
    found += [Breach("rhyme", i, last[i]) for i in even if rhyme not in rhymes(ends[i])]
    found += [Breach("words", i, last[i]) for i in even if ends[i] in [ends[0], *ends[1:i:2]]]
    found += [Breach("ends", i, last[i]) for i in closed if OBLIQUE not in rows[i][-1]]
    found += [
        Breach("alternation", i, place)
        for i, row in enumerate(rows)
        for place in _misfits(row, starts[i], odd=i % 2 == 0)
    ]
    found += [Breach("dui", i, 1) for i in even if starts[i] == starts[i - 1]]
    found += [Breach("nian", i, 1) for i in range(2, len(lines), 2) if starts[i] != starts[i - 1]]
    found += [Breach("guping", i, last[i] - 3) for i, row in enumerate(rows) if _is_guping(row)]
    found += [
        Breach("sanping", i, last[i] - 2) for i, row in enumerate(rows) if row[-3:] == [LEVEL] * 3
    ]
    bound = [(i, place) for i, end in enumerate(last) for place in range(1, end, 2)]
    bound += [(i, last[i]) for i in closed]
    jokers = [(i, place) for i, place in sorted(bound) if len(rows[i][place]) == 2]
    return found + [Breach("jokers", *place) for place in jokers[len(even) :]]


def judge(text: str, *, form: str, rhyme: str, without: Collection[str] = ()) -> Verdict:
    """Judge a text as a poem of a form (五絕, 七絕, 五律, 七律) in a rhyme group; see the module.

    The rules named in `without` are not asked for. Where `form` is one of them, the text may have
    any lines, two at least. ValueError for another form, group or rule.

        >>> poem = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
        >>> judge(poem, form="五絕", rhyme="東").broken
        ('rhyme',)
    """
    asked_for(form, rhyme, forms=VERSE_FORMS)
    if unknown := [rule for rule in without if rule not in WEIGHTS]:
        raise ValueError(f"without must hold rules of {list(WEIGHTS)}, got {unknown[0]!r}")
    if not (rules := [rule for rule in WEIGHTS if rule not in without]):
        raise ValueError("without must leave one rule, got all of them")
    count, length = VERSE_FORMS[form]
    lines = _LINE.findall(text) if "form" in without else split(text)
    right = len(lines) == count and all(len(line) == length for line in lines)
    if len(lines) < 2 or ("form" in rules and not right):
        return Verdict(dict.fromkeys(rules, 0.0))
    broken = [breach.rule for breach in _breaches(tuple(lines), rhyme)]
    places = _places(len(lines), len(lines[0]))
    return Verdict({r: 1 - broken.count(r) / max(places[r], broken.count(r), 1) for r in rules})


def regulated_reward(
    completions: list[str],
    form: list[str],
    rhyme: list[str],
    *,
    without: Collection[str] = (),
    weights: Mapping[str, float] = WEIGHTS,
    **columns: Any,
) -> list[float]:
    """The reward of each text, in the signature of TRL's reward functions; see `judge`.

    >>> poem = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
    >>> [round(r, 2) for r in regulated_reward([poem] * 2, form=["五絕"] * 2, rhyme=["尤", "東"])]
    [1.0, 0.75]
    """
    rows = asked(completions, form, rhyme)
    return [judge(t, form=f, rhyme=r, without=without).reward(weights) for t, f, r in rows]


_breaches = lru_cache(maxsize=1 << 13)(breaches)  # terms of a reward ask for the same poems


def _places(count: int, length: int) -> dict[str, int]:
    """How often `count` lines of `length` characters can break a rule."""
    couplets, bound = count // 2, count * ((length - 1) // 2)
    return {
        "form": 1,
        "lines": count - 1,
        "rhyme": couplets,
        "words": couplets,
        "ends": couplets,
        "alternation": bound,
        "dui": couplets,
        "nian": couplets - 1,
        "guping": count,
        "sanping": count,
        "jokers": bound,
    }


def _misfits(row: Sequence[str], start: str, *, odd: bool) -> list[int]:
    """The even places of a line that do not alternate from the tone `start` of the second place."""
    other = LEVEL if start == OBLIQUE else OBLIQUE
    found = [
        place
        for place in range(1, len(row) - 1, 2)
        if (start, other)[place // 2 % 2] not in row[place]
    ]
    tail = row[-len(_MADE_UP_FOR) :]
    made_up_for = len(tail) == len(_MADE_UP_FOR) and all(
        tone in place for tone, place in zip(_MADE_UP_FOR, tail, strict=True)
    )
    return [] if odd and made_up_for and found == [len(row) - 2] else found


def _starts(rows: Sequence[Sequence[str]]) -> str:
    """The tone of the second place of every line, by the pattern that breaks least."""
    best = {"": (0, 0, "")}  # breaches, those of alternation, and the tones so far
    for i, row in enumerate(rows):
        own = {tone: len(_misfits(row, tone, odd=i % 2 == 0)) for tone in (LEVEL, OBLIQUE)}
        best = {
            tone: min(
                (
                    total + own[tone] + (i > 0 and (tone == before) == i % 2),
                    inside + own[tone],
                    path,
                )
                for before, (total, inside, path) in best.items()
            )
            for tone in own
        }
        best = {tone: (a, b, path + tone) for tone, (a, b, path) in best.items()}
    return min(best.values())[2]


def _is_guping(row: Sequence[str]) -> bool:
    """仄平仄仄平 at the end of a line: the tones have no other reading, but for the lone 平."""
    oblique = row[-5:-4] == row[-3:-2] == row[-2:-1] == [OBLIQUE]
    return oblique and LEVEL in row[-4] and LEVEL in row[-1]
