"""Counts against the published sizes and against the table of the released checkpoint."""

import dataclasses

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dsnotes.config import DEEPSEEK_V2, DEEPSEEK_V2_LITE, DEEPSEEK_V3, TINY, Config
from dsnotes.model import counts
from dsnotes.model.attention import use_attention
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules, predict


def test_one_layer_of_v3_by_part() -> None:
    assert counts.attention_parameters(DEEPSEEK_V3) == 187_107_328
    assert counts.mlp_parameters(7168, 18432) == 396_361_728
    assert counts.mlp_parameters(7168, 2048) == 44_040_192
    assert counts.router_parameters(DEEPSEEK_V3) == 1_835_008 + 256
    moe = counts.moe_parameters(DEEPSEEK_V3)
    assert (moe.total, moe.activated) == (11_320_164_608, 398_196_992)


@pytest.mark.parametrize(
    ("config", "total", "activated"),
    [
        (DEEPSEEK_V3, 671_026_419_200, 36_625_618_432),
        (DEEPSEEK_V2, 235_741_434_880, 20_851_512_320),
        (DEEPSEEK_V2_LITE, 15_706_484_224, 2_451_435_008),
    ],
)
def test_published_sizes(config: Config, total: int, activated: int) -> None:
    parts = counts.breakdown(config)
    assert sum(p.total for p in parts) == total
    assert sum(p.activated for p in parts) == activated


def test_parts_of_v3() -> None:
    parts = {p.name: p.total for p in counts.breakdown(DEEPSEEK_V3)}
    assert parts["routed experts"] == 653_908_770_816
    assert parts["attention"] == 11_413_547_008
    assert parts["embedding"] == parts["output head"] == 926_679_040


def test_released_files_hold_the_mtp_module_with_duplicates() -> None:
    assert counts.mtp_module_parameters(DEEPSEEK_V3) == 11_610_068_224
    assert counts.released_parameters(DEEPSEEK_V3) == 684_489_845_504


def test_a_model_without_experts_in_use_activates_everything() -> None:
    dense = dataclasses.replace(TINY, first_k_dense_replace=TINY.num_hidden_layers)
    parts = counts.breakdown(dense)
    embedding = parts[0].total
    assert sum(p.activated for p in parts) == sum(p.total for p in parts) - embedding


@pytest.mark.parametrize("groups", [None, 4, 1])
@pytest.mark.parametrize("query_rank", [48, None])
def test_multiply_adds_are_those_of_the_matrices(
    groups: int | None, query_rank: int | None
) -> None:
    """PyTorch counts the products of a pass; experts that no token has chosen take part in none."""
    config = dataclasses.replace(TINY, q_lora_rank=query_rank)
    model = DeepSeek(config)
    if groups is not None:
        model = use_attention(model, num_key_value_heads=groups)
    seq = 16
    with FlopCounterMode(display=False) as flops, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, seq, dtype=torch.long))
    # the counter knows no causal mask: every token looks at all of them, and value heads of MLA
    # are padded to the width of its keys
    padded = 0 if groups else TINY.qk_head_dim - TINY.v_head_dim
    extra = TINY.num_hidden_layers * TINY.num_attention_heads * seq * padded
    counted = counts.multiply_adds(config, past=seq, num_key_value_heads=groups)
    assert flops.get_total_flops() == 2 * seq * (counted + extra)


def test_multiply_adds_of_a_module() -> None:
    model, seq = add_modules(DeepSeek(TINY)), 17
    tokens = torch.zeros(1, seq, dtype=torch.long)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        hidden = model.hidden(tokens)
        with FlopCounterMode(display=False) as flops:
            predict(model, hidden, tokens)
    past = seq - 1
    main, both = (counts.multiply_adds(TINY, past=past, modules=d) for d in (0, 1))
    padded = TINY.num_attention_heads * past * (TINY.qk_head_dim - TINY.v_head_dim)
    assert flops.get_total_flops() == 2 * past * (both - main + padded)
