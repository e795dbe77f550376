"""The whole tiny V4 against transformers' DeepseekV4ForCausalLM with the same weights."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.after.config import TINY_V4, ConfigV4
from dsnotes.after.deepseek_v4 import DeepSeekV4
from dsnotes.config import RopeScaling

from ..wide import WideTorch

SEQ = 45  # past two entries of HCA, more CSA entries than are chosen, and odd for all windows
YARN = RopeScaling(factor=16.0, original_max_position_embeddings=64)
CONFIGS = {
    "plain": TINY_V4,
    "YaRN": replace(TINY_V4, rope_scaling=YARN),
    "clamped": replace(TINY_V4, swiglu_limit=0.02),
    "Pro": replace(TINY_V4, compress_ratios=(16, 16, 4, 16), num_hash_layers=3, o_groups=4),
}


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> ConfigV4:
    return CONFIGS[request.param]


def peer_config(config: ConfigV4) -> Any:
    from transformers import DeepseekV4Config

    kinds = {0: "sliding", 4: "compressed_sparse"}
    layers = [f"{kinds.get(r, 'heavily_compressed')}_attention" for r in config.compress_ratios]
    shared = (
        *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "head_dim"),
        *("q_lora_rank", "o_groups", "o_lora_rank", "sliding_window", "compress_rope_theta"),
        *("rope_theta", "index_n_heads", "index_head_dim", "index_topk", "moe_intermediate_size"),
        *("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "routed_scaling_factor"),
        *("swiglu_limit", "hc_mult", "hc_sinkhorn_iters", "hc_eps", "max_position_embeddings"),
        "rms_norm_eps",
    )
    hashed = config.num_hash_layers
    rope = {}
    if (yarn := config.rope_scaling) is not None:
        rope["rope_parameters"] = {
            "rope_type": "yarn",
            "factor": yarn.factor,
            "original_max_position_embeddings": yarn.original_max_position_embeddings,
            "beta_fast": yarn.beta_fast,
            "beta_slow": yarn.beta_slow,
        }
    return DeepseekV4Config(
        **{name: getattr(config, name) for name in shared},
        **rope,
        layer_types=layers,
        mlp_layer_types=["hash_moe"] * hashed + ["moe"] * (config.num_hidden_layers - hashed),
        compress_rates={
            "compressed_sparse_attention": 4,
            "heavily_compressed_attention": 16,
        },
        partial_rotary_factor=config.qk_rope_head_dim / config.head_dim,
    )


@pytest.fixture(params=[torch.float32, torch.float64], ids=["f32", "f64"])
def pair(
    request: pytest.FixtureRequest,
    config: ConfigV4,
    fuse_experts: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[DeepSeekV4, Any, float]:
    """Our model, transformers' with the same weights, and the tolerance of the type."""
    from transformers import DeepseekV4ForCausalLM, modeling_rope_utils
    from transformers.models.deepseek_v4 import modeling_deepseek_v4

    wide = request.param == torch.float64
    if wide:  # it computes norms, angles and index scores in float32 whatever its weights are
        for module in (modeling_deepseek_v4, modeling_rope_utils):
            monkeypatch.setattr(module, "torch", WideTorch("torch"))
        monkeypatch.setattr(Tensor, "float", Tensor.double)
    ours = DeepSeekV4(replace(config, initializer_range=0.1))
    with torch.no_grad():
        for name, tensor in [*ours.named_parameters(), *ours.named_buffers()]:
            if tensor.is_floating_point() and (tensor.ndim == 1 or name.endswith("_bias")):
                tensor.add_(torch.randn_like(tensor) / 5)
    theirs = DeepseekV4ForCausalLM._from_config(
        peer_config(config), attn_implementation="eager"
    ).eval()
    missing, unexpected = theirs.load_state_dict(fuse_experts(ours.state_dict()), strict=False)
    assert unexpected == []
    assert all("rotary" in name for name in missing)
    theirs.set_experts_implementation("eager")
    return ours.to(request.param), theirs.to(request.param), 1e-10 if wide else 5e-5


def test_logits(pair: tuple[DeepSeekV4, Any, float], parity: Callable[..., None]) -> None:
    ours, theirs, tolerance = pair
    tokens = torch.randint(256, (2, SEQ))
    with torch.no_grad():
        expected = theirs(tokens, use_cache=False).logits
        parity("logits", (ours(tokens) - expected).abs().max(), tolerance)


def test_decoding(pair: tuple[DeepSeekV4, Any, float], parity: Callable[..., None]) -> None:
    """A prompt, then token by token, theirs beside ours; and both equal to the whole at once."""
    ours, theirs, tolerance = pair
    tokens = torch.randint(256, (2, SEQ))
    cache, past = ours.new_cache(batch_size=2, capacity=SEQ), None
    found, expected = [], []
    with torch.no_grad():
        for part in tokens.split([21, *[1] * (SEQ - 21)], dim=1):
            found.append(ours(part, cache=cache))
            out = theirs(part, past_key_values=past, use_cache=True)
            past = out.past_key_values
            expected.append(out.logits)
        whole = ours(tokens)
    parity("decoding", (torch.cat(found, 1) - torch.cat(expected, 1)).abs().max(), tolerance)
    parity("prefill", (torch.cat(found, 1) - whole).abs().max(), tolerance)


def test_generated_text(pair: tuple[DeepSeekV4, Any, float]) -> None:
    ours, theirs, _ = pair
    prompts = torch.randint(256, (2, 19))
    everything = torch.ones_like(prompts)  # else it takes token 0 for padding
    new = theirs.generate(
        prompts, attention_mask=everything, max_new_tokens=20, do_sample=False, pad_token_id=0
    )
    stop = (new[:, 19:] == 1).int().cumsum(1).clamp(max=1).bool()  # its end token ends a row
    found = ours.generate(prompts, max_new_tokens=20)[:, : new.shape[1] - 19]
    assert torch.equal(found.masked_fill(stop, 0), new[:, 19:].masked_fill(stop, 0))
