"""One attention block against transformers' DeepseekV3Attention with the same weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.config import TINY, Config, RopeScaling
from dsnotes.model.cache import LatentCache
from dsnotes.model.mla import MLA, Pass
from dsnotes.model.rope import rope_frequencies, rope_rotation

BASE = replace(TINY, num_hidden_layers=1, num_nextn_predict_layers=0, initializer_range=0.1)
CONFIGS = {
    "V3": BASE,
    "no query compression": replace(BASE, q_lora_rank=None),
    "YaRN": replace(
        BASE, rope_scaling=RopeScaling(factor=4.0, original_max_position_embeddings=64)
    ),
    "values wider than keys": replace(BASE, v_head_dim=40),
}
SEQ = 24


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def config(request: pytest.FixtureRequest) -> Config:
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["f32", "f64"])
def pair(request: pytest.FixtureRequest, config: Config, twins: Callable) -> tuple[MLA, Any, float]:
    """Our block, a call of the peer's on (x, cache), and the tolerance of the type."""
    ours, theirs = twins(config, dtype=request.param)
    block, embedding = theirs.model.layers[0].self_attn, theirs.model.rotary_emb

    def peer(x: Tensor, cache: Any = None) -> Tensor:
        return block(x, embedding(x, torch.arange(SEQ)[None]), None, past_key_values=cache)[0]

    peer.block = block
    return ours.model.layers[0].self_attn, peer, 1e-5 if request.param == torch.float32 else 1e-10


def test_output_and_gradients(config: Config, pair: tuple, parity: Callable) -> None:
    ours, peer, tolerance = pair
    dtype = ours.o_proj.weight.dtype
    x = torch.randn(2, SEQ, config.hidden_size, dtype=dtype)
    upstream = torch.randn_like(x)
    rotation = rope_rotation(torch.arange(SEQ), rope_frequencies(config), dtype=dtype)
    inputs, outputs = [x.clone().requires_grad_() for _ in range(2)], []
    for call, leaf in zip((lambda x: ours(x, Pass(rotation)), peer), inputs, strict=True):
        outputs.append(call(leaf))
        outputs[-1].backward(upstream)
    parity("output", (outputs[0] - outputs[1]).abs().max(), tolerance)
    parity("gradient of x", (inputs[0].grad - inputs[1].grad).abs().max(), tolerance)
    expected = dict(peer.block.named_parameters())
    assert expected.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        scale = expected[name].grad.abs().max()
        assert (parameter.grad - expected[name].grad).abs().max() < tolerance * scale, name


def test_cache_holds_what_the_peer_caches(config: Config, pair: tuple, parity: Callable) -> None:
    """The same numbers; the peer writes the two halves of the rotated pairs apart."""
    from transformers import DynamicCache

    ours, peer, tolerance = pair
    x = torch.randn(2, SEQ, config.hidden_size, dtype=ours.o_proj.weight.dtype)
    rotation = rope_rotation(torch.arange(SEQ), rope_frequencies(config), dtype=x.dtype)
    cache, peer_cache = (
        LatentCache(config, batch_size=2, capacity=SEQ, dtype=x.dtype),
        DynamicCache(),
    )
    cache.open(SEQ)
    with torch.no_grad():
        ours(x, Pass(rotation, cache=cache))
        peer(x, peer_cache)
    latent, key = cache.latents[0].split([config.kv_lora_rank, config.qk_rope_head_dim], dim=-1)
    halves = torch.cat([key[..., 0::2], key[..., 1::2]], dim=-1)
    held = peer_cache.layers[0]
    parity("latent", (latent - held.keys[:, 0]).abs().max(), tolerance)
    parity("rope key", (halves - held.values[:, 0]).abs().max(), tolerance)
    assert cache.nbytes == held.keys.nbytes + held.values.nbytes
