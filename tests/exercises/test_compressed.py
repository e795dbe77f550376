"""The exercises of the section on compressed attention: bytes, places, zeros, by other ways."""

import pytest
import torch

from dsnotes.after.compressed import CompressedAttention
from dsnotes.after.compressor import Scorer
from dsnotes.after.config import DEEPSEEK_V4_FLASH, TINY_V4
from dsnotes.after.ledger import kv_bytes_per_token
from dsnotes.practice.mechanisms import load

from .notebook import NOTEBOOKS, answers
from .page import exercise, solution


def test_compressed_1() -> None:
    """The two numbers, times how many layers there are of each, are the ledger of the model."""
    csa, hca = (584 + 68) / 4, 584 / 128
    layers = DEEPSEEK_V4_FLASH.compress_ratios
    total = layers.count(4) * csa + layers.count(128) * hca
    assert total == pytest.approx(kv_bytes_per_token(DEEPSEEK_V4_FLASH), abs=1)
    assert f"{csa:.0f}" in solution("compressed-1")
    assert f"{hca:.2f}" in solution("compressed-1")


def test_compressed_2() -> None:
    """By what a change of one token moves."""
    torch.manual_seed(0)
    layer = CompressedAttention(TINY_V4, 1).double()
    assert layer.compressor is not None
    x = torch.randn(1, 32, 64, dtype=torch.float64)
    moved = []
    for token in range(32):
        other = x.clone()
        other[:, token] += 1
        if not torch.equal(layer.compressor(other)[:, 2], layer.compressor(x)[:, 2]):
            moved.append(token)
    assert moved == list(range(4, 12))
    assert layer.compressor(x[:, :11]).shape[1] == 2
    assert "4 到 11" in solution("compressed-2")


def test_compressed_3() -> None:
    """Independent signs: six heads are all below zero once in 64."""
    torch.manual_seed(0)
    scorer = Scorer(hidden_size=8, n_heads=6, head_dim=4)
    scores = scorer(torch.randn(1, 400, 8), torch.randn(1, 400, 6, 4), torch.randn(1, 200, 4))
    assert (scores == 0).double().mean().item() == pytest.approx(2**-6, abs=0.01)
    assert "1/64" in solution("compressed-3")


def test_compressed_4() -> None:
    """Both caches of one block: entries of CSA and HCA that 128 tokens make."""
    assert 128 // 4 == 32
    assert "32" in solution("compressed-4")
    flash = DEEPSEEK_V4_FLASH
    assert flash.sliding_window * flash.num_hidden_layers == 5504
    assert "5{,}504" in solution("compressed-4")


def test_compressed_5() -> None:
    assert "python -m dsnotes.practice compressed`" in exercise("compressed-5")
    assert load("compressed").modules == ["dsnotes.after.compressor", "dsnotes.after.compressed"]


def test_compressed_6() -> None:
    first, second = load("compressed").bugs[:2]
    assert (first.trap, second.trap) == (1, 3)
    assert "常见错误 1" in solution("compressed-6")
    assert "常见错误 3" in solution("compressed-6")


def test_compressed_7() -> None:
    """What it asks for can be had: the joint weights; the choice teaches nothing."""
    layer = CompressedAttention(TINY_V4, 1)
    layer(torch.randn(1, 20, 64)).sum().backward()
    assert all(p.grad is None for n, p in layer.named_parameters() if "indexer" in n)
    assert callable(layer.weights)
    assert "compressed-7" not in answers(NOTEBOOKS / "compressed.ipynb")
