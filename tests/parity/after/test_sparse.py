"""Sparse attention against transformers' DeepseekV32 and the naive references of fla."""

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.after.config import TINY_V32, ConfigV32
from dsnotes.after.indexer import select
from dsnotes.after.sparse import SparseMLA, use_sparse_attention
from dsnotes.config import Config, RopeScaling
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.rope import rope_frequencies, rope_rotation

from ..wide import WideTorch

SEQ = 24
BASE = replace(TINY_V32, num_nextn_predict_layers=0, initializer_range=0.1, index_topk=6)
YARN = replace(BASE, rope_scaling=RopeScaling(factor=4.0, original_max_position_embeddings=64))
Pair = tuple[DeepSeek, Any, float]


@pytest.fixture(params=[BASE, YARN], ids=["V3.2", "YaRN"])
def config(request: pytest.FixtureRequest) -> ConfigV32:
    return request.param


@pytest.fixture(params=[torch.float32, torch.float64], ids=["f32", "f64"])
def pair(
    request: pytest.FixtureRequest,
    config: ConfigV32,
    fuse_experts: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> Pair:
    """Our model, transformers' with the same weights, and the tolerance of the type."""
    from transformers import DeepseekV32Config, DeepseekV32ForCausalLM, modeling_rope_utils
    from transformers.models.deepseek_v32 import modeling_deepseek_v32

    wide = request.param == torch.float64
    if wide:  # it computes index scores, norms and gates in float32 whatever its weights are
        for module in (modeling_deepseek_v32, modeling_rope_utils):
            monkeypatch.setattr(module, "torch", WideTorch("torch"))
        monkeypatch.setattr(Tensor, "float", Tensor.double)
    dense = DeepSeek(Config(**plain(config)))
    ours = use_sparse_attention(dense, config)
    with torch.no_grad():
        for name, tensor in ours.state_dict().items():
            if "norm." in name or name.endswith("e_score_correction_bias"):
                tensor.add_(torch.randn_like(tensor) / 5)
    fields = asdict(config)
    for name in ("scoring_func", "topk_method", "num_nextn_predict_layers"):
        del fields[name]
    rope = {"rope_type": "default", "rope_theta": fields.pop("rope_theta")}
    if (scaling := fields.pop("rope_scaling")) is not None:
        rope |= scaling | {"rope_type": scaling.pop("type")}
    fields |= {"num_key_value_heads": config.num_attention_heads, "rope_parameters": rope}
    theirs = DeepseekV32ForCausalLM._from_config(
        DeepseekV32Config(**fields), attn_implementation="eager"
    ).eval()
    theirs.load_state_dict(fuse_experts(ours.state_dict()))
    theirs.set_experts_implementation("eager")
    return ours.to(request.param), theirs.to(request.param), 1e-10 if wide else 2e-5


def plain(config: ConfigV32) -> dict[str, Any]:
    fields = {name: value for name, value in asdict(config).items() if "index_" not in name}
    return fields | {"rope_scaling": config.rope_scaling}


def test_logits(pair: Pair, parity: Callable) -> None:
    ours, theirs, tolerance = pair
    tokens = torch.randint(256, (2, SEQ))
    with torch.no_grad():
        expected = theirs(tokens, use_cache=False).logits
        parity("logits", (ours(tokens) - expected).abs().max(), tolerance)
        parity("absorbed", (ours(tokens, absorb=True) - expected).abs().max(), tolerance)


def test_logits_in_pieces_over_a_cache(pair: Pair, parity: Callable) -> None:
    """A first pass of 10 tokens, one of 5, then one at a time."""
    ours, theirs, tolerance = pair
    tokens = torch.randint(256, (2, SEQ))
    cache, held = ours.new_cache(batch_size=2, capacity=SEQ), None
    with torch.no_grad():
        for piece in tokens.split([10, 5] + [1] * (SEQ - 15), dim=1):
            out = theirs(piece, past_key_values=held, use_cache=True)
            held = out.past_key_values
            parity("logits", (ours(piece, cache=cache) - out.logits).abs().max(), tolerance)


def test_the_indexer_alone_chooses_the_same_sets(
    config: ConfigV32, pair: Pair, parity: Callable
) -> None:
    """Every set of every layer, and the indexer key that the peer's cache holds."""
    from transformers import DynamicCache

    ours, theirs, tolerance = pair
    layer: SparseMLA = ours.model.layers[1].self_attn
    peer = theirs.model.layers[1].self_attn
    x = torch.randn(2, SEQ, config.hidden_size, dtype=ours.dtype)
    positions = torch.arange(SEQ)
    rotation = rope_rotation(positions, rope_frequencies(config), dtype=x.dtype)
    causal = torch.ones(1, SEQ, SEQ).bool().tril()
    cache = DynamicCache(config=theirs.config)
    with torch.no_grad():
        *_, scores, mask = layer._scored(x, Pass(rotation))
        assert torch.equal(mask, causal)
        found = peer.indexer(
            x,
            peer.q_a_layernorm(peer.q_a_proj(x)),
            theirs.model.rotary_emb(x, positions[None]),
            causal.expand(2, -1, -1),
            positions[None],
            past_key_values=cache,
        )
        keys = layer.indexer.key(x, rotation)
    best = select(scores, mask, topk=config.index_topk)
    theirs_mask = torch.zeros(2, SEQ, SEQ).bool().scatter(-1, found.long(), True) & causal
    assert torch.equal(best.mask(SEQ), theirs_mask)
    held = next(v for v in vars(cache.layers[1]).values() if getattr(v, "shape", ()) == keys.shape)
    parity("indexer key", (keys - held).abs().max(), tolerance)


def test_choice_and_attention_are_those_of_fla(peer: Callable, parity: Callable) -> None:
    """`naive_dsa` takes queries, keys and values by head: those that our latents decompress to."""
    fla = peer("fla", "ops/dsa/naive.py")
    config = replace(BASE, index_topk=6)
    torch.manual_seed(1)
    layer = SparseMLA(config).requires_grad_(False)
    for parameter in layer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(2, SEQ, config.hidden_size)
    rotation = rope_rotation(torch.arange(SEQ), rope_frequencies(config), dtype=x.dtype)
    query, latents, scores, mask = layer._scored(x, Pass(rotation))
    latent, key_rope = latents.split([config.kv_lora_rank, config.qk_rope_head_dim], dim=-1)
    up = layer.kv_b_proj(latent).unflatten(-1, (layer.num_heads, -1))
    key, value = up.split([config.qk_nope_head_dim, config.v_head_dim], dim=-1)
    key_rope = key_rope.unsqueeze(2).expand(-1, -1, layer.num_heads, -1)
    indexer = layer.indexer
    compressed = layer.q_a_layernorm(layer.q_a_proj(x))
    heads, indices = fla.naive_dsa(
        query,
        torch.cat([key, key_rope], dim=-1),
        value,
        indexer._turned(
            indexer.wq_b(compressed).unflatten(-1, (indexer.n_heads, -1)), rotation.unsqueeze(-2)
        ),
        indexer.key(x, rotation),
        indexer.weights_proj(x) * indexer.n_heads**-0.5,
        topk=config.index_topk,
        scale=layer.softmax_scale,
        return_indices=True,
    )
    best = select(scores, mask, topk=config.index_topk)
    assert torch.equal(best.indices.masked_fill(~best.visible, -1).sort(-1)[0], indices.sort(-1)[0])
    expected = layer.o_proj(heads.flatten(-2))
    for absorb in (False, True):
        found = layer(x, Pass(rotation, absorb=absorb))
        parity("output", (found - expected).abs().max(), 1e-5)
