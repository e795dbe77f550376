"""The exercises of the section on MLA, solved with the library: counted, run and searched for."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dsnotes.config import DEEPSEEK_V2_LITE, DEEPSEEK_V3, TINY, Config
from dsnotes.model.cache import LatentCache
from dsnotes.model.mla import MLA
from dsnotes.model.rope import rope_frequencies, rope_rotation, softmax_scale, yarn_range

from .notebook import NOTEBOOKS, answers
from .page import exercise, solution


def solved(label: str) -> dict[str, object]:
    """The names that the solution of an exercise defines."""
    names: dict[str, object] = {}
    exec(answers(NOTEBOOKS / "mla.ipynb")[label].right, names)
    return names


def on_meta(config: Config) -> MLA:
    with torch.device("meta"):
        return MLA(config)


def numbers_cached(config: Config) -> int:
    """What a cache of one token really holds, in all layers."""
    return LatentCache(config, batch_size=1, capacity=1).latents.numel()


def heads_cached(config: Config) -> int:
    """One key and one value of every head in every layer."""
    layer = torch.empty(2, config.num_attention_heads, config.v_head_dim)
    return config.num_hidden_layers * layer.numel()


def test_mla_1() -> None:
    lite = numbers_cached(DEEPSEEK_V2_LITE)
    assert 2 * lite == 31_104
    assert heads_cached(DEEPSEEK_V2_LITE) / lite == pytest.approx(4096 / 576)
    assert round(4096 / 576, 2) == 7.11
    assert r"576\times27\times2=" in solution("mla-1")
    assert r"4096/576" in solution("mla-1")


def test_mla_2() -> None:
    half = numbers_cached(replace(DEEPSEEK_V3, kv_lora_rank=256))
    one_group = DEEPSEEK_V3.num_hidden_layers * torch.empty(2, 128).numel()
    assert half == (256 + 64) * 61
    assert half / one_group == 320 / 256 == 1.25
    assert half > numbers_cached(DEEPSEEK_V3) / 2  # not halved: the positional key stays


def multiplications(layer: MLA, *, new: int, past: int, absorb: bool) -> int:
    """Of the attention of `new` tokens over `past` cached ones, as the operations are run."""
    query = torch.empty(1, new, layer.num_heads, layer.qk_head_dim, device="meta")
    latents = torch.empty(1, past, layer.kv_lora_rank + layer.qk_rope_head_dim, device="meta")
    mask = torch.ones(1, new, past, dtype=torch.bool, device="meta")
    attend = layer.attend_absorbed if absorb else layer.attend
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        attend(query, latents, mask=mask)
    return counter.get_total_flops() // 2


def test_mla_3() -> None:
    """Absorption multiplies less for up to 170 new tokens and more from 171 on.

    Taken off: what PyTorch's fast kernels multiply in vain, the zeros that pad the values to the
    width of the keys, and the positional channels of the shared tensor read as a value.
    """
    layer, past = on_meta(DEEPSEEK_V3), 10_000_000
    assert 170 < 128 * 256 * 512 / (128 * (1088 - 320)) < 171

    def cost(new: int, absorb: bool) -> int:
        count = multiplications(layer, new=new, past=past, absorb=absorb)
        if absorb:
            return count - new * past * layer.num_heads * layer.qk_rope_head_dim
        return count - new * past * layer.num_heads * (layer.qk_head_dim - layer.v_head_dim)

    for new in (1, 2, 170):
        assert cost(new, absorb=True) < cost(new, absorb=False)
    for new in (171, 4096):
        assert cost(new, absorb=True) > cost(new, absorb=False)
    assert "少于 171 个" in solution("mla-3")
    assert "98{,}304" in solution("mla-3")
    assert 128 * (1088 - 320) == 98_304


def test_mla_4() -> None:
    """The fused map is made and counted, and gives the same absorbed query."""
    layer = MLA(TINY).requires_grad_(False)
    up_query = layer.q_b_proj.weight.unflatten(0, (layer.num_heads, -1))[
        :, : layer.qk_nope_head_dim
    ]
    up_key = layer.kv_b_proj.weight.unflatten(0, (layer.num_heads, -1))[:, : layer.qk_nope_head_dim]
    fused = torch.einsum("hnc,hnq->hcq", up_key, up_query)
    latent = torch.randn(TINY.q_lora_rank or 0)
    apart = torch.einsum("hnc,hn->hc", up_key, up_query @ latent)
    torch.testing.assert_close(fused @ latent, apart, rtol=1e-5, atol=1e-8)

    v3 = on_meta(DEEPSEEK_V3)
    up_query = v3.q_b_proj.weight.unflatten(0, (v3.num_heads, -1))[:, : v3.qk_nope_head_dim]
    up_key = v3.kv_b_proj.weight.unflatten(0, (v3.num_heads, -1))[:, : v3.qk_nope_head_dim]
    fused = torch.einsum("hnc,hnq->hcq", up_key, up_query)
    assert fused.shape == (128, 512, 1536)
    assert round(fused.numel() / 1e6, 1) == 100.7
    assert (round(up_query.numel() / 1e6, 1), round(up_key.numel() / 1e6, 1)) == (25.2, 8.4)
    assert fused.numel() == 3 * (up_query.numel() + up_key.numel())  # "three times the weights"


def test_mla_5() -> None:
    assert DEEPSEEK_V3.rope_scaling is not None
    ten = replace(DEEPSEEK_V3, rope_scaling=replace(DEEPSEEK_V3.rope_scaling, factor=10.0))
    plain = rope_frequencies(replace(DEEPSEEK_V3, rope_scaling=None))
    turns = [4096 * theta / (2 * math.pi) for theta in plain.tolist()]
    bounds = sum(r >= 32 for r in turns) - 1, sum(r > 1 for r in turns)  # rounded outwards
    for config in (DEEPSEEK_V3, ten):
        assert config.rope_scaling is not None
        assert yarn_range(config.rope_scaling, dim=64, base=10000.0) == bounds == (10, 23)
    assert (plain / rope_frequencies(ten))[-1].item() == pytest.approx(10)
    mscale = float(re.findall(r"approx([\d.]+)", solution("mla-5"))[0])
    assert softmax_scale(ten) == pytest.approx(mscale**2 / math.sqrt(192), rel=1e-3)
    assert mscale == pytest.approx(0.1 * math.log(10) + 1, abs=5e-4)


def quantised(values: Tensor, bits: int) -> Tensor:
    levels = 2 ** (bits - 1) - 1
    scale = values.abs().amax(-1, keepdim=True) / levels
    return (values / scale).round() * scale


def test_mla_6() -> None:
    """Three bit widths, either part of the cache, twenty models of random weights."""
    turned = rope_rotation(torch.arange(24), rope_frequencies(TINY), dtype=torch.float64)
    errors = {(part, bits): [] for part in ("latent", "key") for bits in (8, 6, 4)}
    for seed in range(20):
        torch.manual_seed(1000 + seed)
        layer = MLA(TINY).double().requires_grad_(False)
        for name, parameter in layer.named_parameters():
            torch.nn.init.normal_(parameter, mean=float("layernorm" in name), std=0.3)
        x = torch.randn(1, 24, TINY.hidden_size, dtype=torch.float64)
        kept, query = layer.latent(x, turned), layer.query(x, turned)[:, -1:]
        latent, key = kept.split([layer.kv_lora_rank, layer.qk_rope_head_dim], dim=-1)
        exact = layer.attend(query, kept)  # decompressed: the other way round than the notebook
        for part, bits in errors:
            rough = (
                [quantised(latent, bits), key]
                if part == "latent"
                else [latent, quantised(key, bits)]
            )
            found = layer.attend(query, torch.cat(rough, dim=-1))
            errors[part, bits].append(((found - exact).norm() / exact.norm()).item())
    median = {which: sorted(e)[len(e) // 2] for which, e in errors.items()}
    for part in ("latent", "key"):
        assert 3 < median[part, 6] / median[part, 8] < 8
        assert 3 < median[part, 4] / median[part, 6] < 8
    for bits in (8, 6, 4):
        pairs = zip(errors["latent", bits], errors["key", bits], strict=True)
        assert sum(a > b for a, b in pairs) >= 15  # the latent is the more sensitive


def test_mla_7() -> None:
    """Graded by the tests of the section (`tests/practice`)."""
    assert "`python -m dsnotes.practice mla`" in exercise("mla-7")


def test_mla_8() -> None:
    """The planted bugs are tried in `tests/practice`; these two are the ones the page means."""
    assert "`python -m dsnotes.practice --bug mla-1`" in exercise("mla-8")
    assert "`--bug mla-3`" in exercise("mla-8")
    layer = on_meta(DEEPSEEK_V3)
    assert layer.qk_nope_head_dim == layer.v_head_dim  # W^UK and W^UV have one shape


def test_mla_9() -> None:
    """Operations of the attention as it runs, over the bytes of the cache, grow with both."""
    layer, past = on_meta(DEEPSEEK_V3), 1_000_000

    def measured(new: int) -> float:
        count = multiplications(layer, new=new, past=past, absorb=True)
        count -= new * past * layer.num_heads * layer.qk_rope_head_dim  # multiplied in vain
        once = multiplications(layer, new=new, past=1, absorb=True)  # W^UK, W^UV: not of the past
        held = LatentCache(DEEPSEEK_V3, batch_size=1, capacity=past, num_layers=1, device="meta")
        return 2 * (count - once) / (2 * held.latents.numel())

    intensity = solved("mla-9")["intensity"]
    assert callable(intensity)
    for new in (1, 2):
        assert intensity(128, new) == pytest.approx(measured(new), rel=1e-3)
    limit = 865e12 / 3.35e12  # of H800, as the deep dive of FlashMLA has it
    assert intensity(128, 1) < limit < intensity(128, 2)
    assert intensity(16, 1) < limit / 8
    assert intensity(128, 1) / 128 == pytest.approx(1.9, abs=0.02)
    assert solved("mla-9")["lite_waits_for"] == "读"


def test_mla_10() -> None:
    """A quarter of the heads reads every channel of the latent."""
    quarter = on_meta(replace(DEEPSEEK_V3, num_attention_heads=32))
    whole = on_meta(DEEPSEEK_V3)
    assert quarter.kv_b_proj.in_features == whole.kv_b_proj.in_features == 512
    cached = numbers_cached(DEEPSEEK_V3) // DEEPSEEK_V3.num_hidden_layers
    assert solved("mla-10") | {"mha_card": 8192, "mla_card": cached} == solved("mla-10")
    assert r"2\times32\times128=8192" in solution("mla-10")
