"""The whole model: a training step, and the step that decodes one token from a cache.

The peer is transformers' DeepseekV3 with the same weights and its defaults: grouped_mm for the
experts, scaled_dot_product_attention, and for decoding a DynamicCache, which holds latents as ours
does, but decompresses all of them at every step. Three layers, the first one dense.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from benchmarks._measure import WIDE, medians, row
from dsnotes.config import TINY, Config
from dsnotes.model.cache import LatentCache
from dsnotes.model.deepseek import DeepSeek
from dsnotes.weights.hf import to_transformers


def rows() -> list[dict[str, Any]]:
    """Rows for the table of `benchmarks.run`; about two minutes."""
    return [
        training_step(TINY, sequences=8, length=128),
        training_step(WIDE, sequences=4, length=256),
        training_step(WIDE, sequences=1, length=1024),
        *(decode_step(TINY, held=held) for held in (128, 508)),
        *(decode_step(WIDE, held=held) for held in (128, 2048)),
    ]


def training_step(config: Config, *, sequences: int, length: int) -> dict[str, Any]:
    """Forward, backward and AdamW. Ours gains in attention: the longer the sequences, the more."""
    torch.manual_seed(0)
    ours = DeepSeek(config)
    peer = to_transformers(ours)
    tokens = torch.randint(config.vocab_size, (sequences, length + 1))

    def step(model: nn.Module, logits: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

        def run() -> None:
            optimizer.zero_grad()
            predicted = logits(tokens[:, :-1])
            F.cross_entropy(predicted.flatten(0, 1), tokens[:, 1:].flatten()).backward()
            optimizer.step()

        return run

    timed = medians(
        {
            "ours": step(ours, ours),
            "peer": step(peer, lambda inputs: peer(inputs, use_cache=False).logits),
        }
    )
    what = f"training step, hidden {config.hidden_size}, {sequences} x {length} tokens"
    return row(what, **timed, note=described(config) + ", AdamW")


@torch.no_grad()
def decode_step(config: Config, *, held: int) -> dict[str, Any]:
    """Logits of the token after `held` ones, which is then dropped from the cache again."""
    torch.manual_seed(0)
    ours = DeepSeek(config)
    peer = to_transformers(ours)
    tokens = torch.randint(config.vocab_size, (1, held + 1))
    cache = LatentCache(config, batch_size=1, capacity=held + 1)
    peer_cache = DynamicCache(config=peer.config)
    ours(tokens[:, :-1], cache=cache)
    peer(tokens[:, :-1], past_key_values=peer_cache)
    before = cache.lengths

    def step() -> Tensor:
        logits = ours(tokens[:, -1:], cache=cache)
        cache.truncate(before)
        return logits

    def peer_step() -> Tensor:
        logits = peer(tokens[:, -1:], past_key_values=peer_cache).logits
        peer_cache.crop(-1)
        return logits

    torch.testing.assert_close(step(), peer_step(), rtol=1e-3, atol=1e-4)  # else no comparison
    timed = medians({"ours": step, "peer": peer_step})
    what = f"decode step, hidden {config.hidden_size}, {held} tokens held"
    return row(what, **timed, note=described(config))


def described(config: Config) -> str:
    experts = f"{config.n_routed_experts} experts of {config.moe_intermediate_size}"
    return f"3 layers, {experts}, top-{config.num_experts_per_tok}, float32, one thread"
