"""How the benchmarks measure: every way in turn, and a ratio from every round.

A machine that is busy slows down what runs together, so a row compares ours and the peer round by
round. Its ratio is the median of those of the rounds, `spread` the middle half of them. The timer
is that of torch: it warms up, waits for a GPU, and repeats what is short. Where there is no GPU it
counts the processor's time, all on one thread, so that other processes do not enter.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.benchmark import Timer

from dsnotes.config import TINY

ROUNDS = 9  # `benchmarks.run --rounds` says another number

WIDE = replace(  # as wide as what a CPU does in a moment can be
    TINY,
    vocab_size=1024,
    hidden_size=512,
    intermediate_size=1024,
    moe_intermediate_size=256,
    n_routed_experts=64,
    num_experts_per_tok=6,
    n_group=1,
    topk_group=1,
    num_attention_heads=16,
    q_lora_rank=256,
    kv_lora_rank=128,
    qk_nope_head_dim=64,
    qk_rope_head_dim=32,
    v_head_dim=64,
    max_position_embeddings=8193,
    num_nextn_predict_layers=0,
    initializer_range=0.02,
)


def milliseconds(call: Callable[[], Any], *, wall: bool = torch.cuda.is_available()) -> float:
    """Of one call, on one thread: median over a tenth of a second, after a call to warm up."""
    clock = {} if wall else {"timer": time.process_time}
    timer = Timer("call()", globals={"call": call}, **clock)
    return 1e3 * timer.blocked_autorange(min_run_time=0.1).median


def medians(ways: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """`milliseconds` of each way in every round; every second round the last one goes first."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(ROUNDS):
        for name in list(ways)[:: 1 if turn % 2 == 0 else -1]:
            times[name].append(milliseconds(ways[name]))
    return times


def row(
    what: str,
    ours: float | Sequence[float],
    peer: float | Sequence[float] | None = None,
    *,
    unit: str = "ms",
    note: str = "",
) -> dict[str, Any]:
    """One line of the table, from one number a round or a single one.

    A `ratio` below 1 means that ours is faster or smaller.
    """
    mine = torch.tensor(ours, dtype=torch.float64).flatten()
    made = {"what": what, "ours": mine.quantile(0.5).item(), "peer": None, "ratio": None}
    made |= {"spread": None, "unit": unit, "note": note}
    if peer is not None:
        theirs = torch.tensor(peer, dtype=torch.float64).flatten()
        ratios = mine / theirs
        low, ratio, high = ratios.quantile(mine.new_tensor([0.25, 0.5, 0.75])).tolist()
        made |= {"peer": theirs.quantile(0.5).item(), "ratio": ratio}
        made |= {"spread": [low, high] if len(ratios) > 1 else None}
    return made
