"""How long every rank idles, in closed form, also when the parts take different times.

The formulas of V3 table 2 (`timeline.formula`) name no condition, but for DualPipe they give the
idle time only if F = I >= W. This module gives the idle time for any times.

Sources
    V3 (arXiv 2412.19437) table 2   the formulas that these become where it says so below
    `timeline.simulate`             the forms were read off its critical paths; the tests compare
                                    them on several hundred random times in every range

Departures
    I is the backward for the input alone, B = I + W the full backward, as in table 2.
"""

from dsnotes.training.dualpipe.timeline import Durations, Time, formula


def idle_times(name: str, num_stages: int, durations: Durations | None = None) -> tuple[Time, ...]:
    """The idle time of every rank, for given times; the number of micro-batches does not matter.

    PP = `num_stages`, k = PP/2 - 1. 1F1B is as in table 2. ZB1P, from PP micro-batches on, idles
    (PP-1)(F + I - min(F, I, W)), which is table 2 if W <= F and W <= I. For the middle ranks of
    DualPipe and DualPipeV see `middle_waits`. A rank that is d = 1, 2, ... positions nearer to an
    end has d pairs fewer and d more single forwards and backwards, and idles d (F + B - F&B) less
    (more if a pair takes longer than its parts).
    Raises what `formula` raises, and ValueError when `durations` has a transfer time, or, for the
    last two, when a pair is shorter than a forward: then there is no closed form here.

        >>> idle_times("DualPipe", 8, Durations(1, 1, 1, pair=2.5))
        (3.5, 4.0, 4.5, 4.5, 4.5, 4.5, 4.0, 3.5)
        >>> max(idle_times("DualPipe", 8, Durations(1.5, 1, 1))), formula("DualPipe", 8).bubble
        (9.0, 6)
    """
    d = durations or Durations()
    table_2 = formula(name, num_stages, d)
    if d.transfer:
        raise ValueError(f"transfer must be 0 for the closed forms, got {d.transfer}")
    if name == "1F1B":
        return (table_2.bubble,) * table_2.devices
    if name == "ZB1P":
        shortest = min(d.forward, d.backward_input, d.weight)
        bubble = (num_stages - 1) * (d.forward + d.backward_input - shortest)
        return (bubble,) * table_2.devices
    half, middle = num_stages // 2, sum(middle_waits(num_stages, d))
    gain = d.forward + d.backward - d.full_pair
    positions = (min(rank, num_stages - 1 - rank) for rank in range(table_2.devices))
    return tuple(middle - max(half - 2 - position, 0) * gain for position in positions)


def middle_waits(num_stages: int, durations: Durations | None = None) -> tuple[Time, ...]:
    """The four waits of the middle ranks of DualPipe: forward, first gradient, step 6, end.

    With k = PP/2 - 1 and F&B >= B:

        k F                     for the first micro-batch, from the nearer end
        max(0, k I - (k+1) F)   for the first gradient, if it comes later than the last forward
        k (F&B - B)             in step 6 the next rank outside does a pair and a B before its
                                gradient comes; the middle has 2 B to do, for k ranks outside
        k max(0, I - W)         until the ends are done

    Their sum is k (F&B + F - 2W) if F >= I >= W; if F = I >= W it is k (F&B + B - 3W), table 2.
    With F <= F&B < B a round is shorter at the ends. Then the second and the third wait depend on
    each other; the third place holds both, and the second is 0.
    Raises ValueError when PP is odd or a pair is shorter than a forward.

        >>> middle_waits(8, Durations(1, 1.5, 0.5))
        (3, 0.5, 3.0, 3.0)
    """
    d = durations or Durations()
    formula("DualPipe", num_stages, d)  # refuses an odd PP
    if d.full_pair < d.forward:
        raise ValueError(
            f"pair must be at least forward ({d.forward}) for the closed forms, got {d.full_pair}"
        )
    k = num_stages // 2 - 1
    end = k * max(0, d.backward_input - d.weight)
    first_gradient = max(0, k * d.backward_input - (k + 1) * d.forward)
    late = d.full_pair - d.backward
    if late >= 0:
        return (k * d.forward, first_gradient, k * late, end)
    rounds = max(first_gradient - k * late, -(2 * k - 1) * late - d.forward)
    return (k * d.forward, 0, rounds, end)
