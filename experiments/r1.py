"""The pipeline of R1 in miniature, and distillation against RL on a smaller model, on three seeds.

    python experiments/r1.py                    # about 12 minutes on one idle CPU core
    python experiments/r1.py --keep /some/folder    # finished seeds there: run again to go on

The base text mixes two languages step by step, as R1-Zero mixed them. The stages are those of R1
(arXiv 2501.12948, v2, figure 2), each with what it starts from:
    base        random weights: supervised training on bad text
    zero        base: GRPO, accuracy and format
    dev1        base: supervised training on a few right answers of zero, put into one language
    dev2        dev1: GRPO, accuracy, format and language
    dev3        base: supervised training on many answers of dev2 that pass all three rules
    r1          dev3: GRPO as for dev2
    student     a smaller base, trained on the same kind of text, not as long
    distilled   student: supervised training on answers of r1 that pass all three rules
    student_rl  student: GRPO as for dev2
    longer      the smaller base, trained as long as the larger one
    longer_rl   longer: GRPO as for dev2

Left out: prompts that are no puzzles, and reward models for them (stages 3 and 4 of R1).
"""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _record import collect, parser, write

from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl import shellgame
from dsnotes.rl.presets import PRESETS, Preset, new_model
from dsnotes.rl.r1_zero import (
    base_step,
    evaluate,
    grpo_step,
    rejection_sample,
    respond,
    supervised_step,
)
from dsnotes.rl.reward import accuracy_reward, format_reward, language_reward, weighted_sum
from dsnotes.rl.shellgame import encode
from dsnotes.training.loop import train
from dsnotes.training.state import Report, TrainState

STAGES = (
    *("base", "zero", "dev1", "dev2", "dev3", "r1"),
    *("student", "distilled", "student_rl", "longer", "longer_rl"),
)


class Recipe(NamedTuple):
    """What the stages need besides the preset; problems are those that answers are drawn for."""

    base_longer: float = 2.4  # times the steps of the preset: two languages take longer to learn
    rate: float = 1e-3  # supervised, after the base
    batch: int = 64
    cold_problems: int = 40  # for dev1, four answers each
    cold_steps: int = 30
    data_problems: int = 1000  # for dev3, four answers each
    data_steps: int = 120  # two epochs
    second_rl: float = 0.5  # of the steps of the first
    teacher_problems: int = 4000  # for the student, four answers each
    distil_steps: int = 300
    student_hidden_size: int = 32


def chinese(completions: list[str], **columns: Any) -> list[float]:
    """Share of the words of the thought that are Chinese."""
    return language_reward(completions, language=["zh"] * len(completions))


# R1 adds accuracy and language as they are; the format counts as in the run of R1-Zero.
THREE_RULES = weighted_sum([accuracy_reward, format_reward, chinese], weights=[1.0, 0.1, 1.0])


def keep_all_three(completions: list[str], **columns: Any) -> list[float]:
    """1.0 for what is right, in the template and in Chinese throughout."""
    rules = (accuracy_reward, format_reward, chinese)
    scores = zip(*(rule(completions, **columns) for rule in rules), strict=True)
    return [min(each) for each in scores]


def into_chinese(completions: torch.Tensor) -> torch.Tensor:
    """Every English position replaced by its Chinese name: the rewriting of the cold-start data."""
    english, chinese_one = encode("one")[0], encode("一")[0]
    is_english = (completions >= english) & (completions < english + shellgame.CUPS)
    return torch.where(is_english, completions - english + chinese_one, completions)


def scores(model: DeepSeek, preset: Preset, *, problems: int = 200) -> dict[str, float]:
    """`evaluate`, and the share of Chinese in the thoughts."""
    given = shellgame.problems(
        problems, swaps=preset.swaps, held_out=True, generator=torch.Generator().manual_seed(0)
    )
    sampler = torch.Generator(device=preset.device).manual_seed(0)
    _, texts, _ = respond(model, preset, given, samples=4, sampler=sampler)
    found = evaluate(model, preset, problems=problems)._asdict()
    found["chinese"] = statistics.mean(chinese(texts))
    return {name: round(value, 4) for name, value in found.items()}


def written(model: DeepSeek, preset: Preset) -> list[dict[str, str]]:
    """Four answers to one problem that was held out: what the pages quote."""
    given = shellgame.problems(
        1, swaps=preset.swaps, held_out=True, generator=torch.Generator().manual_seed(1)
    )
    sampler = torch.Generator(device=preset.device).manual_seed(1)
    _, texts, answers = respond(model, preset, given, samples=4, sampler=sampler)
    problem = shellgame.decode(given.prompts[0].tolist())
    return [
        {"problem": problem, "right": right, "text": text}
        for text, right in zip(texts, answers, strict=True)
    ]


def trained(
    model: DeepSeek,
    step: Callable[[TrainState], Report],
    *,
    steps: int,
    rate: float,
    seed: int,
    name: str,
) -> DeepSeek:
    """A copy of the model after `steps` steps."""
    model = copy.deepcopy(model)
    state = TrainState.create(
        model, steps=steps, learning_rate=rate, seed=seed, weight_decay=0.01, cooldown=0.3
    )
    for _ in train(state, step, description=f"{name}, seed {seed}"):
        pass
    return model


def text_step(state: TrainState, *, data: tuple[torch.Tensor, torch.Tensor], batch: int) -> Report:
    """A supervised step on a random part of the data."""
    rows = torch.randint(len(data[0]), (batch,), generator=state.generator)
    return supervised_step(state, data[0][rows], data[1][rows])


def run(seed: int, *, preset: Preset, recipe: Recipe) -> dict[str, Any]:
    """All stages of one seed; scores, sizes of the data and seconds as plain data."""
    wall, whole = time.monotonic(), time.process_time()
    models: dict[str, DeepSeek] = {}
    seconds, samples = {}, {}

    def stage(
        name: str, start: DeepSeek, step: Callable[[TrainState], Any], **options: Any
    ) -> None:
        cpu = time.process_time()
        models[name] = trained(start, step, seed=seed, name=name, **options)
        seconds[name] = round(time.process_time() - cpu, 1)

    def answers(name: str, problems: int, keep: Callable[..., list[float]]) -> Any:
        data = rejection_sample(
            models[name], preset, problems=problems, samples=4, keep=keep, seed=seed
        )
        solved = shellgame.completions(
            shellgame.read(data[0]), script="zh", generator=torch.Generator()
        )
        same = (into_chinese(data[1])[:, : solved.shape[1]] == solved).all(dim=1)
        samples[name] = {
            "drawn": 4 * problems,
            "kept": len(data[0]),
            "perfect": round(same.float().mean().item(), 4),  # every step right, not only the last
        }
        return data

    on_base = partial(base_step, preset=preset, script="mixed")
    base = {"steps": preset.base_steps, "rate": preset.base_learning_rate}
    rl = {"steps": preset.rl_steps, "rate": preset.rl_learning_rate}
    rules = partial(grpo_step, preset=preset)
    three = partial(rules, reward=THREE_RULES)

    longer = base | {"steps": round(recipe.base_longer * preset.base_steps)}
    stage("base", new_model(preset, seed=seed), on_base, **longer)
    stage("zero", models["base"], rules, **rl)
    prompts, completions = answers("zero", recipe.cold_problems, right_and_formatted)
    cold = partial(text_step, data=(prompts, into_chinese(completions)), batch=recipe.batch)
    stage("dev1", models["base"], cold, steps=recipe.cold_steps, rate=recipe.rate)
    stage("dev2", models["dev1"], three, **rl)
    data = answers("dev2", recipe.data_problems, keep_all_three)
    on_data = partial(text_step, data=data, batch=recipe.batch)
    stage("dev3", models["base"], on_data, steps=recipe.data_steps, rate=recipe.rate)
    second = rl | {"steps": round(recipe.second_rl * preset.rl_steps)}
    stage("r1", models["dev3"], three, **second)

    config = replace(preset.config, hidden_size=recipe.student_hidden_size)
    small = replace(preset, config=config)
    stage("student", new_model(small, seed=seed), on_base, **base)
    data = answers("r1", recipe.teacher_problems, keep_all_three)
    on_data = partial(text_step, data=data, batch=2 * recipe.batch)
    stage("distilled", models["student"], on_data, steps=recipe.distil_steps, rate=2 * recipe.rate)
    stage("student_rl", models["student"], three, **rl)
    stage("longer", new_model(small, seed=seed), on_base, **longer)
    stage("longer_rl", models["longer"], three, **rl)
    return {
        "seed": seed,
        "stages": {name: scores(models[name], preset) for name in STAGES},
        "texts": {name: written(models[name], preset) for name in STAGES},
        "samples": samples,
        "cpu_seconds": seconds,
        "parameters": {
            name: sum(p.numel() for p in models[name].parameters()) for name in ("base", "student")
        },
        "minutes": round((time.monotonic() - wall) / 60, 2),
        "cpu_minutes": round((time.process_time() - whole) / 60, 2),
    }


def right_and_formatted(completions: list[str], **columns: Any) -> list[float]:
    """1.0 for what is right and in the template, in whatever language."""
    pairs = zip(accuracy_reward(completions, **columns), format_reward(completions), strict=True)
    return [min(pair) for pair in pairs]


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(3))
    options.add_argument("--preset", choices=PRESETS, default="laptop")
    options.add_argument("--keep", type=Path, help="folder of finished seeds, to stop and go on")
    arguments = options.parse_args()
    preset, recipe = PRESETS[arguments.preset], Recipe()
    one = partial(run, preset=preset, recipe=recipe)
    runs = list(collect(one, [(seed,) for seed in arguments.seeds], keep=arguments.keep))
    write(
        arguments.out,
        script=__file__,
        settings={"preset": asdict(preset), "recipe": recipe._asdict()},
        runs=runs,
        device=preset.device,
        minutes=sum(r["minutes"] for r in runs),
        cpu_minutes=sum(r["cpu_minutes"] for r in runs),
    )


if __name__ == "__main__":
    main()
