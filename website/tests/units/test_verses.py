"""Poems before and after: what is marked, what the rules say, what is shown without scripts."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "extensions"))
from dsbook.verses import marked, verdict

BROKEN = "楊柳更鮮芰，桂叢旋鳴絃。天開不一體，殘暑探春風。"  # the second line is turned round
NOT_A_POEM = "楊柳更鮮芰，絃鳴旋桂叢。"


def test_rhymes_and_broken_tones_are_marked():
    lines = marked(BROKEN, "東").split("<br>")
    assert [line.endswith("</b>。") for line in lines] == [False, False, False, True]
    assert "<i>" in marked(BROKEN, "東")


def test_another_rhyme_group_marks_no_rhyme():
    assert "<b>" not in marked(BROKEN, "尤")


def test_what_is_no_quatrain_is_shown_as_it_is():
    assert marked("<東>", "東") == "&lt;東&gt;"
    assert verdict(NOT_A_POEM, "東") == "不成绝句"


def test_the_verdict_names_what_is_wrong():
    assert verdict("白日依山盡，黃河入海流。欲窮千里目，更上一層樓。", "東") == "不押韵"
    assert verdict(BROKEN, "東") == "一处不押韵，平仄有误"
