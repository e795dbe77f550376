"""parallel_gpu: its cases on two processes over gloo, and what a script of `examples/` hands it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dsnotes.training.dualpipe.processes import Processes
from dsnotes.whole.sizes import SIZES

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))  # also in the processes
import parallel_gpu


def test_half_a_batch_and_a_whole_one_are_measured() -> None:
    cases = parallel_gpu.cases("gpu", "cuda")
    batches = {n: [c.batch for c in of if c.part == "time"] for n, of in cases.items()}
    usual = SIZES["gpu"].pretrain.batch_size
    assert batches["two"] == [usual, 4 * usual]
    assert batches["one"] == [usual, 4 * usual, usual // 2, 2 * usual]
    assert [case.seed for case in cases["two"] if case.part == "same"] == [0, 1, 2]


def test_two_processes_read_what_one_reads() -> None:
    case = replace(parallel_gpu.cases("tiny", "cpu")["two"][1], steps=3)
    alone = parallel_gpu.measured(case)
    with Processes(2) as processes:
        of_ranks = processes.call(parallel_gpu.measure, [([case],)] * 2, timeout=200.0)
    for (found,) in of_ranks:
        assert found.keys() == alone.keys()
        assert found["loss"] == pytest.approx(alone["loss"], abs=2e-4)
        assert found["targets"] == alone["targets"]
        assert found["exchange"] > 0
    assert (alone["variant"], alone["exchange"]) == ("1", None)


def test_a_script_that_fails_says_so_and_one_that_is_late_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_gpu, "PATIENCE", 0.5)
    (tmp_path / "verse_sft.log").write_text("what torchrun says", "utf8")
    for code in ("raise SystemExit(3)", "import time; time.sleep(60)"):
        process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, text=True)
        row = parallel_gpu.finished(process, "verse_sft", folder=tmp_path)
        assert process.poll() is not None
        assert "what torchrun says" in row["error"]


def test_a_group_of_grpo_lies_on_both_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what TRL does begins from the model that torchrun's processes leave."""
    given = {}
    monkeypatch.setattr(
        parallel_gpu, "launch", lambda script, arguments, **_: given.update({script: arguments})
    )
    monkeypatch.setattr(parallel_gpu, "finished", lambda process, script, folder: {})
    model = tmp_path / "verse_pretrain" / "model"
    model.mkdir(parents=True)
    parallel_gpu.examples("gpu", lambda row: None, tmp_path)
    assert list(given) == ["verse_pretrain", "verse_sft", "verse_grpo"]
    _, path, *_, batch, _, group = given["verse_grpo"]
    assert path == model
    assert batch % group != 0
    assert 2 * batch % group == 0


def test_without_two_gpus_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["parallel_gpu.py"])
    monkeypatch.setattr(parallel_gpu.torch.cuda, "device_count", lambda: 1)
    parallel_gpu.main()
    assert "needs two GPUs; nothing was measured" in capsys.readouterr().out
