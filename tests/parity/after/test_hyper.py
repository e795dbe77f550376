"""Hyper-connections against transformers, TileKernels' pure-torch reference and lucidrains'."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dsnotes.after.hyper import HyperConnection, HyperHead, collapse, sinkhorn, start_streams

HIDDEN, N, EPS = 32, 4, 1e-6


def uneven(ours: nn.Module, theirs: nn.Module | None = None, *, std: float = 0.1) -> None:
    """Weights that are neither zero nor small, the same in both."""
    torch.manual_seed(0)
    for parameter in ours.parameters():
        nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=std)
    if theirs is not None:
        theirs.load_state_dict(ours.state_dict())


@pytest.fixture(params=[1, 2, 4], ids="n={}".format)
def config(request: pytest.FixtureRequest) -> Any:
    from transformers import DeepseekV4Config

    return DeepseekV4Config(hidden_size=HIDDEN, hc_mult=request.param)


def test_connection_equals_transformers(config: Any, parity: Callable) -> None:
    """What the decoder layer of theirs does with it, and all gradients."""
    from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HyperConnection

    n, sub = config.hc_mult, nn.Linear(HIDDEN, HIDDEN)
    ours, theirs = HyperConnection(HIDDEN, hc_mult=n), DeepseekV4HyperConnection(config)
    uneven(ours, theirs)
    leaves = [torch.randn(2, 7, n, HIDDEN).requires_grad_()]
    leaves.append(leaves[0].detach().clone().requires_grad_())
    upstream = torch.randn(2, 7, n, HIDDEN)

    pre, post, res = ours.mappings(leaves[0])
    their_post, comb, collapsed = theirs(leaves[1])
    parity("post", (post - their_post).abs().max(), 1e-6)
    parity("B against the transpose of comb", (res - comb.mT).abs().max(), 2e-6)
    parity("A X", (collapse(pre, leaves[0]) - collapsed).abs().max(), 3e-6)

    mixed = ours(leaves[0], sub)
    their_mixed = their_post.unsqueeze(-1) * sub(collapsed).unsqueeze(-2) + comb.mT @ leaves[1]
    parity("new streams", (mixed - their_mixed).abs().max(), 1e-5)
    for output in (mixed, their_mixed):
        output.backward(upstream)
    assert leaves[0].grad is not None
    parity("gradient of x", (leaves[0].grad - leaves[1].grad).abs().max(), 2e-5)
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        parity(f"gradient of {name}", (a.grad - b.grad).abs().max() / b.grad.abs().max(), 2e-5)


def test_head_equals_transformers(config: Any, parity: Callable) -> None:
    from transformers.models.deepseek_v4.modeling_deepseek_v4 import DeepseekV4HyperHead

    n = config.hc_mult
    ours, theirs = HyperHead(HIDDEN, hc_mult=n), DeepseekV4HyperHead(config)
    uneven(ours, theirs)
    streams = torch.randn(2, 7, n, HIDDEN)
    parity("head", (ours(streams) - theirs(streams)).abs().max(), 3e-6)


def test_a_stack_of_layers_equals_transformers(parity: Callable) -> None:
    """Twelve sub-layers in a row from the embedding to the head."""
    from transformers import DeepseekV4Config
    from transformers.models.deepseek_v4.modeling_deepseek_v4 import (
        DeepseekV4HyperConnection,
        DeepseekV4HyperHead,
    )

    config = DeepseekV4Config(hidden_size=HIDDEN)
    x = torch.randn(2, 7, HIDDEN)
    ours, theirs = start_streams(x, hc_mult=N), x.unsqueeze(2).expand(-1, -1, N, -1).contiguous()
    assert torch.equal(ours, theirs)
    for seed in range(12):
        mine, peer = HyperConnection(HIDDEN), DeepseekV4HyperConnection(config)
        uneven(mine, peer)
        torch.manual_seed(seed)
        sub = nn.Sequential(nn.RMSNorm(HIDDEN), nn.Linear(HIDDEN, HIDDEN))
        ours = mine(ours, sub)
        post, comb, collapsed = peer(theirs)
        theirs = post.unsqueeze(-1) * sub(collapsed).unsqueeze(-2) + comb.mT @ theirs
    head, peer_head = HyperHead(HIDDEN), DeepseekV4HyperHead(config)
    uneven(head, peer_head)
    difference = (head(ours) - peer_head(theirs)).abs().max() / peer_head(theirs).abs().max()
    parity("after twelve sub-layers, relative", difference, 1e-5)


# --- TileKernels: torch/mhc.py, the reference that its kernels are tested against ---


@pytest.fixture
def tile(peer: Callable[..., ModuleType]) -> ModuleType:
    return peer("tile_kernels", "torch/mhc.py")


@pytest.mark.parametrize("std", [0.1, 1.0, 3.0, 10.0])
def test_sinkhorn_equals_tilekernels(tile: ModuleType, std: float, parity: Callable) -> None:
    """The released iteration, in the released (transposed) orientation, exact in float64."""
    comb = std * torch.randn(500, N, N, dtype=torch.float64)
    expected = tile.sinkhorn_normalize_ref(comb, repeat=20, eps=EPS)
    got = sinkhorn(comb.mT, iters=20, eps=EPS).mT
    parity(f"sinkhorn, std {std}", (got - expected).abs().max(), 1e-14)


def test_mappings_and_streams_equal_tilekernels(tile: ModuleType, parity: Callable) -> None:
    """Its two functions that apply the mixes return bfloat16; before that, all is float32."""
    ours = HyperConnection(HIDDEN)
    uneven(ours)
    ours.requires_grad_(False)
    streams = torch.randn(2, 7, N, HIDDEN)
    mixes = tile.mhc_pre_norm_fn_ref(streams, ours.fn, None, ours.rms_norm_eps)
    pre, post, comb = tile.mhc_pre_split_mixes_ref(mixes, ours.scale, ours.base, N, 2.0, EPS)
    comb = tile.sinkhorn_normalize_ref(comb, repeat=20, eps=EPS)
    mine = ours.mappings(streams)
    parity("pre", (mine.pre.unsqueeze(-1) - pre).abs().max(), 1e-6)
    parity("post", (mine.post.unsqueeze(-1) - post).abs().max(), 1e-6)
    parity("comb", (mine.res.mT - comb).abs().max(), 2e-6)

    def rounded(x: Tensor, reference: Tensor) -> Tensor:
        """Steps of bfloat16 between the two, in units of the larger number's last digit."""
        return ((x - reference.float()).abs() / reference.float().abs().clamp_min(1e-2)).max()

    read = tile.mhc_pre_apply_mix_ref(streams, pre)
    parity("A X, rounded", rounded(collapse(mine.pre, streams), read), 2**-8)
    output = torch.randn(2, 7, HIDDEN)
    expected = tile.mhc_post_ref(output, streams, post, comb)
    parity("streams, rounded", rounded(ours(streams, lambda _: output), expected), 2**-8)
    assert torch.equal(tile.expand_to_mhc_ref(output, N), start_streams(output, hc_mult=N))


def test_head_equals_tilekernels(tile: ModuleType, parity: Callable) -> None:
    head = HyperHead(HIDDEN)
    uneven(head)
    streams = torch.randn(2, 7, N, HIDDEN)
    mixes = tile.mhc_pre_norm_fn_ref(streams, head.hc_fn, None, head.rms_norm_eps)
    weights = tile.mhc_head_compute_mix_ref(mixes, head.hc_scale, head.hc_base, EPS)
    parity("head", (head(streams) - collapse(weights, streams)).abs().max(), 3e-6)


# --- hyper_connections: the paper's iteration, without eps ---


@pytest.mark.parametrize("std", [0.1, 1.0, 3.0, 10.0])
def test_sinkhorn_without_eps_equals_hyper_connections(
    peer: Callable[..., ModuleType], std: float, parity: Callable
) -> None:
    """Columns, then rows, twenty times, in float32."""
    module = peer("hyper_connections").manifold_constrained_hyper_connections
    logits = std * torch.randn(500, N, N)
    expected = module.sinkhorn_knopps(logits, iters=20)
    parity(f"sinkhorn, std {std}", (sinkhorn(logits) - expected).abs().max(), 2e-6)
