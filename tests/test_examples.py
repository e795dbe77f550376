"""The scripts of `examples/`, run as a reader runs them."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dsnotes.rl.shellgame import encode, is_held_out

SCRIPT = Path(__file__).parent.parent / "examples" / "trl_grpo.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("trl_grpo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_trl_trains_on_the_same_problems_and_rewards(tmp_path: Path) -> None:
    """Two steps of GRPOTrainer on a tiny model: rewards arrive, are weighted, and move weights."""
    done = subprocess.run(
        [sys.executable, SCRIPT, "--steps", "2", "--problems", "20", "--out", tmp_path / "run"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "2 steps, 1 process(es)" in done.stdout
    history = json.loads((tmp_path / "run" / "history.json").read_text("utf-8"))
    assert [entry["step"] for entry in history] == [1, 2]
    for entry in history:
        accuracy, kept = (entry[f"rewards/{n}_reward/mean"] for n in ("accuracy", "format"))
        assert entry["reward"] == pytest.approx(accuracy + 0.1 * kept, abs=1e-5)
        assert kept > 0.5  # what TRL hands to the reward is the text with all its tags
    assert max(entry["grad_norm"] for entry in history) > 0
    assert max(abs(entry["loss"]) for entry in history) < 1e-5  # trap 3: 0, and it learns


def test_problems_are_training_problems_in_symbols_or_words(script: ModuleType) -> None:
    symbols = script.rows(50, swaps=3, in_words=False, seed=0)
    words = script.rows(50, swaps=3, in_words=True, seed=0)
    assert not any(is_held_out(torch.tensor([encode(row["prompt"]) for row in symbols])))
    for short, long in zip(symbols, words, strict=True):
        ball, *pairs, _ = short["prompt"].split()
        assert f"cup {ball}." in long["prompt"]
        assert ", ".join(pairs) in long["prompt"]
        assert short["answer"] == long["answer"]
