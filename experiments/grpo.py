r"""A small R1-Zero on nine seeds, with its controls on three.

    python experiments/grpo.py                    # about 12 minutes on one idle CPU core
    python experiments/grpo.py --preset gpu --seeds 0 1 2 --control-seeds \
        --out book/data/runs/grpo_gpu.json        # 8 minutes on an H100
    python experiments/grpo.py --keep /some/folder    # checkpoints there: run again to go on

Every variant of a seed starts from the same base model (trained once, in `zero`), or from its own:
    zero            GRPO, rewards by rule only
    forbidden       the same, but every completion starts with an empty thought
    random          the same, but each reward is drawn at random
    more_text       no GRPO: further supervised training on base text
    chance          GRPO on a base that stopped while its complete thoughts were still at chance
    short           GRPO on a base that rarely writes a complete thought
"""

import copy
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from _record import collect, parser, write

from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.presets import PRESETS, Preset, new_model
from dsnotes.rl.r1_zero import Scores, base_step, evaluate, grpo_step
from dsnotes.rl.shellgame import NO_THOUGHT
from dsnotes.training.loop import train
from dsnotes.training.state import Report, TrainState

CONTROLS = ("forbidden", "random", "more_text", "chance", "short")
EVALUATE_EVERY = 10  # steps, on fewer problems than at the end
CURVE_PROBLEMS = 100
CHANCE_SHARE = 0.3  # of the steps of the base, after which it stops for `chance`
SHORT_SHARE = 0.05  # of the base text of `short` is a complete thought
# A step of GRPO takes longer than one on text, because it samples first. Generous to the text.
TEXT_STEPS_PER_RL_STEP = 2.5
OPTIMIZER = {"weight_decay": 0.01, "cooldown": 0.3}


def short_lengths(swaps: int) -> tuple[float, ...]:
    """Complete thoughts in `SHORT_SHARE` of the text; of the others, short ones are common."""
    ramp = [float(swaps - k) for k in range(swaps)]
    return (*(w / sum(ramp) * (1 - SHORT_SHARE) for w in ramp), SHORT_SHARE)


def trained_base(preset: Preset, *, seed: int, name: str, folder: Path) -> DeepSeek:
    """A model trained on base text only."""
    state = TrainState.create(
        new_model(preset, seed=seed),
        steps=preset.base_steps,
        learning_rate=preset.base_learning_rate,
        seed=seed,
        **OPTIMIZER,
    )
    trained(state, partial(base_step, preset=preset), name=name, seed=seed, folder=folder)
    return state.model


def trained(
    state: TrainState, step: Callable[[TrainState], Report], *, name: str, seed: int, folder: Path
) -> list[Report]:
    """To the end, from a checkpoint where there is one."""
    checkpoint = folder / f"{name}-{seed}.pt"
    for _ in train(state, step, checkpoint=checkpoint, description=f"{name}, seed {seed}"):
        pass
    return state.history


def reinforced(
    base: DeepSeek,
    preset: Preset,
    *,
    seed: int,
    name: str,
    folder: Path,
    steps: int,
    learning_rate: float,
    step: Callable[[TrainState], Report],
    prefix: tuple[int, ...] = (),
) -> dict[str, Any]:
    """Train a copy of the base further; curves and end points as plain data."""
    model = copy.deepcopy(base)
    state = TrainState.create(
        model, steps=steps, learning_rate=learning_rate, seed=seed, **OPTIMIZER
    )
    scores = partial(evaluate, preset=preset, prefix=prefix)
    before, start = scores(model), scores(model, problems=CURVE_PROBLEMS)

    def observed(state: TrainState) -> Report:
        report = step(state)
        if state.step % EVALUATE_EVERY == 0:
            report |= scores(model, problems=CURVE_PROBLEMS)._asdict()
        return report

    history = trained(state, observed, name=name, seed=seed, folder=folder)
    held_out = [start._asdict(), *(r for r in history if "pass_at_1" in r)]
    return {
        "variant": name,
        "seed": seed,
        "before": rounded(before),
        "after": rounded(scores(model)),
        "held_out": {f: [round(r[f], 3) for r in held_out] for f in Scores._fields},
        "training": {key: [round(r[key], 3) for r in history] for key in history[0]},
    }


def rounded(evaluation: Scores) -> dict[str, float]:
    return {name: round(value, 4) for name, value in evaluation._asdict().items()}


def at_random(seed: int) -> Callable[..., list[float]]:
    """A reward that is 0 or 1, whatever the completion says."""
    rng = random.Random(seed)

    def reward(completions: list[str], **columns: Any) -> list[float]:
        return [float(rng.random() < 0.5) for _ in completions]

    return reward


def run(variant: str, seed: int, *, preset: Preset, folder: Path) -> dict[str, Any]:
    """One variant of one seed, from the base on."""
    wall, cpu = time.monotonic(), time.process_time()
    name = "base"
    if variant == "chance":
        name, steps = "chance_base", round(CHANCE_SHARE * preset.base_steps)
        preset = replace(preset, base_steps=steps)
    elif variant == "short":
        name, preset = "short_base", replace(preset, base_lengths=short_lengths(preset.swaps))
    base = trained_base(preset, seed=seed, name=name, folder=folder)
    wall_base, cpu_base = time.monotonic() - wall, time.process_time() - cpu
    grpo = partial(grpo_step, preset=preset)
    further = partial(
        reinforced, base, preset, seed=seed, name=variant, folder=folder,
        steps=preset.rl_steps, learning_rate=preset.rl_learning_rate,
    )  # fmt: skip
    if variant == "forbidden":
        result = further(step=partial(grpo, prefix=NO_THOUGHT), prefix=NO_THOUGHT)
    elif variant == "random":
        result = further(step=partial(grpo, reward=at_random(seed)))
    elif variant == "more_text":
        steps = round(TEXT_STEPS_PER_RL_STEP * preset.rl_steps)
        result = further(step=partial(base_step, preset=preset), steps=steps)
    else:
        result = further(step=grpo)
    seconds = {
        "base_wall": wall_base,
        "base_cpu": cpu_base,
        "wall": time.monotonic() - wall,
        "cpu": time.process_time() - cpu,
    }
    return result | {"seconds": {key: round(value, 1) for key, value in seconds.items()}}


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(9))
    options.add_argument("--preset", choices=PRESETS, default="laptop")
    options.add_argument("--control-seeds", type=int, nargs="*", default=[0, 1, 2])
    options.add_argument("--keep", type=Path, help="folder of checkpoints, to stop and go on")
    arguments = options.parse_args()
    preset = PRESETS[arguments.preset]
    jobs = [("zero", seed) for seed in arguments.seeds]
    jobs += [(variant, seed) for seed in arguments.control_seeds for variant in CONTROLS]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        runs = list(collect(partial(run, preset=preset, folder=folder), jobs, keep=folder))
    settings = {
        "preset": asdict(preset),
        "parameters": sum(p.numel() for p in new_model(preset, seed=0).parameters()),
        "evaluate_every": EVALUATE_EVERY,
    }
    write(
        arguments.out,
        script=__file__,
        settings=settings,
        runs=runs,
        device=preset.device,
        minutes=sum(r["seconds"]["wall"] for r in runs) / 60,
        cpu_minutes=sum(r["seconds"]["cpu"] for r in runs) / 60,
    )


if __name__ == "__main__":
    main()
