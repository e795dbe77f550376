"""What the experiments share: their arguments, runs that can be taken up again, and one record.

A record is a small JSON file whose shape `tests/data/record.schema.json` states and
`book/data/README.md` explains: where the numbers come from, then `runs`, one object each, and
`tables`, what belongs to no single run.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from dsnotes import __version__

Run = dict[str, Any]
ROOT = Path(__file__).resolve().parents[1]


def _commit() -> str | None:
    """The commit that is checked out, "-dirty" where files differ from it; None outside of git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.check_output(command, cwd=ROOT, text=True, stderr=subprocess.DEVNULL)[:-1]
    except (OSError, subprocess.CalledProcessError):
        return None


# of the beginning: a long experiment goes on with the code that it has read, whatever is edited
_STARTED, _COMMIT = time.monotonic(), _commit()


def parser(script: str, doc: str, *, seeds: Iterable[int] = ()) -> argparse.ArgumentParser:
    """With `--out`, a record named as the script, and `--seeds` where there are some."""
    made = argparse.ArgumentParser(description=doc.partition("\n")[0])
    out = ROOT / "book" / "data" / "runs" / f"{Path(script).stem}.json"
    made.add_argument("--out", type=Path, default=out, help="the JSON file to write")
    if seeds:
        made.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    return made


def collect(
    run: Callable[..., Run], jobs: Sequence[tuple], *, workers: int = 1, keep: Path | None = None
) -> Iterator[Run]:
    """`run(*job)` of every job, in order, on one thread each, with a progress bar.

    `workers` is the number of processes side by side. A run that the folder `keep` already holds is
    read from there, and every other one written there. ValueError for one of other settings, which
    are the keywords of `run` as a `partial`, or of another job.
    """
    torch.set_num_threads(1)
    one_thread = {"initializer": torch.set_num_threads, "initargs": (1,)}
    spawn = get_context("spawn")
    with (
        ProcessPoolExecutor(workers, spawn, **one_thread) if workers > 1 else nullcontext()
    ) as pool:
        results = (pool.map if pool else map)(partial(_kept, run, keep), jobs)
        yield from tqdm(results, total=len(jobs), desc="runs")


def _kept(run: Callable[..., Run], keep: Path | None, job: tuple) -> Run:
    if keep is None:
        return run(*job)
    file = keep / ("-".join(map(str, job)).replace("/", "_") + ".json")
    given = getattr(run, "keywords", {})
    of = repr((job, {k: v for k, v in given.items() if not isinstance(v, Path)}))
    if not file.exists():
        _save(file, json.dumps({"of": of, "run": run(*job)}))
    kept = json.loads(file.read_text("utf-8"))
    if kept.get("of") != of:
        raise ValueError(
            f"{file} holds a run of {kept.get('of')}, not of {of}: keep in another folder"
        )
    return kept["run"]


def write(
    path: Path,
    *,
    script: str,
    settings: dict[str, Any],
    runs: Sequence[Run] = (),
    tables: dict[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    device: str = "cpu",
    minutes: float | None = None,
    cpu_minutes: float | None = None,
) -> None:
    """Write a record; what is not said here follows from the runs, the process and the machine.

    An experiment whose runs were taken up again says how many minutes all of them took.
    """
    versions = {"dsnotes": __version__, "torch": torch.__version__}
    versions |= {"python": platform.python_version()}
    if device.startswith("cuda"):
        versions["cuda"] = torch.version.cuda
        device = torch.cuda.get_device_name(device)
    elapsed = (time.monotonic() - _STARTED) / 60
    spent = sum(os.times()[:4]) / 60  # of this process and of its workers
    record = {
        "script": f"experiments/{Path(script).name}",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "minutes": round(elapsed if minutes is None else minutes, 1),
        "cpu_minutes": round(spent if cpu_minutes is None else cpu_minutes, 1),
        "device": device,
        "versions": versions,
        "commit": _COMMIT,
        "seeds": sorted({run["seed"] for run in runs}) if seeds is None else list(seeds),
        "settings": settings,
        "tables": tables or {},
        "runs": list(runs),
    }
    _save(path, layout(record))
    print(f"wrote {path}")


def layout(record: dict[str, Any]) -> str:
    """JSON with a line for every run and for every row of a table, for readable differences."""

    def lines(value: Any, depth: int) -> str:
        if not depth or not isinstance(value, dict | list) or not value:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        if isinstance(value, list):
            if not isinstance(value[0], dict):
                return lines(value, 0)
            return "[\n" + ",\n".join(lines(item, 0) for item in value) + "\n]"
        items = (f"{json.dumps(key)}: {lines(item, depth - 1)}" for key, item in value.items())
        return "{\n" + ",\n".join(items) + "\n}"

    return lines(record, 3) + "\n"


def spread(values: Sequence[float]) -> list[float]:
    """[smallest, mean, largest], to four digits."""
    return [float(f"{v:.4g}") for v in (min(values), sum(values) / len(values), max(values))]


def _save(path: Path, text: str) -> None:
    """Written beside and moved into place, so that an interruption leaves the old file whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
