"""The messages between the ranks of a pipeline, derived from its schedule.

A forward sends its output to the rank of the next stage; a backward sends its input gradient to the
rank of the stage before. All messages of one of these two kinds from one rank to another form a
channel.

Mechanism
    Sender and receiver handle the messages of a channel in the same order (this is checked first),
    so tags and handshakes are not needed, and gloo and NCCL behave alike. Every channel is its own
    process group, so its messages never wait for those of another channel. The next receive is
    always posted, so that a message travels while its receiver computes.
    A stage whose neighbour is on the same rank (the turn of DualPipeV) hands over the tensor.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dsnotes.training.dualpipe.actions import Action, Kind, Schedule

_Channel = tuple[int, int, bool]  # from rank, to rank, forward?
_Message = tuple[int, int]  # stage that makes it, micro-batch
_Key = TypeVar("_Key", _Channel, tuple[int, ...])
EVERYONE = -2  # in the place of a rank: all of them


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
    Raises ValueError when two ranks would handle the messages of a channel in different orders.
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
        self._messages = _messages(schedule)
        self._channels = self._groups({c: c[:2] for c in self._messages})
        self._copies = self._groups({ranks: ranks for ranks in groups})
        self._handed_over: dict[tuple[_Message, bool], Tensor] = {}
        self._sent: list[tuple[dist.Work, Tensor, int]] = []
        self._posted: dict[_Channel, tuple[dist.Work, Tensor]] = {}
        self._to_post: dict[_Channel, int] = {}

    def start(self) -> float:
        """Wait for all ranks, post the first receives; returns the earliest arrival in seconds."""
        arrival = torch.tensor(time.monotonic(), dtype=torch.float64, device=self._device)
        with self._waiting(EVERYONE, "the start"):
            dist.all_reduce(arrival, op=dist.ReduceOp.MIN)
        for channel in self._channels:
            if channel[1] == self._rank:
                self._to_post[channel] = len(self._messages[channel])
                self._post(channel)
        return arrival.item()

    def receive(self, part: Action) -> Tensor | None:
        """The tensor that `part` gets from another stage; None when it needs none."""
        source = _source(part, self._schedule)
        if source is None:
            return None
        forward = part.kind is Kind.FORWARD
        peer = self._schedule.rank_of[source]
        if peer == self._rank:
            return self._handed_over.pop((source, forward))
        channel = peer, self._rank, forward
        work, tensor = self._posted.pop(channel)
        with self._waiting(peer, f"the input of {part}"):
            work.wait(self._timeout)
        self._post(channel)
        return tensor

    def send(self, part: Action, result: Tensor) -> None:
        """Pass on the result of `part`, without waiting for it to arrive."""
        forward = part.kind is Kind.FORWARD
        peer = self._schedule.rank_of[part.stage + (1 if forward else -1), part.micro_batch]
        if peer == self._rank:
            self._handed_over[(part.stage, part.micro_batch), forward] = result
            return
        result = result.contiguous()  # kept until sent, or its memory might be used again
        with self._waiting(peer, f"the result of {part} to be taken"):
            work = dist.isend(result, peer, group=self._channels[self._rank, peer, forward])
        assert work is not None  # it is for ranks outside the group only
        self._sent.append((work, result, peer))

    def finish(self) -> None:
        """Wait until everything has been sent."""
        for work, _, peer in self._sent:
            with self._waiting(peer, "a result to be taken"):
                work.wait(self._timeout)
        self._sent.clear()

    def sum(self, tensor: Tensor, ranks: tuple[int, ...]) -> None:
        """Replace `tensor` by its sum over `ranks`; all of them call this, in the same order."""
        peer = next(rank for rank in ranks if rank != self._rank)
        with self._waiting(peer, "its part of a gradient"):
            dist.all_reduce(tensor, group=self._copies[ranks])

    def close(self) -> None:
        """Destroy the process groups; all ranks call this."""
        for group in (*self._channels.values(), *self._copies.values()):
            dist.destroy_process_group(group)

    def _groups(self, members: Mapping[_Key, tuple[int, ...]]) -> dict[_Key, dist.ProcessGroup]:
        """Process groups with this rank in it; every rank takes part in making every group."""
        groups = {}
        for key, ranks in sorted(members.items()):
            with self._waiting(EVERYONE, "their connections"):
                group = dist.new_group(list(ranks), timeout=self._timeout)
            if self._rank in ranks:
                groups[key] = group
        return groups

    def _post(self, channel: _Channel) -> None:
        if self._to_post[channel]:
            self._to_post[channel] -= 1
            tensor = torch.empty(self._shape, dtype=self._dtype, device=self._device)
            with self._waiting(channel[0], "a connection"):
                work = dist.irecv(tensor, channel[0], group=self._channels[channel])
            assert work is not None  # it is for ranks outside the group only
            self._posted[channel] = work, tensor

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


def _source(part: Action, schedule: Schedule) -> _Message | None:
    """The stage, with the micro-batch, that `part` gets its input from."""
    if part.kind is Kind.BACKWARD_WEIGHT:
        return None
    stage = part.stage + (-1 if part.kind is Kind.FORWARD else 1)
    return (stage, part.micro_batch) if 0 <= stage < schedule.num_stages else None


def _messages(schedule: Schedule) -> dict[_Channel, list[_Message]]:
    """The messages of each channel in order; sender and receiver must agree on them."""
    sent: dict[_Channel, list[_Message]] = defaultdict(list)
    received: dict[_Channel, list[_Message]] = defaultdict(list)
    for rank, actions in enumerate(schedule.actions):
        for part in (part for action in actions for part in action.parts):
            forward, here = part.kind is Kind.FORWARD, (part.stage, part.micro_batch)
            source = _source(part, schedule)
            if source is not None and schedule.rank_of[source] != rank:
                received[schedule.rank_of[source], rank, forward].append(source)
            stage = part.stage + (1 if forward else -1)
            if part.kind is not Kind.BACKWARD_WEIGHT and 0 <= stage < schedule.num_stages:
                target = schedule.rank_of[stage, part.micro_batch]
                if target != rank:
                    sent[rank, target, forward].append(here)
    for channel in sent | received:
        if sent[channel] != received[channel]:
            raise ValueError(
                f"schedule {schedule.name}: rank {channel[0]} sends in another order than "
                f"rank {channel[1]} receives: {sent[channel]} and {received[channel]}"
            )
    return dict(sent)
