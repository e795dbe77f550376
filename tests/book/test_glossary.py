"""What the glossary says, against the code it speaks of."""

import re
from pathlib import Path

import torch

from dsnotes.rl.objective import clipped_surrogate

GLOSSARY = (Path(__file__).parents[2] / "book" / "appendix" / "glossary.md").read_text("utf8")


def entry(term: str) -> str:
    found = re.search(rf"^{term}\n  (.*)$", GLOSSARY, re.MULTILINE)
    assert found, term
    return found[1]


def test_clipping_stops_the_gradient_in_the_better_direction_only() -> None:
    """Two of the four quadrants: a good token grown too likely, a bad one grown too rare."""
    stopped = set()
    for advantage in (1.0, -1.0):
        for ratio in (0.5, 1.5):
            leaf = torch.tensor(ratio, requires_grad=True)
            clipped_surrogate(leaf, torch.tensor(advantage), clip_low=0.2).backward()
            if leaf.grad == 0:
                stopped.add((advantage, ratio))
    assert stopped == {(1.0, 1.5), (-1.0, 0.5)}
    assert "朝使目标变好的方向超出" in entry("截断")
    assert "梯度照给" in entry("截断")


def test_a_ratio_is_of_a_token_or_of_a_whole_output() -> None:
    assert "token" in entry("比率")
    assert "回答" in entry("比率")
