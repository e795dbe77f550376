"""The exercises of the page on the rules of verse, solved with the library."""

import csv
from pathlib import Path

import pytest

from dsnotes.rl.novelty import diversity_reward
from dsnotes.rl.regulated import breaches, split
from dsnotes.rl.verse import rhymes, tones

from .notebook import NOTEBOOKS, answers
from .page import exercise, solution

PATH = NOTEBOOKS / "verse.ipynb"
with (Path(__file__).parents[1] / "data" / "verses.csv").open(encoding="utf8") as file:
    POEMS = list(csv.DictReader(file))


def solved(label: str) -> dict:
    names: dict = {}
    exec(answers(PATH)[label].right, names)
    return names


def test_verse_1() -> None:
    (poem,) = [row for row in POEMS if row["title"] == "渭城曲"]
    assert f"“{poem['text']}”" in exercise("verse-1")
    lines, found = split(poem["text"]), solved("verse-1")
    assert found["second"] == "".join(tones(line[1]) for line in lines)
    assert found["second"] in solution("verse-1")
    assert "、".join(line[1] for line in lines[:-1]) in solution("verse-1")
    (breach,) = breaches(lines, poem["rhyme"])
    assert (breach.rule, breach.line) == ("nian", found["line"] - 1)


def test_verse_2() -> None:
    """On every known poem as the library finds it."""
    repeated = solved("verse-2")["repeated"]
    again = 0
    for poem in POEMS:
        lines = split(poem["text"])
        expected = [b.line + 1 for b in breaches(lines, poem["rhyme"]) if b.rule == "words"]
        first = poem["rhyme"] in rhymes(lines[0][-1])
        assert repeated("".join(line[-1] for line in lines), first) == expected
        again += len(expected)
    assert again >= 3


def test_verse_3() -> None:
    same, other = "白日依山盡，黃河入海流。", "向晚意不適，驅車登古原。"
    found = diversity_reward([same] * 7 + [other])
    answer = solved("verse-3")
    assert found == pytest.approx([answer["same"]] * 7 + [answer["other"]])
    assert "七分之一" in solution("verse-3")
