"""The same problems and the same rewards on a real model: GRPO with TRL, on one GPU or several.

    python examples/trl_grpo.py                                      # dry run on a CPU, no download
    torchrun --nproc_per_node 2 examples/trl_grpo.py --batch 8       # the same on two processes
    accelerate launch --num_processes 8 examples/trl_grpo.py --model Qwen/Qwen2.5-1.5B --steps 500

A group may lie on several processes: processes * batch * accumulate must be a multiple of G.

The rewards are those of `dsnotes.rl.r1_zero.RULES`, their weights included; the question is put in
words. Without `--model` a tiny DeepSeek takes its place, after a few seconds of supervised training
on the layout of an answer: a run of a few steps, to see that all parts fit before a machine is
rented.
Needs `pip install trl accelerate` beside dsnotes.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from dsnotes.rl import shellgame
from dsnotes.rl.presets import LAPTOP, new_model
from dsnotes.rl.r1_zero import supervised_step
from dsnotes.rl.reward import accuracy_reward, format_reward
from dsnotes.training.loop import train
from dsnotes.training.state import Report, TrainState
from dsnotes.weights.hf import to_transformers

STAND_IN_STEPS = 60
QUESTION = (
    "Five cups stand in a row, numbered 1 to 5, and a ball lies under cup {ball}. Then these pairs "
    "of cups change places, one pair after the other: {swaps}. Under which cup is the ball? Write "
    "where it is after each swap between <think> and </think>, then the number of the last cup "
    "between <answer> and </answer>, and nothing else.\n"
)


def rows(count: int, *, swaps: int, in_words: bool, seed: int) -> list[dict[str, str]]:
    """Training problems: the column `prompt` for the model, `answer` for the rewards."""
    generator = torch.Generator().manual_seed(seed)
    drawn = shellgame.problems(count, swaps=swaps, generator=generator)
    made = []
    for tokens, answer in zip(drawn.prompts.tolist(), drawn.answers, strict=True):
        text = shellgame.decode(tokens)
        if in_words:
            ball, *pairs, _ = text.split()
            text = QUESTION.format(ball=ball, swaps=", ".join(pairs))
        made.append({"prompt": text, "answer": answer})
    return made


def stand_in(*, swaps: int) -> tuple[Any, Any]:
    """A tiny DeepSeek in transformers' class, and a tokenizer of the symbols of the shell game.

    TRL drops the token that ends a completion from its text, so </answer> cannot be that token: the
    sign that ends a problem ends the completion too.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def step(state: TrainState) -> Report:
        given = shellgame.problems(64, swaps=swaps, generator=state.generator)
        text = shellgame.completions(given, generator=state.generator)
        end = torch.full((len(text), 1), shellgame.EQUALS)
        return supervised_step(state, given.prompts, torch.cat([text, end], dim=1))

    state = TrainState.create(new_model(LAPTOP, seed=0), steps=STAND_IN_STEPS, learning_rate=1e-2)
    list(train(state, step, progress=False))
    vocabulary = {symbol: i for i, symbol in enumerate(shellgame.SYMBOLS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="=", padding_side="left"
    )
    return to_transformers(state.model), tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="a name on the Hugging Face hub or a folder")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--swaps", type=int, default=6)
    parser.add_argument("--problems", type=int, default=2000)
    parser.add_argument("--group-size", type=int, default=16, help="G, completions per problem")
    parser.add_argument("--batch", type=int, default=16, help="completions per device and pass")
    parser.add_argument("--accumulate", type=int, default=1, help="passes per update")
    parser.add_argument("--max-tokens", type=int, default=None, help="default: 16, or 512")
    parser.add_argument("--learning-rate", type=float, default=1e-6)
    parser.add_argument("--vllm", action="store_true", help="sample with vLLM")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--out", type=Path, default=Path("trl_grpo"))
    arguments = parser.parse_args()
    if arguments.steps < 1:
        parser.error(f"--steps must be at least 1, got {arguments.steps}")

    # these take seconds to load: after the arguments are known to be right
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    model, tokenizer = (
        (arguments.model, None) if arguments.model else stand_in(swaps=arguments.swaps)
    )
    on_gpu = torch.cuda.is_available()
    settings = GRPOConfig(
        output_dir=str(arguments.out),
        max_steps=arguments.steps,
        num_generations=arguments.group_size,
        per_device_train_batch_size=arguments.batch,
        gradient_accumulation_steps=arguments.accumulate,
        max_completion_length=arguments.max_tokens or (512 if arguments.model else 16),
        learning_rate=arguments.learning_rate,
        temperature=1.0,
        loss_type="grpo",  # as `dsnotes.rl.r1_zero`: DeepSeekMath eq 3, no KL, std of the group
        beta=0.0,
        scale_rewards="group",
        reward_weights=[1.0, 0.1],
        use_vllm=arguments.vllm,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=on_gpu,
        logging_steps=1,
        save_steps=50,
        report_to=[],
        seed=0,
    )
    data = rows(
        arguments.problems, swaps=arguments.swaps, in_words=arguments.model is not None, seed=0
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[accuracy_reward, format_reward],
        args=settings,
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=arguments.resume or None)
    if trainer.accelerator.is_main_process:
        history = [entry for entry in trainer.state.log_history if "reward" in entry]
        (arguments.out / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")
        print(f"{len(history)} steps, {trainer.accelerator.num_processes} process(es)")


if __name__ == "__main__":
    main()
