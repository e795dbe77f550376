"""Native sparse attention against the naive reference of fla: summaries and chosen blocks.

It knows one block size (l = d = l'), a mean as phi and no window on a CPU, and it wants sixteen
heads a group.
"""

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor

from dsnotes.after.nsa import native_sparse_attention

BLOCK, GROUPS, HEADS, D = 8, 2, 32, 16


def mean_pooling(x: Tensor, size: int, _lengths: None) -> Tensor:
    """What the peer's kernel does, which needs a GPU: (batch, seq, heads, d), in whole blocks."""
    return x.unflatten(1, (-1, size)).mean(dim=2)


@pytest.fixture
def fla(peer: Callable, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`naive.py` with stand-ins for the two names that it imports from files with kernels."""
    spec = importlib.util.find_spec("fla")
    names = ("fla", "fla.ops", "fla.ops.utils", "fla.ops.utils.pooling")
    package, _ops, utils, pooling = stubs = [ModuleType(name) for name in names]
    package.__spec__ = spec
    utils.prepare_chunk_offsets, pooling.mean_pooling = None, mean_pooling
    if spec is not None:
        for name, stub in zip(names, stubs, strict=True):
            monkeypatch.setitem(sys.modules, name, stub)
    return peer("fla", "ops/nsa/naive.py")


@pytest.mark.parametrize("topn", [3, 4, 6])
@pytest.mark.filterwarnings("ignore:Flash Attention is not installed")
def test_summaries_and_chosen_blocks(fla: ModuleType, parity: Callable, topn: int) -> None:
    batch, seq = 2, 64
    query = torch.randn(batch, seq, HEADS, D)
    key, value = torch.randn(2, batch, seq, GROUPS, D)
    gates = torch.rand(3, batch, seq, HEADS)
    gates[2] = 0
    expected = fla.naive_nsa(
        query, key, value, g_cmp=gates[0], g_slc=gates[1], block_counts=topn, block_size=BLOCK
    )
    found = native_sparse_attention(
        query,
        key.expand(3, -1, -1, -1, -1),
        value.expand(3, -1, -1, -1, -1),
        gates,
        length=BLOCK,
        stride=BLOCK,
        block=BLOCK,
        topn=topn,
        window=1,
    )
    parity("output", (found - expected).abs().max(), 1e-5)
