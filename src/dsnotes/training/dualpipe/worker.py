"""The program of a process that `processes` starts: it waits for jobs, runs them and reports.

It is a separate module because a new process must be able to import it.
"""

import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dsnotes.training.dualpipe.actions import Schedule
from dsnotes.training.dualpipe.channels import EVERYONE, PeerLostError
from dsnotes.training.dualpipe.runtime import Pipeline, RankResult

COMPUTING = -1  # the state of a rank; else the rank it waits for, or EVERYONE


def use_loopback() -> None:
    """Make gloo and NCCL connect over the loopback interface only."""
    name = next((n for _, n in socket.if_nameindex() if n.startswith("lo")), "lo")
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = name


def serve(
    rank: int, num_ranks: int, device: str, folder: str, connection: Connection, states: Any
) -> None:
    """Work as rank `rank` until None comes, or until the parent process is gone."""
    threading.Thread(target=_end_with_the_parent, args=(folder,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent, which ends us

    def on_wait(peer: int | None) -> None:
        states[rank] = COMPUTING if peer is None else peer

    def report(outcome: str, content: Any) -> None:
        states[rank] = EVERYONE
        with _while_the_parent_lives(folder):
            connection.send_bytes(pickle.dumps((outcome, content)))

    def receive() -> bytes:
        with _while_the_parent_lives(folder):
            return connection.recv_bytes()

    try:
        torch.set_num_threads(1)
        use_loopback()
        # The first backward from a given gradient imports for a second or two: here all ranks do it
        # at once, in a first step it would be one after the other.
        torch.ones(1, requires_grad=True).exp().backward(torch.ones(1))
        gpu = torch.device("cuda", rank) if device == "cuda" else None
        if gpu is not None:
            torch.cuda.set_device(gpu)
        on_wait(EVERYONE)
        dist.init_process_group(
            "gloo" if gpu is None else "nccl",
            init_method=f"file://{folder}/meeting",
            rank=rank,
            world_size=num_ranks,
            timeout=timedelta(minutes=10),
            device_id=gpu,
        )
        report("done", None)
        while (message := pickle.loads(receive())) is not None:
            function, job = message
            report("done", function(on_wait, *job))
        dist.destroy_process_group()
    except PeerLostError as error:
        report("lost", (error.peer, str(error)))
    except BaseException:
        report("raised", traceback.format_exc())


def _end_with_the_parent(folder: str) -> None:
    """End even in the middle of a job: who kills the parent does not know its ranks."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # A process that the parent has forked may hold the sentinel open: look at its number as well.
    while os.getppid() == parent.pid and not wait([parent.sentinel], timeout=1.0):
        pass
    _leave(folder)


@contextmanager
def _while_the_parent_lives(folder: str) -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError):  # the other end of the connection is closed
        _leave(folder)


def _leave(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def step(
    on_wait: Callable[[int | None], None],
    schedule: Schedule,
    stages: dict[int, nn.Module],
    inputs: Tensor,
    targets: Tensor,
    options: dict[str, Any],
) -> RankResult:
    """The job of `Ranks.step`."""
    pipeline = Pipeline(schedule, stages, on_wait=on_wait, **options)
    result = pipeline.step(inputs, targets)
    pipeline.close()
    cpu = {name: gradient.cpu() for name, gradient in result.gradients.items()}
    return RankResult(result.losses, cpu, result.events)
