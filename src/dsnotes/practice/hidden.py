"""Inputs for the functions that exercises ask for, drawn anew from the grader's seed.

A key is the label of an exercise, a value the name of its function and what draws its arguments
from a `random.Random`. Functions with several right answers, and those that read a table of the
book, have none: the check decides alone.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import torch

Draw = Callable[[Random], tuple[Any, ...]]


def _floats(r: Random, n: int, low: float = 0.0, high: float = 1.0) -> list[float]:
    return [r.uniform(low, high) for _ in range(n)]


def _tensor(r: Random, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(r.getrandbits(40))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _micro_batches(r: Random) -> tuple[Any, ...]:
    experts = r.randint(2, 6)
    batches = [
        torch.tensor([r.sample(range(experts), 2) for _ in range(r.randint(1, 9))])
        for _ in range(3)
    ]
    return torch.zeros(experts), batches, r.uniform(0.01, 0.1)


def _nodes(r: Random) -> tuple[int, int, int]:
    nodes = r.randint(2, 8)
    return nodes * r.randint(2, 16), nodes, r.randint(1, 2 * nodes)


def _speeds(r: Random) -> tuple[Any, ...]:
    n = r.randint(1, 6)
    survival = sorted(_floats(r, n, 0.2), reverse=True)
    return survival, dict(enumerate(sorted(_floats(r, n + 1, 0.5), reverse=True), start=1))


def _packs(r: Random) -> tuple[Any, ...]:
    packs = r.randint(2, 4)
    return _floats(r, packs * r.randint(1, 4), 1.0, 9.0), packs


def _slots(r: Random) -> tuple[Any, ...]:
    loads = _floats(r, r.randint(2, 6), 1.0, 9.0)
    return loads, len(loads) + r.randint(0, 6)


def _advantages(r: Random) -> tuple[Any, ...]:
    n = r.randint(1, 8)
    return _floats(r, n), _floats(r, n), r.uniform(0.8, 1), r.uniform(0, 1)


def _gates(r: Random) -> tuple[Any, ...]:
    return _tensor(r, 3, 6).sigmoid(), _tensor(r, 6) / 5, r.randint(1, 4)


def _pushes(r: Random) -> tuple[Any, ...]:
    n = r.randint(2, 9)
    chosen = torch.tensor([r.randrange(5) for _ in range(n)])
    return _tensor(r, 5), chosen, _tensor(r, n), r.uniform(-1, 1)


def _turned(r: Random) -> tuple[Any, ...]:
    pairs = r.randint(1, 6)
    return _tensor(r, 2 * pairs), r.randint(0, 50), _tensor(r, pairs).abs()


def _rhymes(r: Random) -> tuple[Any, ...]:
    return "".join(r.choice("東風江支微魚") for _ in range(r.choice((4, 8)))), r.random() < 0.5


def _one_token(r: Random) -> tuple[Any, ...]:
    return _floats(r, 16), _floats(r, 16, -0.2, 0.2), r.randint(2, 4), r.randint(1, 6)


CASES: dict[str, tuple[str, Draw]] = {
    "balance-4": ("optimizer_step", _micro_batches),
    "balance-7": ("my_sequence_loss", lambda r: (_tensor(r, 7, 5).sigmoid(), r.randint(1, 4))),
    "dspark-2": ("admit", _speeds),
    "dualpipe-3": ("limit", lambda r: (2 * r.randint(3, 20),)),
    "eplb-2": ("pack", _packs),
    "eplb-3": ("replicate", _slots),
    "fp4-2": ("pack", lambda r: ([r.randrange(16) for _ in range(2 * r.randint(1, 9))],)),
    "fp4-3": ("power_of_two", lambda r: (r.uniform(0.01, 300),)),
    "grpo-4": ("unbiased", lambda r: (_tensor(r, 5), _tensor(r, 5), _tensor(r, 5))),
    "grpo-5": ("leave_one_out", lambda r: (_tensor(r, 4), r.randint(2, 16))),
    "grpo-12": ("advantages_of", _advantages),
    "mla-9": ("intensity", lambda r: (r.randint(1, 128), r.randint(1, 4))),
    "moe-4": ("expected_nodes", _nodes),
    "moe-7": ("route_one", _one_token),
    "moe-8": ("gate_to_mend", _gates),
    "pipelines-1": ("order", lambda r: (r.randrange(4), 4, r.randint(4, 12))),
    "policy_gradient-1": ("estimate", _pushes),
    "r1-8": ("total", lambda r: (r.uniform(1.5, 40),)),
    "rope_cache-1": ("turn", _turned),
    "verse-2": ("repeated", _rhymes),
}
