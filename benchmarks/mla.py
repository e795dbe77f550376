"""Latent attention: time per decoded token, prefill, and what is cached.

The peer is the attention of transformers' DeepseekV3 with the same weights and its default
implementation; one layer of each, on one thread. On a Hopper GPU absorbed attention of V3 is
measured against two things: reading the latents once, and two matrix products with a softmax.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks._measure import WIDE, medians, milliseconds, row
from dsnotes.config import DEEPSEEK_V3
from dsnotes.model.cache import LatentCache, cache_elements_per_token
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import MLA, Pass
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


@torch.no_grad()
def gpu_rows() -> list[dict[str, Any]]:
    """Rows on a Hopper GPU; about half a minute."""
    if torch.cuda.get_device_capability()[0] != 9:
        return []
    shapes = ((1, 8192), (1, 131072), (32, 8192), (128, 4096))
    return [made for batch, past in shapes for made in on_gpu(batch, past)]


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


def on_gpu(batch: int, past: int) -> list[dict[str, Any]]:
    """One new token of each sequence over latents as a cache holds them, with W^UK and W^UV."""
    mla = MLA(DEEPSEEK_V3).to("cuda", torch.bfloat16)
    c, n = mla.kv_lora_rank, mla.qk_nope_head_dim
    latents = torch.randn(batch, past + 64, c + mla.qk_rope_head_dim, device="cuda").bfloat16()
    latents = latents[:, :past]
    query = torch.randn(batch, 1, mla.num_heads, mla.qk_head_dim, device="cuda").bfloat16()

    def two_products() -> Tensor:
        up = mla.kv_b_proj.weight.unflatten(0, (mla.num_heads, -1))  # (heads, n + v, c)
        content = torch.einsum("bthn,hnc->bthc", query[..., :n], up[:, :n])
        wide = torch.cat([content, query[..., n:]], dim=-1)[:, 0]  # (batch, heads, c_r)
        scores = mla.softmax_scale * (wide @ latents.mT).float()
        out = scores.softmax(dim=-1).bfloat16() @ latents[..., :c]
        return torch.einsum("bhc,hvc->bhv", out, up[:, n:])[:, None]

    ways = {
        "ours": lambda: mla.attend_absorbed(query, latents),
        "reading": lambda: latents.view(torch.float32).sum(),
        "two products": two_products,
    }
    torch.testing.assert_close(ways["ours"](), two_products(), atol=2e-2, rtol=2e-2)
    timed = medians(ways)
    what = f"MLA absorbed, V3, batch {batch}, {past} positions"
    note = f"{torch.cuda.get_device_name()}, one layer, bfloat16; peer: "
    return [
        row(what, timed["ours"], timed["reading"], note=note + "reading the latents once"),
        row(what, timed["ours"], timed["two products"], note=note + "two products and a softmax"),
    ]


def rotation(length: int) -> Tensor:
    """Rotations of ours for positions 0 to length - 1."""
    return rope_rotation(torch.arange(length), rope_frequencies(WIDE), dtype=torch.float32)


def peer_rotation(peer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    return peer.rotary_emb(x, torch.arange(x.shape[1])[None])
