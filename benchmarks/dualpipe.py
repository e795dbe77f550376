"""Pipelines: how fast a schedule is simulated, and a real step of each on four processes.

The peer of the real steps is the same step in one process with one thread, on the same machine; of
DualPipeV also torch's ScheduleDualPipeV. On a machine with fewer cores than ranks a pipeline cannot
be faster than cores allow. Where there are two GPUs, also large steps on them through NCCL, beside
torch's schedules (`experiments/pipelines_gpu.py`).
"""

import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import _measure
from benchmarks._measure import medians, milliseconds, row
from dsnotes.training.dualpipe.engine import torch_dualpipev
from dsnotes.training.dualpipe.launch import Ranks
from dsnotes.training.dualpipe.runtime import one_process
from dsnotes.training.dualpipe.schedule import SCHEDULES, dualpipe
from dsnotes.training.dualpipe.timeline import simulate

RANKS, MICRO_BATCHES, HIDDEN = 4, 16, 256


def rows() -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    large = dualpipe(64, 1000)
    timed = medians({"generate": lambda: dualpipe(64, 1000), "simulate": lambda: simulate(large)})
    note = f"{sum(map(len, large.actions))} actions"
    found = [row(f"DualPipe 64 x 1000: {what}", times, note=note) for what, times in timed.items()]
    shape = (4, 64, HIDDEN)
    inputs, targets = torch.randn(2, MICRO_BATCHES, *shape)
    start = time.perf_counter()
    with Ranks(RANKS) as ranks:
        found.append(row(f"start {RANKS} ranks", time.perf_counter() - start, unit="s"))
        for name, build in SCHEDULES.items():
            schedule = build(RANKS, MICRO_BATCHES)
            # The same model for all: 8 blocks, cut into as many stages as the schedule has.
            blocks = [
                nn.Sequential(
                    nn.RMSNorm(HIDDEN), nn.Linear(HIDDEN, 4 * HIDDEN), nn.SiLU(),
                    nn.Linear(4 * HIDDEN, HIDDEN),
                )
                for _ in range(2 * RANKS)
            ]  # fmt: skip
            each = len(blocks) // schedule.num_stages
            stages = [nn.Sequential(*blocks[i : i + each]) for i in range(0, len(blocks), each)]
            options = {"loss": F.mse_loss, "hidden_shape": shape}
            ours, alone, theirs = [], [], []
            for _ in range(_measure.ROUNDS):
                run = ranks.step(schedule, stages, inputs, targets, **options)
                ours.append(1e3 * run.trace.makespan)
                step = partial(one_process, stages, inputs, targets, loss=F.mse_loss)
                alone.append(milliseconds(step, wall=True))
                if name == "DualPipeV":
                    *_, seconds = torch_dualpipev(ranks, stages, inputs, targets, loss=F.mse_loss)
                    theirs.append(1e3 * seconds)
            what = f"{name}, {RANKS} processes, one step"
            found.append(row(what, ours, alone, note="peer: one process, one thread"))
            if theirs:
                found.append(row(what, ours, theirs, note="peer: ScheduleDualPipeV"))
    return found


def gpu_rows() -> list[dict[str, Any]]:
    """On two GPUs, a row for every schedule and peer, in float32 and bfloat16."""
    if torch.cuda.device_count() < 2:
        return []
    sys.path.append(str(Path(__file__).parents[1] / "experiments"))
    import pipelines_gpu as steps

    found = []
    with Ranks(steps.RANKS, device="cuda") as ranks:
        for dtype in (torch.float32, torch.bfloat16):
            for name in SCHEDULES:
                job = (name, steps.LARGE, dtype, _measure.ROUNDS, _measure.ROUNDS)
                each = ranks.call(steps.measure, [job] * steps.RANKS, timeout=100.0)
                what, ours = f"{name}, 2 GPUs, {dtype}, one step", steps.milliseconds(each)
                for peer in steps.PEERS[name]:
                    theirs = steps.milliseconds([one[peer] for one in each])
                    found.append(row(what, ours, theirs, note=f"peer: {peer}"))
                if not steps.PEERS[name]:
                    found.append(row(what, ours))
    return found
