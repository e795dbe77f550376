"""verse: known poems that keep and break each rule, ways to cheat, and bad input."""

import subprocess
import sys

import pytest

from dsnotes.data.poems import FORMS, RHYMES, quatrains, readings
from dsnotes.rl.verse import (
    LEVEL,
    MAX_JOKERS,
    OBLIQUE,
    Verdict,
    judge,
    pattern,
    rhyme_places,
    rhymes,
    split,
    tone_places,
    tones,
    verse_reward,
)

KEPT = {  # regulated quatrains of the anthologies, with their rhyme group
    "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。": "尤",
    "紅豆生南國，春來發幾枝。願君多採擷，此物最相思。": "支",
    "功蓋三分國，名成八陣圖。江流石不轉，遺恨失吞吳。": "虞",
    "鳴箏金粟柱，素手玉房前。欲得周郎顧，時時誤拂弦。": "先",
    "朝辭白帝彩雲間，千里江陵一日還。兩岸猿聲啼不住，輕舟已過萬重山。": "刪",
    "兩個黃鸝鳴翠柳，一行白鷺上青天。窗含西嶺千秋雪，門泊東吳萬里船。": "先",
    "月落烏啼霜滿天，江楓漁火對愁眠。姑蘇城外寒山寺，夜半鐘聲到客船。": "先",
}
POEM = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"


def judged(text: str, rhyme: str = "尤") -> Verdict:
    lines = split(text)
    return judge(text, form="七" if lines and len(lines[0]) == 7 else "五", rhyme=rhyme)


def broken(text: str, rhyme: str) -> str:
    """The characters in places whose tone is prescribed and not kept."""
    lines = split(text)
    assert lines is not None
    return "".join(lines[i][j] for i, j, fits in tone_places(lines, rhyme) if not fits)


# --- poems that keep the rules ---


@pytest.mark.parametrize(("text", "rhyme"), KEPT.items())
def test_regulated_quatrains_keep_all_rules(text: str, rhyme: str) -> None:
    verdict = judged(text, rhyme)
    assert verdict == Verdict(True, 1.0, 1.0)
    assert verdict.keeps_all_rules
    assert verdict.reward == 1.0


def test_the_two_patterns_are_each_others_opposite() -> None:
    """對 within a couplet, 粘 between the two, and the even places of a line alternate."""
    for length in FORMS.values():
        for first in (LEVEL, OBLIQUE):
            tone = {(i, j): t for i, j, t in pattern(length, first)}
            assert len(tone) == 4 * ((length - 1) // 2)
            assert tone[0, 1] == tone[3, 1] == first
            assert tone[1, 1] == tone[2, 1] != first
            assert all(tone[i, j] != tone[i, j + 2] for i, j in tone if (i, j + 2) in tone)


# --- poems that break one ---


def test_old_style_poems_break_the_tones() -> None:
    """靜夜思 and 渭城曲: the classic examples of a broken pattern and of a lost 粘."""
    moon = "床前明月光，疑是地上霜。舉頭望明月，低頭思故鄉。"
    assert broken(moon, "陽") == "上頭"
    assert judged(moon, "陽").rhyme == 1
    city = "渭城朝雨浥輕塵，客舍青青柳色新。勸君更盡一杯酒，西出陽關無故人。"
    assert broken(city, "真") == "君盡杯出關故"  # the second couplet begins the other way


def test_one_wrong_place_costs_its_share() -> None:
    """楓 for 日 in a place that must be oblique: one of ten."""
    assert judged(POEM.replace("白日", "白楓")) == Verdict(True, 1.0, 0.9)
    assert judged(POEM.replace("白日", "楓日")) == Verdict(True, 1.0, 1.0)  # an odd place is free


def test_lines_one_and_three_end_oblique_unless_the_first_rhymes() -> None:
    assert broken(POEM.replace("千里目", "千里山"), "尤") == "山"
    assert broken(POEM.replace("依山盡", "依山東"), "尤") == "東"
    assert broken(POEM.replace("依山盡", "依山秋"), "尤") == ""


def test_each_rhyming_place_is_half_of_the_rhyme() -> None:
    assert judged(POEM, "東").rhyme == 0
    assert judged(POEM.replace("海流", "海東")).rhyme == 0.5
    assert judged(POEM.replace("層樓", "層東")).rhyme == 0.5
    assert judged(POEM, "東").reward == pytest.approx(0.6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        POEM[:-1],
        POEM + "。",
        POEM.replace("，", ""),
        POEM.replace("，", ","),
        POEM.replace("盡", ""),
        POEM.replace("盡", "x"),
        POEM.replace("白日", "白日日"),
        "日，流。目，樓。",
        "白日依山盡，黃河入海流。",
    ],
)
def test_a_text_without_the_form_earns_nothing(text: str) -> None:
    assert split(text) is None
    assert judged(text) == Verdict(False, 0.0, 0.0)
    assert judged(text).reward == 0


def test_a_poem_of_the_other_form_earns_nothing() -> None:
    assert judge(POEM, form="七", rhyme="尤").reward == 0


# --- ways to cheat ---


def test_a_rhyme_word_counts_once() -> None:
    twice = POEM.replace("層樓", "層流")
    assert judged(twice).rhyme == 0.5
    first_too = POEM.replace("山盡", "山流")
    assert judged(first_too).rhyme == 0.5
    assert rhyme_places(["山流", "河流", "山里", "山流"], "尤") == (False, False)


def test_a_line_must_not_come_twice() -> None:
    assert judged("白日依山盡，黃河入海流。白日依山盡，更上一層樓。").reward == 0


def test_characters_of_two_tones_are_not_jokers_without_end() -> None:
    joker = "看"
    assert tones(joker) == LEVEL + OBLIQUE
    two = POEM.replace("白日", "白" + joker).replace("黃河", "黃" + joker)
    assert MAX_JOKERS == 2
    assert judged(two).tones == 1
    three = two.replace("欲窮", "欲" + joker)
    assert judged(three).tones == 0.9
    assert judged("看看看看看，看看看看流。看看看看盡，看看看看樓。").tones < 0.5


def test_poets_seldom_need_more_jokers() -> None:
    kept = [p.lines for p in quatrains() if judged(p.text, p.rhyme).rhyme == 1]
    many = sum(
        sum(len(tones(lines[i][j])) == 2 for i, j, _ in tone_places(lines, "")) > MAX_JOKERS
        for lines in kept
    )
    assert many / len(kept) < 0.02


def test_an_oblique_reading_does_not_rhyme() -> None:
    """不 has a level reading in the table of the package, which poets do not use."""
    assert (tones("不"), rhymes("不")) == (OBLIQUE, "")
    assert rhymes("看") == "寒"


# --- the table, and bad input ---


@pytest.mark.parametrize(
    ("characters", "tone"),
    [
        ("東風山河天流中三空", LEVEL),
        ("白日月不夢上一國雪", OBLIQUE),
        ("看過思重長", LEVEL + OBLIQUE),
    ],
)
def test_well_known_tones(characters: str, tone: str) -> None:
    assert {tones(c) for c in characters} == {tone}


def test_what_has_no_tone_fits_nowhere() -> None:
    assert tones("x") == tones("㐂") == ""
    assert "㐂" not in readings()
    assert judged(POEM.replace("白日", "白㐂")).tones == 0.9
    assert judged(POEM.replace("層樓", "層㐂")).rhyme == 0.5


@pytest.mark.parametrize("form", ["", "六", "五七", "5"])
def test_a_form_that_does_not_exist_is_named(form: str) -> None:
    with pytest.raises(ValueError, match=rf"form must be one of \['五', '七'\], got '{form}'"):
        judge(POEM, form=form, rhyme="尤")


@pytest.mark.parametrize("rhyme", ["", "天", "東冬", OBLIQUE])
def test_a_group_that_does_not_exist_is_named(rhyme: str) -> None:
    with pytest.raises(
        ValueError, match=f"rhyme must be one of the groups {RHYMES}, got '{rhyme}'"
    ):
        judge(POEM, form="五", rhyme=rhyme)


def test_the_reward_takes_columns_as_trl_gives_them() -> None:
    found = verse_reward([POEM, POEM, ""], form=["五"] * 3, rhyme=["尤", "東", "尤"], other=[1] * 3)
    assert found == pytest.approx([1.0, 0.6, 0.0])
    with pytest.raises(ValueError, match="rhyme must be a list, one per completion"):
        verse_reward([POEM], form=["五"], rhyme=["尤", "尤"])


def test_the_rules_need_no_torch() -> None:
    code = "import sys, dsnotes.rl.verse, dsnotes.data.poems; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
