"""The command, from the corpus to the table; interrupted at every step it ends with the same."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from dsnotes.data.poems import parse_verses
from dsnotes.rl.regulated import judge
from dsnotes.weights.checkpoint import load
from dsnotes.weights.script import load_script
from dsnotes.whole import run as runs
from dsnotes.whole.__main__ import STAGES, UNFINISHED, main

from .conftest import arguments

TIMES = {"seconds", "cpu_seconds", "minutes", "cpu_minutes", "tokens_per_second"}


def results(out: Path) -> dict[str, Any]:
    found = {name: json.loads((out / f"{name}.json").read_text("utf8")) for name in STAGES}
    return {name: {k: x for k, x in its.items() if k not in TIMES} for name, its in found.items()}


def test_every_stage_leaves_its_result_and_its_model(finished: Path) -> None:
    found = results(finished)
    assert found["corpus"]["vocabulary"] == load(finished / "pretrain").config.vocab_size
    trained = [name for name in STAGES if (finished / name).is_dir()]
    assert trained == [
        "pretrain", "cold_start", "reinforce", "pretrain_small", "distill", "reinforce_small",
        "release",
    ]  # fmt: skip
    for name in trained[:-1]:
        assert found[name]["loss"] > 0
        assert set(found[name]["forms"]) == {"五絕", "七絕", "五律", "七律"}
    assert not list(finished.glob("*.pt"))
    assert not list(finished.glob("*.unfinished"))


def test_models_differ_by_what_trained_them(finished: Path) -> None:
    heads = {
        name: load(finished / name).lm_head.weight
        for name in ("pretrain", "cold_start", "reinforce")
    }
    assert not torch.equal(heads["pretrain"], heads["cold_start"])
    assert load(finished / "distill").config == load(finished / "reinforce_small").config


def test_the_table_holds_every_model(finished: Path) -> None:
    text = (finished / "report.md").read_text("utf8")
    rows = re.findall(r"^\| ([^|]+) \|", text, re.M)
    assert rows == [
        "model", "---", "corpus", "base", "cold start", "RL", "small base", "student",
        "RL on the small model",
    ]  # fmt: skip


def test_the_checkpoint_is_read_by_transformers_and_the_page(finished: Path) -> None:
    found = results(finished)["release"]
    assert found["same_by_transformers"] == 1
    said = json.loads((finished / "release" / "config.json").read_text("utf8"))
    assert said["quantization_config"]["weight_block_size"] == [128, 128]
    model, header = load_script(finished / "weights-after.js")
    assert header["label"] == "强化后"
    assert model.config == load(finished / "reinforce").config


def test_samples_are_a_corpus_that_keeps_every_rule(finished: Path) -> None:
    for verse in parse_verses((finished / "samples.txt").read_text("utf8").strip()):
        assert judge(verse.text, form=verse.form, rhyme=verse.rhyme).keeps_all_rules


def test_interrupted_at_every_step_it_ends_the_same(
    finished: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def is_over(self: runs.Run) -> bool:  # one stage may begin, and take one step
        asked.append("")
        return len(asked) > 1

    monkeypatch.setattr(runs.Run, "is_over", is_over)
    calls, before = 0, signal.getsignal(signal.SIGINT)
    while main(arguments(tmp_path / "run", corpus)) == UNFINISHED:
        calls += 1
        asked.clear()
    assert calls > len(STAGES) + 10
    assert signal.getsignal(signal.SIGINT) is before
    assert results(tmp_path / "run") == results(finished)
    for name in ("reinforce", "distill", "reinforce_small"):
        ours, theirs = (load(out / name).state_dict() for out in (tmp_path / "run", finished))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_no_time_is_no_step_and_a_finished_run_is_only_read(
    finished: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "new", corpus, "--until", "0")) == UNFINISHED
    assert "stopped before corpus; the same command goes on" in capsys.readouterr().err
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert main(arguments(finished, corpus, "--until", "0")) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert "| RL |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "huge"], "invalid choice: 'huge'"),
        (["--seed", "2"], "has another seed"),
        (["--fp8"], "has another fp8"),
        (["--corpus", "nowhere.txt"], "No such file"),
        (["--device", "cuda"], "finds no CUDA GPU"),
        (["--device", "gpu"], "device"),
        (["--until", "-1"], "until must be at least 0"),
        (["--threads", "0"], "threads must be at least 1"),
        (["--processes", "0"], "processes must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_named(
    finished: Path, corpus: Path, more: list[str], message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        main(arguments(finished, corpus, *more))
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_a_corpus_that_is_none_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "verses.txt").write_text("東 不是詩\n", "utf8")
    for name, message in {"verses.txt": "line 1 must be", "nowhere.txt": "No such file"}.items():
        with pytest.raises(SystemExit):
            main(arguments(tmp_path / "run", tmp_path / name))
        assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
