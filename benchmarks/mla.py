"""Latent attention: time per decoded token, prefill, and what is cached.

The peer is the attention of transformers' DeepseekV3 with the same weights and its default
implementation; one layer of each, on one thread.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks._measure import WIDE, medians, milliseconds, row
from dsnotes.model.cache import LatentCache, cache_elements_per_token
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.rope import rope_frequencies, rope_rotation
from dsnotes.weights.hf import to_transformers

NOTE = "hidden 512, 16 heads, latent 128, rope 32, float32, one thread"


@torch.no_grad()
def rows() -> list[dict[str, Any]]:
    """Rows for the table of `benchmarks.run`; about a minute."""
    torch.manual_seed(0)
    model = DeepSeek(WIDE)
    layers = model.model.layers[0].self_attn, to_transformers(model).model
    measured = [one for context in (128, 2048, 8192) for one in decode(*layers, context)]
    return [*measured, prefill(*layers, 2048), bytes_per_token(layers[1])]


def decode(ours: Any, peer: Any, context: int) -> list[dict[str, Any]]:
    """The token after `context` tokens: without a cache, and with it in two ways."""
    attention = peer.layers[0].self_attn
    x = torch.randn(1, context + 1, WIDE.hidden_size)
    whole, whole_peer = rotation(context + 1), peer_rotation(peer, x)
    past, past_peer = whole[:context], tuple(w[:, :context] for w in whole_peer)
    last, last_peer = whole[context:], tuple(w[:, context:] for w in whole_peer)

    cache = LatentCache(WIDE, batch_size=1, capacity=context + 1, num_layers=1)
    cache.open(context)
    ours(x[:, :context], Pass(past, cache=cache))
    cache.advance()
    cache.open(1)  # once: each timed call writes the same next place
    peer_cache = DynamicCache(config=peer.config)
    attention(x[:, :context], past_peer, None, past_key_values=peer_cache)

    def peer_step() -> Tensor:
        y = attention(token, last_peer, None, past_key_values=peer_cache)[0]
        peer_cache.crop(-1)
        return y

    token = x[:, context:]
    ways = {
        "absorbed": lambda: ours(token, Pass(last, cache=cache, absorb=True)),
        "decompressed": lambda: ours(token, Pass(last, cache=cache, absorb=False)),
    }
    torch.testing.assert_close(ways["absorbed"](), peer_step())  # else no comparison
    timed = medians(ways | {"peer": peer_step})
    timed["no cache, all again"] = [milliseconds(lambda: ours(x, Pass(whole))[:, -1:])] * len(
        timed["peer"]
    )
    return [
        row(f"MLA decode, {context} tokens, {way}", timed[way], timed["peer"], note=NOTE)
        for way in (*ways, "no cache, all again")
    ]


def prefill(ours: Any, peer: Any, length: int) -> dict[str, Any]:
    """A prompt through one layer, its latents written to an empty cache."""
    attention = peer.layers[0].self_attn
    x = torch.randn(1, length, WIDE.hidden_size)
    turn, peer_turn = rotation(length), peer_rotation(peer, x)
    cache = LatentCache(WIDE, batch_size=1, capacity=length, num_layers=1)
    cache.open(length)
    timed = medians(
        {
            "ours": lambda: ours(x, Pass(turn, cache=cache)),
            "peer": lambda: attention(
                x, peer_turn, None, past_key_values=DynamicCache(config=peer.config)
            ),
        }
    )
    return row(f"MLA prefill, {length} tokens", **timed, note=NOTE)


def bytes_per_token(peer: Any) -> dict[str, Any]:
    """Cache bytes per token and layer as allocated; the formula and the peer beside it."""
    cache = LatentCache(WIDE, batch_size=2, capacity=64)
    formula = 4 * cache_elements_per_token(WIDE) / WIDE.num_hidden_layers
    peer_cache = DynamicCache(config=peer.config)
    x = torch.randn(1, 64, WIDE.hidden_size)
    peer.layers[0].self_attn(x, peer_rotation(peer, x), None, past_key_values=peer_cache)
    held = peer_cache.layers[0]
    return row(
        "MLA cache",
        cache.nbytes / 2 / 64 / WIDE.num_hidden_layers,
        (held.keys.nbytes + held.values.nbytes) / 64,
        unit="bytes/token/layer",
        note=f"formula {formula:.0f}, float32",
    )


def rotation(length: int) -> Tensor:
    """Rotations of ours for positions 0 to length - 1."""
    return rope_rotation(torch.arange(length), rope_frequencies(WIDE), dtype=torch.float32)


def peer_rotation(peer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return peer.rotary_emb(x, torch.arange(x.shape[1])[None])
