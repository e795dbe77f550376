"""What a query reads in the figure, against the layers of dsnotes."""

import random
from dataclasses import replace

import pytest
import torch

from dsnotes.after.compressed import CompressedAttention
from dsnotes.after.compressor import visible
from dsnotes.after.config import TINY_V4
from dsnotes.after.indexer import select

LAYER = {"window": 0, "csa": 1, "hca": 2}


@pytest.fixture
def compressed(lab):
    return lab("compressed")


@pytest.mark.parametrize("m", [2, 4, 7, 16])
def test_entries_are_visible_from_their_last_token_on(compressed, m):
    counts = visible(torch.arange(64), 64, ratio=m).sum(dim=-1).tolist()
    assert [compressed.call("CompressedLab.visible", t, m) for t in range(64)] == counts


def test_the_best_are_those_of_the_library(compressed):
    rng = random.Random(0)
    for _ in range(20):
        scores, k = [rng.random() for _ in range(12)], rng.randint(1, 12)
        seen = torch.ones(1, 1, 12, dtype=torch.bool)
        expected = select(torch.tensor([[scores]]), seen, topk=k).mask(12)[0, 0].nonzero()
        assert compressed.call("CompressedLab.best", scores, k) == expected.flatten().tolist()


@pytest.mark.parametrize(
    ("kind", "window", "m"),
    [
        ("window", 8, 0),
        ("window", 3, 0),
        ("csa", 8, 4),
        ("csa", 3, 4),
        ("hca", 8, 16),
        ("hca", 5, 7),
    ],
)
def test_tokens_read_are_those_the_output_depends_on(compressed, kind, window, m):
    """All entries chosen; the gradient of one output says which inputs reach it."""
    ratios = (0, 4, m if kind == "hca" else 16, 4)
    config = replace(TINY_V4, sliding_window=window, index_topk=64, compress_ratios=ratios)
    torch.manual_seed(0)
    layer = CompressedAttention(config, LAYER[kind]).double()
    for t in (0, 2, 3, 15, 30, 52, 63):
        x = torch.randn(1, 64, 64, dtype=torch.float64, requires_grad=True)
        layer(x)[0, t].square().sum().backward()
        expected = x.grad[0].norm(dim=-1).nonzero().flatten().tolist()
        state = compressed.state(t=t, kind=kind, window=window, m=m or 4, topK=64)
        found = compressed.call("CompressedLab.reads", state)
        assert sorted({*found["near"], *found["inside"]}) == expected
        assert sorted({*found["blind"], *expected}) == list(range(t + 1))


def test_an_indexer_that_sees_the_future_loses_places(compressed):
    state = {"t": 20, "topK": 4}
    right = compressed.call("CompressedLab.reads", compressed.state(**state))
    wrong = compressed.call("CompressedLab.reads", compressed.state(**state, wrong="future"))
    assert len(right["entries"]) == 4 > len(wrong["entries"])
    assert "白白丢掉" in compressed.say(compressed.state(**state, wrong="future"))


def test_presets_say_different_things(compressed):
    presets = compressed.eval("CompressedLab.presets")
    said = [compressed.say(compressed.state(**preset["state"])) for preset in presets]
    assert len(set(said)) == len(said)


def test_goals(compressed):
    assert not any(compressed.goal(i, compressed.state()) for i in range(2))
    hca = {"kind": "hca", "m": 16}
    assert compressed.goal(0, compressed.state(**hca, t=60))
    assert not compressed.goal(0, compressed.state(**hca, t=60, window=16))
    assert compressed.goal(1, compressed.state(t=63, topK=16))
    assert any(compressed.goal(1, compressed.state(t=63, topK=k)) for k in range(1, 16))
