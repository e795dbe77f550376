"""One row for every stage of the model that grows, from a dense Transformer to RL, by seeds.

The stages are those of `dsnotes.training.growth`, trained on quatrains. There are two rows more:
    processes   the stage `mla` for a few steps on four processes (DualPipe) and on one: the same
                batches from the same weights. The biases rest, for the ranks keep their loads. The
                two differ by rounding, until that turns a token's choice of experts; then they part
    rl          the model of the stage `mtp`, then GRPO with the rules of verse as its reward

    python experiments/scoreboard.py --workers 2       # under an hour on two idle cores
    python experiments/scoreboard.py --workers 8 --keep /some/folder    # finished runs are kept
                                                       # there: run again to go on
    python experiments/scoreboard.py --rows dense bias --seeds 0 --steps 5 --out /tmp/s.json

Every run uses one thread, or OMP_NUM_THREADS; the four processes use one each. Loss is in nats per
character of the held-out poems, given their prompt. Runs may be those of several machines: speed,
that of writing one poem after the other on one thread, is measured where the record is written.
"""

import os
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from _record import collect, parser, write
from torch import Tensor, nn

from dsnotes.data.poems import Poem, quatrains
from dsnotes.model import counts
from dsnotes.model.balance import max_vio
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import record_routing
from dsnotes.model.speculative import speculate
from dsnotes.rl import poet
from dsnotes.training import growth, poems
from dsnotes.training.dualpipe.launch import Ranks
from dsnotes.training.dualpipe.runtime import one_process
from dsnotes.training.dualpipe.schedule import dualpipe
from dsnotes.training.loop import evaluate, next_token_loss, train
from dsnotes.training.pipelined import cut
from dsnotes.training.state import TrainState

ROWS = (*growth.STAGES, "processes", "rl")
EVERY = 10  # a point of a curve is the mean of so many steps
SHOWN = 12  # poems before and after RL


class Lengths(NamedTuple):
    """How long everything takes; a record of other numbers is of another experiment."""

    steps: int = growth.STEPS
    rl_steps: int = 150
    rl_learning_rate: float = 5e-4
    rl_prompts: int = 8
    rl_group: int = 16
    pipeline_steps: int = 40
    ranks: int = 4
    micro_batches: int = 8
    timed: int = 40  # poems that drafts and speed are measured on
    late: int = 50  # steps at the end that MaxVio is the mean of


def run(row: str, seed: int, *, lengths: Lengths) -> dict[str, Any]:
    """One row of one seed, rounded, as plain data; with `mtp` comes `rl`, which goes on from it."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    began = time.monotonic(), sum(os.times()[:4])
    if row == "processes":
        return finished(row, seed, on_processes(seed, lengths), began)
    stage: growth.Stage = row  # type: ignore[assignment]
    state, found = trained(stage, seed, lengths)
    fixed = sizes(stage, state.model)
    found |= fixed | judged(state.model)
    found["tokens_per_pass"] = tokens_per_pass(state.model, lengths)
    done = finished(row, seed, found, began)
    if row == "mtp":
        began = time.monotonic(), sum(os.times()[:4])
        found = reinforced(state.model, seed, lengths) | fixed | judged(state.model)
        found["tokens_per_pass"] = tokens_per_pass(state.model, lengths)
        done["goes_on"] = finished("rl", seed, found, began)
    return done


def finished(
    row: str, seed: int, found: dict[str, Any], began: tuple[float, float]
) -> dict[str, Any]:
    """A run with what tells one from another, and what it took since `began` (wall, cpu)."""
    return {
        "variant": row,
        "seed": seed,
        **found,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": len(os.sched_getaffinity(0)),
        "minutes": round((time.monotonic() - began[0]) / 60, 2),
        "cpu_minutes": round((sum(os.times()[:4]) - began[1]) / 60, 2),
    }


def trained(stage: growth.Stage, seed: int, lengths: Lengths) -> tuple[TrainState, dict[str, Any]]:
    """A stage after its training, with its curves."""
    state = growth.start(stage, steps=lengths.steps, seed=seed)
    began = time.monotonic()
    reports = list(growth.training(state, stage, seed=seed))
    seconds = time.monotonic() - began
    tokens = lengths.steps * growth.BATCH_SIZE * poems.held_out().tokens.shape[1]
    load = torch.stack([report["load"] for report in reports])  # (steps, layers, E)
    found: dict[str, Any] = {
        "training_tokens_per_second": round(tokens / seconds),
        "training_loss": curve([report["loss"] for report in reports]),
        "max_vio": None,
        "max_vio_global": None,
    }
    if load.numel():
        # an MTP module has experts too: the last of the layers
        violation = max_vio(load).mean(dim=1)  # (steps,)
        found["max_vio"] = round(violation[-lengths.late :].mean().item(), 3)
        found["max_vio_curve"] = curve(violation.tolist())
        whole = evaluate(state.model, poems.held_out()).load.sum(0)
        found["max_vio_global"] = round(max_vio(whole).mean().item(), 3)
        found["load"] = load[-lengths.late :].sum(0).tolist()
    return state, found


def sizes(stage: growth.Stage, model: DeepSeek) -> dict[str, int]:
    """What a model takes, prediction module included.

    A number in the cache takes 4 bytes. Multiply-adds are those of a forward pass over one token,
    half-way through a poem.
    """
    config, groups = model.config, growth.key_value_heads(stage)
    modules = config.num_nextn_predict_layers
    parts = counts.breakdown(config, num_key_value_heads=groups)
    active = sum(part.activated for part in parts)
    if modules:
        active += modules * counts.mtp_module_activated(config)
    cache = model.new_cache(batch_size=1, capacity=1).latents  # (layers, 1, 1, width)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "active_parameters": active,
        "cache_bytes": (config.num_hidden_layers + modules) * cache[0].nbytes,
        "multiply_adds": counts.multiply_adds(
            config,
            past=poems.held_out().tokens.shape[1] // 2,
            num_key_value_heads=groups,
            modules=modules,
        ),
    }


def tokens_per_pass(model: DeepSeek, lengths: Lengths) -> float:
    """Tokens that one pass of the main model gains: 1 without drafts. Poems at temperature 1."""
    if not model.config.num_nextn_predict_layers:
        return 1.0
    prompts = poems.held_out().tokens[: lengths.timed, :2]
    found = speculate(
        model,
        prompts,
        max_new_tokens=poems.room("五"),
        temperature=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    return round(found.tokens_per_step, 3)


def passes_per_second(lengths: Lengths) -> dict[str, float]:
    """Passes of the main model, drafts included, in a second of one thread; one poem at a time.

    What a pass costs does not depend on the weights. All stages write the first poem, then the
    next, in time of the processor, and the median is theirs: whatever else runs there slows all.
    """
    torch.set_num_threads(1)
    models = {stage: growth.build(stage, seed=0) for stage in growth.STAGES}
    generators = {stage: torch.Generator().manual_seed(0) for stage in growth.STAGES}
    rates: dict[str, list[float]] = {stage: [] for stage in growth.STAGES}
    for prompt in poems.held_out().tokens[: lengths.timed + 1, :2]:
        for stage, model in models.items():
            options = {"max_new_tokens": poems.room("五"), "generator": generators[stage]}
            began = time.process_time()
            if model.config.num_nextn_predict_layers:
                # the last pass may go beyond the end
                done = speculate(model, prompt[None], temperature=1.0, **options)
                passes = len(done.accepted[0]) + 1
            else:
                passes = model.generate(prompt[None], temperature=1.0, **options).shape[1]
            rates[stage].append(passes / (time.process_time() - began))
    return {stage: median(found[1:]) for stage, found in rates.items()}  # the first warms up


def judged(model: DeepSeek) -> dict[str, Any]:
    """Loss on the held-out poems, and what rules the model's own keep."""
    return {
        "loss": round(poems.character_loss(model, poems.held_out().tokens), 4),
        "verse": {name: round(x, 4) for name, x in poet.evaluate(model)._asdict().items()},
    }


def reinforced(model: DeepSeek, seed: int, lengths: Lengths) -> dict[str, Any]:
    """GRPO on a model in place: its curves, and poems to the same prompts before and after."""
    before = judged(model)
    order = torch.randperm(
        len(quatrains(held_out=True)), generator=torch.Generator().manual_seed(seed)
    )
    asked = [quatrains(held_out=True)[i] for i in order[:SHOWN].tolist()]
    first = written(model, asked, seed)
    state = TrainState.create(
        model, steps=lengths.rl_steps, learning_rate=lengths.rl_learning_rate, seed=seed
    )
    step = partial(poet.verse_step, prompts=lengths.rl_prompts, group_size=lengths.rl_group)
    reports = list(train(state, step, description=f"rl, seed {seed}"))
    last = written(model, asked, seed)
    return {
        "before": before,
        **{name: curve([report[name] for report in reports]) for name in ("reward", "rules")},
        "characters": curve([report["characters"] for report in reports]),
        "poems": [
            {"rhyme": poem.rhyme, "before": a, "after": b}
            for poem, a, b in zip(asked, first, last, strict=True)
        ],
    }


def written(model: DeepSeek, asked: list[Poem], seed: int) -> list[str]:
    """A poem to each prompt; the same draws every time."""
    sampler = torch.Generator().manual_seed(seed)
    prompts = [(poem.form, poem.rhyme) for poem in asked]
    return poet.compose(model, prompts, sampler=sampler)[1]


def on_processes(seed: int, lengths: Lengths) -> dict[str, Any]:
    """The stage `mla` for a few steps by DualPipe, and by one process over the same batches."""
    schedule = dualpipe(lengths.ranks, lengths.micro_batches)
    rows = growth.BATCH_SIZE // lengths.micro_batches
    shape = (rows, poems.held_out().tokens.shape[1], growth.CONFIG.hidden_size)
    losses: dict[str, list[float]] = {"one": [], "four": []}
    picks: dict[str, list[Tensor]] = {"one": [], "four": []}
    seconds = {"one": 0.0, "four": 0.0}
    idle: list[float] = []
    with Ranks(lengths.ranks) as ranks:
        for name in ("one", "four"):
            state = growth.start("mla", steps=lengths.pipeline_steps, seed=seed)
            stages = cut(state.model, lengths.ranks)
            parameters = dict(nn.Sequential(*stages).named_parameters())
            data = poems.batches(
                steps=lengths.pipeline_steps, batch_size=growth.BATCH_SIZE, seed=seed
            )
            for batch in data:
                picks[name].append(chosen(state.model, batch.tokens))
                began = time.monotonic()
                tokens = batch.tokens.unflatten(0, (lengths.micro_batches, rows))
                if name == "one":
                    loss, gradients = one_process(stages, tokens, tokens, loss=next_token_loss)
                else:
                    done = ranks.step(
                        schedule, stages, tokens, tokens, loss=next_token_loss, hidden_shape=shape
                    )
                    loss, gradients = done.loss, done.gradients
                    idle.append(done.trace.bubble_fraction)
                losses[name].append(loss)
                descend(state, parameters, gradients)
                seconds[name] += time.monotonic() - began
    both = zip(picks["one"], picks["four"], strict=True)
    alike = [torch.equal(one, four) for one, four in both]
    tokens = lengths.pipeline_steps * growth.BATCH_SIZE * shape[1]
    return {
        "steps_alike": [*alike, False].index(False),  # at first, every token with its experts
        "differences": [
            float(f"{abs(a - b):.2g}") for a, b in zip(losses["one"], losses["four"], strict=True)
        ],
        "idle": round(sum(idle[1:]) / len(idle[1:]), 3),  # not the first step, which starts up
        "training_loss": curve(losses["four"]),
        "training_tokens_per_second": round(tokens / seconds["four"]),
        "one_process_tokens_per_second": round(tokens / seconds["one"]),
    }


@torch.no_grad()
def chosen(model: DeepSeek, tokens: Tensor) -> Tensor:
    """The experts of every token in every layer, in order: (layers, tokens, k)."""
    with record_routing(model) as layers:
        model(tokens)
    return torch.stack([layer.indices.sort(dim=-1).values for layer in layers])


def descend(
    state: TrainState, parameters: dict[str, nn.Parameter], gradients: dict[str, Tensor]
) -> None:
    """The step of `TrainState.update`, with gradients that others have computed."""
    for name, parameter in parameters.items():
        parameter.grad = gradients[name].clone()
    state.descend()


def curve(values: list[float]) -> list[float]:
    """Means of `EVERY` steps each."""
    chunks = torch.tensor(values, dtype=torch.float64).split(EVERY)
    return [round(chunk.mean().item(), 3) for chunk in chunks]


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(3))
    jobs_of = [row for row in ROWS if row != "rl"]  # which comes with `mtp`
    options.add_argument("--rows", choices=jobs_of, nargs="+", default=jobs_of)
    options.add_argument("--steps", type=int, default=Lengths().steps, help="of every training")
    options.add_argument("--rl-steps", type=int, default=Lengths().rl_steps)
    options.add_argument("--pipeline-steps", type=int, default=Lengths().pipeline_steps)
    options.add_argument("--timed", type=int, default=Lengths().timed, help="poems for the speed")
    options.add_argument("--workers", type=int, default=1, help="runs side by side")
    options.add_argument("--keep", type=Path, help="folder of finished runs, to stop and go on")
    given = options.parse_args()
    lengths = Lengths(
        steps=given.steps,
        rl_steps=given.rl_steps,
        pipeline_steps=given.pipeline_steps,
        timed=given.timed,
    )
    # the longest first, so that none is left over at the end
    ordered = sorted(given.rows, key=("fp8", "mtp", *ROWS).index)
    jobs = [(row, seed) for row in ordered for seed in given.seeds]
    one = partial(run, lengths=lengths)
    runs = list(collect(one, jobs, workers=given.workers, keep=given.keep))
    runs += [found.pop("goes_on") for found in runs if "goes_on" in found]
    runs.sort(key=lambda found: (ROWS.index(found["variant"]), found["seed"]))
    passes = passes_per_second(lengths)
    for found in runs:
        if found["variant"] != "processes":
            stage = "mtp" if found["variant"] == "rl" else found["variant"]
            found["tokens_per_second"] = round(passes[stage] * found["tokens_per_pass"], 1)
    write(
        given.out,
        script=__file__,
        settings={
            **lengths._asdict(),
            "batch_size": growth.BATCH_SIZE,
            "learning_rate": growth.LEARNING_RATE,
            "cooldown": growth.COOLDOWN,
            "gamma": growth.GAMMA,
            "mtp_weight": growth.MTP_WEIGHT,
            "curve_every": EVERY,
            "config": asdict(growth.CONFIG),
        },
        runs=runs,
        tables={"passes_per_second": {stage: round(x, 1) for stage, x in passes.items()}},
        minutes=sum(found["minutes"] for found in runs),
        cpu_minutes=sum(found["cpu_minutes"] for found in runs),
    )


if __name__ == "__main__":
    main()
