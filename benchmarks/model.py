"""The whole model: a training step, and the step that decodes one token from a cache.

The peer is transformers' DeepseekV3 with the same weights and its defaults: grouped_mm for the
experts, scaled_dot_product_attention, and for decoding a DynamicCache, which holds latents as ours
does, but decompresses all of them at every step. Three layers, the first one dense; on a GPU also
the model that grows through the book.
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
from dsnotes.training import growth
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


def gpu_rows() -> list[dict[str, Any]]:
    """Rows on the first GPU; about a minute."""
    poet = growth.config_of("mla")
    return [
        training_step(poet, sequences=growth.BATCH_SIZE, length=26, device="cuda"),
        training_step(WIDE, sequences=8, length=1024, device="cuda", dtype=torch.bfloat16),
        generation(poet, sequences=64, length=2, new=24),
        generation(WIDE, sequences=1, length=128, new=32, dtype=torch.bfloat16),
    ]


def training_step(
    config: Config,
    *,
    sequences: int,
    length: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Forward, backward and AdamW. Ours gains in attention: the longer the sequences, the more."""
    torch.manual_seed(0)
    ours = DeepSeek(config).to(device, dtype)
    peer = to_transformers(ours)
    tokens = torch.randint(config.vocab_size, (sequences, length + 1), device=device)

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
    return row(what, **timed, note=described(config, ours) + ", AdamW")


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
    return row(what, **timed, note=described(config, ours))


@torch.no_grad()
def generation(
    config: Config,
    *,
    sequences: int,
    length: int,
    new: int,
    device: str = "cuda",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Greedy text of `new` tokens after prompts of `length`, by `generate` of both."""
    torch.manual_seed(0)
    ours = DeepSeek(config).to(device)
    prompts = torch.randint(config.vocab_size, (sequences, length), device=device)
    logits = to_transformers(ours)(prompts).logits  # in bfloat16 another expert may be the best
    torch.testing.assert_close(ours(prompts), logits, rtol=1e-3, atol=1e-4)  # else no comparison
    peer = to_transformers(ours.to(dtype))
    peer.generation_config.eos_token_id = None  # as many tokens as ours
    timed = medians(
        {
            "ours": lambda: ours.generate(prompts, max_new_tokens=new),
            "peer": lambda: peer.generate(prompts, max_new_tokens=new, do_sample=False),
        }
    )
    each = {way: [1e3 * sequences * new / ms for ms in timed[way]] for way in timed}
    what = f"generate, hidden {config.hidden_size}, {sequences} x ({length} + {new}) tokens"
    return row(what, **each, unit="tokens/s", note=described(config, ours))


def described(config: Config, model: DeepSeek) -> str:
    experts = f"{config.n_routed_experts} experts of {config.moe_intermediate_size}"
    where = "one thread" if model.device.type == "cpu" else torch.cuda.get_device_name()
    kind = str(model.dtype).removeprefix("torch.")
    layers = f"{config.num_hidden_layers} layers, {experts}, top-{config.num_experts_per_tok}"
    return f"{layers}, {kind}, {where}"
