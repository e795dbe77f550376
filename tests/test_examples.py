"""The scripts of `examples/`, run as a reader runs them."""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from dsnotes.data.poems import verses
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.rl.shellgame import encode, is_held_out
from dsnotes.training.verses import Vocabulary, vocabulary
from dsnotes.weights import checkpoint
from dsnotes.weights.hf import from_transformers
from dsnotes.whole import stages
from dsnotes.whole.run import Run
from dsnotes.whole.sizes import SIZES

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPT = EXAMPLES / "trl_grpo.py"


def imported(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def script() -> ModuleType:
    return imported("trl_grpo")


@pytest.fixture
def verse_model() -> ModuleType:
    return imported("verse_model")


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_trl_trains_on_the_same_problems_and_rewards(tmp_path: Path) -> None:
    """Two steps of GRPOTrainer on a tiny model: rewards arrive, are weighted, and move weights."""
    told = run(SCRIPT, "--steps", "2", "--problems", "20", "--out", "run", cwd=tmp_path)
    assert "2 steps, 1 process(es)" in told
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


# --- the verse model: torchrun and TRL ---


def test_two_processes_of_torchrun_pretrain_as_the_run_does(tmp_path: Path) -> None:
    """Stopped on the way, they go on; the model is the library's, prediction module and all."""
    Run(tmp_path / "run", size="tiny", seed=0).stage("pretrain", stages.pretrain)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, EXAMPLES / "verse_pretrain.py", "--out", "two"]
    assert "steps 1 to 2 of 4 on 2" in run(*command, "--until-step", "2", cwd=tmp_path)
    assert "steps 3 to 4 of 4 on 2" in run(*command, cwd=tmp_path)
    alone = json.loads((tmp_path / "run" / "pretrain.json").read_text("utf8"))
    history = json.loads((tmp_path / "two" / "history.json").read_text("utf8"))
    assert history["loss"] == pytest.approx(alone["training_loss"], abs=2e-4)
    ours, theirs = (
        checkpoint.load(tmp_path / path).state_dict() for path in ("two/model", "run/pretrain")
    )
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def moved(out: Path) -> float:
    """How far the weights of transformers' model have gone; ours has a place for each."""
    from transformers import DeepseekV3ForCausalLM

    start, end = (
        from_transformers(DeepseekV3ForCausalLM.from_pretrained(out / name)).state_dict()
        for name in ("start", "model")
    )
    return max((start[name] - end[name]).abs().max().item() for name in start)


def test_trl_trains_on_the_rules_of_verse(tmp_path: Path) -> None:
    assert "3 steps, 1 process(es)" in run(EXAMPLES / "verse_grpo.py", cwd=tmp_path)
    history = json.loads((tmp_path / "verse_grpo" / "history.json").read_text("utf8"))
    names = {"regulated": 1.0, "every_rule": 0.5, "novelty": 0.2, "diversity": 0.2}
    for entry in history:
        terms = (w * entry[f"rewards/{n}_reward/mean"] for n, w in names.items())
        assert entry["reward"] == pytest.approx(sum(terms), abs=1e-5)
        assert entry["rewards/novelty_reward/mean"] > 0.2  # lines, with nothing between characters
    assert history[-1]["kl"] > 0
    assert 0 < moved(tmp_path / "verse_grpo") < 1e-2


def test_trl_reads_poems(tmp_path: Path) -> None:
    assert "3 steps, 1 process(es)" in run(EXAMPLES / "verse_sft.py", cwd=tmp_path)
    history = json.loads((tmp_path / "verse_sft" / "history.json").read_text("utf8"))
    assert all(4 < entry["loss"] < 8 for entry in history)
    assert 0 < moved(tmp_path / "verse_sft") < 1e-2


def test_characters_are_the_tokens_of_the_library(verse_model: ModuleType) -> None:
    tokenizer = verse_model.tokenizer(vocabulary())
    for verse in verses()[:200]:
        text = verse_model.prompt(vocabulary(), verse) + verse.text
        tokens = vocabulary().encode(verse)
        assert [*tokenizer(text)["input_ids"], tokenizer.eos_token_id] == tokens
        assert tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_a_checkpoint_of_the_run_is_what_trl_starts_from(
    verse_model: ModuleType, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, DeepseekV3ForCausalLM

    config = replace(SIZES["tiny"].model, vocab_size=len(vocabulary()))
    ours, start = add_modules(DeepSeek(config)), tmp_path / "start"
    checkpoint.save(ours, tmp_path / "pretrain")
    verse_model.prepared(tmp_path / "pretrain", vocabulary(), [], start)
    theirs = DeepseekV3ForCausalLM.from_pretrained(start).eval()
    tokenizer = AutoTokenizer.from_pretrained(start)
    tokens = tokenizer("<五絕><尤>登樓<text>白日", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=1e-4, atol=1e-5)
    few = [verse for verse in verses() if verse.form == "五絕"]
    with pytest.raises(ValueError, match="--corpus must be the file that it was trained on"):
        verse_model.prepared(tmp_path / "pretrain", Vocabulary.of(few), [], tmp_path / "other")
