"""Our rewards inside TRL's GRPOTrainer, and our preference loss and reward model against its peers.

The trainer runs on a random model whose every token is a whole completion, so that right, wrong and
badly formatted ones all occur in a batch of a few.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.reward import (
    Completions,
    accuracy_reward,
    expression_reward,
    format_reward,
    language_reward,
    think_reward,
    weighted_sum,
)
from dsnotes.rl.reward_model import RewardModel, bradley_terry_loss
from dsnotes.weights.hf import to_transformers

TOKENS = [
    "<pad>",
    "<eos>",
    "?",
    "<think>\n先算\n</think>\n<answer>\n3\n</answer>",
    "<think>\n先算 two\n</think>\n<answer>\n1+2\n</answer>",
    "<think>算</think> 3",
    "3",
]
SMALL = replace(
    TINY,
    vocab_size=len(TOKENS),
    num_hidden_layers=1,
    first_k_dense_replace=1,
    num_nextn_predict_layers=0,
)


@pytest.fixture(autouse=True, scope="module")
def _trl() -> None:
    """Its import warns of deprecated names in its own dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import trl.trainer.grpo_trainer  # noqa: F401


def tokenizer() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({t: i for i, t in enumerate(TOKENS)}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    words.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    )
    made.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return made


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("conversational", [False, True])
def test_trainer_runs_on_our_rewards(tmp_path: Path, conversational: bool) -> None:
    """Two steps: TRL logs the means of what our functions return, and the weights move."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    seen: dict[str, list[tuple[Completions, list[float]]]] = {}

    def watched(function: Callable[..., list[float]], name: str) -> Callable[..., list[float]]:
        def call(completions: Completions, **columns: Any) -> list[float]:
            values = function(completions, **columns)
            seen.setdefault(name, []).append((completions, values))
            return values

        call.__name__ = name
        return call

    functions = {
        f.__name__: f
        for f in (accuracy_reward, format_reward, think_reward, language_reward, expression_reward)
    }
    functions["sum"] = weighted_sum([accuracy_reward, format_reward], weights=[1.0, 0.1])
    prompts = ["?"] * 4
    data = Dataset.from_dict(
        {
            "prompt": [[{"role": "user", "content": p}] for p in prompts]
            if conversational
            else prompts,
            "answer": ["3"] * 4,
            "language": ["zh"] * 4,
            "numbers": [[1, 2]] * 4,
            "target": [3] * 4,
        }
    )
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = GRPOTrainer(
            model=to_transformers(DeepSeek(SMALL)),
            reward_funcs=[watched(function, name) for name, function in functions.items()],
            args=GRPOConfig(
                output_dir=str(tmp_path),
                per_device_train_batch_size=16,
                num_generations=8,
                max_completion_length=1,
                reward_weights=[1.0, 1.0, 1.0, 1.0, 1.0, 0.5],
                max_steps=2,
                learning_rate=1e-3,
                logging_steps=1,
                report_to=[],
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                save_strategy="no",
                disable_tqdm=True,
            ),
            train_dataset=data,
            processing_class=tokenizer(),
        )
        before = [p.clone() for p in trainer.model.parameters()]
        trainer.train()
    moved = [(p - q).abs().max() for p, q in zip(trainer.model.parameters(), before, strict=True)]
    assert max(moved) > 1e-4
    steps = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(steps) == 2
    for name, calls in seen.items():
        assert len(calls) == 2
        for (completions, values), entry in zip(calls, steps, strict=True):
            assert isinstance(completions[0], list if conversational else str)
            mean = sum(values) / len(values)
            assert entry[f"rewards/{name}/mean"] == pytest.approx(mean, abs=1e-6)
    found = {name: {v for _, values in calls for v in values} for name, calls in seen.items()}
    assert found["accuracy_reward"] == found["format_reward"] == found["think_reward"] == {0.0, 1.0}
    assert found["language_reward"] == {0.0, 2 / 3, 1.0}
    assert found["expression_reward"] == {0.0, 1.0}
    assert {0.0, 0.1, 1.0, 1.1} == {round(v, 6) for v in found["sum"]}


def test_preference_loss_is_that_of_reward_trainer(
    parity: Callable[[str, Tensor, float], None],
) -> None:
    """TRL's RewardTrainer.compute_loss on scores that it is handed instead of a model's."""
    from types import SimpleNamespace

    from trl import RewardTrainer

    chosen, rejected = torch.randn(2, 64) * 5
    scores = torch.cat([chosen, rejected])[:, None].requires_grad_()
    ours = scores.detach().clone().requires_grad_()
    stub = SimpleNamespace(
        args=SimpleNamespace(center_rewards_coefficient=None),
        model=SimpleNamespace(training=False),
        accelerator=SimpleNamespace(gather_for_metrics=lambda x: x, gather=lambda x: x),
        _metrics={"train": _Lists(), "eval": _Lists()},
        num_input_tokens_seen=0,
        _total_train_tokens=0,
    )
    inputs = {"input_ids": torch.zeros(128, 1), "attention_mask": torch.ones(128, 1)}
    theirs = RewardTrainer.compute_loss(
        stub, lambda **_: SimpleNamespace(logits=scores, loss=None), inputs
    )
    theirs.backward()
    loss = bradley_terry_loss(ours[:64, 0], ours[64:, 0])
    loss.backward()
    parity("preference loss", (loss - theirs).abs().detach(), 1e-6)
    parity("its gradient", (ours.grad - scores.grad).abs().max(), 1e-7)


class _Lists(dict[str, list[Any]]):
    def __missing__(self, key: str) -> list[Any]:
        self[key] = []
        return self[key]


def test_scores_are_those_of_transformers(parity: Callable[[str, Tensor, float], None]) -> None:
    """DeepseekV3ForSequenceClassification with one label and our weights, on padded rows."""
    from transformers import DeepseekV3ForSequenceClassification

    language_model = DeepSeek(replace(SMALL, vocab_size=16, initializer_range=0.2))
    ours = RewardModel(language_model)
    torch.nn.init.normal_(ours.score.weight)
    peer = to_transformers(language_model)
    peer.config.num_labels, peer.config.pad_token_id = 1, 15
    theirs = DeepseekV3ForSequenceClassification(peer.config).eval()
    state = {f"model.{n}": t for n, t in peer.model.state_dict().items()}
    theirs.load_state_dict(state | {"score.weight": ours.score.weight})
    lengths = torch.tensor([9, 4, 6])
    tokens = torch.randint(15, (3, 9)).masked_fill(torch.arange(9) >= lengths[:, None], 15)
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=(tokens != 15).long()).logits[:, 0]
        found = ours(tokens, lengths=lengths)
    assert expected.std() > 0.3
    parity("scores", (found - expected).abs().max(), 1e-5)
