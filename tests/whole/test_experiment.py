"""`experiments/whole.py`: folders of runs become one record, and poems are drawn for the quiz."""

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from dsnotes.data.poems import VERSE_FORMS, Verse, verses
from dsnotes.whole.__main__ import STAGES
from dsnotes.whole.report import MODELS

from .conftest import ROOT

SCHEMA = json.loads((ROOT / "tests" / "data" / "record.schema.json").read_text("utf8"))
SAMPLES = [v for v in verses() if v.form != "七律"][::40]  # poems as a model might leave


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import whole

    return whole


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> list[Path]:
    """Two runs; the second is the first with another seed and another loss of one model."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        for path in (*finished.glob("*.json"), finished / "samples.txt"):
            shutil.copy(path, folder)
    change(folders[1], "settings", seed=2)
    change(folders[1], "distill", loss=1.0)
    return folders


def change(folder: Path, stage: str, **values: Any) -> None:
    path = folder / f"{stage}.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf8")) | values), "utf8")


def recorded(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, *more: object
) -> dict[str, Any]:
    monkeypatch.setattr("sys.argv", ["whole.py", *map(str, more), "--out", str(out)])
    script.main()
    return json.loads(out.read_text("utf8"))


def test_the_record_of_two_runs(
    script: ModuleType, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = recorded(
        script, monkeypatch, tmp_path / "r.json", *reversed(runs), "--machine", "tiny=two cores"
    )
    jsonschema.validate(record, SCHEMA)
    assert [(run["variant"], run["seed"]) for run in record["runs"]] == [("tiny", 1), ("tiny", 2)]
    assert (record["device"], record["seeds"]) == ("two cores", [1, 2])
    assert "seed" not in record["settings"]["sizes"]["tiny"]
    found = json.loads((runs[0] / "distill.json").read_text("utf8"))
    table = record["tables"]["models"]["tiny"]
    assert list(table) == ["corpus", *MODELS.values()]
    loss = [1.0, (found["loss"] + 1) / 2, found["loss"]]
    assert table["student"]["loss"] == pytest.approx(loss, rel=1e-3)
    assert table["base"]["characters_of_base"] == table["small base"]["characters_of_base"]
    for title in MODELS.values():
        assert set(VERSE_FORMS) < set(table[title])
    first = record["runs"][0]
    assert list(first["minutes"]) == list(STAGES)
    assert first["curves"]["RL"].keys() == {"reward", "rules", "characters"}
    assert first["curves"]["base"].keys() == {"loss", "max_vio"}
    assert first["models"]["student"]["read"] == found["read"]
    costs = record["tables"]["costs"]["tiny"]
    assert costs["minutes"][1] == pytest.approx(record["minutes"] / 2, abs=0.06)
    assert costs["same_by_transformers"] == [1, 1, 1]


def test_what_was_not_measured_stays_unknown(script: ModuleType, runs: list[Path]) -> None:
    change(runs[0], "release", same_by_transformers=None)
    found = script.costs([script.collected(folder) for folder in runs])
    assert found["same_by_transformers"] is None


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda runs: (runs[1] / "reject.json").unlink(), "it has no reject.json"),
        (lambda runs: change(runs[1], "settings", judged=5), "the settings of the other tiny runs"),
        (lambda runs: change(runs[1], "settings", seed=1), "another seed, 1 was given before"),
    ],
)
def test_folders_that_make_no_record_are_named(
    script: ModuleType, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], spoil: Any, message: str,
) -> None:  # fmt: skip
    spoil(runs)
    with pytest.raises(SystemExit):
        recorded(script, monkeypatch, tmp_path / "r.json", *runs)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


def test_it_trains_what_it_is_asked_for(
    script: ModuleType, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def train(command: list[str]) -> int:
        commands.append(command)
        shutil.copytree(runs[len(commands) - 1], command[command.index("--out") + 1])
        return 0

    monkeypatch.setattr(script, "train", train)
    size = ["--size", "tiny", "--seeds", 1, 2, "--folder", tmp_path / "new", "--corpus", "v.txt"]
    record = recorded(script, monkeypatch, tmp_path / "r.json", *size)
    assert record["seeds"] == [1, 2]
    assert [command[3] for command in commands] == ["1", "2"]
    assert all(command[-2:] == ["--corpus", "v.txt"] for command in commands)
    monkeypatch.setattr(script, "train", lambda command: 3)
    with pytest.raises(SystemExit) as ended:
        recorded(script, monkeypatch, tmp_path / "r.json", *size)
    assert ended.value.code == 3


def test_the_quiz_has_as_many_poems_by_both(script: ModuleType) -> None:
    found = script.quiz(SAMPLES, None)
    assert found == script.quiz(SAMPLES, None)
    for form in VERSE_FORMS:
        by = [poem["by"] for poem in found if poem["form"] == form]
        count = 0 if form == "七律" else script.EACH
        assert (by.count("model"), by.count("poet")) == (count, count)
    texts = {verse.text for verse in SAMPLES}
    assert all((poem["text"] in texts) == (poem["by"] == "model") for poem in found)
    held_out = {verse.text for verse in verses(held_out=True)}
    assert {poem["text"] for poem in found if poem["by"] == "poet"} <= held_out
    assert [poem["by"] for poem in found[:6]] != ["model"] * 6


def test_poets_are_named_by_the_package(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tang, song = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。", "爲人不見月，却有一人來。"
    poems = {
        "tang": [{"author": "王之渙", "paragraphs": [tang[:12], tang[12:]]}],
        "song": [{"author": "某", "paragraphs": [song]}],
    }
    monkeypatch.setattr(
        script, "contents", lambda path, of: [poems["song" if "song" in of else "tang"]]
    )
    tower = Verse("尤", ("白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓"))
    other = Verse("灰", ("為人不見月", "卻有一人來"))  # its characters in the shapes of the corpus
    missing = Verse("灰", ("為人不見花", "卻有一人來"))
    names = script.authors([tower, other, missing], Path("package"))
    assert names == {tower.lines: "唐 王之渙", other.lines: "宋 某"}
