"""Muon against AdamW on the verse model: the same search of the learning rate, three seeds a side.

The model is the stage `mla` of `dsnotes.training.growth`: eight experts a layer, latent attention.
Both sides train on the same poems in the same order from the same weights, with the same schedule,
decay and clipping; embedding, head and norms are with AdamW on both. They differ in the rule for
the other matrices and in AdamW's eps, and each has the learning rate that is best for it.

The search is the same for both, by a seed of its own: three rates, each twice the one before; as
long as the best lies at an end, the next one there is tried. The race then has the other seeds.

Writes book/data/runs/muon_race.json; takes about seven minutes of one core.

    python experiments/muon_race.py
    python experiments/muon_race.py --keep /some/folder    # finished runs are kept there
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from _record import Run, collect, parser, write

from dsnotes.after.muon import use_muon
from dsnotes.training import growth, poems
from dsnotes.training.loop import language_step, train

# AdamW has all weights, with the eps of PyTorch; or what V4 gives it, with V4's, which is 1e-20.
# At 1e-20 AdamW alone does slightly worse here
RULES: dict[str, dict[str, Any]] = {"adamw": {"adamw": ".", "eps": 1e-8}, "muon": {}}
RATES, SEARCH_SEED = (3e-3, 6e-3, 1.2e-2), 3
STEPS, BATCH_SIZE = 100, 32
EVERY = 10  # a point of a curve is the mean of so many steps


def run(rule: str, rate: float, seed: int, *, steps: int) -> Run:
    """Train from a seed with one rule and one learning rate, and measure on the held-out poems."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    state = growth.start("mla", steps=steps, seed=seed)
    use_muon(state, learning_rate=rate, **RULES[rule])
    times: list[float] = []
    state.optimizer.register_step_pre_hook(lambda *_: times.append(-time.process_time()))
    state.optimizer.register_step_post_hook(
        lambda *_: times.append(times.pop() + time.process_time())
    )
    data = poems.batches(steps=steps, batch_size=BATCH_SIZE, seed=seed)
    step = partial(language_step, **growth.options("mla"))
    began = time.process_time()
    reports = list(train(state, step, data, progress=False))
    spent = time.process_time() - began
    losses = torch.tensor([report["loss"] for report in reports], dtype=torch.float64)
    return {
        "variant": rule,
        "learning_rate": rate,
        "seed": seed,
        "held_out": round(poems.character_loss(state.model, poems.held_out().tokens), 4),
        "training_loss": [round(part.mean().item(), 3) for part in losses.split(EVERY)],
        "step_ms": round(1000 * spent / steps, 1),
        "optimizer_ms": round(1000 * median(times), 1),
    }


def search(rule: str, one: Callable[..., Run], *, keep: Path | None) -> tuple[float, list[Run]]:
    """The best rate for a rule, and runs of all that were tried: worse ones on both its sides."""
    rates = list(RATES)
    found: dict[float, Run] = {}
    while True:
        jobs = [(rule, rate, SEARCH_SEED) for rate in rates if rate not in found]
        found |= {run["learning_rate"]: run for run in collect(one, jobs, keep=keep)}
        best = min(rates, key=lambda rate: found[rate]["held_out"])
        if best == rates[0]:
            rates.insert(0, best / 2)
        elif best == rates[-1]:
            rates.append(best * 2)
        else:
            return best, [found[rate] for rate in rates]


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(3))
    options.add_argument("--steps", type=int, default=STEPS, help="of every training")
    options.add_argument("--keep", type=Path, help="folder of finished runs, to stop and go on")
    given = options.parse_args()
    one = partial(run, steps=given.steps)
    searches: list[Run] = []
    jobs = []
    for rule in RULES:
        best, tried = search(rule, one, keep=given.keep)
        searches += tried
        jobs += [(rule, best, seed) for seed in given.seeds]
    runs = list(collect(one, jobs, keep=given.keep))
    muon = growth.start("mla", steps=1, seed=0)
    use_muon(muon, learning_rate=1e-3)
    sizes = {
        group["rule"]: sum(weight.numel() for weight in group["params"])
        for group in muon.optimizer.param_groups
    }
    write(
        given.out,
        script=__file__,
        settings={
            "steps": given.steps,
            "search_seed": SEARCH_SEED,
            "batch_size": BATCH_SIZE,
            "cooldown": growth.COOLDOWN,
            "gamma": growth.GAMMA,
            "curve_every": EVERY,
            "optimizer": {k: v for k, v in muon.optimizer.defaults.items() if k != "lr"},
            "eps_of_adamw_alone": RULES["adamw"]["eps"],
            "config": asdict(growth.config_of("mla")),
        },
        runs=runs,
        tables={"search": searches, "parameters": [sizes]},
    )


if __name__ == "__main__":
    main()
