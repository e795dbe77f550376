"""Pipelines over NCCL; these tests need two GPUs. `experiments/pipelines_gpu.py` measures them."""

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from dsnotes.data import find
from dsnotes.training.dualpipe.engine import torch_dualpipev
from dsnotes.training.dualpipe.launch import Ranks
from dsnotes.training.dualpipe.processes import RankError
from dsnotes.training.dualpipe.runtime import one_process
from dsnotes.training.dualpipe.schedule import SCHEDULES, one_f_one_b

sys.path.insert(0, str(Path(__file__).parent))
import faults

HIDDEN, SHAPE = 64, (2, 16, 64)
RECORD = json.loads(find("runs/pipelines_gpu.json").read_text("utf-8"))["tables"]
two_gpus = pytest.mark.gpu(2)


def _stages(n: int) -> list[nn.Module]:
    return [
        nn.Sequential(nn.RMSNorm(HIDDEN), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
                      nn.Linear(HIDDEN, HIDDEN, bias=False))
        for _ in range(n)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def ranks():
    with Ranks(2, device="cuda") as ranks:
        yield ranks


@pytest.mark.parametrize("size", ["small", "float32"])
def test_the_record_is_right(size: str) -> None:
    """Of fifty steps in a row the worst, against one process."""
    assert [row["schedule"] for row in RECORD[size]] == list(SCHEDULES)
    for row in RECORD[size]:
        assert row["steps"] == 50
        assert max(row["gradients off"], row["loss off"]) < 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_record_is_no_slower_than_torch(dtype: str) -> None:
    ratios = [v["ratio"] for row in RECORD[dtype] for v in row.values() if type(v) is dict]
    assert len(ratios) == 4
    assert max(ratios) < 1.05


def test_the_record_names_who_was_killed() -> None:
    for row in RECORD["killed"]:
        assert row["named"] == 1
        assert row["seconds"] < 30


@two_gpus
@pytest.mark.parametrize("name", SCHEDULES)
def test_steps_in_a_row_equal_those_of_one_process(ranks, name: str) -> None:
    schedule = SCHEDULES[name](2, 6)
    stages, (inputs, targets) = _stages(schedule.num_stages), torch.randn(2, 6, *SHAPE)
    loss, reference = one_process(stages, inputs, targets, loss=faults.scaled_mse)
    for _ in range(5):
        run = ranks.step(
            schedule, stages, inputs, targets, loss=faults.scaled_mse, hidden_shape=SHAPE
        )
        assert run.loss == pytest.approx(loss, rel=1e-5)
        assert run.gradients.keys() == reference.keys()
        for key, gradient in run.gradients.items():
            assert (gradient - reference[key]).norm() < 1e-5 * reference[key].norm()


@two_gpus
def test_torch_runs_on_the_same_ranks() -> None:
    """Ranks of their own: what torch sends first must not need connections that are there."""
    stages, (inputs, targets) = _stages(4), torch.randn(2, 6, *SHAPE)
    loss, reference = one_process(stages, inputs, targets, loss=faults.scaled_mse)
    with Ranks(2, device="cuda") as ranks:
        value, gradients, _ = torch_dualpipev(
            ranks, stages, inputs, targets, loss=faults.scaled_mse
        )
    assert value == pytest.approx(loss, rel=1e-5)
    assert gradients.keys() == reference.keys()
    for key, gradient in gradients.items():
        assert (gradient - reference[key]).norm() < 1e-5 * reference[key].norm()


@two_gpus
@pytest.mark.parametrize("name", SCHEDULES)
def test_torchrun(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "dsnotes.training.dualpipe", "--schedule", name, "--micro-batches", "6"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    lines = [line for line in done.stdout.splitlines() if line.startswith(f"{name} rank")]
    assert [f" on cuda:{rank}: " in line for rank, line in enumerate(sorted(lines))] == [True] * 2
    for line in lines:
        assert float(line.split("gradient difference ")[1].split(";")[0]) < 1e-5


@two_gpus
def test_a_killed_rank_is_named() -> None:
    stages, (inputs, targets) = _stages(2), torch.randn(2, 6, *SHAPE)
    stages[0].append(faults.Sleeps(HIDDEN, HIDDEN))
    with Ranks(2, device="cuda") as ranks:
        threading.Timer(5.0, os.kill, (ranks._processes[1].pid, signal.SIGKILL)).start()
        begin = time.monotonic()
        with pytest.raises(RankError, match="rank 1 died with exit code -9"):
            ranks.step(
                one_f_one_b(2, 6), stages, inputs, targets, loss=faults.scaled_mse,
                hidden_shape=SHAPE,
            )  # fmt: skip
        assert time.monotonic() - begin < 5.0 + 30.0


@two_gpus
def test_a_late_rank_is_named() -> None:
    """Rank 0 has handed out its work and waits for a gradient, in its program and on its GPU."""
    stages, (inputs, targets) = _stages(2), torch.randn(2, 6, *SHAPE)
    with Ranks(2, device="cuda") as ranks:
        step = functools.partial(
            ranks.step, one_f_one_b(2, 6), loss=faults.scaled_mse, hidden_shape=SHAPE
        )
        step(stages, inputs, targets)  # to load a kernel, a program waits for its GPU
        stages[1].append(faults.Sleeps(HIDDEN, HIDDEN))
        with pytest.raises(RankError, match="rank 1 did not finish within 10 s") as caught:
            step(stages, inputs, targets, timeout=10.0)
        assert caught.value.rank == 1
