"""The calculator: what is cached, read and multiplied, against the cache and the runs of MLA."""

import math
import random
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dsnotes.config import DEEPSEEK_V2_LITE, DEEPSEEK_V3, Config
from dsnotes.model.cache import LatentCache, cache_elements_per_token, head_cache_elements_per_token
from dsnotes.model.counts import multiply_adds
from dsnotes.model.mla import MLA

BANDWIDTH, PEAK = 3.35e12, 865e12  # of H800, as in the notebook


def states(count: int = 120):
    draw = random.Random(3)
    for _ in range(count):
        yield {
            "view": draw.choice(["bytes", "work", "wait"]),
            "wrong": "none",
            "heads": draw.randrange(1, 257),
            "groups": draw.choice([1, 2, 4, 8, 16, 64]),
            "latent": 64 * draw.randrange(1, 17),
            "rope": 16 * draw.randrange(1, 9),
            "fresh": draw.choice([1, 2, draw.randrange(1, 4097)]),
            "context": 1024 * draw.randrange(1, 1025),
            "batch": draw.randrange(1, 257),
            "layers": draw.randrange(1, 129),
        }


def config_of(state) -> Config:
    return replace(
        DEEPSEEK_V3,
        num_attention_heads=state["heads"],
        kv_lora_rank=state["latent"],
        qk_rope_head_dim=state["rope"],
        num_hidden_layers=state["layers"],
        first_k_dense_replace=0,
    )


def on_meta(config: Config) -> MLA:
    with torch.device("meta"):
        return MLA(config)


def multiplications(layer: MLA, *, new: int, past: int, absorb: bool) -> int:
    """Of the attention of `new` tokens over `past` cached ones, as the operations are run.

    Taken off: the zeros that pad the values to the width of the keys, and the positional channels
    of the shared tensor read as a value.
    """
    query = torch.empty(1, new, layer.num_heads, layer.qk_head_dim, device="meta")
    latents = torch.empty(1, past, layer.kv_lora_rank + layer.qk_rope_head_dim, device="meta")
    mask = torch.ones(1, new, past, dtype=torch.bool, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        (layer.attend_absorbed if absorb else layer.attend)(query, latents, mask=mask)
    return counter.get_total_flops() // 2 - new * past * layer.num_heads * layer.qk_rope_head_dim


def test_what_is_cached(lab) -> None:
    figure = lab("cache")
    for state in states():
        found, layers, config = (
            figure.call("CacheLab.cached", state),
            state["layers"],
            config_of(state),
        )
        for way, groups in (
            ("mha", state["heads"]),
            ("gqa", min(state["groups"], state["heads"])),
            ("mqa", 1),
        ):
            assert found[way] * layers == head_cache_elements_per_token(
                num_key_value_heads=groups, head_dim=128, num_hidden_layers=layers
            )
        assert found["mla"] * layers == cache_elements_per_token(config)
        held = LatentCache(
            config, batch_size=state["batch"], capacity=state["context"], num_layers=1,
            dtype=torch.bfloat16, device="meta",
        )  # fmt: skip
        assert held.nbytes == 2 * found["mla"] * state["batch"] * state["context"]


def test_what_is_multiplied(lab) -> None:
    """One more cached position costs exactly that many multiply-adds, as the operations are run."""
    figure = lab("cache")
    for state in states():
        found, layer, fresh = (
            figure.call("CacheLab.multiplied", state),
            on_meta(config_of(state)),
            state["fresh"],
        )
        for way in ("expand", "absorb"):
            cost = [
                multiplications(layer, new=fresh, past=past, absorb=way == "absorb")
                for past in (5000, 5001)
            ]
            assert found[way] == cost[1] - cost[0]


def test_heads_with_their_own_keys(lab) -> None:
    """`multiply_adds` of dsnotes, whose latent part also gives what a pair costs decompressed."""
    figure = lab("cache")
    for state in states():
        config, fresh = config_of(state), state["fresh"]
        found = figure.call("CacheLab.multiplied", state)
        for way, groups in (("mha", state["heads"]), ("gqa", 1), ("mqa", 1)):
            more = [
                multiply_adds(config, past=past, num_key_value_heads=groups, head_dim=128)
                for past in (7, 8)
            ]
            assert found[way] * state["layers"] == fresh * (more[1] - more[0])
        more = [multiply_adds(config, past=past) for past in (7, 8)]
        rebuilt = on_meta(config).kv_b_proj.weight.numel()
        assert found["expand"] == rebuilt + fresh * (more[1] - more[0]) // state["layers"]


def test_where_the_two_cross(lab) -> None:
    """Below it absorption multiplies less, above it more; V3: from 171 new tokens on."""
    figure = lab("cache")
    for state in states():
        if state["latent"] <= 128:
            assert figure.call("CacheLab.crossing", state) == math.inf
            continue
        cut = figure.call("CacheLab.crossing", state)
        for fresh, less in ((int(cut) or 1, cut >= 1), (int(cut) + 1, False)):
            macs = figure.call("CacheLab.multiplied", state | {"fresh": fresh})
            assert (macs["absorb"] <= macs["expand"]) == less or cut == fresh
    v3 = figure.state()
    assert 170 < figure.call("CacheLab.crossing", v3) < 171
    for fresh, less in ((170, True), (171, False)):
        macs = figure.call("CacheLab.multiplied", v3 | {"fresh": fresh})
        assert (macs["absorb"] < macs["expand"]) is less


def test_least_times(lab) -> None:
    figure = lab("cache")
    for state in states():
        kept, macs = (figure.call(f"CacheLab.{f}", state) for f in ("cached", "multiplied"))
        positions = state["context"] * state["batch"] * state["layers"]
        for way, time in figure.call("CacheLab.least", state).items():
            numbers = kept.get(way, kept["mla"])
            assert time["read"] == pytest.approx(2 * numbers * positions / BANDWIDTH, rel=1e-12)
            assert time["work"] == pytest.approx(2 * macs[way] * positions / PEAK, rel=1e-12)


def test_traps_1_and_5(lab) -> None:
    """What their tests hold ours against: a rope key per head; keys and values rebuilt."""
    figure = lab("cache")
    for state in states(100):
        config = config_of(state)
        layer = on_meta(config)
        latent = torch.empty(1, config.kv_lora_rank, device="meta")
        keys_and_values = layer.kv_b_proj(latent).numel()
        key = config.num_attention_heads * config.qk_rope_head_dim
        assert (
            figure.call("CacheLab.cached", state | {"wrong": "trap1"})["mla"]
            == latent.numel() + key
        )
        assert figure.call("CacheLab.cached", state | {"wrong": "trap5"})["mla"] == (
            keys_and_values + key
        )


def test_the_figure_opens_with_v3(lab) -> None:
    state = lab("cache").state()
    for field, value in {
        "heads": DEEPSEEK_V3.num_attention_heads,
        "latent": DEEPSEEK_V3.kv_lora_rank,
        "rope": DEEPSEEK_V3.qk_rope_head_dim,
        "layers": DEEPSEEK_V3.num_hidden_layers,
    }.items():
        assert state[field] == value
    assert DEEPSEEK_V3.qk_nope_head_dim == DEEPSEEK_V3.v_head_dim == 128
    lite = state | lab("cache").eval("CacheLab.presets[1].state")
    assert (lite["heads"], lite["layers"]) == (
        DEEPSEEK_V2_LITE.num_attention_heads,
        DEEPSEEK_V2_LITE.num_hidden_layers,
    )
    assert (lite["latent"], lite["rope"]) == (512, 64)


def test_goals_and_sentences(lab) -> None:
    figure = lab("cache")
    reaching = [
        {"view": "wait", "fresh": 2},
        {"view": "work", "latent": 256},
        {"view": "bytes", "latent": 192},
    ]
    for i, fields in enumerate(reaching):
        assert not figure.goal(i, figure.state())
        assert not figure.goal(i, figure.state(view=fields["view"]))
        assert figure.goal(i, figure.state(**fields))
    presets = figure.eval("CacheLab.presets.map(({ state }) => state)")
    assert len({figure.say(figure.state(**p)) for p in presets}) == len(presets) == 5
    assert "70,272 字节" in figure.say(figure.state(view="bytes"))
    assert "171 个" in figure.say(figure.state(view="work"))
