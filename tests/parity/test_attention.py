"""Grouped-query attention against transformers' LlamaAttention with the same weights.

Llama turns channel i together with i + d / 2, ours are adjacent: the rows of the query and key
weights are put in the peer's order.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dsnotes.config import TINY
from dsnotes.model.attention import GroupedQueryAttention, use_attention
from dsnotes.model.cache import LatentCache
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.rope import rope_rotation

SEQ, BOUND = 24, 1e-5


def halves(rows: Tensor, head_dim: int) -> Tensor:
    """Rows (heads * d, hidden) with the even channels of each head before the odd ones."""
    return rows.unflatten(0, (-1, head_dim // 2, 2)).transpose(1, 2).flatten(0, 2)


@pytest.fixture(params=[(4, None), (2, None), (1, 24)], ids=["MHA", "GQA", "MQA, wider"])
def pair(request: pytest.FixtureRequest) -> tuple[GroupedQueryAttention, Tensor, Any]:
    """Our block with its frequencies, and a call of the peer's on (x, position of its first)."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    groups, head_dim = request.param
    model = use_attention(DeepSeek(TINY), num_key_value_heads=groups, head_dim=head_dim)
    ours = model.model.layers[0].self_attn
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.3)
    config = LlamaConfig(
        hidden_size=TINY.hidden_size,
        num_attention_heads=TINY.num_attention_heads,
        num_key_value_heads=groups,
        head_dim=ours.head_dim,
        rope_parameters={"rope_type": "default", "rope_theta": TINY.rope_theta},
        attn_implementation="eager",
    )
    block, embedding = LlamaAttention(config, 0), LlamaRotaryEmbedding(config)
    state = ours.state_dict()
    for name in ("q_proj.weight", "k_proj.weight"):
        state[name] = halves(state[name], ours.head_dim)
    block.load_state_dict(state)

    def peer(x: Tensor, start: int = 0, cache: Any = None) -> Tensor:
        positions = torch.arange(start, start + x.shape[1])
        past = torch.arange(start + x.shape[1])
        mask = torch.where(past <= positions[:, None], 0.0, -torch.inf)[None, None]
        return block(x, embedding(x, positions[None]), mask, past_key_values=cache)[0]

    return ours, model.model.frequencies, peer


def test_output_and_gradient(pair: tuple, parity: Callable) -> None:
    ours, frequencies, peer = pair
    rotation = rope_rotation(torch.arange(SEQ), frequencies, dtype=torch.float32)
    x = torch.randn(2, SEQ, TINY.hidden_size)
    upstream = torch.randn_like(x)
    inputs, outputs = [x.clone().requires_grad_() for _ in range(2)], []
    for call, leaf in zip((lambda x: ours(x, Pass(rotation)), peer), inputs, strict=True):
        outputs.append(call(leaf))
        outputs[-1].backward(upstream)
    parity("output", (outputs[0] - outputs[1]).abs().max() / outputs[1].abs().max(), BOUND)
    scale = inputs[1].grad.abs().max()
    parity("gradient of x", (inputs[0].grad - inputs[1].grad).abs().max() / scale, BOUND)


def test_with_a_cache(pair: tuple, parity: Callable) -> None:
    from transformers import DynamicCache

    ours, frequencies, peer = pair
    x = torch.randn(2, SEQ, TINY.hidden_size)
    width = 2 * ours.num_key_value_heads * ours.head_dim
    cache, peer_cache = LatentCache(TINY, batch_size=2, capacity=SEQ, width=width), DynamicCache()
    start = 0
    for length in (10, 1, 4, SEQ - 15):
        new = x[:, start : start + length]
        positions, mask = cache.open(length)
        rotation = rope_rotation(positions, frequencies, dtype=torch.float32)
        with torch.no_grad():
            found = ours(new, Pass(rotation, mask, cache))
            expected = peer(new, start, peer_cache)
        cache.advance()
        start += length
        parity("output", (found - expected).abs().max() / expected.abs().max(), BOUND)
    value = cache.latents[0].unflatten(-1, (2, -1, ours.head_dim))[:, :, 1].transpose(1, 2)
    parity("cached values", (value - peer_cache.layers[0].values).abs().max(), BOUND)
