"""The grader's own seeds: every seed that a test or a check sets becomes another one.

An answer that computes is right with any of them; one that was copied from a screen is not.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

STEP = 1_000_003  # far from the small seeds that tests use


def moved(number: int, seed: int) -> int:
    """The seed that stands for `number`; the same number when `seed` is 0.

    >>> moved(7, 0), moved(7, 2)
    (7, 2000013)
    """
    return (number + seed * STEP) % 2**63


@contextmanager
def shifted(seed: int) -> Iterator[None]:
    """Within it, `torch.manual_seed` and generators made by `torch.Generator` are moved by `seed`.

    Example:
        >>> with shifted(1):
        ...     there = torch.rand(3, generator=torch.Generator().manual_seed(0))
        >>> here = torch.rand(3, generator=torch.Generator().manual_seed(STEP))
        >>> torch.equal(here, there)
        True
    """
    seed_all, plain = torch.manual_seed, torch.Generator

    class Generator(plain):  # type: ignore[misc,valid-type]
        def manual_seed(self, number: int) -> Any:
            super().manual_seed(moved(number, seed))
            return self

    def move_all(number: int) -> Any:
        return seed_all(moved(number, seed))

    if seed:
        torch.manual_seed = move_all  # type: ignore[assignment]
        torch.Generator = Generator  # type: ignore[misc]
    try:
        yield
    finally:
        torch.manual_seed = seed_all
        torch.Generator = plain  # type: ignore[misc]
