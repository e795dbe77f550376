"""Stages and losses that the tests send to other processes, which import them from here."""

import os
import time
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from dsnotes.training.dualpipe import worker
from dsnotes.training.dualpipe.runtime import RankResult
from dsnotes.training.dualpipe.sharing import SharedParameters

SLEEP = 600  # seconds


class Exits(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        os._exit(7)


class Sleeps(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(SLEEP)
        return x


class Cuts(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class Narrows(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[..., :-1]


class KnowsItsSockets(nn.Linear):
    """Raises when its process listens anywhere but on the loopback interface."""

    def forward(self, x: Tensor) -> Tensor:
        addresses = listening_addresses()
        if not addresses or not addresses <= {"0100007F", "0" * 24 + "01000000"}:
            raise ArithmeticError(f"listens on {addresses}")
        return super().forward(x)


def listening_addresses() -> set[str]:
    """The addresses this process listens on, in the hexadecimal notation of /proc/net/tcp."""
    links = (os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink())
    sockets = {link for link in links if link.startswith("socket:")}
    rows = [
        row.split()
        for table in ("tcp", "tcp6")
        for row in Path("/proc/self/net", table).read_text().splitlines()[1:]
    ]
    return {
        row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets
    }


def step_without_sum(*job: Any) -> RankResult:
    """A step after which the two copies of a stage keep their own gradients."""
    summed = SharedParameters.sum_gradients
    SharedParameters.sum_gradients = lambda self, add: None
    try:
        return worker.step(*job)
    finally:
        SharedParameters.sum_gradients = summed


def never_returns(on_wait: Any) -> None:
    time.sleep(SLEEP)


def raises_end_of_file(on_wait: Any) -> None:
    raise EOFError("the file of the job, not the connection")


def scaled_mse(y: Tensor, target: Tensor) -> Tensor:
    """A loss whose gradients are of the order of 1, so that absolute tolerances mean something."""
    return 100 * F.mse_loss(y, target)
