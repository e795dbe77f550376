"""The sizes of V3.2 and V4: counted against transformers, and refused by name."""

from dataclasses import replace

import pytest

from dsnotes.after.config import DEEPSEEK_V4_FLASH, DEEPSEEK_V4_PRO, DEEPSEEK_V32, TINY_V4


def test_the_pattern_of_layers_is_the_reported_one() -> None:
    """V4 report §4.2.1: 21 CSA and 20 HCA layers in Flash, 30 and 31 in Pro."""
    flash, pro = DEEPSEEK_V4_FLASH.compress_ratios, DEEPSEEK_V4_PRO.compress_ratios
    assert [flash.count(ratio) for ratio in (0, 4, 128)] == [2, 21, 20]
    assert [pro.count(ratio) for ratio in (0, 4, 128)] == [0, 30, 31]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"compress_ratios": (0, 4)}, "compress_ratios must have num_hidden_layers"),
        ({"compress_ratios": (0, 4, -1, 4)}, "compress_ratios must be whole numbers"),
        ({"o_groups": 3}, r"o_groups \(3\) must divide"),
        ({"index_head_dim": 4}, r"index_head_dim \(4\)"),
        ({"qk_rope_head_dim": 7}, "qk_rope_head_dim must be even"),
        ({"num_experts_per_tok": 17}, "num_experts_per_tok"),
        ({"num_hash_layers": 5}, "num_hash_layers"),
        ({"hc_mult": 0}, "hc_mult"),
    ],
)
def test_a_wrong_value_is_refused_by_name(change: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(TINY_V4, **change)  # type: ignore[arg-type]


def test_the_indexer_needs_a_compressed_query() -> None:
    with pytest.raises(ValueError, match="q_lora_rank"):
        replace(DEEPSEEK_V32, q_lora_rank=None)
