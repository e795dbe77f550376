"""The messages between the ranks of a pipeline, in the order that `rounds` derives.

Mechanism
    A round is one batch of sends and receives: NCCL runs it as one, gloo message by message. Rounds
    of a rank run one after another, and sender and receiver handle the messages between them in the
    same order, so tags, handshakes and further process groups are not needed.
    On a GPU the program is some messages ahead: it hands out actions while those before compute.
    A stage whose neighbour is on the same rank (the turn of DualPipeV) hands over the tensor.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain, cycle

import torch
import torch.distributed as dist
from torch import Tensor

from dsnotes.training.dualpipe.actions import Action, Kind, Schedule
from dsnotes.training.dualpipe.rounds import Message, Rounds, rounds, source_of

EVERYONE = -2  # in the place of a rank: all of them
_LONGEST = 1e6  # seconds
_AHEAD = 4  # on a GPU, messages that are expected before the oldest is waited for; else rounds


class PeerLostError(RuntimeError):
    """A message from or to another rank did not arrive.

    `peer` is that rank, or EVERYONE where all ranks wait for one another.
    """

    def __init__(self, message: str, peer: int) -> None:
        super().__init__(message)
        self.peer = peer


class Channels:
    """This rank's connections; `torch.distributed` must be initialised on all ranks.

    Every message has `shape` and `dtype`; `groups` are the sets of ranks over which `sum` adds.
    `on_wait` is called with the rank that is waited for (or EVERYONE), and with None afterwards.
    Raises ValueError when the order of actions is impossible.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        shape: Sequence[int],
        dtype: torch.dtype,
        device: torch.device,
        timeout: float,
        groups: Iterable[tuple[int, ...]],
        on_wait: Callable[[int | None], None],
    ) -> None:
        self._schedule, self._rank = schedule, dist.get_rank()
        self._shape, self._dtype, self._device = tuple(shape), dtype, device
        self._timeout, self._on_wait = timedelta(seconds=timeout), on_wait
        self._rounds = rounds(schedule)[self._rank]
        if device.type != "cuda":  # on gloo a receive that waits is in nobody's way
            self._rounds = _receives_ahead(self._rounds, self._rank)
        self._copies: dict[tuple[int, ...], dist.ProcessGroup | None] = {}
        for ranks in sorted(groups):  # every rank takes part in making every group
            if len(ranks) == dist.get_world_size():
                self._copies[ranks] = None  # the group of all
                continue
            with self._waiting(EVERYONE, "their connections"):
                group = dist.new_group(list(ranks), timeout=self._timeout)
            if self._rank in ranks:
                self._copies[ranks] = group
        self._connected = False
        self._to_come = iter(self._rounds)
        self._results: dict[Message, Tensor] = {}  # made here, not yet sent
        self._handed_over: dict[Message, Tensor] = {}
        self._sent: deque[tuple[dist.Work, Tensor, int]] = deque()
        self._posted: dict[Message, tuple[dist.Work, Tensor]] = {}
        self._awaited: deque[tuple[dist.Work, int, str]] = deque()  # by this GPU

    def start(self) -> float:
        """Wait for all ranks; returns the earliest arrival in seconds."""
        arrival = torch.tensor(time.monotonic(), dtype=torch.float64, device=self._device)
        with self._waiting(EVERYONE, "the start"):
            dist.all_reduce(arrival, op=dist.ReduceOp.MIN)
            earliest = arrival.item()
        if not self._connected:
            self._connect()
        self._to_come = iter(self._rounds)
        if self._device.type != "cuda":
            self.exchange()
        return earliest

    def exchange(self) -> None:
        """Begin the next round; to be called before every action."""
        while len(self._awaited) > _AHEAD:
            self._wait(*self._awaited.popleft())
        while self._sent and self._sent[0][0].is_completed():
            self._sent.popleft()  # kept until here, or its memory might have been used again
        messages, ops = next(self._to_come), []
        for message in messages:
            if message.sender == self._rank:
                ops.append(dist.P2POp(dist.isend, self._results.pop(message), message.receiver))
            else:
                tensor = torch.empty(self._shape, dtype=self._dtype, device=self._device)
                ops.append(dist.P2POp(dist.irecv, tensor, message.sender))
        for message, op, work in zip(messages, ops, self._begin(ops), strict=False):
            if message.sender == self._rank:
                self._sent.append((work, op.tensor, message.receiver))
            else:
                self._posted[message] = work, op.tensor

    def receive(self, part: Action) -> Tensor | None:
        """The tensor that `part` gets from another stage; None when it needs none."""
        message = source_of(part, self._schedule)
        if message is None:
            return None
        if message.sender == self._rank:
            return self._handed_over.pop(message)
        work, tensor = self._posted.pop(message)
        if self._device.type == "cuda":
            work.wait()  # lets what follows on this GPU wait; the program does so later
            self._awaited.append((work, message.sender, f"the input of {part}"))
        else:
            self._wait(work, message.sender, f"the input of {part}")
        return tensor

    def send(self, part: Action, result: Tensor) -> None:
        """Pass on the result of `part`, in the round that follows."""
        forward = part.kind is Kind.FORWARD
        peer = self._schedule.rank_of[part.stage + (1 if forward else -1), part.micro_batch]
        message = Message(self._rank, peer, forward, part.stage, part.micro_batch)
        if peer == self._rank:
            self._handed_over[message] = result
        else:
            self._results[message] = result.contiguous()

    def finish(self) -> None:
        """Begin the last round and wait until everything has been sent."""
        self.exchange()
        while self._awaited:
            self._wait(*self._awaited.popleft())
        for work, _, peer in self._sent:
            self._wait(work, peer, "a result to be taken")
        self._sent.clear()

    def sum(self, tensor: Tensor, ranks: tuple[int, ...]) -> None:
        """Replace `tensor` by its sum over `ranks`; all of them call this, in the same order."""
        peer = next(rank for rank in ranks if rank != self._rank)
        with self._waiting(peer, "its part of a gradient"):
            dist.all_reduce(tensor, group=self._copies[ranks])

    def close(self) -> None:
        """Destroy the process groups; all ranks call this."""
        for group in self._copies.values():
            if group is not None:
                dist.destroy_process_group(group)

    def _connect(self) -> None:
        """One number each way between neighbours: NCCL connects two ranks while both wait."""
        peers = {rank for messages in self._rounds for m in messages for rank in m[:2]}
        ops = [
            dist.P2POp(op, torch.zeros(1, device=self._device), peer)
            for peer in sorted(peers - {self._rank})
            for op in (dist.isend, dist.irecv)
        ]
        for op, work in zip(ops, self._begin(ops), strict=False):
            self._wait(work, op.peer, "a connection")
        self._connected = True

    def _begin(self, ops: list[dist.P2POp]) -> Iterator[dist.Work]:
        """The work of each of `ops`; NCCL has one for all."""
        if not ops:
            return iter(())
        with self._waiting(ops[0].peer, "a connection"):
            return cycle(dist.batch_isend_irecv(ops))

    def _wait(self, work: dist.Work, peer: int, what: str) -> None:
        with self._waiting(peer, what):
            if self._device.type != "cuda":
                work.wait(self._timeout)
                return
            end = time.monotonic() + self._timeout.total_seconds()
            while not work.is_completed():
                if time.monotonic() > end:
                    raise RuntimeError(f"nothing came in {self._timeout.total_seconds():g} s")
                time.sleep(2e-5)

    @contextmanager
    def _waiting(self, peer: int, what: str) -> Iterator[None]:
        self._on_wait(peer)
        try:
            yield
        except RuntimeError as error:
            whom = "the other ranks" if peer == EVERYONE else f"rank {peer}"
            message = f"rank {self._rank} waited in vain for {whom} and {what}: {error}"
            raise PeerLostError(message, peer) from error
        self._on_wait(None)


def check_seconds(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a time to wait, in seconds."""
    if not isinstance(value, int | float) or not 0 < value <= _LONGEST:
        raise ValueError(f"{name} must be seconds above 0, at most {_LONGEST:g}, got {value!r}")


def _receives_ahead(own: Rounds, rank: int) -> Rounds:
    """The same with receives some rounds earlier: messages travel while their receiver computes.

    There is one round more, before all others.
    """
    sends = [[m for m in messages if m.sender == rank] for messages in own]
    receives = [[m for m in messages if m.receiver == rank] for messages in own]
    pairs = zip(sends, receives[_AHEAD:] + [[]] * _AHEAD, strict=False)
    return (tuple(chain(*receives[:_AHEAD])), *(tuple(send + receive) for send, receive in pairs))
