"""The schedules that the timeline of a pipeline draws, worked out by dsnotes.

One letter is one computation: a b forward, c d full backward, e f backward for the input, at the
first or second stage of the rank; w the weight backward that was put off longest. A capital
overlaps with the letter after it. Micro-batches follow in order at each stage, beginning with the
one that is given. ``steps`` says how many actions belong to each of the eight steps of DualPipe.
"""

from __future__ import annotations

from dsnotes.training.dualpipe.actions import Kind, Schedule
from dsnotes.training.dualpipe.schedule import SCHEDULES, step_counts

RANKS = (2, 4, 6, 8, 16)
LETTERS = {
    Kind.FORWARD: "ab",
    Kind.BACKWARD: "cd",
    Kind.BACKWARD_INPUT: "ef",
    Kind.BACKWARD_WEIGHT: "ww",
}
ROUND = (1, 2, 3, 2, 2, 2, 2, 1)  # actions in one round of each step


def micro_batches(ranks: int) -> list[int]:
    """The numbers to choose from: legal for all four schedules; for 8 ranks 20 is among them."""
    return sorted({2 * ranks, 2 * ranks + 4, 3 * ranks, 4 * ranks})


def steps(schedule: Schedule, rank: int) -> list[int]:
    """How many actions of a rank belong to each of the eight steps; none but in DualPipe and V."""
    if not schedule.name.startswith("DualPipe"):
        return []
    half, per_phase = schedule.num_stages // 2, schedule.num_micro_batches
    if schedule.name == "DualPipe":
        rank, per_phase = min(rank, schedule.num_ranks - 1 - rank), per_phase // 2
    rounds = step_counts(half, rank, per_phase)
    numbers = [times * length for times, length in zip(rounds, ROUND, strict=True)]
    numbers[3] += rank == half - 1  # in the middle the first pair is apart
    return numbers


def encode(schedule: Schedule) -> dict:
    """A schedule as the page holds it: for each rank its stages, letters and steps."""
    ranks = []
    for rank, actions in enumerate(schedule.actions):
        stages, first, letters = schedule.stages_of(rank), {}, ""
        for action in actions:
            for i, part in enumerate(action.parts):
                first.setdefault(part.stage, part.micro_batch)
                letter = LETTERS[part.kind][stages.index(part.stage)]
                letters += letter.upper() if i < len(action.parts) - 1 else letter
        held = {"stages": [[stage, first[stage]] for stage in stages], "letters": letters}
        ranks.append({**held, "steps": steps(schedule, rank)})
    return {
        "name": schedule.name,
        "stages": schedule.num_stages,
        "microBatches": schedule.num_micro_batches,
        "ranks": ranks,
    }


def data() -> list[dict]:
    """All choices; of the largest pipeline fewer, for it is most of the page."""
    return [
        encode(build(ranks, m))
        for build in SCHEDULES.values()
        for ranks in RANKS
        for m in micro_batches(ranks)[: 2 if ranks == 16 else None]
    ]
