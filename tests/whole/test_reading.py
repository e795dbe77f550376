"""reading: two processes pretrain as one does, stop in good order, and go on, as one or as two."""

import json
from pathlib import Path

import pytest
import torch

from dsnotes.weights.checkpoint import load
from dsnotes.whole import stages
from dsnotes.whole.run import Run, Stopped


def pretrained(
    out: Path, corpus: Path, *, processes: int, device: str = "cpu"
) -> dict[str, object]:
    run = Run(out, size="tiny", seed=1, corpus=corpus, processes=processes, device=device)
    return run.stage("pretrain", stages.pretrain)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    out = tmp_path_factory.mktemp("alone")
    pretrained(out, corpus, processes=1)
    return out


def same(out: Path, alone: Path) -> None:
    """But for the order of sums."""
    found, expected = (json.loads((f / "pretrain.json").read_text("utf8")) for f in (out, alone))
    assert found["training_loss"] == pytest.approx(expected["training_loss"], abs=2e-4)
    assert found["training_max_vio"] == expected["training_max_vio"]
    ours, theirs = (load(f / "pretrain").state_dict() for f in (out, alone))
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_two_processes_pretrain_as_one_does(alone: Path, corpus: Path, tmp_path: Path) -> None:
    pretrained(tmp_path, corpus, processes=2)
    same(tmp_path, alone)
    assert not (tmp_path / "pretrain.pt").exists()


def test_stopped_on_two_it_goes_on_alone(
    alone: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def is_over(self: Run) -> bool:  # the stage may begin, and take two steps
        asked.append("")
        return len(asked) > 2

    with monkeypatch.context() as patched:
        patched.setattr(Run, "is_over", is_over)
        with pytest.raises(Stopped, match="stopped in pretrain, after step 2 of 4"):
            pretrained(tmp_path, corpus, processes=2)
    pretrained(tmp_path, corpus, processes=1)
    same(tmp_path, alone)


def test_stopped_alone_it_goes_on_on_two(
    alone: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        answers = iter([False, True])
        patched.setattr(Run, "is_over", lambda self: next(answers))
        with pytest.raises(Stopped, match="stopped in pretrain, after step 1 of 4"):
            pretrained(tmp_path, corpus, processes=1)
    pretrained(tmp_path, corpus, processes=2)
    same(tmp_path, alone)


def test_processes_is_checked(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="processes must be at least 1, got 0"):
        Run(tmp_path, size="tiny", seed=1, corpus=corpus, processes=0)


@pytest.mark.gpu(2)
def test_two_gpus_pretrain_as_one_does(corpus: Path, tmp_path: Path) -> None:
    """Over NCCL."""
    for processes in (1, 2):
        out = tmp_path / str(processes)
        pretrained(out, corpus, processes=processes, device="cuda")
    same(tmp_path / "2", tmp_path / "1")
