"""让它写诗: the rules it marks are those of dsnotes, and it understands what a reader types."""

import json
import random
from pathlib import Path

import pytest

from dsnotes.data.poems import FORMS, RHYMES, punctuated, quatrains, readings
from dsnotes.model.cache import cache_elements_per_token
from dsnotes.rl import verse
from dsnotes.weights.script import load_script

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
    if kind == 1:
        return ["".join(c if rng.random() < 0.8 else rng.choice(known) for c in x) for x in lines]
    if kind == 2:
        jokers, length = [c for c in known if len(readings()[c]) > 1], rng.choice([5, 7])
        pools = [known, known, jokers]
        return ["".join(rng.choice(rng.choice(pools)) for _ in range(length)) for _ in range(4)]
    if kind == 3:
        short, mixed = [lines[0][1:], *lines[1:]], [*lines[:3], "東x風吹水"]
        return rng.choice([lines[:3], [lines[0]] * 4, short, mixed])
    return lines


def some_poems() -> list[tuple[str, str, str]]:
    """Text, form and rhyme group of poems good and bad."""
    rng, own, found = random.Random(0), quatrains() + quatrains(held_out=True), []
    for i in range(POEMS):
        poem = own[i % len(own)]
        lines = spoilt(list(poem.lines), (0, 1, 2, 0, 1, 2, 3)[i % 7], rng)
        if len(lines) == 4 and i % 5 == 0:
            lines[3] = lines[3][:-1] + lines[1][-1]  # the same rhyme word twice
        form = next((name for name, n in FORMS.items() if n == len(lines[0])), "五")
        found.append((punctuated(tuple(lines)), form, poem.rhyme if i % 3 else rng.choice(RHYMES)))
    return found


def test_ten_thousand_poems_are_judged_as_by_the_library(poet) -> None:
    table: dict[str, str] = {}
    for character, names in readings().items():
        for name in names:
            table[name] = table.get(name, "") + character
    poet.engine.eval(f"globalThis.every_reading = Verse.readings({json.dumps(table)});")
    judge = "((all) => all.map((one) => Verse.judge(every_reading, ...one)))"
    cases, verdicts = some_poems(), set()
    for start in range(0, POEMS, 500):
        part = cases[start : start + 500]
        found = poet.call(judge, [[text, rhyme, 4, FORMS[form]] for text, form, rhyme in part])
        for (text, form, rhyme), ours in zip(part, found, strict=True):
            theirs = verse.judge(text, form=form, rhyme=rhyme)
            assert ours == pytest.approx(theirs._asdict()), text
            verdicts.add((theirs.form, theirs.rhyme, theirs.tones == 1))
    assert len(verdicts) == 7  # out of form, and every rhyme with every pattern


def test_places_are_marked_as_by_the_library(poet) -> None:
    known = f"Verse.readings({json.dumps(poet.data['readings'])})"
    for poem in quatrains(held_out=True)[:200]:
        lines = list(poem.lines)
        given = f"{known}, {json.dumps([list(x) for x in lines])}, '{poem.rhyme}', 4, 5"
        tones = poet.eval(f"Verse.tone_places({given})")
        assert sorted(map(tuple, tones)) == sorted(verse.tone_places(lines, poem.rhyme))
        rhymes = poet.eval(f"Verse.rhyme_places({given})")
        assert [kept for _, kept in rhymes] == list(verse.rhyme_places(lines, poem.rhyme))


def test_an_unfinished_poem_is_marked_as_far_as_it_goes(poet) -> None:
    text = quatrains()[0].text
    known = f"Verse.readings({json.dumps(poet.data['readings'])})"
    before = 0
    for end in range(len(text) + 1):
        lines = poet.call("Verse.split", text[:end], 5, 4)
        assert "".join(map("".join, lines)) == "".join(c for c in text[:end] if c not in "，。")
        given = f"{known}, {json.dumps(lines)}, '{quatrains()[0].rhyme}', 4, 5"
        marked = len(poet.eval(f"Verse.tone_places({given})"))
        assert before <= marked <= before + 1
        before = marked
    assert poet.call("Verse.split", "白日，依", 5, 4) is None


# --- what a reader types ---


def understood(poet, words: str) -> dict:
    return poet.call("PoetLab.understood", words, poet.data)


def test_simplified_characters_become_traditional_ones(poet) -> None:
    found = understood(poet, "云后里 春风，绿")
    assert "".join(found["words"]) == "雲後裏春風綠"
    assert found["changed"] == [
        ["云", "雲"],
        ["后", "後"],
        ["里", "裏"],
        ["风", "風"],
        ["绿", "綠"],
    ]
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


def test_a_prompt_is_what_the_model_was_trained_on(poet) -> None:
    data = {**poet.data, "title": 12, "forms": {"五絕": {"lines": 4, "length": 5}}}
    known = {
        "symbols": ["<end>", "<五絕>", "<東>", "<text>", "，", "。", *"空山新雨後"],
        "forms": {"五絕": {"token": 1}},
        "rhymes": {"東": 2},
        "text": 3,
    }

    def prompt(**fields) -> dict:
        return poet.call("PoetLab.prompt", poet.state(**fields), data, known)

    assert prompt() == {"before": 3, "tokens": [1, 2, 3]}
    assert prompt(words="空山") == {"before": 3, "tokens": [1, 2, 3, 6, 7]}
    assert prompt(words="空山新雨後") == {"before": 3, "tokens": [1, 2, 3, 6, 7, 8, 9, 10, 4]}
    assert prompt(kind="title", words="山") == {"before": 4, "tokens": [1, 2, 7, 3]}
    known["text"] = None  # a model without titles
    assert prompt(words="空") == {"before": 2, "tokens": [1, 2, 6]}


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
        if len(text) == 24:
            lines = verse.split(text)
            tones = verse.tone_places(lines, poet.state()["rhyme"])
            rhymes = verse.rhyme_places(lines, poet.state()["rhyme"])
            words = f"韵 {sum(rhymes)}/2，平仄 {sum(fits for *_, fits in tones)}/{len(tones)}"
            said = poet.call("PoetLab.verdict", found, poet.state(), poet.data)
            assert said.removeprefix("合律：") == words


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
