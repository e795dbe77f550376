"""What the ranks of a pipeline do, as plain data: actions, pairs of them, and whole schedules.

A model is cut into stages and a batch into micro-batches; an action is the forward or (part of) the
backward of one micro-batch at one stage. A schedule gives the order of the actions of each rank.
`timeline` says when they run, and `runtime` runs them.
"""

import functools
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is computed. A full backward is an input backward and a weight backward together."""

    FORWARD = "F"
    BACKWARD = "B"
    BACKWARD_INPUT = "I"
    BACKWARD_WEIGHT = "W"


@dataclass(frozen=True, slots=True)
class Action:
    """One computation of one micro-batch at one stage.

    `direction` is 0 where forwards travel from rank 0 to the last rank (stage s lies on rank s) and
    1 where they travel back (stage s lies on rank num_stages - 1 - s).

        >>> str(Action(Kind.FORWARD, stage=2, direction=0, micro_batch=5))
        'F of micro-batch 5 at stage 2'
    """

    kind: Kind
    stage: int
    direction: int
    micro_batch: int

    @property
    def parts(self) -> tuple["Action", ...]:
        """The action itself; for a `Pair`, its two halves."""
        return (self,)

    def __str__(self) -> str:
        return f"{self.kind} of micro-batch {self.micro_batch} at stage {self.stage}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A forward and a full backward of another micro-batch that overlap (F&B of V3 table 2)."""

    forward: Action
    backward: Action

    @property
    def parts(self) -> tuple[Action, ...]:
        """Forward, then backward."""
        return (self.forward, self.backward)

    def __str__(self) -> str:
        return f"{self.forward} with {self.backward}"


@dataclass(frozen=True)
class Schedule:
    """The ordered actions of every rank: `actions[rank]`."""

    name: str
    num_stages: int
    num_micro_batches: int
    actions: tuple[tuple[Action | Pair, ...], ...]

    @property
    def num_ranks(self) -> int:
        """The number of ranks (processes, devices)."""
        return len(self.actions)

    @functools.cached_property
    def rank_of(self) -> dict[tuple[int, int], int]:
        """The rank that computes `stage` for `micro_batch`."""
        return {
            (part.stage, part.micro_batch): rank
            for rank, actions in enumerate(self.actions)
            for action in actions
            for part in action.parts
            if part.kind is Kind.FORWARD
        }

    def stages_of(self, rank: int) -> tuple[int, ...]:
        """The stages of which `rank` holds the parameters, in ascending order."""
        return tuple(sorted({p.stage for action in self.actions[rank] for p in action.parts}))
