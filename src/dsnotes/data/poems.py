"""Regulated quatrains (絕句) and the table of tones and rhymes that they are judged by.

The characters are traditional, as in the table: one simplified character can stand for two of
different rhyme. `experiments/prepare_poems.py` has made both files; source and licence are in
`README.md`, and so are the decisions about characters with two tones.
"""

import zlib
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from typing import NamedTuple

RHYMES = "東冬江支微魚虞齊佳灰真文元寒刪先蕭肴豪歌麻陽庚青蒸尤侵覃鹽咸"  # 平水韻, level groups
OBLIQUE = "仄"
FORMS = {"五": 5, "七": 7}  # characters a line
VERSE_FORMS = {
    "五絕": (4, 5),
    "七絕": (4, 7),
    "五律": (8, 5),
    "七律": (8, 7),
}  # lines of characters
_HELD_OUT_OF = 10


class Poem(NamedTuple):
    """Four lines without punctuation, and the rhyme group that the second and fourth end in."""

    rhyme: str
    lines: tuple[str, ...]

    @property
    def form(self) -> str:
        """五 or 七, by the length of the first line."""
        return next(name for name, length in FORMS.items() if length == len(self.lines[0]))

    @property
    def text(self) -> str:
        """The poem as it is printed: two sentences of two lines each."""
        return punctuated(self.lines)


def asked_for(form: str, rhyme: str, *, forms: Collection[str] = FORMS) -> None:
    """ValueError unless the form is one of `forms`, and there is such a rhyme group.

    >>> asked_for("五", "冬瓜")
    Traceback (most recent call last):
    ValueError: rhyme must be one of the groups 東冬江...咸, got '冬瓜'
    """
    if form not in forms:
        raise ValueError(f"form must be one of {list(forms)}, got {form!r}")
    if len(rhyme) != 1 or rhyme not in RHYMES:
        raise ValueError(f"rhyme must be one of the groups {RHYMES}, got {rhyme!r}")


def punctuated(lines: tuple[str, ...]) -> str:
    """The lines with a comma and a full stop after them in turn.

    >>> punctuated(("白日依山盡", "黃河入海流"))
    '白日依山盡，黃河入海流。'
    """
    return "".join(line + "，。"[i % 2] for i, line in enumerate(lines))


def is_held_out(poem: Poem) -> bool:
    """Whether a poem is one of the tenth that no training sees; a checksum of its text decides.

    >>> is_held_out(Poem("尤", ("白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓")))
    False
    """
    return zlib.crc32("".join(poem.lines).encode()) % _HELD_OUT_OF == 0


@cache
def quatrains(*, held_out: bool = False) -> tuple[Poem, ...]:
    """The five-character quatrains of the package for training, or those that are held out.

    >>> quatrains()[0].rhyme, len(quatrains()) > 5 * len(quatrains(held_out=True))
    ('東', True)
    """
    return tuple(poem for poem in parse(_text("quatrains")) if is_held_out(poem) == held_out)


def parse(text: str) -> list[Poem]:
    """Poems from lines such as `尤 白日依山盡黃河入海流欲窮千里目更上一層樓`.

    ValueError for a line that is none, with its number.

        >>> parse("尤 白日依山盡黃河入海流欲窮千里目更上一層樓")[0].lines[1]
        '黃河入海流'
    """
    poems = []
    for number, row in enumerate(text.splitlines(), 1):
        rhyme, _, body = row.partition(" ")
        length = len(body) // 4
        if rhyme not in RHYMES or len(rhyme) != 1 or length not in FORMS.values() or len(body) % 4:
            raise ValueError(f"line {number} must be a rhyme group and four lines, got {row!r:.40}")
        poems.append(Poem(rhyme, tuple(body[i : i + length] for i in range(0, 4 * length, length))))
    return poems


@cache
def readings() -> dict[str, str]:
    """The readings of each character: its level rhyme groups, and 仄 where it has an oblique one.

    東 is level and nothing else, 不 oblique and nothing else; 看 may be either.

        >>> [readings()[c] for c in "東不看"]
        ['東', '仄', '寒仄']
    """
    found: dict[str, str] = {}
    for row in _text("tones").splitlines():
        name, _, characters = row.partition(" ")
        for character in characters:
            found[character] = found.get(character, "") + name
    return found


def _text(name: str) -> str:
    return files("dsnotes").joinpath("data", f"{name}.txt").read_text(encoding="utf-8")
