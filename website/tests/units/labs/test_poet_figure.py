"""让它写诗: the rules it marks are those of dsnotes, and it understands what a reader types."""

import json
import random
from pathlib import Path

import pytest

from dsnotes.data.poems import RHYMES, VERSE_FORMS, Verse, punctuated, readings, verses
from dsnotes.model.cache import cache_elements_per_token
from dsnotes.rl import regulated
from dsnotes.training import verses as training
from dsnotes.weights.script import about_verses, load_script

POEMS = 10_000
WEIGHTS = sorted((Path(__file__).parents[3] / "assets/labs/poet").glob("weights-*.js"))


@pytest.fixture
def poet(lab):
    """The figure before its weights are there."""
    code = lab("poet")
    code.engine.eval("for (const name in DeepSeek.received) delete DeepSeek.received[name]")
    return code


# --- the rules of verse ---


def spoilt(lines: list[str], kind: int, rng: random.Random) -> list[str]:
    """A poem as it is, with other characters, at random with many of two tones, or out of form."""
    known = [c for c in readings() if ord(c) < 0x20000]
    count, length = len(lines), len(lines[0])
    if kind == 1:  # one other character in each line
        places = [rng.randrange(length) for _ in lines]
        return [x[:i] + rng.choice(known) + x[i + 1 :] for x, i in zip(lines, places, strict=True)]
    if kind == 2:
        pools = [known, known, [c for c in known if len(readings()[c]) > 1]]
        return ["".join(rng.choice(rng.choice(pools)) for _ in range(length)) for _ in lines]
    if kind == 3:
        short, mixed = [lines[0][1:], *lines[1:]], [*lines[:-1], "x" * length]
        return rng.choice([lines[:-1], [lines[0]] * count, short, mixed])
    if kind == 4:  # lines in another order: patterns that do not follow one another
        return rng.sample(lines, count)
    return lines


def some_poems() -> list[tuple[str, str, str]]:
    """Text, form and rhyme group of poems good and bad, in all forms."""
    rng, found = random.Random(0), []
    own = rng.sample(verses() + verses(held_out=True), POEMS // 2)
    for i in range(POEMS):
        poem = own[i // 2]
        lines = spoilt(list(poem.lines), (0, 1, 2, 1, 4, 1, 3)[i % 7], rng)
        if len(lines) == len(poem.lines) and i % 5 == 0:
            lines[3] = lines[3][:-1] + lines[1][-1]  # the same rhyme word twice
        rhyme = poem.rhyme if i % 4 else rng.choice(RHYMES)
        found.append((punctuated(tuple(lines)), poem.form, rhyme))
    return found


def test_ten_thousand_poems_are_judged_as_by_the_library(poet) -> None:
    table: dict[str, str] = {}
    for character, names in readings().items():
        for name in names:
            table[name] = table.get(name, "") + character
    poet.engine.eval(f"globalThis.every_reading = Verse.readings({json.dumps(table)});")
    judge = "((all) => all.map((one) => Verse.judge(every_reading, ...one)))"
    cases, broken, kept = some_poems(), set(), 0
    for start in range(0, POEMS, 500):
        part = cases[start : start + 500]
        given = [[text, rhyme, *VERSE_FORMS[form]] for text, form, rhyme in part]
        for (text, form, rhyme), ours in zip(part, poet.call(judge, given), strict=True):
            theirs = regulated.judge(text, form=form, rhyme=rhyme)
            assert ours == pytest.approx(theirs.shares), text
            broken.update(theirs.broken)
            kept += theirs.keeps_all_rules
    assert broken == set(regulated.WEIGHTS)  # every rule is broken by some
    assert kept > POEMS / 20


def test_what_is_broken_is_marked_where_the_library_finds_it(poet) -> None:
    known = f"Verse.readings({json.dumps(poet.data['readings'])})"
    characters, found = set(poet.data["characters"]), 0
    for poem in verses(held_out=True)[:600]:
        if characters.issuperset("".join(poem.lines)):
            lines = json.dumps([list(line) for line in poem.lines])
            ours = poet.eval(f"Verse.breaches({known}, {lines}, '{poem.rhyme}')")
            assert list(map(tuple, ours)) == regulated.breaches(poem.lines, poem.rhyme)
            found += bool(ours)
    assert found > 50


def test_an_unfinished_poem_is_marked_line_by_line(poet) -> None:
    poem = next(verse for verse in verses() if verse.form == "七律")
    cells = [{"c": c, "by": "model"} for c in poem.text]
    state, lines = poet.state(form="七律", rhyme=poem.rhyme), []
    data = {**poet.data, "forms": {"七律": {"lines": 8, "length": 7}}}
    for end in range(len(cells) + 1):
        found = {"cells": cells[:end], "trouble": "", "done": end == len(cells)}
        lines.append(poet.call("PoetLab.judged", found, state, data)["lines"])
    assert lines == [(end + 1) // 8 for end in range(len(cells) + 1)]
    assert poet.call("Verse.split", "白日，依", 5, 4) is None


# --- what a reader types ---


def understood(poet, words: str) -> dict:
    return poet.call("PoetLab.understood", words, poet.data)


def test_simplified_characters_become_traditional_ones(poet) -> None:
    found = understood(poet, "云后里 春风，绿")
    assert "".join(found["words"]) == "雲後里春風綠"  # 里 is a word of its own
    assert found["changed"] == [["云", "雲"], ["后", "後"], ["风", "風"], ["绿", "綠"]]
    assert found["unknown"] == []
    # words with a traditional character are taken as they are
    assert understood(poet, "太后歸")["changed"] == []


def test_what_the_model_has_never_read_is_named(poet) -> None:
    assert understood(poet, "春a😀")["unknown"] == ["a", "😀"]
    state = poet.state(words="春a😀", shown=0)
    assert "没见过“a😀”" in poet.say(state)
    assert "最多 5 个字，现在有 6 个" in poet.say(poet.state(words="空山新雨後天", shown=0))
    finished = f"{poet.spec}.play.done({json.dumps(state)}, {json.dumps(poet.data)})"
    assert poet.eval(finished)  # nothing is written
    assert "<" not in poet.say(poet.state(words="<b>", shown=0))


def test_a_prompt_is_what_the_models_have_read(poet) -> None:
    vocabulary = training.vocabulary()
    about = about_verses(vocabulary, label="一个模型")
    known = {**about, "symbols": vocabulary.symbols}
    forms = {
        name: {"lines": f["lines"], "length": f["length"]} for name, f in about["forms"].items()
    }
    characters = "".join(vocabulary.symbols[len(training.SPECIALS) :])
    data = {**poet.data, "forms": forms, "title": about["title"], "characters": characters}

    def prompt(verse: Verse, **fields: str) -> list[int]:
        state = poet.state(form=verse.form, rhyme=verse.rhyme, **fields)
        found = poet.call("PoetLab.prompt", state, data, known)
        assert found["tokens"].index(training.TEXT) == found["before"] - 1
        return found["tokens"]

    def changed(words: str) -> bool:  # taken for simplified characters
        return bool(poet.call("PoetLab.understood", words, data)["changed"])

    for verse in verses()[::150]:
        whole, start = vocabulary.encode(verse), verse.lines[0]
        text, asked = (
            whole[whole.index(training.TEXT) + 1 :],
            vocabulary.prompt(verse.form, verse.rhyme),
        )
        assert prompt(verse) == asked
        if not changed(start[:2]):
            assert prompt(verse, words=start[:2]) == [*asked, *text[:2]]
        if not changed(start):
            assert prompt(verse, words=start) == [*asked, *text[: len(start) + 1]]  # and its comma
        if verse.title and not changed(verse.title):
            asked = vocabulary.prompt(verse.form, verse.rhyme, verse.title)
            assert prompt(verse, kind="title", words=verse.title) == asked


# --- what it says of a poem ---


def test_the_poem_it_opens_with_is_counted_right(poet) -> None:
    for model in poet.data["models"]:
        cells = poet.data["samples"][model["name"]]
        text = "".join(cell[0] for cell in cells)
        found = poet.call("PoetLab.poem", poet.state(), poet.data, model["name"])
        assert "".join(cell["c"] for cell in found["cells"]) == text
        ours = poet.call("PoetLab.drafted", found)
        assert ours["written"] == len(text)
        assert ours["accepted"] == sum(cell[1] == "draft" for cell in cells)
        assert ours["steps"] == cells[-1][3]
        judged = regulated.judge(text, form=poet.state()["form"], rhyme=poet.state()["rhyme"])
        said = poet.call("PoetLab.verdict", found, poet.state(), poet.data)
        assert (said == "合律") == judged.keeps_all_rules


def test_a_poem_out_of_form_says_where(poet) -> None:
    data = poet.data
    name = data["models"][-1]["name"]
    whole = data["samples"][name]

    def said(cells: list) -> str:
        given = {**data, "samples": {name: cells}}
        return poet.call(f"{poet.spec}.say", poet.state(), given)

    assert "第 2 句的字数不对" in said([*whole[:8], *whole[9:]])
    assert "没写完就收了尾" in said([*whole[:8], ["〈终〉", "model", None, 9, None]])
    assert "第 1 句的字数不对" in said([["<東>", "model", None, 1, None], *whole[1:]])


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_the_record_is_of_the_weights_on_the_site(poet, path) -> None:
    model, header = load_script(path)
    data = poet.data
    known = next(one for one in data["models"] if one["file"] == path.name)
    assert known["bytes"] == path.stat().st_size
    assert known["bytes"] * 3 / 4 < 4.1e6  # four megabytes of weights, and the header
    assert data["characters"] == "".join(
        c for c in header["symbols"] if len(c) == 1 and c not in "，。"
    )
    poet.engine.eval(path.read_text("utf8"))
    found = poet.call("PoetLab.poem", poet.state(), data, known["name"])
    shown = [[c["c"], c["by"], c["refused"], c["step"]] for c in found["cells"]]
    assert shown == [cell[:4] for cell in data["samples"][known["name"]]]
    cached = poet.call("PoetLab.cached", found, poet.state(), data)
    config = model.config
    assert cached["tokens"] == len(found["cells"]) + 2
    assert cached["latent"] == cached["tokens"] * 4 * cache_elements_per_token(config)
    head = config.qk_head_dim + config.v_head_dim
    heads = config.num_hidden_layers * config.num_attention_heads * head
    assert cached["full"] == cached["tokens"] * 4 * heads
