"""Configurations: the presets equal the released files, and contradictions are refused by name."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from dsnotes.config import (
    DEEPSEEK_V2,
    DEEPSEEK_V2_LITE,
    DEEPSEEK_V3,
    TINY,
    Config,
    RopeScaling,
)

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(
    ("file", "preset"),
    [
        ("config_v3.json", DEEPSEEK_V3),
        ("config_v2.json", DEEPSEEK_V2),
        ("config_v2_lite.json", DEEPSEEK_V2_LITE),
    ],
)
def test_released_files_give_the_presets(file: str, preset: Config) -> None:
    # The released V3 file carries a default of its library; the report says 0.006.
    read = Config.from_json(DATA / file)
    assert dataclasses.replace(read, initializer_range=preset.initializer_range) == preset


def test_released_initializer_range_is_read_as_it_stands() -> None:
    assert Config.from_json(DATA / "config_v3.json").initializer_range == 0.02
    assert DEEPSEEK_V3.initializer_range == 0.006


def test_parsed_content_is_read_like_the_file() -> None:
    path = DATA / "config_v3.json"
    assert Config.from_json(json.loads(path.read_text("utf8"))) == Config.from_json(str(path))


def test_a_missing_field_is_named() -> None:
    raw = json.loads((DATA / "config_v3.json").read_text("utf8"))
    del raw["kv_lora_rank"]
    with pytest.raises(ValueError, match="kv_lora_rank"):
        Config.from_json(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 0}, "hidden_size must be a whole number of at least 1, got 0"),
        ({"hidden_size": 64.0}, "hidden_size must be a whole number of at least 1, got 64.0"),
        ({"num_experts_per_tok": True}, "num_experts_per_tok must be a whole number"),
        ({"n_shared_experts": -1}, "n_shared_experts must be a whole number of at least 0, got -1"),
        ({"q_lora_rank": 0}, "q_lora_rank must be a whole number of at least 1"),
        ({"routed_scaling_factor": 0.0}, "routed_scaling_factor must be positive"),
        ({"scoring_func": "relu"}, "scoring_func must be one of"),
        ({"topk_method": "expert_choice"}, "topk_method must be one of"),
        ({"first_k_dense_replace": 4}, r"first_k_dense_replace \(4\) must not exceed"),
        ({"qk_rope_head_dim": 7}, "qk_rope_head_dim must be even, got 7"),
        ({"n_group": 3}, r"n_group \(3\) must divide n_routed_experts \(16\)"),
        ({"topk_group": 5}, r"topk_group \(5\) must not exceed n_group \(4\)"),
        ({"num_experts_per_tok": 9}, r"num_experts_per_tok \(9\) must not exceed the 8 experts"),
        ({"topk_method": "greedy"}, "'greedy' knows no groups, but n_group is 4"),
        ({"n_group": 16, "topk_group": 8}, "leaves one expert per group"),
    ],
)
def test_contradictions_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"factor": 0.5}, "rope_scaling.factor must be at least 1"),
        ({"type": "linear"}, "rope_scaling.type must be 'yarn'"),
        ({"beta_fast": 1.0, "beta_slow": 32.0}, "beta_fast must exceed beta_slow"),
        ({"original_max_position_embeddings": 0}, "original_max_position_embeddings must be"),
    ],
)
def test_bad_rope_scaling_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RopeScaling(**{"factor": 40.0, "original_max_position_embeddings": 4096} | change)
