"""Which messages travel when: rounds of sends and receives, in an order that cannot get stuck.

A forward sends its output to the rank of the next stage; a backward sends its input gradient to the
rank of the stage before. On NCCL such a message is a meeting: it waits until both ranks have come
to it, and what a rank has posted after it waits as well. Two ranks that come to their messages in
different orders wait for each other forever.

Mechanism
    The simulated schedule puts all messages of all ranks into one order, that of their making, and
    every rank takes part in them in this order. Before each action there is one round: the results
    of the action before, and whatever was made for this rank since that action began.
    So the rank that is first in line never waits for a rank behind it: the earliest message that
    has not met has both its ranks on the way to it, with nothing but finished work before.

Source
    The released dualpipe.py, which commits its sends and receives in one batch before computing;
    there the batches are part of the hand-written steps, here they follow from any schedule.
"""

from bisect import bisect_left
from typing import NamedTuple

from dsnotes.training.dualpipe.actions import Action, Kind, Schedule
from dsnotes.training.dualpipe.timeline import simulate


class Message(NamedTuple):
    """A result on its way from the rank that made it to the one that needs it."""

    sender: int
    receiver: int
    forward: bool  # the output of `stage`, else the gradient of its input
    stage: int
    micro_batch: int


Rounds = tuple[tuple[Message, ...], ...]  # one before each action, and one after the last


def rounds(schedule: Schedule) -> tuple[Rounds, ...]:
    """The rounds of every rank; messages of one round are in one order on all ranks.

    Raises ValueError when the order of actions is impossible (`timeline.simulate`).

        >>> from dsnotes.training.dualpipe.schedule import one_f_one_b
        >>> for messages in rounds(one_f_one_b(2, 2))[0]:  # of rank 0: F F B B
        ...     print([("to" if m.sender == 0 else "from", m.micro_batch) for m in messages])
        []
        [('to', 0)]
        [('to', 1), ('from', 0)]
        [('from', 1)]
        []
    """
    timeline = simulate(schedule)
    ends = {
        (part.kind is Kind.FORWARD, part.stage, part.micro_batch): event.end
        for events in timeline.events
        for event in events
        for part in event.action.parts
        if part.kind is not Kind.BACKWARD_WEIGHT
    }
    messages = sorted(
        (ends[message[2:]], message)
        for actions in schedule.actions
        for action in actions
        for part in action.parts
        if (message := source_of(part, schedule)) and message.sender != message.receiver
    )
    starts = [[event.start for event in events] for events in timeline.events]
    plan: list[list[list[Message]]] = [[[] for _ in range(len(own) + 1)] for own in starts]
    for made, message in messages:
        for rank in (message.sender, message.receiver):
            plan[rank][bisect_left(starts[rank], made)].append(message)
    return tuple(tuple(map(tuple, program)) for program in plan)


def source_of(part: Action, schedule: Schedule) -> Message | None:
    """What `part` needs of the stage before or after its own, also from its own rank; or None."""
    forward = part.kind is Kind.FORWARD
    stage = part.stage + (-1 if forward else 1)
    if part.kind is Kind.BACKWARD_WEIGHT or not 0 <= stage < schedule.num_stages:
        return None
    sender = schedule.rank_of[stage, part.micro_batch]
    receiver = schedule.rank_of[part.stage, part.micro_batch]
    return Message(sender, receiver, forward, stage, part.micro_batch)
