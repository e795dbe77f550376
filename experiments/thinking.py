"""What RL does to the texts of a small R1-Zero, step by step, for four rewards on three seeds.

    python experiments/thinking.py              # about 15 minutes on one idle CPU core
    python experiments/thinking.py --keep /some/folder    # finished seeds there: run again to go on

Every variant of a seed starts from one base, that of `experiments/r1.py`, and differs in one thing:
    zero        accuracy and format: the stage of the same name in `experiments/r1.py`
    language    the share of Chinese is rewarded too
    random      each reward is drawn at random
    forbidden   every completion starts with an empty thought

After every step it answers the same held-out problems with the same random numbers. `texts` holds a
letter for each token, its place in `shellgame.SYMBOLS` counted from `ALPHABET[0]`. `length` counts
all tokens of an answer, given ones too.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _record import collect, parser, write
from grpo import at_random
from r1 import THREE_RULES, Recipe, chinese, scores, trained

from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl import shellgame
from dsnotes.rl.presets import PRESETS, Preset, new_model
from dsnotes.rl.r1_zero import base_step, grpo_step, respond
from dsnotes.rl.reward import accuracy_reward, format_reward
from dsnotes.training.state import Report, TrainState

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcde"  # one for each of `shellgame.SYMBOLS`
SHOWN = (1, 2, 3)  # seeds of the problems whose answers are kept; `r1.written` has the first
CURVE_PROBLEMS = 200
CURVE_SAMPLES = 4


def letters(tokens: Sequence[int]) -> str:
    """A letter for each token of a completion, without the padding."""
    return "".join(ALPHABET[token] for token in tokens if token != shellgame.PAD)


def asked(preset: Preset, count: int, *, seed: int) -> shellgame.Problems:
    """Held-out problems."""
    generator = torch.Generator().manual_seed(seed)
    return shellgame.problems(count, swaps=preset.swaps, held_out=True, generator=generator)


def observed(model: DeepSeek, preset: Preset, *, prefix: Sequence[int]) -> dict[str, Any]:
    """The scores of the model as it is, and four answers to each problem that is shown."""
    given = asked(preset, CURVE_PROBLEMS, seed=0)
    sampler = torch.Generator(device=preset.device).manual_seed(0)
    rollout, texts, right = respond(
        model, preset, given, samples=CURVE_SAMPLES, prefix=prefix, sampler=sampler
    )
    found = {
        "accuracy": statistics.mean(accuracy_reward(texts, answer=right)),
        "format": statistics.mean(format_reward(texts)),
        "chinese": statistics.mean(chinese(texts)),
        "length": len(prefix) + rollout.lengths.float().mean().item(),
    }
    said = []
    for seed in SHOWN:
        sampler = torch.Generator(device=preset.device).manual_seed(seed)
        one = asked(preset, 1, seed=seed)
        rollout, _, _ = respond(model, preset, one, samples=4, prefix=prefix, sampler=sampler)
        said.append([letters([*prefix, *row]) for row in rollout.completions])
    return {name: round(value, 3) for name, value in found.items()} | {"texts": said}


def run(seed: int, *, preset: Preset, recipe: Recipe) -> dict[str, Any]:
    """All variants of one seed, each step of them as plain data."""
    wall, cpu = time.monotonic(), time.process_time()
    on_base = partial(base_step, preset=preset, script="mixed")
    base = trained(
        new_model(preset, seed=seed),
        on_base,
        steps=round(recipe.base_longer * preset.base_steps),
        rate=preset.base_learning_rate,
        seed=seed,
        name="base",
    )
    step = partial(grpo_step, preset=preset)
    variants = {
        "zero": (step, ()),
        "language": (partial(step, reward=THREE_RULES), ()),
        "random": (partial(step, reward=at_random(seed)), ()),
        "forbidden": (partial(step, prefix=shellgame.NO_THOUGHT), shellgame.NO_THOUGHT),
    }
    found: dict[str, Any] = {"seed": seed, "variants": {}, "after": {}}
    for name, (learn, prefix) in variants.items():
        seen = [observed(base, preset, prefix=prefix)]

        def watched(state: TrainState, learn=learn, prefix=prefix, seen=seen) -> Report:
            report = learn(state)
            seen.append(observed(state.model, preset, prefix=prefix))
            return report

        model = trained(
            base, watched, steps=preset.rl_steps, rate=preset.rl_learning_rate, seed=seed, name=name
        )
        found["variants"][name] = {key: [each[key] for each in seen] for key in seen[0]}
        found["after"][name] = scores(model, preset) if not prefix else None
    found["minutes"] = round((time.monotonic() - wall) / 60, 2)
    found["cpu_minutes"] = round((time.process_time() - cpu) / 60, 2)
    return found


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(3))
    options.add_argument("--preset", choices=PRESETS, default="laptop")
    options.add_argument("--keep", type=Path, help="folder of finished seeds, to stop and go on")
    arguments = options.parse_args()
    preset, recipe = PRESETS[arguments.preset], Recipe()
    one = partial(run, preset=preset, recipe=recipe)
    runs = list(collect(one, [(seed,) for seed in arguments.seeds], keep=arguments.keep))
    problems = [shellgame.decode(asked(preset, 1, seed=s).prompts[0].tolist()) for s in SHOWN]
    write(
        arguments.out,
        script=__file__,
        settings={
            "preset": asdict(preset),
            "recipe": recipe._asdict(),
            "alphabet": ALPHABET,
            "problems": problems,
            "curve": {"problems": CURVE_PROBLEMS, "samples": CURVE_SAMPLES},
        },
        runs=runs,
        device=preset.device,
        minutes=sum(r["minutes"] for r in runs),
        cpu_minutes=sum(r["cpu_minutes"] for r in runs),
    )


if __name__ == "__main__":
    main()
