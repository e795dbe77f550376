"""The whole run, in both sizes on three seeds: what its models are worth, and poems for a quiz.

    python -m dsnotes.whole --size laptop --seed 0 --out runs/laptop-0     # and so on; or
    python experiments/whole.py --size laptop --seeds 0 1 2 --folder runs  # one after the other
    python experiments/whole.py runs/laptop-* runs/gpu-* --package chinese-poetry-2.0.1.tgz

It reads what the stages have left in the folders: their JSON files and `samples.txt`, no weights.
A size takes about 25 minutes a run; folders may be given beside. The package names the poets.
A run that has come as far as `reject` counts too: what it has not found is left out.

runs     one a folder, `variant` is its size: what each model is worth, curves, costs
models   by size and model: smallest, mean and largest of each column over the seeds
costs    by size, likewise: tokens a second, accepted drafts, bytes, minutes
quiz     poems of the reinforced model of the largest size, and as many of poets, in an order drawn
"""

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from _record import Run, parser, spread, write
from prepare_poems import MORE_SHAPES, POEMS, SHAPES, checked_file, contents, shaped

from dsnotes.data.poems import VERSE_FORMS, Verse, parse_verses, verses
from dsnotes.whole.__main__ import STAGES
from dsnotes.whole.__main__ import main as train
from dsnotes.whole.report import MODELS
from dsnotes.whole.sizes import SIZES
from dsnotes.whole.stages import keeps_every_rule

SEEDS = range(3)
EACH = 5  # poems of a form in the quiz, of the model and of poets
DRAW = 0  # the seed of what is drawn
DYNASTIES = {"tang": "唐", "song": "宋"}
NEEDED = ("settings", "clock", "corpus", "pretrain", "cold_start", "reinforce", "reject")
WORTH = (
    "poems", "rules", "form", "copied", "nearly_copied", "characters", "repeated_lines",
    "repeated_bigrams", "repeated_characters",
)  # fmt: skip
BASES = {"base": ("base", "cold start", "RL")}
BASES["small base"] = ("small base", "student", "RL on the small model")
BASE_OF = {title: base for base, titles in BASES.items() for title in titles}


def collected(folder: Path) -> Run:
    """What a run has found; ValueError for one that has not come as far as `reject`."""
    found = {name: _result(folder, name) for name in (*STAGES, "clock", "settings")}
    settings = found.pop("settings")
    models = {}
    for stage, title in MODELS.items():
        its = found[stage]
        if not its:
            continue
        row = {
            **{name: its[name] for name in (*WORTH, "loss", "max_vio", "broken")},
            "forms": {form: {n: own[n] for n in WORTH} for form, own in its["forms"].items()},
        }
        base = found[next(s for s, t in MODELS.items() if t == BASE_OF[title])]
        row["characters_of_base"] = row["characters"] / max(base["characters"], 1)
        row |= {name: its[name] for name in ("parameters", "read") if name in its}
        models[title] = row | {"shown": its["shown"]}
    times = {stage: spent for stage, spent in found["clock"].items() if found[stage]}
    return _rounded(
        {
            "variant": settings["size"],
            "seed": settings["seed"],
            "corpus": _timeless(found["corpus"]),
            "models": models,
            "specialists": found["pretrain"]["specialists"],
            "rejection": _timeless(found["reject"]),
            **{name: _timeless(found[name]) for name in ("decode", "release") if found[name]},
            "curves": {
                title: found[stage].get("curves")
                or {
                    name.removeprefix("training_"): found[stage][name]
                    for name in ("training_loss", "training_max_vio")
                    if name in found[stage]
                }
                for stage, title in MODELS.items()
                if found[stage]
            },
            "minutes": {stage: spent["seconds"] / 60 for stage, spent in times.items()},
            "cpu_minutes": {stage: spent["cpu_seconds"] / 60 for stage, spent in times.items()},
        }
    )


def models(runs: Sequence[Run]) -> dict[str, dict[str, list[float]]]:
    """Smallest, mean and largest of each column of the table, over runs of one size."""
    columns: dict[str, dict[str, list[float]]] = {}
    forms = runs[0]["corpus"]["forms"]
    columns["corpus"] = {form: spread([own["rules"]]) for form, own in forms.items()}
    for title in MODELS.values():
        rows = [run["models"].get(title) for run in runs]
        if None in rows:
            continue
        own = {form: spread([row["forms"][form]["rules"] for row in rows]) for form in forms}
        names = "copied", "nearly_copied", "characters", "characters_of_base", "loss", "max_vio"
        own |= {name: spread([row[name] for row in rows]) for name in ("rules", "form", *names)}
        columns[title] = own
    return columns


def costs(runs: Sequence[Run]) -> dict[str, Any]:
    """Smallest, mean and largest of what it took, over runs of one size."""

    def over(*path: str) -> list[float] | None:
        values = []
        for run in runs:
            value: Any = run
            for name in path:
                value = value and value.get(name)
            values.append(value)
        return None if None in values else spread(values)

    first = runs[0].get("decode", {"tokens_per_second": {}, "accepted": {}})
    return {
        **{way: over("decode", "tokens_per_second", way) for way in first["tokens_per_second"]},
        **{f"accepted {t}": over("decode", "accepted", t) for t in first["accepted"]},
        **{name: over("decode", name) for name in ("cache_bytes", "cache_bytes_by_head")},
        **{
            name: over("release", name)
            for name in ("bytes", "loss", "same_as_unrounded", "same_by_transformers")
        },
        **{f"minutes {stage}": over("minutes", stage) for stage in STAGES},
        "minutes": spread([sum(run["minutes"].values()) for run in runs]),
        "cpu_minutes": spread([sum(run["cpu_minutes"].values()) for run in runs]),
    }


def quiz(samples: Sequence[Verse], package: Path | None) -> list[dict[str, str]]:
    """Poems of a model and of poets, as many of each form by both, in an order drawn once.

    Those of the poets are held-out ones of `dsnotes.data`. All keep every rule, as those of the
    model do that rejection sampling has left.
    """
    draw = random.Random(DRAW)
    poets = [verse for verse in verses(held_out=True) if keeps_every_rule(verse)]
    drawn: list[tuple[str, Verse]] = []
    for form in VERSE_FORMS:
        own, theirs = ([v for v in of if v.form == form] for of in (samples, poets))
        count = min(EACH, len(own))
        drawn += [("model", verse) for verse in draw.sample(own, count)]
        drawn += [("poet", verse) for verse in draw.sample(theirs, count)]
    draw.shuffle(drawn)
    names = authors([verse for by, verse in drawn if by == "poet"], package) if package else {}
    return [
        {
            "by": by,
            "form": verse.form,
            "rhyme": verse.rhyme,
            "title": verse.title,
            "text": verse.text,
            "author": names.get(verse.lines, "") if by == "poet" else "",
        }
        for by, verse in drawn
    ]


def authors(poems: Iterable[Verse], package: Path) -> dict[tuple[str, ...], str]:
    """Dynasty and name of the poet of each poem that the package has, such as 唐 王之渙."""
    shapes = SHAPES + MORE_SHAPES
    wanted = {shaped("".join(verse.lines), shapes): verse.lines for verse in poems}
    found: dict[tuple[str, ...], str] = {}
    for dynasty, name in DYNASTIES.items():
        folder = rf"package/dist/quantangshi/poet\.{dynasty}\.\d+\.json"
        for rows in contents(package, folder):
            for poem in rows:
                text = shaped("".join(poem["paragraphs"]), shapes)
                lines = wanted.get("".join(filter(str.isalnum, text)))
                if lines:
                    found.setdefault(lines, f"{name} {poem['author']}")
    return found


def _result(folder: Path, name: str) -> dict[str, Any]:
    path = folder / f"{name}.json"
    if path.is_file():
        return json.loads(path.read_text("utf8"))
    if name in NEEDED:
        raise ValueError(f"{folder} must hold a run as far as reject, it has no {path.name}")
    return {}


def _settings(folders: Sequence[Path]) -> dict[str, Any]:
    """The settings of each size; ValueError whose runs differ in more than the seed."""
    found: dict[str, Any] = {}
    seen: set[tuple[str, int]] = set()
    for folder in folders:
        own = {name: x for name, x in _result(folder, "settings").items() if name != "seed"}
        if found.setdefault(own["size"], own) != own:
            raise ValueError(f"{folder} must have the settings of the other {own['size']} runs")
        seed = _result(folder, "settings")["seed"]
        if (own["size"], seed) in seen:
            raise ValueError(f"{folder} must be of another seed, {seed} was given before")
        seen.add((own["size"], seed))
    return found


def _timeless(result: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in result.items() if name not in ("seconds", "cpu_seconds")}


def _rounded(value: Any) -> Any:
    """Numbers to four decimals."""
    if isinstance(value, dict):
        return {name: _rounded(x) for name, x in value.items()}
    if isinstance(value, list):
        return [_rounded(x) for x in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    options = parser(__file__, __doc__, seeds=SEEDS)
    options.add_argument("runs", type=Path, nargs="*", help="folders of finished runs")
    options.add_argument("--size", choices=SIZES, help="train this size on the seeds")
    options.add_argument("--folder", type=Path, default=Path("runs"), help="where it trains")
    options.add_argument("--corpus", help="verses.txt of prepare_poems.py --full")
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--package", type=Path, help=f"{POEMS[0]}, for the names of the poets")
    options.add_argument(
        "--machine", action="append", default=[], metavar="SIZE=TEXT", help="on which a size ran"
    )
    given = options.parse_args()
    folders = list(given.runs)
    for seed in given.seeds if given.size else ():
        folder = given.folder / f"{given.size}-{seed}"
        command = ["--size", given.size, "--seed", str(seed), "--out", str(folder)]
        command += ["--device", given.device, *(["--corpus", given.corpus] * bool(given.corpus))]
        if status := train(command):
            options.exit(status, "not finished; the same command goes on\n")
        folders.append(folder)
    if not folders:
        options.exit(message="name the folders of finished runs, or a size to train\n")
    try:
        package = given.package and checked_file(given.package, POEMS)
        settings = _settings(folders)
        runs = [collected(folder) for folder in folders]
    except ValueError as error:
        options.error(str(error))
    order = list(SIZES)
    by_size = {size: [r for r in runs if r["variant"] == size] for size in order}
    by_size = {size: own for size, own in by_size.items() if own}
    largest = list(by_size)[-1]
    samples = [
        verse
        for folder, run in zip(folders, runs, strict=True)
        if run["variant"] == largest
        for verse in parse_verses((folder / "samples.txt").read_text("utf8").strip())
    ]
    machines = dict(machine.split("=", 1) for machine in given.machine)
    write(
        given.out,
        script=__file__,
        settings={"machines": machines, "quiz_of": largest, "sizes": settings},
        tables={
            "models": {size: models(own) for size, own in by_size.items()},
            "costs": {size: costs(own) for size, own in by_size.items()},
            "quiz": quiz(samples, package),
        },
        runs=sorted(runs, key=lambda run: (order.index(run["variant"]), run["seed"])),
        device="; ".join(machines.values()) or given.device,
        minutes=sum(sum(run["minutes"].values()) for run in runs),
        cpu_minutes=sum(sum(run["cpu_minutes"].values()) for run in runs),
    )


if __name__ == "__main__":
    main()
