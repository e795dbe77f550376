"""Rotary embedding and YaRN: the equations, the published numbers, the released layout."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsnotes.config import DEEPSEEK_V2, DEEPSEEK_V2_LITE, DEEPSEEK_V3, TINY, RopeScaling
from dsnotes.model.rope import (
    apply_rope,
    rope_frequencies,
    rope_rotation,
    softmax_scale,
    yarn_range,
)


def rotate(x: torch.Tensor, position: int, frequencies: torch.Tensor) -> torch.Tensor:
    return apply_rope(x, rope_rotation(torch.tensor(position), frequencies, dtype=x.dtype))


def test_frequencies_without_yarn() -> None:
    theta = rope_frequencies(replace(DEEPSEEK_V2_LITE, rope_scaling=None))
    expected = [10000 ** (-2 * i / 64) for i in range(32)]
    assert theta.dtype == torch.float64
    torch.testing.assert_close(theta, torch.tensor(expected, dtype=torch.float64))


def test_pairs_are_adjacent() -> None:
    """Channels 2i and 2i + 1 turn by m theta_i."""
    theta = rope_frequencies(TINY)
    x = torch.randn(8, dtype=torch.float64)
    turned = rotate(x, 3, theta)
    for i, t in enumerate(theta.tolist()):
        cos, sin = math.cos(3 * t), math.sin(3 * t)
        a, b = x[2 * i], x[2 * i + 1]
        torch.testing.assert_close(turned[2 * i], a * cos - b * sin)
        torch.testing.assert_close(turned[2 * i + 1], a * sin + b * cos)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 1000))
def test_products_depend_on_the_distance_alone(m: int, n: int, shift: int) -> None:
    theta = rope_frequencies(TINY)
    q, k = torch.randn(2, 8, dtype=torch.float64)
    here = rotate(q, m, theta) @ rotate(k, n, theta)
    there = rotate(q, m + shift, theta) @ rotate(k, n + shift, theta)
    torch.testing.assert_close(here, there, rtol=0, atol=1e-9)


def test_yarn_of_v3() -> None:
    """Pairs 0-10 as trained, 23-31 divided by 40, a straight line in the index between."""
    plain = rope_frequencies(replace(DEEPSEEK_V3, rope_scaling=None))
    share = rope_frequencies(DEEPSEEK_V3) / plain
    assert yarn_range(DEEPSEEK_V3.rope_scaling, dim=64, base=10000.0) == (10, 23)
    torch.testing.assert_close(share[:11], torch.ones(11, dtype=torch.float64))
    torch.testing.assert_close(share[23:], torch.full((9,), 1 / 40, dtype=torch.float64))
    steps = share[10:24].diff()
    torch.testing.assert_close(steps, torch.full_like(steps, (1 / 40 - 1) / 13))


def test_yarn_step_where_the_bounds_meet() -> None:
    """With two pairs both bounds can round to one index: no division by zero."""
    config = replace(
        TINY,
        qk_rope_head_dim=4,
        rope_scaling=RopeScaling(
            factor=4.0, original_max_position_embeddings=7, beta_fast=2.0, beta_slow=1.2
        ),
    )
    assert yarn_range(config.rope_scaling, dim=4, base=10000.0) == (0, 0)
    expected = torch.tensor([1.0, 0.01 / 4], dtype=torch.float64)
    torch.testing.assert_close(rope_frequencies(config), expected)


@pytest.mark.parametrize(
    ("config", "scale"),
    [(DEEPSEEK_V3, 0.13523), (DEEPSEEK_V2, 0.11472), (DEEPSEEK_V2_LITE, 0.11472)],
)
def test_softmax_scale_of_the_released_models(config, scale: float) -> None:
    """(d_h + d_h^R)^-1/2 of 192, times mscale^2: 1.87385 for V3, 1.58963 at mscale 0.707."""
    assert softmax_scale(config) == pytest.approx(scale, abs=1e-5)


def test_kimi_k2_turns_by_a_step() -> None:
    """beta_fast = beta_slow = 1: pairs 0 to 19 as trained, 20 to 31 divided by 32."""
    yarn = RopeScaling(factor=32, original_max_position_embeddings=4096, beta_fast=1, beta_slow=1)
    plain = replace(DEEPSEEK_V3, rope_theta=50000, rope_scaling=None)
    share = rope_frequencies(replace(plain, rope_scaling=yarn)) / rope_frequencies(plain)
    torch.testing.assert_close(share[:20], torch.ones(20, dtype=torch.float64))
    torch.testing.assert_close(share[20:], torch.full((12,), 1 / 32, dtype=torch.float64))


def test_a_bfloat16_model_turns_by_float32_angles() -> None:
    """Position 10,001 rounds to 9,984 in bfloat16: the angle would be 17 radians off."""
    theta = rope_frequencies(TINY)
    rotation = rope_rotation(torch.tensor(10001), theta, dtype=torch.bfloat16)
    assert rotation.dtype == torch.complex64
    assert rotation[0].real.item() == pytest.approx(math.cos(10001), abs=1e-3)
    assert apply_rope(torch.randn(8, dtype=torch.bfloat16), rotation).dtype == torch.bfloat16


def test_mismatched_width_is_refused() -> None:
    rotation = rope_rotation(torch.arange(3), rope_frequencies(TINY), dtype=torch.float32)
    with pytest.raises(ValueError, match="6 channels and 4 pairs"):
        apply_rope(torch.randn(3, 6), rotation)


def test_a_view_that_begins_at_an_odd_place() -> None:
    """One row of an odd offset is contiguous, and yet no complex view of it exists."""
    x = torch.arange(5.0)
    rotation = torch.polar(torch.ones(2), torch.tensor([0.5, 0.1]))
    assert torch.equal(apply_rope(x[1:], rotation), apply_rope(x[1:].clone(), rotation))
