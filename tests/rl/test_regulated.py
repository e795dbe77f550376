"""regulated: known poems that keep all rules or break one, ways to cheat, bad input."""

import csv
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from dsnotes.data.poems import RHYMES, VERSE_FORMS, quatrains
from dsnotes.rl import verse
from dsnotes.rl.regulated import (
    WEIGHTS,
    Breach,
    alike,
    breaches,
    judge,
    regulated_reward,
    split,
)

RULES = list(WEIGHTS)
with (Path(__file__).parents[1] / "data" / "verses.csv").open(encoding="utf8") as file:
    POEMS = list(csv.DictReader(file))
KEPT = [poem for poem in POEMS if not poem["breaks"]]
BROKEN = [poem for poem in POEMS if poem["breaks"]]
POEM = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
EIGHT = next(poem["text"] for poem in KEPT if poem["title"] == "春望")


def form_of(text: str) -> str:
    lines = split(text)
    return next(form for form, size in VERSE_FORMS.items() if size == (len(lines), len(lines[0])))


def broken(text: str, rhyme: str = "尤", **options: tuple[str, ...]) -> tuple[str, ...]:
    return judge(text, form=form_of(text), rhyme=rhyme, **options).broken


# --- known poems ---


def known(poem: dict[str, str]) -> str:
    return f"{poem['author']} {poem['title']}"


@pytest.mark.parametrize("poem", KEPT, ids=known)
def test_poems_that_keep_all_rules(poem: dict[str, str]) -> None:
    verdict = judge(poem["text"], form=form_of(poem["text"]), rhyme=poem["rhyme"])
    assert verdict.broken == ()
    assert verdict.keeps_all_rules
    assert list(verdict.shares) == RULES
    assert verdict.reward() == pytest.approx(1.0)
    assert breaches(split(poem["text"]), poem["rhyme"]) == []


@pytest.mark.parametrize("poem", BROKEN, ids=known)
def test_poems_that_break_one_rule(poem: dict[str, str]) -> None:
    text, rhyme, rule = poem["text"], poem["rhyme"], poem["breaks"]
    found = breaches(split(text), rhyme)
    assert [f"{b.line + 1}.{b.place + 1}" for b in found] == poem["places"].split()
    assert broken(text, rhyme) == (rule,)
    assert broken(text, rhyme, without=(rule,)) == ()


def test_every_form_is_among_the_poems_that_keep_all_rules() -> None:
    assert {form_of(poem["text"]) for poem in KEPT} == set(VERSE_FORMS)


def test_every_rule_is_broken_by_three_poems_at_least() -> None:
    """But for the form, which has its own test, and a line that comes twice: no poem of the corpus
    breaks that rule alone."""
    counts = Counter(poem["breaks"] for poem in BROKEN)
    assert set(RULES) - set(counts) == {"form", "lines"}
    assert min(counts.values()) >= 3


def test_two_poems_in_the_old_style() -> None:
    """靜夜思 and 黃鶴樓: places in the one, 三平尾 as well in the other."""
    moon = "床前看月光，疑是地上霜。舉頭望山月，低頭思故鄉。"
    assert broken(moon, "陽") == ("alternation",)
    crane = (
        "昔人已乘白雲去，此地空餘黃鶴樓。黃鶴一去不復返，白雲千載空悠悠。"
        "晴川歷歷漢陽樹，春草萋萋鸚鵡洲。日暮鄉關何處是，煙波江上使人愁。"
    )
    assert broken(crane) == ("alternation", "sanping")


# --- what each rule is ---


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
        POEM + POEM,
        "白日依山盡，黃河入海流。",
        "白日依山盡。黃河入海流，欲窮千里目。更上一層樓，",
        "朝辭白帝彩雲間，千里江陵一日還。兩岸猿聲啼不盡，輕舟已過萬重山。",  # another form
    ],
)
def test_a_text_without_the_form_earns_nothing(text: str) -> None:
    verdict = judge(text, form="五絕", rhyme="尤")
    assert verdict.broken == tuple(RULES)
    assert verdict.reward() == 0


@pytest.mark.parametrize(
    "text",  # 王維 田園樂, 李白 三五七言, 孟郊 遊子吟
    [
        "桃紅復含宿雨，柳綠更帶朝煙。花落家童未埽，鶯啼山客猶眠。",
        "秋風清，秋月明。落葉聚還散，寒鴉棲復驚。相思相見知何日，此時此夜難為情。",
        "慈母手中線，遊子身上衣。臨行密密縫，意恐遲遲歸。誰言寸草心，報得三春暉。",
    ],
)
def test_known_poems_in_no_regulated_form(text: str) -> None:
    assert split(text)
    assert not any(judge(text, form=form, rhyme="先").reward() for form in VERSE_FORMS)


def test_a_line_must_not_come_again_nor_nearly() -> None:
    first, again = "國破山河在", "烽火連三月"
    for other in (first, "國破江河在"):
        assert broken(EIGHT.replace(again, other), "侵") == ("lines",)
        assert broken(EIGHT.replace(again, other), "侵", without=("lines",)) == ()
    assert broken(EIGHT.replace(again, "國破江山在"), "侵") == ()


def test_a_rhyme_word_is_read_as_it_rhymes() -> None:
    """看 is 寒 or oblique; at the end of line 2 it is level, of line 3 oblique."""
    assert broken(POEM.replace("海流", "海看").replace("層樓", "層寒"), "寒") == ()
    assert broken(POEM.replace("里目", "里看")) == ()
    assert broken(POEM.replace("海流", "河看").replace("層樓", "層寒"), "寒") == ("alternation",)
    assert "sanping" in broken(POEM.replace("入海流", "千河看").replace("層樓", "層寒"), "寒")


def test_the_one_broken_tone_that_is_made_up_for() -> None:
    """平平仄平仄 for 平平平仄仄 in an odd line, and nowhere else; 平 comes first then."""
    assert broken(POEM.replace("欲窮千里目", "欲窮目千里")) == ("alternation",)
    assert broken(POEM.replace("欲窮千里目", "誰窮目千里")) == ()
    assert broken(POEM.replace("黃河入海流", "黃河海天流")) == ("alternation",)
    assert broken(POEM.replace("黃河入海流", "黃河入千里")) == ("rhyme", "alternation")


def test_three_tones_of_one_kind_and_a_lone_one() -> None:
    lone = "白日依山盡，山河入海流。欲窮千里目，更上一層樓。"
    assert broken(lone) == ()
    assert broken(lone.replace("山河入海", "白河入海")) == ("guping",)
    assert broken(lone.replace("山河入海", "白河天海")) == ()  # 仄平平仄平
    assert broken("不日依山盡，黃河入海流。不窮入里目，更上一層樓。") == ()  # ends oblique
    assert broken(lone.replace("一層樓", "山層樓")) == ("sanping",)
    assert broken(lone.replace("依山盡", "目不盡")) == ("alternation",)


def test_couplets_that_begin_the_wrong_way_are_told_from_lines_that_do_not_alternate() -> None:
    lines = split(EIGHT)
    swapped = [*lines[2:4], *lines[:2], *lines[4:]]
    assert {b.rule for b in breaches(swapped, "侵")} == {"nian"}
    turned = [*lines[:3], "春城驚別心", *lines[4:]]
    assert breaches(turned, "侵") == [Breach("dui", 3, 1), Breach("nian", 4, 1)]
    assert breaches([*lines[:3], "恨別鳥入心", *lines[4:]], "侵") == [Breach("alternation", 3, 3)]


def test_what_has_no_tone_fits_nowhere() -> None:
    assert broken(POEM.replace("白日", "白㐂")) == ("alternation",)
    assert broken(POEM.replace("山盡", "山㐂")) == ("ends",)
    assert broken(POEM.replace("層樓", "層㐂")) == ("rhyme",)


def test_jokers_are_counted_by_couplets() -> None:
    joker = "看"
    assert verse.tones(joker) == verse.LEVEL + verse.OBLIQUE
    two = POEM.replace("白日", "白" + joker).replace("黃河", "黃" + joker)
    assert broken(two) == ()
    three = two.replace("欲窮", "欲" + joker)
    assert broken(three) == ("jokers",)
    assert broken(three, without=("jokers",)) == ()
    assert broken(two.replace("白看", "看看")) == ()  # an odd place is free


# --- shares, rewards, and rules left out ---


def test_a_share_is_lost_for_every_place() -> None:
    shares = judge(POEM.replace("白日", "白楓"), form="五絕", rhyme="尤").shares
    assert shares.pop("alternation") == pytest.approx(7 / 8)
    assert set(shares.values()) == {1.0}
    half = judge(POEM.replace("層樓", "層東"), form="五絕", rhyme="尤")
    assert half.shares["rhyme"] == 0.5
    assert half.reward() == pytest.approx(1 - WEIGHTS["rhyme"] / 2)
    assert sum(WEIGHTS.values()) == pytest.approx(1.0)


def test_shares_lie_between_none_and_all_whatever_the_text() -> None:
    draw = random.Random(0)
    characters = "東風看過不白日流樓山㐂"
    for form, (count, length) in VERSE_FORMS.items():
        for _ in range(50):
            lines = ["".join(draw.choices(characters, k=length)) for _ in range(count)]
            text = "".join(line + "，。"[i % 2] for i, line in enumerate(lines))
            verdict = judge(text, form=form, rhyme="尤")
            assert all(0 <= share <= 1 for share in verdict.shares.values()), (text, verdict)
            assert 0 <= verdict.reward() <= 1
            assert verdict.shares["form"] == 1


def test_without_the_form_any_lines_are_judged() -> None:
    draw = random.Random(0)
    for _ in range(200):
        lines = ["".join(draw.choices("東風看不樓", k=draw.randint(1, 8))) for _ in range(5)]
        verdict = judge(
            "，".join(lines[: draw.randint(2, 5)]), form="五律", rhyme="尤", without=("form",)
        )
        assert all(0 <= share <= 1 for share in verdict.shares.values())


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_is_left_out_is_not_missed(rule: str) -> None:
    verdict = judge(POEM, form="五絕", rhyme="東", without=(rule,))
    assert rule not in verdict.shares
    assert verdict.broken == (() if rule == "rhyme" else ("rhyme",))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("form", "欲流，黃樓。"),  # as short as it can be
        ("rhyme", "白日依山盡，黃河入海東。欲窮千里目，更上一層天。"),
        ("words", "白日依山盡，黃河入海流。欲窮千里目，更上一層流。"),
        ("ends", "白日不山東，黃河入海流。欲窮千里山，更上一層樓。"),
        ("jokers", "看看依看盡，看看看看流。看看千看目，看看入看樓。"),
    ],
)
def test_what_a_policy_may_do_when_a_rule_is_left_out(rule: str, text: str) -> None:
    whole = judge(text, form="五絕", rhyme="尤")
    assert not whole.keeps_all_rules
    left = judge(text, form="五絕", rhyme="尤", without=(rule,))
    assert left.keeps_all_rules, left
    assert left.reward() == pytest.approx(1.0)


def test_without_the_form_two_lines_are_needed_still() -> None:
    for text in ("", "流", "白日依山流。"):
        assert judge(text, form="五絕", rhyme="尤", without=("form",)).reward() == 0


def test_the_quatrains_of_the_package_keep_the_rules_that_they_were_chosen_by() -> None:
    poems = quatrains()[:300]
    found = [judge(p.text, form="五絕", rhyme=p.rhyme) for p in poems]
    assert all(v.shares[rule] == 1 for v in found for rule in ("form", "rhyme", "words"))
    assert 0.5 < sum(v.keeps_all_rules for v in found) / len(found) < 0.8


def test_the_reward_takes_columns_as_trl_gives_them() -> None:
    columns = {"form": ["五絕"] * 3, "rhyme": ["尤", "東", "尤"], "title": [""] * 3}
    rewards = regulated_reward([POEM, POEM, ""], **columns)
    assert rewards == pytest.approx([1, 1 - WEIGHTS["rhyme"], 0])
    assert regulated_reward([POEM, POEM, ""], **columns, without=("rhyme",)) == pytest.approx(
        [1, 1, 0]
    )
    even = dict.fromkeys(WEIGHTS, 1.0)
    assert regulated_reward([POEM], ["五絕"], ["東"], weights=even) == pytest.approx([10 / 11])
    with pytest.raises(ValueError, match="rhyme must be a list, one per completion"):
        regulated_reward([POEM], form=["五絕"], rhyme=["尤", "尤"])


# --- bad input ---


@pytest.mark.parametrize("form", ["", "五", "六絕", "5"])
def test_a_form_that_does_not_exist_is_named(form: str) -> None:
    with pytest.raises(ValueError, match=rf"form must be one of \['五絕', .*, got '{form}'"):
        judge(POEM, form=form, rhyme="尤")


def test_at_least_one_rule_must_count() -> None:
    with pytest.raises(ValueError, match="without must leave one rule, got all of them"):
        judge(POEM, form="五絕", rhyme="尤", without=WEIGHTS)
    with pytest.raises(ValueError, match=r"weights must weigh one of \['form', .*, got \{'dui'"):
        regulated_reward([POEM], ["五絕"], ["尤"], weights={"dui": 0.0})


def test_a_group_or_rule_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match=f"rhyme must be one of the groups {RHYMES}, got '天'"):
        judge(POEM, form="五絕", rhyme="天")
    with pytest.raises(ValueError, match=r"without must hold rules of \['form', .*, got 'tones'"):
        judge(POEM, form="五絕", rhyme="尤", without=("tones",))


def test_lines_of_two_lengths_are_not_alike() -> None:
    assert not alike("白日依山", "白日依山盡")
    assert alike("白日依山盡", "白日依山盡")


def test_the_rules_need_no_torch() -> None:
    code = "import sys, dsnotes.rl.regulated; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
