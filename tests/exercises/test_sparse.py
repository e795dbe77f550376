"""The exercises of the section on sparse attention: counted and drawn another way."""

import random

import pytest
import torch

from dsnotes.after.config import DEEPSEEK_V32, TINY_V32
from dsnotes.after.indexer import Indexer
from dsnotes.model.rope import rope_frequencies, rope_rotation
from dsnotes.practice.mechanisms import load

from .notebook import NOTEBOOKS, answers
from .page import exercise, solution


def right(label: str) -> dict:
    names: dict = {"torch": torch, "math": __import__("math")}
    exec(answers(NOTEBOOKS / "sparse.ipynb")[label].right, names)
    return names


def test_sparse_1() -> None:
    """Walked along the length until the sparse step is the cheaper one."""
    c = DEEPSEEK_V32
    pair = c.num_attention_heads * (2 * c.kv_lora_rank + c.qk_rope_head_dim)
    index = c.index_n_heads * c.index_head_dim
    length = next(n for n in range(2048, 9999) if n * pair >= n * index + 2048 * pair)
    names = right("sparse-1")
    assert names["equal_at"] == pytest.approx(length, abs=1)
    assert "$L=2176$" in solution("sparse-1")
    share = (131072 * index + 2048 * pair) / (131072 * pair)
    assert names["at_128k"] == pytest.approx(share)
    assert 131072 * index > 2048 * pair  # the greater part is the indexer's


def test_sparse_2() -> None:
    """Drawn, for one fixed set of eight a query."""
    rng, hits, n = random.Random(0), 0, 0
    for _ in range(200):
        for t in range(9, 97):
            hits += len(set(rng.sample(range(t), 8)) & set(range(8)))
            n += 8
    assert right("sparse-2")["guess"] == pytest.approx(hits / n, abs=0.005)
    assert "0.22" in solution("sparse-2")


def test_sparse_3() -> None:
    """Two heads by hand: one agrees, one would disagree but is cut off at 0."""
    query = torch.tensor([[[1.0], [-1.0]], [[2.0], [-3.0]]])
    found = right("sparse-3")["index_scores"](
        query, torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 10.0], [1.0, -1.0]])
    )
    assert found.tolist() == [[1.0, float("-inf")], [2.0, -3.0]]
    assert "eq-sparse-1" in exercise("sparse-3")


def test_sparse_4() -> None:
    indexer, x = Indexer(TINY_V32), torch.randn(16)
    frequencies = rope_frequencies(TINY_V32)
    one = rope_rotation(torch.tensor([[7]]), frequencies, dtype=torch.float32)
    found = right("sparse-4")["turn_for_index"](x, 7 * frequencies.float())
    torch.testing.assert_close(found, indexer._turned(x[None, None], one)[0, 0])
    assert "常见错误 1" in solution("sparse-4")


def test_sparse_5() -> None:
    assert "python -m dsnotes.practice sparse`" in exercise("sparse-5")
    assert load("sparse").modules == ["dsnotes.after.indexer", "dsnotes.after.sparse"]


def test_sparse_6() -> None:
    assert load("sparse").bugs[1].caught_by == "test_select_never_shows_a_hidden_token"
    assert "凑上的编号" in solution("sparse-6")
