"""The 32 hands: frequencies, bounds and scale of YaRN as dsnotes has them, and trap 7."""

import math
import random
from dataclasses import replace

import pytest
import torch

from dsnotes.config import DEEPSEEK_V3, RopeScaling
from dsnotes.model.rope import rope_frequencies, softmax_scale, yarn_range

V3 = {"dim": 64, "base": 10000, "length": 4096, "fast": 32, "slow": 1, "qk": 192}


def configs(count: int = 150):
    draw = random.Random(1)
    for _ in range(count):
        dim, base = 2 * draw.randrange(2, 65), draw.choice([1e3, 1e4, 5e5, 1e6])
        scaling = RopeScaling(
            factor=draw.uniform(1, 64),
            original_max_position_embeddings=draw.choice([512, 4096, 8192, 32768]),
            beta_fast=draw.uniform(8, 64),
            beta_slow=draw.uniform(0.5, 4),
        )
        yield replace(DEEPSEEK_V3, qk_rope_head_dim=dim, rope_theta=base, rope_scaling=scaling)


def shape(config) -> dict[str, float]:
    scaling = config.rope_scaling
    return {
        "dim": config.qk_rope_head_dim,
        "base": config.rope_theta,
        "length": scaling.original_max_position_embeddings,
        "fast": scaling.beta_fast,
        "slow": scaling.beta_slow,
    }


def test_frequencies_bounds_and_scale(lab) -> None:
    figure = lab("yarn")
    for config in configs():
        scaling, dim, base = config.rope_scaling, config.qk_rope_head_dim, config.rope_theta
        bounds = figure.call("YarnLab.range", shape(config))
        assert tuple(bounds) == yarn_range(scaling, dim=dim, base=base)
        hands = figure.call("YarnLab.hands", shape(config), scaling.factor, "none")
        expected = rope_frequencies(config)
        plain = rope_frequencies(replace(config, rope_scaling=None))
        assert [h["angle"] for h in hands] == pytest.approx(expected.tolist(), rel=1e-9)
        assert [h["plain"] for h in hands] == pytest.approx(plain.tolist(), rel=1e-9)
        assert figure.call("YarnLab.scale", scaling.factor, config.qk_head_dim) == pytest.approx(
            softmax_scale(config), rel=1e-9
        )


def test_trap_7_is_the_failing_variant(lab) -> None:
    """All divided, as the wrong variant in tests/model/test_mla.py."""
    figure = lab("yarn")
    for config in configs(100):
        factor = config.rope_scaling.factor
        wrong = rope_frequencies(replace(config, rope_scaling=None)) / factor
        hands = figure.call("YarnLab.hands", shape(config), factor, "trap7")
        assert [h["angle"] for h in hands] == pytest.approx(wrong.tolist(), rel=1e-9)


def test_the_figure_is_v3(lab) -> None:
    figure = lab("yarn")
    hands = figure.call("YarnLab.hands", V3, 40, "none")
    assert [h["angle"] for h in hands] == pytest.approx(
        rope_frequencies(DEEPSEEK_V3).tolist(), rel=1e-9
    )
    assert figure.call("YarnLab.range", V3) == [10, 23]
    assert DEEPSEEK_V3.qk_head_dim == V3["qk"]


def test_which_hands_go_astray(lab) -> None:
    """In torch: an angle beyond the last one of training, of a hand that made no full turn."""
    figure, draw = lab("yarn"), random.Random(2)
    for _ in range(100):
        factor, position = draw.choice([1, draw.uniform(1, 64)]), draw.randrange(1, 163_840)
        scaling = replace(DEEPSEEK_V3.rope_scaling, factor=factor)
        theta = rope_frequencies(replace(DEEPSEEK_V3, rope_scaling=scaling))
        trained = 4096 * rope_frequencies(replace(DEEPSEEK_V3, rope_scaling=None))
        beyond = (trained < 2 * math.pi) & (position * theta > trained)
        assert figure.call("YarnLab.astray", V3, factor, "none", position) == (
            torch.nonzero(beyond).flatten().tolist()
        )
    assert len(figure.call("YarnLab.astray", V3, 1, "none", 131_072)) == 9
    assert figure.call("YarnLab.astray", V3, 32, "none", 131_072) == []
    assert len(figure.call("YarnLab.astray", V3, 31, "none", 131_072)) == 9


def test_goals_and_sentences(lab) -> None:
    figure = lab("yarn")
    reaching = [{"factor": 32}, {"factor": 40, "wrong": "trap7"}]
    for i, fields in enumerate(reaching):
        assert not figure.goal(i, figure.state())
        assert figure.goal(i, figure.state(**fields))
    assert not figure.goal(0, figure.state(factor=31.9))
    presets = figure.eval("YarnLab.presets.map(({ state }) => state)")
    assert len({figure.say(figure.state(**p)) for p in presets}) == len(presets) == 3
    assert "0.1352" in figure.say(figure.state(factor=40))  # softmax_scale(DEEPSEEK_V3)
    assert "57.3° 变成 <b>1.4°" in figure.say(figure.state(factor=40, wrong="trap7"))
