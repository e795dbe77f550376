"""Pipelines: how fast a schedule is simulated, and a real step of each on four processes.

The peer of the real steps is the same step in one process with one thread, on the same machine; of
DualPipeV also torch's ScheduleDualPipeV. On a machine with fewer cores than ranks a pipeline cannot
be faster than cores allow.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from dsnotes.training.dualpipe.engine import torch_dualpipev
from dsnotes.training.dualpipe.launch import Ranks
from dsnotes.training.dualpipe.runtime import one_process
from dsnotes.training.dualpipe.schedule import SCHEDULES, dualpipe
from dsnotes.training.dualpipe.timeline import simulate

RANKS, MICRO_BATCHES, HIDDEN = 4, 16, 256


def _median(run: Callable[[], object], times: int = 3) -> float:
    def seconds() -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return statistics.median(seconds() for _ in range(times))


def rows() -> list[dict]:
    torch.set_num_threads(1)
    large = dualpipe(64, 1000)
    found = [
        {"what": "DualPipe 64 x 1000: generate", "ours": _median(lambda: dualpipe(64, 1000)),
         "peer": None, "ratio": None, "unit": "s"},
        {"what": "DualPipe 64 x 1000: simulate", "ours": _median(lambda: simulate(large)),
         "peer": None, "ratio": None, "unit": "s",
         "note": f"{sum(map(len, large.actions))} actions"},
    ]  # fmt: skip
    shape = (4, 64, HIDDEN)
    inputs, targets = torch.randn(2, MICRO_BATCHES, *shape)
    start = time.perf_counter()
    with Ranks(RANKS) as ranks:
        found.append({"what": f"start {RANKS} ranks", "ours": time.perf_counter() - start,
                      "peer": None, "ratio": None, "unit": "s"})  # fmt: skip
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
            for _ in range(5):
                run = ranks.step(schedule, stages, inputs, targets, **options)
                ours.append(run.trace.makespan)
                start = time.perf_counter()
                one_process(stages, inputs, targets, loss=F.mse_loss)
                alone.append(time.perf_counter() - start)
                if name == "DualPipeV":
                    *_, seconds = torch_dualpipev(ranks, stages, inputs, targets, loss=F.mse_loss)
                    theirs.append(seconds)
            mine = statistics.median(ours)
            what = f"{name}, {RANKS} processes, one step"
            for peer, note in ((alone, "one process, one thread"), (theirs, "ScheduleDualPipeV")):
                if peer:
                    other = statistics.median(peer)
                    row = {"what": what, "ours": mine, "peer": other, "ratio": mine / other}
                    found.append(row | {"unit": "s", "note": f"peer: {note}"})
    return found
