"""Latent attention: time per decoded token, prefill, cache size, and a training step of a model.

The peer is transformers' DeepseekV3 at the same sizes with its default attention. Runs of ours and
of the peer alternate and their medians are compared; one layer where attention alone is timed. All
on one thread: with two, another busy process slows either side by chance.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dsnotes.config import Config
from dsnotes.model.cache import LatentCache, cache_elements_per_token
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import MLA
from dsnotes.model.rope import rope_frequencies, rope_rotation

SMALL = Config(
    vocab_size=1024,
    hidden_size=512,
    num_hidden_layers=3,
    intermediate_size=1024,
    first_k_dense_replace=1,
    moe_intermediate_size=256,
    n_shared_experts=1,
    n_routed_experts=32,
    num_experts_per_tok=4,
    routed_scaling_factor=2.5,
    n_group=4,
    topk_group=2,
    num_attention_heads=16,
    q_lora_rank=256,
    kv_lora_rank=128,
    qk_nope_head_dim=64,
    qk_rope_head_dim=32,
    v_head_dim=64,
    max_position_embeddings=8193,
)
SHAPE = "hidden 512, 16 heads, latent 128, rope 32, float32"


def rows() -> list[dict[str, Any]]:
    """Rows for the table of `benchmarks.run`; about two minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            measured = [row for context in (128, 2048, 8192) for row in decode(context)]
            measured += [prefill(2048), bytes_per_token()]
        measured.append(training_step(sequences=1, length=1024))
        measured.append(training_step(sequences=4, length=256))
        return measured
    finally:
        torch.set_num_threads(threads)


def decode(context: int) -> list[dict[str, Any]]:
    """The token after `context` tokens, in one layer: without a cache, and with it in two ways."""
    torch.manual_seed(0)
    ours, peer = MLA(SMALL), peer_attention()
    x = torch.randn(1, context + 1, SMALL.hidden_size)
    whole, whole_peer = rotation(context + 1), peer_rotation(x)
    past, past_peer = whole[:context], tuple(w[:, :context] for w in whole_peer)
    last, last_peer = whole[context:], tuple(w[:, context:] for w in whole_peer)

    cache = LatentCache(SMALL, batch_size=1, capacity=context + 1, num_layers=1)
    ours(x[:, :context], past, cache=cache)
    cache.advance(context)  # and never again: each timed call writes the same next place
    peer_cache = dynamic_cache()
    peer(x[:, :context], past_peer, None, past_key_values=peer_cache)

    token = x[:, context:]
    ways = {
        "absorbed": lambda: ours(token, last, cache=cache, absorb=True),
        "decompressed": lambda: ours(token, last, cache=cache, absorb=False),
    }
    step = {"peer": lambda: peer(token, last_peer, None, past_key_values=peer_cache)[0]}
    timed = medians(ways | step, repeats=15)
    timed |= medians({"no cache, all again": lambda: ours(x, whole)[:, -1:]}, repeats=2)
    return [
        row(f"MLA decode, {context} tokens, {way}", timed[way], timed["peer"], "ms", SHAPE)
        for way in (*ways, "no cache, all again")
    ]


def prefill(length: int) -> dict[str, Any]:
    """A prompt through one layer, its latents written to an empty cache."""
    torch.manual_seed(0)
    ours, peer = MLA(SMALL), peer_attention()
    x = torch.randn(1, length, SMALL.hidden_size)
    turn, peer_turn = rotation(length), peer_rotation(x)
    cache = LatentCache(SMALL, batch_size=1, capacity=length, num_layers=1)
    timed = medians(
        {
            "ours": lambda: ours(x, turn, cache=cache),
            "peer": lambda: peer(x, peer_turn, None, past_key_values=dynamic_cache()),
        },
        repeats=9,
    )
    return row(f"MLA prefill, {length} tokens", timed["ours"], timed["peer"], "ms", SHAPE)


def bytes_per_token() -> dict[str, Any]:
    """Cache bytes per token and layer as allocated; the formula and the peer beside it."""
    cache = LatentCache(SMALL, batch_size=2, capacity=64)
    ours = cache.nbytes / 2 / 64 / SMALL.num_hidden_layers
    formula = 4 * cache_elements_per_token(SMALL) / SMALL.num_hidden_layers
    peer_cache = dynamic_cache()
    x = torch.randn(1, 64, SMALL.hidden_size)
    peer_attention()(x, peer_rotation(x), None, past_key_values=peer_cache)
    held = peer_cache.layers[0]
    peer = (held.keys.nbytes + held.values.nbytes) / 64
    return row("MLA cache", ours, peer, "bytes/token/layer", f"formula {formula:.0f}, float32")


def training_step(*, sequences: int, length: int) -> dict[str, Any]:
    """Forward, backward and AdamW of a small V3: 3 layers, 32 experts of 256, top-4.

    Ours gains in attention, so the longer the sequences, the more.
    """
    from transformers import DeepseekV3ForCausalLM

    torch.manual_seed(0)
    ours, peer = DeepSeek(SMALL), DeepseekV3ForCausalLM(peer_config())
    tokens = torch.randint(SMALL.vocab_size, (sequences, length + 1))

    def step(model: torch.nn.Module, logits: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def run() -> None:
            optimizer.zero_grad()
            F.cross_entropy(
                logits(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()
            ).backward()
            optimizer.step()

        return run

    timed = medians(
        {
            "ours": step(ours, ours),
            "peer": step(peer, lambda inputs: peer(inputs, use_cache=False).logits),
        },
        repeats=7,
    )
    note = "3 layers of 512, 32 experts of 256, top-4, AdamW, float32"
    what = f"small V3, training step, {sequences} x {length} tokens"
    return row(what, timed["ours"], timed["peer"], "ms", note)


def row(what: str, ours: float, peer: float, unit: str, note: str) -> dict[str, Any]:
    """One line of the table; `ratio` below 1 means ours is faster or smaller."""
    return {
        "what": what,
        "ours": ours,
        "peer": peer,
        "ratio": ours / peer,
        "unit": unit,
        "note": note,
    }


def medians(runs: dict[str, Callable[[], object]], *, repeats: int) -> dict[str, float]:
    """Median milliseconds of each, called in turn after one call to warm up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for i in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if i > 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(values) for name, values in times.items()}


def rotation(length: int) -> Tensor:
    """Rotations of ours for positions 0 to length - 1."""
    return rope_rotation(torch.arange(length), rope_frequencies(SMALL), dtype=torch.float32)


def peer_config() -> Any:
    """The same sizes for transformers."""
    from dataclasses import fields

    from transformers import DeepseekV3Config

    known = {f.name: getattr(SMALL, f.name) for f in fields(SMALL)} | {
        "num_nextn_predict_layers": 0
    }
    for name in ("scoring_func", "topk_method", "rope_theta", "rope_scaling"):
        del known[name]  # the peer knows the V3 gate alone and takes RoPE in another form
    config = DeepseekV3Config(
        num_key_value_heads=SMALL.num_attention_heads,
        rope_parameters={"rope_type": "default", "rope_theta": SMALL.rope_theta},
        **known,
    )
    config._attn_implementation = "sdpa"  # the default of a whole model; a lone layer has none
    return config


def peer_attention() -> Any:
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention

    return DeepseekV3Attention(peer_config(), layer_idx=0)


def peer_rotation(x: Tensor) -> tuple[Tensor, Tensor]:
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RotaryEmbedding

    cos, sin = DeepseekV3RotaryEmbedding(peer_config())(x, torch.arange(x.shape[1])[None])
    return cos, sin


def dynamic_cache() -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=peer_config())
