"""The scripts of `experiments/` start, and every record has one shape and says where it is from."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(  # a script that prepares data writes no record
    path
    for path in (ROOT / "experiments").glob("[a-z]*.py")
    if not path.name.startswith("prepare_")
)
RECORDS = sorted((ROOT / "book" / "data" / "runs").glob("*.json"))
SCHEMA = json.loads((ROOT / "tests" / "data" / "record.schema.json").read_text("utf8"))


@pytest.fixture
def records(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`experiments/_record.py`, imported as the scripts do."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import _record

    return _record


def started(script: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_record_has_the_shape(path: Path) -> None:
    record = json.loads(path.read_text("utf8"))
    jsonschema.validate(record, SCHEMA)
    assert (ROOT / record["script"]).is_file()
    if record["runs"]:
        assert record["seeds"] == sorted({run["seed"] for run in record["runs"]})
    assert record["runs"] or record["tables"]


def test_every_experiment_has_its_record() -> None:
    written = {json.loads(path.read_text("utf8"))["script"] for path in RECORDS}
    assert written == {f"experiments/{script.name}" for script in SCRIPTS}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_experiment_says_what_it_takes(script: Path) -> None:
    told = started(script, "--help")
    assert "--out" in told
    assert f"usage: {script.name}" in told


def test_a_corpus_that_is_not_there_is_the_parsers_error(tmp_path: Path) -> None:
    command = [sys.executable, ROOT / "experiments" / "fp8_loss.py", "--corpus", tmp_path / "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "error: --corpus must be the file" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_experiment_writes_a_record(tmp_path: Path) -> None:
    """The cheapest one, with as few steps as it takes: about ten seconds."""
    out = tmp_path / "new" / "balance.json"
    started(ROOT / "experiments" / "balance.py", "--steps", "5", "--seeds", "4", "--out", str(out))
    record = json.loads(out.read_text("utf8"))
    jsonschema.validate(record, SCHEMA)
    assert record["seeds"] == [4]
    recorded = json.loads((ROOT / "book" / "data" / "runs" / "balance.json").read_text("utf8"))
    assert record["settings"].keys() == recorded["settings"].keys()
    assert [run["variant"] for run in record["runs"]] == list(record["settings"]["variants"])
    assert {frozenset(run) for run in record["runs"]} == {frozenset(recorded["runs"][0])}
    assert os.listdir(out.parent) == ["balance.json"]  # what is unfinished has been moved


def test_runs_are_taken_up_again(records: ModuleType, tmp_path: Path) -> None:
    jobs, taken = [("a/b", 0), ("a/b", 1)], []

    def run(variant: str, seed: int) -> dict[str, Any]:
        taken.append(seed)
        if taken == [0, 1]:
            raise KeyboardInterrupt
        return {"variant": variant, "seed": seed}

    with pytest.raises(KeyboardInterrupt):
        list(records.collect(run, jobs, keep=tmp_path))
    found = list(records.collect(run, jobs, keep=tmp_path))
    assert found == [{"variant": "a/b", "seed": seed} for seed in (0, 1)]
    assert taken == [0, 1, 1]
    assert list(records.collect(run, jobs, keep=tmp_path)) == found
    assert len(taken) == 3


def test_a_kept_run_of_other_settings_is_refused(records: ModuleType, tmp_path: Path) -> None:
    """A record would say that its numbers are of the new ones."""

    def run(variant: str, *, steps: int) -> dict[str, object]:
        return {"variant": variant, "steps": steps}

    short, long = partial(run, steps=1), partial(run, steps=2)
    assert list(records.collect(short, [("a/b",)], keep=tmp_path)) == [run("a/b", steps=1)]
    with pytest.raises(ValueError, match=r"a_b\.json holds a run of .*'steps': 1.*, not of .* 2"):
        list(records.collect(long, [("a/b",)], keep=tmp_path))
    with pytest.raises(ValueError, match=r"a_b\.json holds a run of .*'a/b'.*, not of .*'a_b'"):
        list(records.collect(short, [("a_b",)], keep=tmp_path))


def test_runs_side_by_side_keep_their_order(records: ModuleType) -> None:
    jobs = [({"seed": seed},) for seed in range(3)]
    assert list(records.collect(dict, jobs, workers=2)) == [{"seed": seed} for seed in range(3)]


def test_a_record_outside_of_git_names_no_commit(
    records: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "ROOT", tmp_path)
    assert records._commit() is None
    monkeypatch.setenv("PATH", "")
    assert records._commit() is None


def test_a_line_for_every_run_and_row(records: ModuleType) -> None:
    record = {
        "seeds": [0, 1],
        "settings": {"config": {"depth": 2}},
        "tables": {"sizes": [{"a": [1, 2]}, {"a": None}], "empty": []},
        "runs": [{"seed": 0, "loss": [0.1]}, {"seed": 1, "loss": []}],
    }
    text = records.layout(record)
    assert json.loads(text) == record
    assert '\n{"seed":1,"loss":[]}\n' in text
    assert '\n{"a":[1,2]},\n' in text
    assert '"seeds": [0,1],' in text


def test_a_record_of_a_gpu_without_runs(
    records: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records.torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(records.torch.version, "cuda", "13.0")
    out = tmp_path / "record.json"
    tables = {"speed": [{"bf16": 685}]}
    records.write(
        out, script="/x/fp8_gpu.py", settings={}, tables=tables, seeds=range(3), device="cuda"
    )
    record = json.loads(out.read_text("utf8"))
    jsonschema.validate(record, SCHEMA)
    assert record["script"] == "experiments/fp8_gpu.py"
    assert record["device"] == "NVIDIA H100"
    assert record["versions"]["cuda"] == "13.0"
    assert (record["seeds"], record["runs"], record["tables"]) == ([0, 1, 2], [], tables)
