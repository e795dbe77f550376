"""verse_rules: what counts as a difference of two hands, and the group that a poem rhymes in."""

import io
import json
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
POEM = ("白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import verse_rules

    return verse_rules


def test_the_group_is_that_of_most_lines(script: ModuleType) -> None:
    assert script.group_of(POEM) == ("尤", True)
    assert script.group_of((*POEM[:3], "更上一層東")) == ("東", False)  # the first of two
    assert script.group_of(("白日依山秋", *POEM[1:3], "更上一層東")) == (
        "尤",
        False,
    )  # line 1 decides


def test_a_difference_is_told_by_its_place_and_by_the_table(script: ModuleType) -> None:
    raw = {c: "東" for line in POEM for c in line} | {"黃": "東仄", "河": "東仄"}
    theirs = ("仄仄平平仄", "仄仄仄仄平", "○平平仄？", "仄仄仄平仄")
    found = [*script.differences(POEM, theirs, {(1, 1)}, raw)]
    assert [(x.character, x.kind, x.fits) for x in found] == [
        ("黃", "free", True),
        ("河", "bound", False),
        ("樓", "single", True),
    ]


def test_patterns_go_with_the_poems_of_their_lengths(script: ModuleType, tmp_path: Path) -> None:
    poems = [
        {
            "id": "a",
            "title": "",
            "paragraphs": ["白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。"],
        },
        {
            "id": "b",
            "title": "",
            "paragraphs": ["白日依山盡，黃河入海流。", "欲窮千里目，更上一層樓。"],
        },
        {"id": "c", "title": "", "paragraphs": ["白日依山盡，黃河入海流。"]},
    ]
    strains = [
        {"id": "a", "strains": ["仄仄平平仄，平平仄仄平。", "仄平平仄仄，仄仄仄平平。"]},
        {"id": "b", "strains": ["仄仄平平仄，平平仄仄平。", "仄平平仄仄，仄仄仄平。"]},
        {"id": "c", "strains": ["仄仄平平仄，平平仄仄平。"]},
    ]
    package = tmp_path / "poems.tgz"
    with tarfile.open(package, "w:gz") as archive:
        for name, rows in {
            "quantangshi/poet.tang.0": poems,
            "strains/json/poet.0": strains,
        }.items():
            content = json.dumps(rows).encode()
            info = tarfile.TarInfo(f"package/dist/{name}.json")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (one,) = script.with_patterns(package)
    assert one == (POEM, ("仄仄平平仄", "平平仄仄平", "仄平平仄仄", "仄仄仄平平"))


def test_the_stand_ins_have_the_tones_they_stand_for(script: ModuleType) -> None:
    assert {tone: script.tones(c) for tone, c in script.STAND_INS.items()} == {
        script.LEVEL: "平",
        script.OBLIQUE: "仄",
        script.EITHER: "平仄",
    }


def test_what_was_judged_is_what_was_drawn(script: ModuleType) -> None:
    """Reasons are kept by their number in the draw, and begin with the character."""
    record = json.loads((ROOT / "book/data/runs/verse_rules.json").read_text("utf8"))
    drawn = record["tables"]["read"]["drawn"]
    for number, (right, why) in script.READ.items():
        assert (drawn[number]["right"], drawn[number]["why"]) == (right, why)
        assert why.startswith(drawn[number]["character"])
    assert {row["right"] for n, row in enumerate(drawn) if n not in script.READ} == {"ours"}


def test_without_the_packages_it_says_how_to_get_them(
    script: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["verse_rules.py"])
    with pytest.raises(SystemExit) as stopped:
        script.main()
    assert stopped.value.code == 0
    assert "get it by: npm pack chinese-poetry@2.0.1" in capsys.readouterr().err
