"""Random times in every range, simulated: what `test_bubble` compares the closed forms with.

Runs in a process of its own, where no types are checked while it simulates, and prints per range
the cases and what the schedules of DualPipe and DualPipeV give:
`[stages, forward, backward_input, weight, pair, idle times, idle times of DualPipeV]`, the last of
every third case.

Times are whole numbers, so that every comparison is exact. (Bubbles grow in proportion to the
times: fractions with a common denominator are the same cases in another unit.)
"""

import json
import random
import sys
from collections.abc import Callable

from dsnotes.training.dualpipe.schedule import dualpipe, dualpipev, one_f_one_b, zb1p
from dsnotes.training.dualpipe.timeline import Durations, simulate

CASES = 150

# Of forward, backward for the input, backward for the weight, stages
PARTS: dict[str, Callable[[int, int, int, int], bool]] = {
    "F = I >= W": lambda f, i, w, pp: f == i >= w,
    "F > I >= W": lambda f, i, w, pp: f > i >= w,
    "F < I >= W": lambda f, i, w, pp: f < i and (pp - 2) * i <= pp * f and w <= i,
    "F << I >= W": lambda f, i, w, pp: (pp - 2) * i > pp * f and w <= i,
    "I < W": lambda f, i, w, pp: i < w and (pp - 2) * i <= pp * f,
    "F << I < W": lambda f, i, w, pp: i < w and (pp - 2) * i > pp * f,
}
# Of forward, full backward, pair
PAIRS: dict[str, Callable[[int, int, int], bool]] = {
    "F <= F&B < B": lambda f, b, pair: f <= pair < b,
    "B <= F&B <= F + B": lambda f, b, pair: max(f, b) <= pair <= f + b,
    "F&B > F + B": lambda f, b, pair: pair > f + b,
}


def draw(parts: str, pairs: str) -> list[tuple[int, int, int, int, int]]:
    """(stages, forward, backward_input, weight, pair) in the range."""
    rng, found = random.Random(f"{parts}, {pairs}"), []
    while len(found) < CASES:
        pp = rng.choice([4, 4, 4, 4, 6, 6, 6, 8, 8, 16])
        f, i, w = (rng.randint(1, 12) for _ in range(3))
        if parts == "F = I >= W":
            i = f
        pair = rng.randint(1, 2 * (f + i + w))
        if PARTS[parts](f, i, w, pp) and PAIRS[pairs](f, i + w, pair):
            found.append((pp, f, i, w, pair))
    return found


def two_way(case: tuple[int, int, int, int, int], number: int) -> list[object]:
    pp, *times = case
    durations, more = Durations(*times), number % 4
    down = simulate(dualpipe(pp, 2 * pp + 2 * more), durations).idle
    fold = simulate(dualpipev(pp // 2, pp + more), durations).idle if number % 3 == 0 else None
    return [*case, down, fold]


def one_way() -> list[list[object]]:
    """1F1B and ZB1P with any times, on odd numbers of ranks too."""
    rng, rows = random.Random(0), []
    for _ in range(2 * CASES):
        pp, m = rng.randint(2, 16), rng.randint(0, 9)
        f, i, w = (rng.randint(1, 12) for _ in range(3))
        d = Durations(f, i, w)
        rows.append([pp, f, i, w, simulate(one_f_one_b(pp, pp + m), d).idle,
                     simulate(zb1p(pp, pp + m), d).idle])  # fmt: skip
    return rows


if __name__ == "__main__":
    found = {
        f"{parts}, {pairs}": [two_way(c, n) for n, c in enumerate(draw(parts, pairs))]
        for parts in PARTS
        for pairs in PAIRS
    }
    json.dump({"two ways": found, "one way": one_way()}, sys.stdout)
