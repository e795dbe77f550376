"""The latent cache: what it holds, what it refuses, and the sizes of the V2 paper."""

from dataclasses import replace

import pytest
import torch

from dsnotes.config import DEEPSEEK_V2, DEEPSEEK_V2_LITE, DEEPSEEK_V3, TINY
from dsnotes.model.cache import (
    LatentCache,
    cache_elements_per_token,
    head_cache_elements_per_token,
)

WIDTH = TINY.kv_lora_rank + TINY.qk_rope_head_dim


def filled(lengths: list[int], *, capacity: int = 8) -> LatentCache:
    """A one-layer cache whose sequences hold the given numbers of tokens."""
    cache = LatentCache(TINY, batch_size=len(lengths), capacity=capacity, num_layers=1)
    cache.open(max(lengths))
    cache.append(0, torch.randn(len(lengths), max(lengths), WIDTH))
    cache.advance()
    cache.truncate(torch.tensor(lengths))
    return cache


def test_tokens_go_after_the_valid_ones_of_their_own_sequence() -> None:
    cache = filled([2, 5])
    before = cache.latents.clone()
    new = torch.randn(2, 2, WIDTH)
    positions, _ = cache.open(2)
    assert positions.tolist() == [[2, 3], [5, 6]]
    read = cache.append(0, new)
    assert read.shape == (2, 7, WIDTH)
    assert torch.equal(read[0, 2:4], new[0])
    assert torch.equal(read[1, 5:7], new[1])
    assert torch.equal(read[0, :2], before[0, 0, :2])
    assert torch.equal(read[1, :5], before[0, 1, :5])
    assert cache.lengths.tolist() == [2, 5]  # not held before every layer has written
    cache.advance()
    assert cache.lengths.tolist() == [4, 7]


def test_reading_copies_nothing() -> None:
    cache = filled([5])
    cache.open(1)
    assert cache.append(0, torch.randn(1, 1, WIDTH)).data_ptr() == cache.latents.data_ptr()


def test_mask_is_causal_and_hides_padding() -> None:
    cache = filled([1, 3])
    expected = [
        [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]],  # own positions 1 and 2
        [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]],  # own positions 3 and 4
    ]
    assert torch.equal(cache.open(2)[1], torch.tensor(expected, dtype=torch.bool))
    assert filled([3, 3]).open(1)[1] is None
    assert filled([1, 3]).open(1)[1] is not None


def test_without_mask_where_the_causal_one_says_all() -> None:
    cache = LatentCache(TINY, batch_size=2, capacity=8)
    positions, mask = cache.open(3)
    assert (positions.tolist(), mask) == ([[0, 1, 2], [0, 1, 2]], None)


def test_a_pass_that_broke_off_leaves_no_trace() -> None:
    """Its places are given again."""
    cache = filled([2, 5])
    cache.open(3)
    cache.append(0, torch.randn(2, 3, WIDTH))
    assert cache.open(1)[0].tolist() == [[2], [5]]
    cache.append(0, torch.randn(2, 1, WIDTH))
    cache.advance()
    assert cache.lengths.tolist() == [3, 6]


def test_no_tokens_without_an_open_pass() -> None:
    cache, latents = filled([2, 5]), torch.zeros(2, 1, WIDTH)
    for call in (cache.advance, lambda: cache.append(0, latents)):
        with pytest.raises(ValueError, match=r"no pass open: call open\(num_tokens\) first"):
            call()
    cache.open(1)
    cache.truncate(torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="no pass open"):  # its places were elsewhere
        cache.append(0, latents)


def test_overflow_is_refused_and_nothing_grows() -> None:
    cache = filled([2, 7])
    with pytest.raises(ValueError, match="capacity 8, 7 tokens held, 2 more do not fit"):
        cache.open(2)
    assert cache.latents.shape[2] == 8
    assert cache.lengths.tolist() == [2, 7]


@pytest.mark.parametrize("lengths", [[3, 0], [-1, 0]])
def test_truncating_to_more_than_is_held_is_refused(lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"between 0 and the tokens held \[2, 5\]"):
        filled([2, 5]).truncate(torch.tensor(lengths))


@pytest.mark.parametrize("name", ["batch_size", "capacity", "num_layers"])
def test_sizes_below_one_are_refused(name: str) -> None:
    sizes = {"batch_size": 1, "capacity": 1, "num_layers": 1} | {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        LatentCache(TINY, **sizes)


def test_counts_and_lengths_that_would_corrupt_are_refused() -> None:
    """1.5 tokens, or one length for both sequences, once changed `lengths` without a word."""
    cache = filled([2, 5])
    cache.open(1)
    for call, message in (
        (lambda: cache.open(1.5), r"num_tokens must be a whole number, got 1\.5"),
        (lambda: cache.open(-1), "num_tokens must be at least 0, got -1"),
        (lambda: cache.truncate(torch.tensor(1)), r"lengths must be .* got torch.int64 of shape"),
        (lambda: cache.truncate(torch.tensor([1])), r"lengths must be \(batch\) = \(2\), got"),
        (lambda: cache.append(7, torch.zeros(2, 1, WIDTH)), r"layer_idx must lie in 0 .* got 7"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            call()
    assert cache.lengths.tolist() == [2, 5]


def test_under_autocast_the_cache_keeps_its_type() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        cache = filled([2])
        cache.open(1)
        read = cache.append(0, torch.zeros(1, 1, WIDTH, dtype=torch.bfloat16))
    assert read.dtype == torch.float32


def test_foreign_latents_are_refused() -> None:
    cache = filled([2, 5])
    cache.open(1)
    with pytest.raises(TypeError, match=r"dtype torch.float32, got torch.float64"):
        cache.append(0, torch.zeros(2, 1, WIDTH, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"= \(2, 1, 40\) as opened, got \(1, 1, 40\)"):
        cache.append(0, torch.zeros(1, 1, WIDTH))
    with pytest.raises(ValueError, match=r"= \(2, 1, 40\) as opened, got \(2, 3, 40\)"):
        cache.append(0, torch.zeros(2, 3, WIDTH))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_bytes_are_those_of_the_formula(dtype: torch.dtype) -> None:
    config = replace(DEEPSEEK_V2_LITE, num_hidden_layers=2)
    cache = LatentCache(config, batch_size=3, capacity=5, dtype=dtype)
    assert cache.nbytes == 3 * 5 * cache_elements_per_token(config) * dtype.itemsize


def test_table_1_of_the_v2_paper() -> None:
    """MHA, GQA, MQA; MLA with d_c = 4 d_h and d_h^R = d_h / 2 caches as much as 2.25 groups."""
    c = DEEPSEEK_V2
    shape = {"head_dim": c.qk_nope_head_dim, "num_hidden_layers": c.num_hidden_layers}
    mha, gqa, mqa = (
        head_cache_elements_per_token(num_key_value_heads=n, **shape) for n in (128, 8, 1)
    )
    assert (mha, gqa, mqa) == (1_966_080, 122_880, 15_360)
    assert cache_elements_per_token(c) == 34_560 == 2.25 * mqa


def test_the_93_percent_of_the_v2_paper() -> None:
    """Against DeepSeek 67B with GQA in BF16, and only with V2's 6-bit cache counted in."""
    v67b = 2 * head_cache_elements_per_token(
        num_key_value_heads=8, head_dim=128, num_hidden_layers=95
    )
    elements = cache_elements_per_token(DEEPSEEK_V2)
    assert (v67b, elements * 6 // 8) == (389_120, 25_920)
    assert round(100 * (1 - elements * 6 / 8 / v67b), 1) == 93.3
    assert round(100 * (1 - elements * 2 / v67b), 1) == 82.2  # by architecture alone


def test_v3_against_other_models() -> None:
    """BF16 bytes per token, arXiv 2505.09343 table 1; its 7.28 is 7.34 by its own numbers."""
    v3 = 2 * cache_elements_per_token(DEEPSEEK_V3)
    qwen, llama = (
        2 * head_cache_elements_per_token(num_key_value_heads=8, head_dim=128, num_hidden_layers=n)
        for n in (80, 126)
    )
    assert (v3, qwen, llama) == (70_272, 327_680, 516_096)
    assert (round(qwen / v3, 2), round(llama / v3, 2)) == (4.66, 7.34)
