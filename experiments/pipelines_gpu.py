"""The four pipeline schedules on two GPUs, over NCCL, beside torch's own schedules.

Correct: loss and gradients of fifty steps in a row against one process, with small stages (whole
steps of `Ranks`, stages and gradients travelling) and large ones (16 micro-batches of 2,048 tokens,
4,096 wide). Speed: the same large stages on torch's schedules, step by step in turn; in float32
and bfloat16. Faults: how long it takes until a killed rank is named.

Writes book/data/runs/pipelines_gpu.json, in two minutes; without two GPUs it says so and stops.
"""

import functools
import os
import signal
import statistics
import threading
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from _record import parser, write
from torch import Tensor, nn
from torch.distributed import pipelining

from dsnotes.training.dualpipe.actions import Schedule
from dsnotes.training.dualpipe.launch import Ranks
from dsnotes.training.dualpipe.processes import RankError
from dsnotes.training.dualpipe.runtime import Pipeline, one_process
from dsnotes.training.dualpipe.schedule import SCHEDULES

RANKS, STEPS, PEER_STEPS, BLOCKS = 2, 50, 12, 4
LARGE = {"hidden": 4096, "micro_batches": 16, "tokens": 2048}
SMALL = {"hidden": 64, "micro_batches": 6, "tokens": 16}
PEERS = {  # torch's schedules on the same stages
    "1F1B": ["Schedule1F1B"],
    "ZB1P": ["ScheduleInterleavedZeroBubble"],
    "DualPipe": [],
    "DualPipeV": ["ScheduleDualPipeV", "ScheduleZBVZeroBubble"],
}


def scaled_mse(y: Tensor, target: Tensor) -> Tensor:
    """Gradients of the order of 1."""
    return 100 * F.mse_loss(y, target)


def problem(
    schedule: Schedule, size: dict[str, int], dtype: torch.dtype, device: str
) -> tuple[list[nn.Module], Tensor, Tensor]:
    """The same stages, inputs and targets on every rank: one model for all schedules."""
    torch.manual_seed(0)
    h, each = size["hidden"], BLOCKS // schedule.num_stages
    with torch.device(device):
        blocks = [
            nn.Sequential(nn.RMSNorm(h), nn.Linear(h, h), nn.SiLU(), nn.Linear(h, h, bias=False))
            for _ in range(BLOCKS)
        ]
        inputs, targets = torch.randn(2, size["micro_batches"], 1, size["tokens"], h, dtype=dtype)
    stages = [nn.Sequential(*blocks[i : i + each]).to(dtype) for i in range(0, BLOCKS, each)]
    return stages, inputs, targets


def far(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest relative difference of a gradient, ‖found - expected‖ / ‖expected‖."""
    return max(
        float((g.float() - expected[k].float()).norm() / expected[k].float().norm())
        for k, g in found.items()
    )


def timed(step: Any) -> float:
    torch.cuda.synchronize()
    dist.barrier()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def peer_step(name: str, held: dict[int, nn.Module], schedule: Schedule, x: Tensor, t: Tensor):
    """A step of a schedule of torch, which keeps its own state from step to step."""
    build, device = getattr(pipelining.schedules, name), x.device
    stages: list[Any] = [
        pipelining.PipelineStage(held[s], s, schedule.num_stages, device) for s in sorted(held)
    ]
    one = issubclass(build, pipelining.schedules.PipelineScheduleSingle)
    engine = build(stages[0] if one else stages, n_microbatches=len(x), loss_fn=scaled_mse)

    def step() -> list[Tensor]:
        losses: list[Tensor] = []
        last = {"target": t.flatten(0, 1), "losses": losses} if engine_has_last else {}
        engine.step(*([x.flatten(0, 1)] if 0 in held else []), **last)
        return losses

    engine_has_last = schedule.num_stages - 1 in held
    return step


def measure(
    on_wait: Any, name: str, size: dict[str, int], dtype: torch.dtype, steps: int, peer_steps: int
) -> dict[str, Any]:
    """The job of a rank: steps of ours and of the peers in turn, and how far gradients are off."""
    schedule = SCHEDULES[name](RANKS, size["micro_batches"])
    device = f"cuda:{dist.get_rank()}"
    stages, x, t = problem(schedule, size, dtype, device)
    loss, expected = one_process(stages, x, t, loss=scaled_mse)
    expected = {k: g.clone() for k, g in expected.items()}
    held = {s: stages[s] for s in schedule.stages_of(dist.get_rank())}
    begin = time.perf_counter()
    build = functools.partial(
        Pipeline, schedule, held, loss=scaled_mse, hidden_shape=x.shape[1:], dtype=dtype,
        device=device, on_wait=on_wait,
    )  # fmt: skip
    pipeline = build()
    found: dict[str, Any] = {"set up": time.perf_counter() - begin, "seconds": [], "off": []}
    last: list[Any] = []

    def ours() -> None:
        last[:] = [pipeline.step(x, t)]

    found["first step"] = timed(ours)
    timed(ours)
    peers = {}
    for peer in PEERS[name] if peer_steps else []:
        try:
            step = peer_step(peer, held, schedule, x, t)
            for _ in range(2):
                timed(step)
        except Exception as error:  # on both ranks: it does not take these stages
            found[f"{peer}: error"] = f"{type(error).__name__}: {error}"
        else:
            peers[peer], found[peer] = step, {"seconds": []}
    for i in range(steps):
        torch.cuda.reset_peak_memory_stats()
        found["seconds"].append(timed(ours))
        found["peak"] = torch.cuda.max_memory_allocated()
        (result,) = last
        found["off"].append(far(result.gradients, expected))
        if i < peer_steps:
            for peer, step in peers.items():
                for stage in held.values():
                    stage.zero_grad()
                torch.cuda.reset_peak_memory_stats()
                found[peer]["seconds"].append(timed(step))
                found[peer]["peak"] = torch.cuda.max_memory_allocated()
                here = {f"{s}.{k}": p.grad for s, m in held.items()
                        for k, p in m.named_parameters()}  # fmt: skip
                found[peer]["off"] = far(here, expected)
    found["losses"], found["loss"] = result.losses, loss
    pipeline.close()
    traced = build(trace=True)
    events = traced.step(x, t).events
    found["busy"] = sum(e.end - e.start for e in events)
    found["span"] = events[-1].end - events[0].start
    traced.close()
    return found


def milliseconds(of: list[dict[str, Any]]) -> list[float]:
    """Of every step, on the slower rank."""
    return [1e3 * max(step) for step in zip(*(one["seconds"] for one in of), strict=True)]


def large(ranks: Ranks, name: str, dtype: torch.dtype) -> dict[str, Any]:
    """One row: correctness and speed of a schedule with large stages."""
    job = (name, LARGE, dtype, STEPS, PEER_STEPS)
    each = ranks.call(measure, [job] * RANKS, timeout=100.0)
    losses = {m: v for one in each for m, v in one["losses"].items()}

    def median(of: list[dict[str, Any]]) -> float:
        return statistics.median(milliseconds(of))

    loss = each[0]["loss"]
    row = {
        "schedule": name, "dtype": str(dtype).removeprefix("torch."), "steps": STEPS,
        "milliseconds": median(each),
        "gradients off": max(max(one["off"]) for one in each),
        "loss off": abs(sum(losses.values()) / len(losses) - loss) / loss,
        "peak GiB": max(one["peak"] for one in each) / 2**30,
        "busy": [one["busy"] / one["span"] for one in each],
        "set up": max(one["set up"] for one in each),
        "first step": max(one["first step"] for one in each),
    }  # fmt: skip
    for peer in PEERS[name]:
        if peer in each[0]:
            theirs = [one[peer] for one in each]
            row[peer] = {
                "milliseconds": median(theirs), "ratio": row["milliseconds"] / median(theirs),
                "gradients off": max(one["off"] for one in theirs),
                "peak GiB": max(one["peak"] for one in theirs) / 2**30,
            }  # fmt: skip
        else:
            row[peer] = each[0][f"{peer}: error"]
    return row


def small(ranks: Ranks, name: str, dtype: torch.dtype) -> dict[str, Any]:
    """One row: fifty whole steps of `Ranks`."""
    schedule = SCHEDULES[name](RANKS, SMALL["micro_batches"])
    stages, x, t = problem(schedule, SMALL, dtype, "cpu")
    loss, expected = one_process(stages, x, t, loss=scaled_mse)
    off, loss_off, begin = [], [], time.perf_counter()
    for _ in range(STEPS):
        run = ranks.step(
            schedule, stages, x, t, loss=scaled_mse, hidden_shape=x.shape[1:], timeout=20.0
        )
        assert run.gradients.keys() == expected.keys()
        off.append(far(run.gradients, expected))
        loss_off.append(abs(run.loss - loss) / loss)
    return {
        "schedule": name, "steps": STEPS, "gradients off": max(off), "loss off": max(loss_off),
        "milliseconds": 1e3 * (time.perf_counter() - begin) / STEPS,
    }  # fmt: skip


def killed(name: str) -> dict[str, Any]:
    """Seconds from the end of rank 1, in the middle of a step, to the error that says so."""
    at: list[float] = []
    with Ranks(RANKS, device="cuda") as ranks:
        victim = ranks._processes[1].pid

        def kill() -> None:
            at.append(time.perf_counter())
            os.kill(victim, signal.SIGKILL)

        threading.Timer(6.0, kill).start()
        try:
            ranks.call(measure, [(name, LARGE, torch.float32, 1000, 0)] * RANKS, timeout=60.0)
        except RankError as error:
            return {"schedule": name, "named": error.rank, "says": str(error),
                    "seconds": time.perf_counter() - at[0]}  # fmt: skip
    raise AssertionError("the rank was not killed in the middle of a step")


def main() -> None:
    arguments = parser(__file__, __doc__)
    arguments.add_argument("--parts", nargs="+", default=["small", "float32", "bfloat16", "killed"])
    options = arguments.parse_args()
    if torch.cuda.device_count() < RANKS:
        print("experiments/pipelines_gpu.py needs two GPUs; nothing was measured.")
        return
    tables: dict[str, Any] = {part: [] for part in options.parts}
    settings = {"ranks": RANKS, "steps": STEPS, "large": LARGE, "small": SMALL}
    ranks = None
    for part in options.parts:
        for name in SCHEDULES if part != "killed" else ["1F1B", "DualPipeV"]:
            begin = time.perf_counter()
            try:
                if part == "killed":
                    row = killed(name)
                else:
                    ranks = ranks or Ranks(RANKS, device="cuda")
                    steps = small if part == "small" else large
                    row = steps(ranks, name, getattr(torch, part, torch.float32))
            except RankError as error:
                ranks, row = None, {"schedule": name, "error": str(error)}
            tables[part].append(row)
            print(part, row, f"({time.perf_counter() - begin:.1f} s)", flush=True)
            write(
                options.out, script=__file__, settings=settings, tables=tables, seeds=[0],
                device="cuda",
            )  # fmt: skip
    if ranks is not None:
        ranks.close()


if __name__ == "__main__":
    main()
