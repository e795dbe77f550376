"""What a process started by `launch` runs: waits for jobs, does them, reports how they ended.

It is a module of its own because processes that are started anew must be able to import it.
"""

import os
import pickle
import signal
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dsnotes.dualpipe.actions import Schedule
from dsnotes.dualpipe.channels import EVERYONE, PeerLostError
from dsnotes.dualpipe.runtime import Pipeline, RankResult

COMPUTING = -1  # the state of a rank; else the rank it waits for, or EVERYONE


def use_loopback() -> None:
    """Make gloo and NCCL connect over the loopback interface only."""
    name = next((n for _, n in socket.if_nameindex() if n.startswith("lo")), "lo")
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = name


def serve(
    rank: int, num_ranks: int, device: str, folder: str, connection: Connection, states: Any
) -> None:
    """Be rank `rank` until the other end of `connection` is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the parent, which ends us

    def on_wait(peer: int | None) -> None:
        states[rank] = COMPUTING if peer is None else peer

    def report(outcome: str, content: Any) -> None:
        states[rank] = EVERYONE
        connection.send_bytes(pickle.dumps((outcome, content)))

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
        while True:
            function, job = pickle.loads(connection.recv_bytes())
            report("done", function(on_wait, *job))
    except EOFError:
        dist.destroy_process_group()
    except PeerLostError as error:
        report("lost", (error.peer, str(error)))
    except BaseException:
        report("raised", traceback.format_exc())


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
