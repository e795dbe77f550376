"""Bytes and parameters: the published ratios, and transformers' models without memory (meta)."""

from dataclasses import replace

import pytest
import torch

from dsnotes.after.config import (
    DEEPSEEK_V4_FLASH,
    DEEPSEEK_V4_PRO,
    DEEPSEEK_V32,
    TINY_V4,
    ConfigV4,
)
from dsnotes.after.ledger import (
    grouped_kv_bytes_per_token,
    kv_bytes_per_token,
    parts,
    window_bytes,
)
from dsnotes.config import DEEPSEEK_V3


def test_bytes_give_the_published_ratios() -> None:
    """V4 report figure 1 and §2.3.4: 7 % and 10 % of V3.2, about 2 % of eight groups in BF16."""
    v32 = kv_bytes_per_token(DEEPSEEK_V32)
    flash, pro = map(kv_bytes_per_token, (DEEPSEEK_V4_FLASH, DEEPSEEK_V4_PRO))
    assert round(flash / v32, 2) == 0.07
    assert round(pro / v32, 3) == 0.105
    for config, kept in ((DEEPSEEK_V4_FLASH, flash), (DEEPSEEK_V4_PRO, pro)):
        layers = config.num_hidden_layers
        assert kept / grouped_kv_bytes_per_token(
            layers=layers, groups=8, head_dim=128
        ) == pytest.approx(0.02, abs=5e-4)


def test_bytes_of_v3_are_those_of_its_latents() -> None:
    assert kv_bytes_per_token(DEEPSEEK_V3) == 61 * 576 * 2


def test_the_window_is_what_a_short_text_pays() -> None:
    assert window_bytes(DEEPSEEK_V4_FLASH) == 43 * 128 * 584


def _peer(config: ConfigV4) -> torch.nn.Module:
    from transformers import DeepseekV4Config, DeepseekV4ForCausalLM

    with torch.device("meta"):
        return DeepseekV4ForCausalLM(
            DeepseekV4Config(
                vocab_size=config.vocab_size,
                hidden_size=config.hidden_size,
                num_hidden_layers=config.num_hidden_layers,
                num_attention_heads=config.num_attention_heads,
                q_lora_rank=config.q_lora_rank,
                o_groups=config.o_groups,
                compress_ratios=list(config.compress_ratios),
                index_topk=config.index_topk,
                moe_intermediate_size=config.moe_intermediate_size,
                n_routed_experts=config.n_routed_experts,
            )
        )


@pytest.mark.parametrize(
    ("config", "billions"), [(DEEPSEEK_V4_FLASH, (284, 13.27)), (DEEPSEEK_V4_PRO, (1573, 48.85))]
)
def test_parameters_of_v4_are_those_of_transformers(
    config: ConfigV4, billions: tuple[float, float]
) -> None:
    model = _peer(config)
    biases = sum(b.numel() for name, b in model.named_buffers() if "correction_bias" in name)
    total = sum(count.total for count in parts(config))
    assert total == sum(p.numel() for p in model.parameters()) + biases
    activated = sum(count.activated for count in parts(config))
    assert (round(total / 1e9), round(activated / 1e9, 2)) == billions


def test_parameters_of_v32_are_those_of_transformers() -> None:
    from transformers import DeepseekV32Config, DeepseekV32ForCausalLM

    with torch.device("meta"):
        model = DeepseekV32ForCausalLM(DeepseekV32Config())
    biases = sum(b.numel() for name, b in model.named_buffers() if "correction_bias" in name)
    total = sum(count.total for count in parts(DEEPSEEK_V32))
    assert total == sum(p.numel() for p in model.parameters()) + biases


def test_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="head_dim must be 512"):
        kv_bytes_per_token(TINY_V4)
    with pytest.raises(ValueError, match="kv_lora_rank must be 512"):
        kv_bytes_per_token(replace(DEEPSEEK_V32, kv_lora_rank=256))
