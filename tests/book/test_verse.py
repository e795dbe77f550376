"""What the page on the rules of verse says of poems, by the rules themselves."""

import csv
import json
import re
from pathlib import Path

from dsnotes.rl.novelty import Known, novelty
from dsnotes.rl.regulated import WEIGHTS, breaches, judge, split
from dsnotes.rl.verse import tones

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "whole" / "verse.md").read_text("utf8")
SIGNS = {"○": "平", "●": "仄", "◐": "平仄"}
NUMERALS = "一二三四五六七八"
with (ROOT / "tests" / "data" / "verses.csv").open(encoding="utf8") as file:
    POEMS = {(row["author"], row["title"]): row for row in csv.DictReader(file)}


def rows(name: str) -> list[list[str]]:
    """The cells of a table, without its head."""
    _, _, rest = PAGE.partition(f":name: {name}\n")
    lines = [line for line in rest.partition(":::")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_marks_of_the_poem() -> None:
    """Every sign is the tone; bold are the even places and the ends of all lines."""
    lines = []
    for row in rows("tab-verse-marks"):
        marked = [re.fullmatch(r"(\**)(\w) (\S)\1", cell).groups() for cell in row[1:6]]
        assert [SIGNS[sign] for _, _, sign in marked] == [tones(c) for _, c, _ in marked]
        assert [bool(bold) for bold, _, _ in marked] == [False, True, False, True, True]
        lines.append("".join(c for _, c, _ in marked))
    assert "".join(lines) == POEMS["王之渙", "登鸛雀樓"]["text"].translate({0xFF0C: "", 0x3002: ""})


def test_every_rule_has_its_row() -> None:
    assert [row[0].strip("`") for row in rows("tab-verse-rules")] == list(WEIGHTS)


def test_known_poems_keep_and_break_what_the_table_says() -> None:
    for names, verdict, where in rows("tab-verse-poems"):
        found = re.findall(r"(?:(\w+?))?《(\w+)》", names)
        author = ""
        for name, title in found:
            author = name or author
            poem = POEMS[author, title]
            broken = breaches(split(poem["text"]), poem["rhyme"])
            if verdict == "合律":
                assert broken == []
                continue
            (breach,) = broken
            assert f"`{breach.rule}`" == verdict, title
            line = re.match(r"第(\w)句(?:第(\w)字|末三字)", where)
            if line:
                assert line[1] == NUMERALS[breach.line]
                assert line[2] in (None, NUMERALS[breach.place])


def test_each_cheat_is_worth_all_without_its_rule_and_not_with_it() -> None:
    cheats = {row[0].strip("`"): row[1] for row in rows("tab-verse-cheats")}
    for rule in ("form", "words"):
        asked = {"form": "五絕", "rhyme": "尤"}
        assert judge(cheats[rule], **asked, without=(rule,)).keeps_all_rules
        assert not judge(cheats[rule], **asked).keeps_all_rules
    copied = cheats["没有新颖"].partition("（")[0]
    assert judge(copied, form="五絕", rhyme="尤").keeps_all_rules
    assert novelty(copied, Known(split(copied))) == 0


def test_three_characters_are_the_fewest_without_the_form() -> None:
    asked = {"form": "五絕", "rhyme": "尤", "without": ("form",)}
    assert judge("日，河流。", **asked).keeps_all_rules
    assert judge("日，流。", **asked).broken == ("lines",)
    assert not judge("流。", **asked).keeps_all_rules


HACKS = json.loads((ROOT / "book" / "data" / "runs" / "whole_hacks.json").read_text("utf8"))["runs"]


def of_seeds(variant: str, *path: str) -> list[float]:
    """A measure of a variant, a number for each seed in their order."""
    found = []
    for run in sorted((r for r in HACKS if r["variant"] == variant), key=lambda r: r["seed"]):
        value = run
        for name in path:
            value = value.get(name, 0.0)
        found.append(value)
    assert len(found) == 3
    return found


def test_three_rules_are_exploited_as_the_page_says() -> None:
    for rule in ("words", "rhyme"):
        before, without = (of_seeds(v, "broken", rule) for v in ("cold start", f"without {rule}"))
        assert min(without) > max(before)
    written = of_seeds("without form", "written")
    assert sorted(share < 0.4 for share in written) == [False, True, True]
    assert "三个种子里有两个，写两句就停" in PAGE
    assert "这里被钻得最彻底的是格式" in PAGE


def test_four_rules_are_not_exploited_as_the_page_says() -> None:
    for rule in ("lines", "jokers"):
        assert max(of_seeds("cold start", "broken", rule)) < 0.01
        assert max(of_seeds(f"without {rule}", "broken", rule)) < 0.01
    for rule in ("alternation", "nian"):
        before, without = (of_seeds(v, "broken", rule) for v in ("cold start", f"without {rule}"))
        assert sum(without) < sum(before)


def test_what_holds_as_the_page_says() -> None:
    kept = {v: of_seeds(v, "characters") for v in ("all", "novelty 0", "diversity 0", "beta 0")}
    assert all(max(kept["beta 0"]) < min(kept[v]) for v in ("all", "novelty 0", "diversity 0"))
    assert max(of_seeds("nothing holds", "characters")) < min(kept["beta 0"])
    pairs = [sum(of_seeds(v, "repeated_bigrams")) for v in ("nothing holds", "all")]
    assert pairs[0] > 3 * pairs[1]
    rules = [sum(of_seeds(v, "rules")) for v in ("beta 0", "all")]
    assert rules[0] > rules[1]


def test_a_rule_that_is_asked_for_and_broken_more_as_the_page_says() -> None:
    """The exception in the row of repeated rhyme words, and the weights that it speaks of."""
    words, rhyme = (
        [of_seeds(v, "broken", rule) for v in ("cold start", "all")] for rule in ("words", "rhyme")
    )
    assert min(words[1]) > max(words[0])
    assert max(rhyme[1]) < min(rhyme[0])
    assert "这两条的权重差着五倍" in PAGE
    assert WEIGHTS["rhyme"] / WEIGHTS["words"] == 5
    shares = {rule: round(weight / sum(WEIGHTS.values()), 9) for rule, weight in WEIGHTS.items()}
    assert max(shares.values()) == shares["rhyme"] == 1 / 4
    assert min(shares.values()) == shares["words"] == 1 / 20


def test_the_drawing_has_the_tones_of_the_poem() -> None:
    """Row by row: black circles are oblique, white ones level, and the small dots are free."""
    drawing = (ROOT / "book" / "figures" / "verse-dui.svg").read_text("utf8")
    circles = re.findall(r'r="(?:10|2\.5)" fill="(#\w+)"', drawing)[:20]
    drawn = [{"#222": "仄", "#fff": "平"}.get(fill, "") for fill in circles]
    lines = split(POEMS["王之渙", "登鸛雀樓"]["text"])
    for i, line in enumerate(lines):
        row = drawn[5 * i : 5 * i + 5]
        assert row == ["", tones(line[1]), "", tones(line[3]), tones(line[4])]
