"""Regulated verse (近體詩) and the table of tones and rhymes that it is judged by.

`quatrains` are those of five characters a line; `verses` are they and three more forms, each with
its title where there is one. The characters are traditional, as in the table: one simplified
character can stand for two of different rhyme. `experiments/prepare_poems.py` has made the files;
source and licence are in `README.md`, and so are the decisions about characters with two tones.
"""

import os
import zlib
from collections.abc import Collection
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

RHYMES = "東冬江支微魚虞齊佳灰真文元寒刪先蕭肴豪歌麻陽庚青蒸尤侵覃鹽咸"  # 平水韻, level groups
OBLIQUE = "仄"
FORMS = {"五": 5, "七": 7}  # characters a line
TITLE_LENGTH = 12  # characters, at most
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


class Verse(NamedTuple):
    """A poem in one of `VERSE_FORMS`: lines without punctuation, the rhyme group of the even ones.

    >>> Verse("尤", ("白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓"), "登鸛雀樓").form
    '五絕'
    """

    rhyme: str
    lines: tuple[str, ...]
    title: str = ""  # empty where there is none

    @property
    def form(self) -> str:
        """One of `VERSE_FORMS`, by the number of lines and the length of the first."""
        size = len(self.lines), len(self.lines[0])
        return next(name for name, form in VERSE_FORMS.items() if form == size)

    @property
    def text(self) -> str:
        """The poem as it is printed, without its title."""
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


def is_held_out(poem: Poem | Verse) -> bool:
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
def verses(
    path: str | os.PathLike[str] | None = None, *, held_out: bool = False
) -> tuple[Verse, ...]:
    """The poems of four forms for training, or those that are held out.

    Those of the package are `quatrains` and some of each other form. `path` may name the larger
    `verses.txt` that `experiments/prepare_poems.py --full` writes; the same poems are held out of
    both. OSError or ValueError for a file that is not there or is none.

        >>> {form: sum(v.form == form for v in verses()) for form in VERSE_FORMS}
        {'五絕': 6717, '七絕': 2697, '五律': 1794, '七律': 1360}
        >>> len(verses(held_out=True)), verses(held_out=True)[-1].title
        (1412, '友人山房')
    """
    if path is None:
        titles = _text("titles").splitlines()
        rows = zip(parse(_text("quatrains")), titles, strict=True)
        found = [Verse(poem.rhyme, poem.lines, title) for poem, title in rows]
        found += parse_verses(_text("verses"))
    else:
        found = parse_verses(Path(path).read_text(encoding="utf-8"))
    return tuple(verse for verse in found if is_held_out(verse) == held_out)


def parse_verses(text: str) -> list[Verse]:
    """Poems from lines such as `尤 白日依山盡黃河入海流欲窮千里目更上一層樓 登鸛雀樓`.

    The title may be missing. ValueError for a line that is none, with its number.

        >>> parse_verses("尤 白日依山盡黃河入海流欲窮千里目更上一層樓 登鸛雀樓")[0].title
        '登鸛雀樓'
    """
    sizes = {count * length: length for count, length in VERSE_FORMS.values()}
    found = []
    for number, row in enumerate(text.splitlines(), 1):
        rhyme, body, title = [*row.split(" "), "", ""][:3] if row.count(" ") < 3 else ("",) * 3
        length = sizes.get(len(body), 0)
        if len(rhyme) != 1 or rhyme not in RHYMES or not length or len(title) > TITLE_LENGTH:
            raise ValueError(
                f"line {number} must be a rhyme group, the lines of a form and perhaps a title, "
                f"got {row!r:.40}"
            )
        lines = tuple(body[i : i + length] for i in range(0, len(body), length))
        found.append(Verse(rhyme, lines, title))
    return found


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
