"""What GRPO makes of a reward that lacks a rule of verse, or one of the things that hold it.

Every run starts from the `cold_start` model of one run of `python -m dsnotes.whole`, and has the
steps of its stage `reinforce`, or fewer. Whatever it was rewarded for, its poems are judged by all
rules, to the prompts of held-out poems.

Runs
    cold start      no step: what the model wrote before
    all             every rule, novelty, diversity and the KL to the cold start, as in the stage
    without …       one rule is asked for nowhere
    novelty 0, diversity 0, beta 0
                    one thing is left out that no rule asks for
    nothing holds   all three
Measures, shares but for `characters`
    rules, asked    poems that keep every rule, and every one that the run was asked to keep
    broken          poems that break a rule: `form` of all, the others of those with their form
    written         characters written, of those asked for
    two_tones       of all characters, those of two tones
    the others      as in `whole.judging.worth`

    python -m dsnotes.whole --size gpu --out runs/gpu-0 --device cuda --corpus verses.txt
    python experiments/whole_hacks.py --run runs/gpu-0 --corpus verses.txt --device cuda \
        --steps 150 --workers 13 --keep KEEP

The run of the first line may have come no further than its cold start. KEEP holds finished runs, to
go on from. A worker needs a gigabyte of memory for the lines of a full corpus.
"""

import json
from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from multiprocessing import current_process
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import torch
from _record import Run, collect, parser, spread, write

from dsnotes.data.poems import Verse, verses
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.novelty import Known
from dsnotes.rl.objective import Objective
from dsnotes.rl.regulated import WEIGHTS, judge
from dsnotes.rl.reward import RewardFunction
from dsnotes.rl.verse import tones
from dsnotes.training.loop import train
from dsnotes.training.state import Report, TrainState
from dsnotes.training.verses import Vocabulary
from dsnotes.weights import checkpoint
from dsnotes.whole import judging, writing
from dsnotes.whole.sizes import Reinforcement

START = "cold start"
SHOWN = ("五絕", "七絕")  # the poem to the middle prompt of each is in the record
POINTS = 30  # of a curve
PUNCTUATION = "，。"
PRINTED = ("rules", "asked", "copied", "nearly_copied", "kept_characters", "repeated_lines")


class Variant(NamedTuple):
    """What a reward lacks."""

    without: tuple[str, ...] = ()
    zero: tuple[str, ...] = ()  # novelty, diversity, beta


HELD_BY = ("novelty", "diversity", "beta")
LEFT_OUT = ("form", "lines", "rhyme", "words", "alternation", "nian", "jokers")
VARIANTS = {
    "all": Variant(),
    **{f"without {rule}": Variant(without=(rule,)) for rule in LEFT_OUT},
    **{f"{name} 0": Variant(zero=(name,)) for name in HELD_BY},
    "nothing holds": Variant(zero=HELD_BY),
}


class Corpus(NamedTuple):
    poems: Sequence[Verse]
    held_out: Sequence[Verse]
    vocabulary: Vocabulary
    known: Known


@cache
def corpus(path: Path | None) -> Corpus:
    """Once a process: a full one takes many seconds."""
    poems, held_out = verses(path), verses(path, held_out=True)
    known = Known(line for verse in poems for line in verse.lines)
    return Corpus(poems, held_out, Vocabulary.of(poems + held_out), known)


def own_device(device: str) -> torch.device:
    """The workers take the GPUs in turn."""
    if device != "cuda":
        return torch.device(device)
    torch.set_float32_matmul_precision("high")  # as `python -m dsnotes.whole` does
    worker = (current_process()._identity or (0,))[0]
    torch.cuda.set_device(worker % torch.cuda.device_count())
    return torch.device("cuda", torch.cuda.current_device())


def reward_of(variant: Variant, known: Known) -> RewardFunction:
    weights = {name: 0.0 for name in variant.zero if name != "beta"}
    return writing.poem_reward(known, without=variant.without, **weights)


def run(
    name: str,
    seed: int,
    *,
    folder: Path,
    path: Path | None,
    device: str,
    how: Reinforcement,
    judged: int,
    of: str,
) -> Run:
    """One run and its poems; `of` says which model it starts from."""
    began, given = monotonic(), corpus(path)
    variant = VARIANTS.get(name, Variant())
    model = checkpoint.load(folder / "cold_start").to(own_device(device))
    history: list[Report] = []
    if name != START:
        step = partial(
            writing.poem_step,
            vocabulary=given.vocabulary,
            asking=writing.Prompts(given.poems),
            reward=reward_of(variant, given.known),
            prompts=how.prompts,
            group_size=how.group_size,
            objective=Objective(beta=0.0 if "beta" in variant.zero else how.beta),
        )
        state = TrainState.create(
            model, steps=how.steps, learning_rate=how.learning_rate, seed=seed
        )
        history = list(train(state, step, progress=False))
    return {
        "variant": name,
        "seed": seed,
        **judgement(model, given, variant, judged=judged, seed=seed),
        "curves": {key: thin([report[key] for report in history]) for key in (history or [{}])[0]},
        "seconds": round(monotonic() - began, 1),
    }


def judgement(
    model: DeepSeek, given: Corpus, variant: Variant, *, judged: int, seed: int
) -> dict[str, Any]:
    """The measures, on `judged` poems of each form, and the poems that are shown."""
    asked = judging.spread(given.held_out, judged)
    sampler = torch.Generator(device=model.device).manual_seed(seed)
    texts = writing.write(model, given.vocabulary, asked, sampler=sampler)
    found = judging.worth(texts, asked, given.known)
    columns = {"form": [v.form for v in asked], "rhyme": [v.rhyme for v in asked]}
    kept = writing.every_rule_reward(texts, without=variant.without, **columns)
    length = sum(len(line) for verse in asked for line in verse.lines)
    written = [c for text in texts for c in text if c not in PUNCTUATION]
    found |= {
        "asked": sum(kept) / len(kept),
        "broken": broken(texts, asked),
        "written": len(written) / length,
        "two_tones": sum(len(tones(c)) == 2 for c in written) / max(len(written), 1),
        "loss": judging.held_out_loss(model, given.vocabulary, asked),
    }
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}
    return {**rounded, "shown": shown(texts, asked)}


def broken(texts: Sequence[str], asked: Sequence[Verse]) -> dict[str, float]:
    """The share that breaks each rule; without its form, a poem is counted under `form` alone."""
    verdicts = [judge(t, form=v.form, rhyme=v.rhyme) for t, v in zip(texts, asked, strict=True)]
    formed = [verdict for verdict in verdicts if "form" not in verdict.broken]
    counts = Counter(rule for verdict in formed for rule in verdict.broken)
    of_all = 1 - len(formed) / len(texts)
    of_formed = {rule: counts[rule] / max(len(formed), 1) for rule in WEIGHTS}
    return {rule: round(share, 4) for rule, share in (of_formed | {"form": of_all}).items()}


def shown(texts: Sequence[str], asked: Sequence[Verse]) -> list[list[str]]:
    """Form, rhyme group, title and text to the middle prompt of each form of `SHOWN`."""
    found = []
    for form in SHOWN:
        own = [i for i, verse in enumerate(asked) if verse.form == form]
        if own:
            middle = own[len(own) // 2]
            found.append([*writing.prompt_of(asked[middle]), texts[middle]])
    return found


def thin(values: Sequence[float]) -> list[float]:
    """At most `POINTS` means of neighbours."""
    chunks = torch.tensor(values, dtype=torch.float64).split(-(-len(values) // POINTS))
    return [round(chunk.mean().item(), 4) for chunk in chunks]


def table(runs: Sequence[Run]) -> dict[str, Any]:
    """Smallest, mean and largest of the seeds by run; `kept_characters` of the cold start's."""
    starts = {run["seed"]: run for run in runs if run["variant"] == START}
    names = dict.fromkeys(run["variant"] for run in runs)
    measures = [k for k, v in runs[0].items() if isinstance(v, float) and k != "seconds"]
    rows = {}
    for name in names:
        own = [run for run in runs if run["variant"] == name]
        share = [run["characters"] / max(starts[run["seed"]]["characters"], 1) for run in own]
        rows[name] = {
            **{key: spread([run[key] for run in own]) for key in measures},
            "kept_characters": spread(share),
            "broken": {rule: spread([run["broken"][rule] for run in own]) for rule in WEIGHTS},
        }
    return rows


def settings_of(given: Namespace) -> tuple[dict[str, Any], Reinforcement]:
    """Those of the run, and of its stage with what the arguments change; ValueError for none."""
    file = given.run / "settings.json"
    if not file.is_file() or not (given.run / "cold_start").is_dir():
        raise ValueError(
            f"--run must be a folder of python -m dsnotes.whole that holds a cold start, "
            f"got {given.run}"
        )
    settings = json.loads(file.read_text("utf8"))
    name = given.corpus and given.corpus.name
    if settings["corpus"] != name:
        raise ValueError(f"--corpus must be that of the run, {settings['corpus']}, got {name}")
    names = ("steps", "prompts", "group_size", "learning_rate", "beta")
    other = {key: getattr(given, key) for key in names if getattr(given, key) is not None}
    return settings, Reinforcement(**settings["reinforce"] | other)


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(3))
    options.add_argument("--run", type=Path, help="folder of python -m dsnotes.whole")
    options.add_argument("--corpus", type=Path, help="that of the run")
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--workers", type=int, default=1)
    options.add_argument("--keep", type=Path, help="a folder for finished runs, to go on from")
    options.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    options.add_argument("--judged", type=int, help="poems of each form; else as in the run")
    for name, kind in (("steps", int), ("prompts", int), ("group-size", int),
                       ("learning-rate", float), ("beta", float)):  # fmt: skip
        options.add_argument(f"--{name}", type=kind, help="else as in the run")
    given = options.parse_args()
    if given.run is None:
        options.exit(message="make a run first: python -m dsnotes.whole --help\n")
    try:
        settings, how = settings_of(given)
    except ValueError as error:
        options.error(str(error))
    judged = given.judged or settings["judged"]
    of = f"{settings['size']}-{settings['seed']}"
    one = partial(
        run,
        folder=given.run,
        path=given.corpus,
        device=given.device,
        how=how,
        judged=judged,
        of=of,
    )
    jobs = [(name, seed) for seed in given.seeds for name in (START, *given.variants)]
    try:
        runs = list(collect(one, jobs, workers=given.workers, keep=given.keep))
    except KeyboardInterrupt:
        options.exit(3, "interrupted; the same command goes on from what --keep holds\n")
    rows = table(runs)
    for name, row in rows.items():
        print(f"{name:20}", *(f"{key} {row[key][1]:.3f} " for key in PRINTED))
    write(
        given.out,
        script=__file__,
        settings={
            "size": settings["size"],
            "run_seed": settings["seed"],
            "corpus": settings["corpus"],
            **{key: getattr(how, key) for key in Reinforcement.__dataclass_fields__},
            "judged": judged,
            "variants": {name: VARIANTS[name]._asdict() for name in given.variants},
        },
        runs=runs,
        tables={"variants": rows},
        device=given.device,
        minutes=sum(run["seconds"] for run in runs) / 60,
    )


if __name__ == "__main__":
    main()
