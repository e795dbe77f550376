"""The linear layer of FP8: its three products, what it replaces, what it keeps in memory."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.fp8 import formats, linear
from dsnotes.training.fp8.formats import (
    BLOCK,
    E4M3,
    E5M2,
    E5M6,
    TILE,
    TOKEN_TILE,
    Format,
    cast,
    dequantize,
    quantize,
)
from dsnotes.training.fp8.linear import Bf16Linear, Fp8Linear, Recipe

from .measure import assert_product, gradient_like, relative_error, row_errors

# --- the linear layer ---


def run(layer: nn.Module, x: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(dy)
    return y.detach(), x.grad, layer.weight.grad


def case(tokens: int = 200, n: int = 140, k: int = 300) -> tuple[nn.Linear, Tensor, Tensor]:
    return nn.Linear(k, n, bias=False), torch.randn(tokens, k), gradient_like(tokens, n)


def twin(plain: nn.Linear, recipe: Recipe) -> Fp8Linear:
    layer = Fp8Linear(plain.in_features, plain.out_features, recipe=recipe)
    layer.load_state_dict(plain.state_dict())
    return layer


def rounded(
    x: Tensor, group: formats.Group, fmt: Format = E4M3, power_of_two: bool = False
) -> Tensor:
    return dequantize(quantize(x, group=group, fmt=fmt, power_of_two=power_of_two)).double()


RECIPES = {
    "v3": Recipe(output_dtype=None),
    "o_proj": Recipe(output_dtype=None, cache_format=E5M6),
    "powers of two": Recipe(output_dtype=None, power_of_two=True),
    "blocks in Dgrad": Recipe(output_dtype=None, dgrad_group=BLOCK),
    "E5M2 gradients": Recipe(output_dtype=None, gradient_format=E5M2),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_all_three_products_equal_explicit_dequantised_ones(recipe: Recipe) -> None:
    plain, x, dy = case()
    y, dx, dw = run(twin(plain, recipe), x, dy)
    w, pow2 = plain.weight.detach(), recipe.power_of_two
    fmt = recipe.gradient_format
    w_q = rounded(w, BLOCK, power_of_two=pow2)
    assert_product(y, rounded(x, TILE, power_of_two=pow2), w_q)
    assert_product(dx, rounded(dy, recipe.dgrad_group, fmt, pow2), w_q.T)
    cached = rounded(x, TILE, recipe.cache_format, pow2 or recipe.cache_format is E5M6)
    x_t = rounded(cached.float(), TOKEN_TILE, power_of_two=pow2)
    assert_product(dw, rounded(dy, TOKEN_TILE, fmt, pow2).T, x_t.T)
    assert dw.dtype == torch.float32


def test_the_layer_is_close_to_float32_row_by_row() -> None:
    plain, x, dy = case()
    y, dx, dw = run(plain, x, dy)
    plain.weight.grad = None
    y8, dx8, dw8 = run(twin(plain, Recipe()), x, dy)
    assert 0.03 < row_errors(y8, y).median() < 0.045
    assert 0.03 < row_errors(dx8, dx).median() < 0.045  # although tokens differ by orders
    # Wgrad sums over tokens: groups of 128 tokens share a scale, so the largest tokens set it;
    # they also set the sum. The input was rounded twice.
    assert relative_error(dw8, dw) < 0.07


def test_outputs_are_rounded_to_bfloat16_and_weight_gradients_are_not() -> None:
    plain, x, dy = case()
    y, dx, dw = run(twin(plain, Recipe()), x, dy)
    for result in (y, dx):
        assert result.dtype == torch.float32
        assert result.bfloat16().float().equal(result)
    assert not dw.bfloat16().float().equal(dw)


def test_input_may_be_bfloat16_and_may_hold_no_tokens() -> None:
    layer = Fp8Linear(300, 40)
    x = torch.randn(2, 5, 300, dtype=torch.bfloat16, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert (y.dtype, x.grad.dtype, layer.weight.grad.dtype) == (
        torch.bfloat16,
        torch.bfloat16,
        torch.float32,
    )
    layer.weight.grad = None
    empty = torch.empty(0, 300, requires_grad=True)
    layer(empty).sum().backward()
    assert empty.grad.shape == (0, 300)
    assert not layer.weight.grad.any()


def test_nothing_is_computed_for_a_frozen_side() -> None:
    layer = Fp8Linear(40, 30)
    layer.weight.requires_grad_(False)
    x = torch.randn(3, 40, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None


def test_convert_replaces_what_v3_quantises_and_nothing_else() -> None:
    model = DeepSeek(TINY)
    linears = {name for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    before = dict(model.named_parameters())
    names = linear.convert(model)
    assert set(names) == linears - {"lm_head"}
    assert len(names) == 3 * 5 + 3 + 2 * 17 * 3  # attention, one dense layer, experts
    assert {n for n, m in model.named_modules() if isinstance(m, Fp8Linear)} == set(names)
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    assert model.model.layers[1].self_attn.o_proj.recipe.cache_format is E5M6
    assert model.model.layers[1].self_attn.q_b_proj.recipe.cache_format is E4M3


def test_the_bf16_baseline_replaces_the_same_layers() -> None:
    model = DeepSeek(TINY)
    names = linear.convert(DeepSeek(TINY))
    assert linear.to_bf16(model) == names
    assert all(isinstance(model.get_submodule(name), Bf16Linear) for name in names)


def test_the_bf16_baseline_equals_a_linear_layer_in_bfloat16() -> None:
    plain, x, dy = case()
    baseline = Bf16Linear(300, 140, bias=False)
    baseline.load_state_dict(plain.state_dict())
    y, dx, dw = run(baseline, x, dy)
    narrow = nn.Linear(300, 140, bias=False, dtype=torch.bfloat16)
    narrow.load_state_dict(plain.state_dict())
    y16, dx16, dw16 = run(narrow, x.bfloat16(), dy.bfloat16())
    for ours, theirs in [(y, y16), (dx, dx16)]:  # sums in another order round differently
        assert ours.equal(ours.bfloat16().float())
        assert (ours.bfloat16() == theirs).float().mean() > 0.99
        assert relative_error(ours, theirs.float()) < 3e-4
    assert not dw.equal(dw.bfloat16().float())  # float32
    assert relative_error(dw, dw16.float()) < 2.0**-8
    assert relative_error(dw, dy.bfloat16().float().T @ x.bfloat16().float()) < 1e-6


def test_a_converted_model_is_close_and_can_be_trained() -> None:
    few = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
    model = DeepSeek(dataclasses.replace(TINY, **few))
    tokens = torch.randint(0, 256, (2, 33))
    logits = model(tokens).detach()
    linear.convert(model)
    assert 0 < relative_error(model(tokens).detach(), logits) < 0.1
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(6):
        out = model(tokens)[:, :-1].flatten(0, 1)
        loss = nn.functional.cross_entropy(out, tokens[:, 1:].flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.5


def test_memory_per_parameter_and_per_cached_element() -> None:
    v3, bf16, fp32 = (linear.bytes_per_parameter(r) for r in ("v3", "bf16", "fp32"))
    assert sum(v3.values()) == pytest.approx(13.0, abs=1e-3)
    assert sum(bf16.values()) == 18
    assert sum(fp32.values()) == 16
    q = quantize(torch.randn(512, 512), group=BLOCK)
    assert (q.data.nbytes + q.scale_inv.nbytes) / q.data.numel() == v3["weight"]
    q = quantize(torch.randn(512, 512))
    per_element = (q.data.nbytes + q.scale_inv.nbytes) / q.data.numel()
    assert linear.bytes_per_cached_element(E4M3) == per_element
    assert linear.bytes_per_cached_element(E5M6, power_of_two=True) == 1.5 + 1 / 128
    assert linear.bytes_per_cached_element(None) == 2


# --- traps: the wrong variant on concrete numbers, and what ours does ---


def test_trap_5_blocks_mix_tokens_of_different_size() -> None:
    dy = gradient_like(1024, 256)
    tile, block = (row_errors(dequantize(quantize(dy, group=g)), dy) for g in (TILE, BLOCK))
    assert tile.max() < 0.04
    assert (block > 0.25).float().mean() > 0.3  # a third of the tokens lose a quarter or more
    assert block.max() == 1  # and some lose everything
    plain, x, _ = case(1024, 256, 128)
    exact = run(plain, x, dy)[1]
    ours, blocks = (run(twin(plain, r), x, dy)[1] for r in (Recipe(), Recipe(dgrad_group=BLOCK)))
    assert row_errors(ours, exact).max() < 0.06
    assert (row_errors(blocks, exact) > 0.25).float().mean() > 0.3


def test_trap_6_gradients_are_e4m3_but_one_cache_is_e5m6() -> None:
    dy = gradient_like(256, 256)
    e4m3, e5m2 = (relative_error(dequantize(quantize(dy, fmt=f)), dy) for f in (E4M3, E5M2))
    assert e5m2 == pytest.approx(2 * e4m3, rel=0.1)
    plain, x, dy = case()
    ours, wrong = (run(twin(plain, r), x, dy)[1] for r in (Recipe(), Recipe(gradient_format=E5M2)))
    exact = dy @ plain.weight.detach()
    assert relative_error(wrong, exact) > 1.3 * relative_error(ours, exact)
    model = DeepSeek(TINY)
    linear.convert(model)
    attention = model.model.layers[0].self_attn
    for layer, dtype in [
        (attention.o_proj, torch.float16),
        (attention.q_a_proj, torch.float8_e4m3fn),
    ]:
        y = layer(torch.randn(1, 4, layer.in_features))
        saved = y.grad_fn.next_functions[0][0].saved_tensors
        assert saved[0].dtype == dtype
        assert saved[2].dtype == torch.float8_e4m3fn


def test_trap_8_moments_weights_and_gradients_are_not_fp8() -> None:
    # beta2 = 0.95, a second moment of 1 and a squared gradient of 2: it should move to 1.05
    new = torch.tensor([0.95 * 1.0 + 0.05 * 2.0])
    assert cast(new).float().item() == 1.0  # in E4M3 it never moves
    assert new.bfloat16().item() == pytest.approx(1.05, rel=0.004)
    memory = linear.bytes_per_parameter("v3")
    assert (memory["moments"], memory["master"], memory["gradient"]) == (2 * 2, 4, 4)
    model = DeepSeek(TINY)
    linear.convert(model)
    model(torch.randint(0, 256, (1, 40))).square().mean().backward()
    for parameter in model.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is None or parameter.grad.dtype == torch.float32
    stays = (nn.Embedding, nn.RMSNorm)
    layer = model.model.layers[1]
    assert isinstance(model.model.embed_tokens, stays)
    assert isinstance(layer.input_layernorm, stays)
    assert type(model.lm_head) is nn.Linear
    assert layer.mlp.gate(torch.randn(3, 64)).scores.dtype == torch.float32


# --- bad input ---


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"dgrad_group must span 128 channels.*\(128, 1\)"):
        Recipe(dgrad_group=TOKEN_TILE)
    with pytest.raises(ValueError, match=r"precision must be one of .* got 'fp4'"):
        linear.bytes_per_parameter("fp4")
    layer = Fp8Linear(8, 3)
    with pytest.raises(ValueError, match=r"input must be \(\.\.\., 8\), got shape \(4, 9\)"):
        layer(torch.randn(4, 9))
    with pytest.raises(TypeError, match=r"weight must be float32, .* got torch.bfloat16"):
        layer.bfloat16()(torch.randn(4, 8))
    model = nn.ModuleDict({"up_proj": nn.Linear(8, 3)})
    with pytest.raises(TypeError, match="up_proj must be a float32 linear layer without bias"):
        linear.convert(model)
