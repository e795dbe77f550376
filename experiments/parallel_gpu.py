"""Pretraining on one GPU and on two, over NCCL: whether the losses agree, and what a step takes.

Model, batches and step are those of `python -m dsnotes.whole`, with `--processes 2` and without.
Same: the losses of the first steps, on three seeds in float32, and in TF32 as the run has it.
Time: steps of the batch of the size and of one four times as large; on one GPU also of half of
each, which is what a GPU has to do of a batch that two share. Exchange: adding up the gradients.
Then the scripts of `examples/` under torchrun on both GPUs: pretraining, then fine-tuning and GRPO
by TRL from what it leaves, side by side, for a few steps each.

Writes book/data/runs/parallel_gpu.json, in two minutes; without two GPUs it says so and stops.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from _record import ROOT, parser, write

from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.training.dualpipe.channels import EVERYONE
from dsnotes.training.dualpipe.processes import Processes, RankError
from dsnotes.training.parallel import sum_gradients
from dsnotes.training.verses import PAD
from dsnotes.whole.reading import start
from dsnotes.whole.run import Run
from dsnotes.whole.sizes import SIZES

RANKS, SEEDS = 2, (0, 1, 2)
SAME_STEPS = 6
WARM_UP, TIMED = 8, 8  # batches of eight lengths come in turn: all of them once, then once more
TIMES = (1, 4)  # the batch of the size, so many times
PRECISIONS = {"float32": "highest", "TF32": "high"}
EXAMPLE_STEPS = {"verse_pretrain": 112, "verse_sft": 6, "verse_grpo": 4}
PATIENCE = 60.0  # seconds for a part


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is run: a size of `dsnotes.whole.sizes`, with another batch, for so many steps."""

    part: str
    size: str
    device: str
    seed: int
    batch: int
    precision: str
    steps: int


def measure(on_wait: Callable[[int | None], None], cases: list[Case]) -> list[dict[str, Any]]:
    """The job of a rank, and of one process without others: every case, one after the other."""
    on_wait(EVERYONE)
    return [measured(case) for case in cases]


def measured(case: Case) -> dict[str, Any]:
    """Loss, seconds and targets of every step; then the exchange of the gradients alone."""
    ranks = dist.get_world_size() if dist.is_initialized() else 1
    torch.set_float32_matmul_precision(PRECISIONS[case.precision])
    with tempfile.TemporaryDirectory() as folder:
        run = Run(folder, size=case.size, seed=case.seed, device=case.device)
    torch.manual_seed(case.seed)
    model = add_modules(DeepSeek(replace(run.size.model, vocab_size=len(run.vocabulary))))
    how = replace(run.size.pretrain, batch_size=case.batch)
    state, step, data = start(run, model, run.poems, how, parallel=ranks > 1)
    on_gpu = case.device == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()

    def timed(call: Callable[[], Any]) -> tuple[float, Any]:
        if on_gpu:
            torch.cuda.synchronize()
        if ranks > 1:
            dist.barrier()
        began = time.perf_counter()
        found = call()
        if on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - began, found

    losses, seconds, targets = [], [], []
    for batch in islice(data, case.steps):
        taken, report = timed(lambda batch=batch: step(state, batch))
        losses.append(report["loss"])
        seconds.append(taken)
        targets.append(int((batch.tokens[:, 1:] != PAD).sum()))
    exchange = [timed(lambda: sum_gradients(model))[0] for _ in range(TIMED)]
    return {
        "variant": f"{ranks}", **asdict(case), "loss": losses,
        "seconds": [round(s, 6) for s in seconds], "targets": targets,
        "exchange": round(statistics.median(exchange), 6) if ranks > 1 else None,
        "gradient_bytes": sum(4 * weight.numel() for weight in model.parameters()),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3) if on_gpu else None,
    }  # fmt: skip


def cases(size: str, device: str) -> dict[str, list[Case]]:
    """By the number of processes, what each measures."""
    batch = SIZES[size].pretrain.batch_size
    usual = {"size": size, "device": device}
    same = [
        Case(part="same", seed=s, batch=batch, precision="float32", steps=SAME_STEPS, **usual)
        for s in SEEDS
    ]
    times = {"part": "time", "seed": 0, "precision": "TF32", "steps": WARM_UP + TIMED, **usual}
    shared = [Case(batch=n * batch, **times) for n in TIMES]
    halves = [Case(batch=n * batch // RANKS, **times) for n in TIMES]
    return {"one": same + shared + halves, "two": same + shared}


# --- the scripts of examples/ ---


def launch(script: str, arguments: list[Any], *, folder: Path, port: int) -> subprocess.Popen[str]:
    """Start a script of `examples/` on `RANKS` processes; what it says goes into its log."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", RANKS]
    command += ["--master_port", port, ROOT / "examples" / f"{script}.py", *arguments]
    with open(folder / f"{script}.log", "w", encoding="utf-8") as log:
        return subprocess.Popen(
            [str(part) for part in [*command, "--out", folder / script]],
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            env={"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | os.environ,
            start_new_session=True,  # torchrun and its processes are ended together
        )


def finished(process: subprocess.Popen[str], script: str, *, folder: Path) -> dict[str, Any]:
    """What a script has found, by the history that it leaves; or its error."""
    row: dict[str, Any] = {"script": script, "steps": EXAMPLE_STEPS[script]}
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    told = (folder / f"{script}.log").read_text("utf8").strip()
    if code:
        return row | {"error": f"exit status {code}: " + told[-1500:]}
    row["told"] = next(line for line in reversed(told.splitlines()) if "process(es)" in line)
    history = json.loads((folder / script / "history.json").read_text("utf8"))
    if script == "verse_pretrain":
        return row | history
    row |= {name: version(name) for name in ("transformers", "trl", "accelerate")}
    kept = ["loss", "grad_norm"] + (["reward", "kl"] if script == "verse_grpo" else [])
    return row | {name: [entry[name] for entry in history] for name in kept}


def examples(size: str, keep: Callable[[dict[str, Any]], None], folder: Path) -> None:
    """Pretraining; then, from its model, what TRL does, both at once."""
    batch, small = SIZES[size].pretrain.batch_size, size == "tiny"
    per_gpu, group = (12, 8) if small else (40, 16)  # a group lies on both GPUs
    steps = {script: ["--steps", n] for script, n in EXAMPLE_STEPS.items()}
    begin = ["--size", size, *steps["verse_pretrain"]]
    process = launch("verse_pretrain", begin, folder=folder, port=29511)
    keep(finished(process, "verse_pretrain", folder=folder))
    model = folder / "verse_pretrain" / "model"
    if not model.exists():
        return
    given = {
        "verse_sft": ["--batch", batch // RANKS],
        "verse_grpo": ["--batch", per_gpu, "--group-size", group],
    }
    started = {
        script: launch(
            script, ["--model", model, *steps[script], *more], folder=folder, port=29512 + i
        )
        for i, (script, more) in enumerate(given.items())
    }
    for script, process in started.items():
        keep(finished(process, script, folder=folder))


def main() -> None:
    arguments = parser(__file__, __doc__)
    arguments.add_argument("--size", choices=SIZES, default="gpu", help="of dsnotes.whole.sizes")
    arguments.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a trial")
    arguments.add_argument("--keep", type=Path, default=ROOT / "runs" / "parallel_gpu",
                           help="the folder for models and logs of the scripts")  # fmt: skip
    arguments.add_argument("--parts", nargs="+", default=["one", "two", "examples"])
    options = arguments.parse_args()
    if options.device == "cuda" and torch.cuda.device_count() < RANKS:
        print("experiments/parallel_gpu.py needs two GPUs; nothing was measured.")
        return
    torch.set_num_threads(1)  # as the processes have it
    options.keep.mkdir(parents=True, exist_ok=True)
    of_size = SIZES[options.size]
    settings = {
        "ranks": RANKS, "warm_up": WARM_UP, "timed": TIMED, "model": asdict(of_size.model),
        "pretrain": asdict(of_size.pretrain), "examples": EXAMPLE_STEPS,
    }  # fmt: skip
    runs: list[dict[str, Any]] = []
    tables: dict[str, Any] = {"examples": [], "errors": []}

    def save() -> None:
        write(
            options.out, script=__file__, settings=settings, runs=runs, tables=tables, seeds=SEEDS,
            device=options.device,
        )  # fmt: skip

    def keep(row: dict[str, Any]) -> None:
        tables["examples"].append(row)
        print(row, flush=True)
        save()

    planned = cases(options.size, options.device)
    for part in options.parts:
        try:
            if part == "one":
                for case in planned["one"]:
                    runs.append(measured(case))
                    save()
                if options.device == "cuda":
                    torch.cuda.empty_cache()
            elif part == "two":
                with Processes(RANKS, device=options.device, start_timeout=PATIENCE) as processes:
                    for case in planned["two"]:
                        job = ([case],)
                        runs.append(processes.call(measure, [job] * RANKS, timeout=PATIENCE)[0][0])
                        save()
            else:
                examples(options.size, keep, options.keep)
        except (RankError, RuntimeError, OSError) as error:
            tables["errors"].append({"part": part, "error": f"{type(error).__name__}: {error}"})
            print(part, error, flush=True)
            save()
    for run in runs:
        mean = statistics.mean(run["seconds"][-TIMED:])
        line = f"{run['part']} {run['variant']} GPU(s), {run['precision']}, batch {run['batch']}: "
        print(f"{line}{1e3 * mean:.1f} ms, last loss {run['loss'][-1]:.5f}, {run['exchange']}")


if __name__ == "__main__":
    main()
