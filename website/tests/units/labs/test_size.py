"""The calculator of a model's size counts as dsnotes does."""

import random
from dataclasses import replace

import pytest

from dsnotes.config import DEEPSEEK_V2, DEEPSEEK_V2_LITE, DEEPSEEK_V3, TINY, Config
from dsnotes.model import counts

NAMES = {
    "routed": "routed experts",
    "attention": "attention",
    "shared": "shared experts",
    "dense": "dense feed-forward",
    "head": "output head",
    "embedding": "embedding",
}


def for_lab(config: Config) -> dict:
    return config.to_json() | {
        "bias": config.topk_method == "noaux_tc",
        "q_lora_rank": config.q_lora_rank or 0,
    }


def some_config(rng: random.Random) -> Config:
    layers = rng.randint(1, 90)
    experts = 8 * rng.randint(1, 60)
    return replace(
        rng.choice([DEEPSEEK_V3, DEEPSEEK_V2, DEEPSEEK_V2_LITE, TINY]),
        vocab_size=rng.randint(1, 200_000),
        hidden_size=8 * rng.randint(1, 1000),
        num_hidden_layers=layers,
        first_k_dense_replace=rng.randint(0, min(3, layers)),
        intermediate_size=rng.randint(1, 20_000),
        moe_intermediate_size=rng.randint(1, 4000),
        n_shared_experts=rng.randint(0, 4),
        n_routed_experts=experts,
        num_experts_per_tok=rng.randint(1, 8),
        n_group=1,
        topk_group=1,
        topk_method=rng.choice(["noaux_tc", "greedy"]),
        num_attention_heads=rng.randint(1, 200),
        q_lora_rank=rng.choice([None, rng.randint(1, 2000)]),
        kv_lora_rank=rng.randint(1, 2000),
        qk_nope_head_dim=rng.randint(1, 256),
        qk_rope_head_dim=2 * rng.randint(1, 64),
        v_head_dim=rng.randint(1, 256),
    )


def test_counts_of_random_configurations(lab) -> None:
    size, rng = lab("size"), random.Random(0)
    for _ in range(200):
        config, past = some_config(rng), rng.randint(1, 100_000)
        c = for_lab(config)
        parts = {part.name: part for part in counts.breakdown(config)}
        found = {name: (total, used) for name, total, used in size.call("SizeLab.parts", c)}
        for name, theirs in NAMES.items():
            assert found[name] == (parts[theirs].total, parts[theirs].activated)
        assert size.call("SizeLab.total", c) == sum(p.total for p in parts.values())
        assert size.call("SizeLab.activated", c) == sum(p.activated for p in parts.values())
        assert size.call("SizeLab.multiply_adds", c, past) == counts.multiply_adds(
            config, past=past
        )
        latents = config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)
        assert size.call("SizeLab.cached", c) == latents


@pytest.mark.parametrize(
    ("name", "config"), [("V3", DEEPSEEK_V3), ("V2", DEEPSEEK_V2), ("LITE", DEEPSEEK_V2_LITE)]
)
def test_presets_are_the_released_configurations(lab, name, config) -> None:
    preset = lab("size").eval(f"SizeLab.{name}")
    assert preset == {key: value for key, value in for_lab(config).items() if key in preset}


def test_goals(lab) -> None:
    size = lab("size")
    assert not any(size.goal(i, size.state()) for i in range(2))
    assert size.goal(0, size.state(num_experts_per_tok=1))
    assert not size.goal(0, size.state(n_routed_experts=8))
    assert size.goal(1, size.state(kv_lora_rank=192))
    assert not size.goal(1, size.state(kv_lora_rank=192, context=131072))
