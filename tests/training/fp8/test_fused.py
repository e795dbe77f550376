"""The layer as a GPU computes it, run here with plain casts; when codes of a weight are kept."""

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dsnotes.training.fp8 import fused
from dsnotes.training.fp8.fused import quantized_once
from dsnotes.training.fp8.linear import Fp8Linear, Recipe, _Fp8Linear

from .cases import CHANGES, RECIPES, both_ways
from .measure import gradient_like


@pytest.fixture(autouse=True)
def casts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Let `fused` serve on the CPU; the shapes of all that is quantised."""
    shapes: list[tuple[int, ...]] = []

    def quantize(x: Tensor, *scale: Tensor, **how: Any):
        shapes.append(tuple(x.shape))
        return both_ways(x, *scale, **how)

    monkeypatch.setattr(fused, "kernels_for", lambda x: SimpleNamespace(quantize=quantize))
    monkeypatch.setattr(fused, "multiplies_blocks", lambda device: True)
    return shapes


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_numbers_are_those_of_the_plain_layer(recipe: Recipe) -> None:
    for tokens, n, k in ((200, 140, 300), (1, 128, 128)):
        x = torch.randn(tokens, k, requires_grad=True)
        w = torch.randn(n, k, requires_grad=True)
        dy = gradient_like(tokens, n)
        results = []
        for function in (_Fp8Linear.apply, fused.linear):
            y = function(x, w, recipe)
            results.append((y, *torch.autograd.grad(y, (x, w), dy)))
        for plain, ours in zip(*results, strict=True):
            assert ours.shape == plain.shape
            assert ours.dtype == plain.dtype
            torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)  # order of sums


def test_each_operand_is_quantised_once_in_a_pass(casts: list[tuple[int, ...]]) -> None:
    layer = Fp8Linear(300, 140)
    x = torch.randn(200, 300, requires_grad=True)
    layer(x).sum().backward()
    assert casts == [(140, 300), (200, 300), (200, 140), (256, 384)]  # W, X, dY, the cached X
    casts.clear()
    layer(x).sum().backward()
    assert casts[0] == (140, 300)  # nothing is kept unless it is asked for


def test_nothing_is_computed_for_a_frozen_side() -> None:
    layer = Fp8Linear(40, 30)
    layer.weight.requires_grad_(False)
    x = torch.randn(3, 40, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None
    layer.weight.requires_grad_(True)
    layer(x.detach()).sum().backward()
    assert layer.weight.grad.shape == (30, 40)


def test_other_groups_and_other_devices_take_the_plain_layer() -> None:
    x, w = torch.randn(4, 256), torch.randn(8, 256)
    assert fused.linear(x, w, Recipe(dgrad_group=(1, None))) is None
    assert fused.linear(x, w.to("meta"), Recipe()) is None


# --- when the codes of a weight are kept ---


def test_micro_batches_share_the_codes_of_a_weight(casts: list[tuple[int, ...]]) -> None:
    model = nn.Sequential(Fp8Linear(128, 64), nn.SiLU(), Fp8Linear(64, 128))
    with quantized_once(model):
        for _ in range(4):
            model(torch.randn(10, 128)).square().mean().backward()
    assert casts.count((64, 128)) == casts.count((128, 64)) == 1
    with quantized_once(model):
        model(torch.randn(10, 128))
    assert casts.count((64, 128)) == casts.count((128, 64)) == 2


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_weight_that_changes_is_quantised_again(change: Callable[[Fp8Linear], None]) -> None:
    layer, x = Fp8Linear(300, 140), torch.randn(20, 300)
    with quantized_once(layer):
        before = layer(x)
        change(layer)
        now = layer(x)
    assert now.equal(layer(x))  # with fresh codes
    assert not now.equal(before) or layer.recipe.power_of_two


def test_a_copy_keeps_nothing() -> None:
    layer, x = Fp8Linear(300, 140), torch.randn(20, 300)
    with quantized_once(layer):
        y = layer(x)
        twin = copy.deepcopy(layer)
        CHANGES["AdamW, fused"](twin)
        assert twin.kept is None
        assert not twin(x).equal(y)
        assert layer(x).equal(y)


def test_two_recipes_on_one_weight_have_two_sets_of_codes() -> None:
    one, two = Fp8Linear(300, 140), Fp8Linear(300, 140, recipe=Recipe(power_of_two=True))
    two.weight = one.weight
    x = torch.randn(20, 300)
    expected = one(x), two(x)
    with quantized_once(nn.ModuleList([one, two])):
        for _ in range(2):
            assert one(x).equal(expected[0])
            assert two(x).equal(expected[1])


def test_what_torch_cannot_see_counts_outside_and_when_it_is_opened_again() -> None:
    layer, x = Fp8Linear(300, 140), torch.randn(20, 300)
    y = layer(x)
    with quantized_once(layer):
        layer(x)
        layer.weight.data.mul_(2)
    assert layer(x).equal(2 * y)
    with quantized_once(layer):
        assert layer(x).equal(2 * y)


def test_an_error_inside_closes_it() -> None:
    layer = Fp8Linear(300, 140)
    with pytest.raises(ValueError, match="input must be"), quantized_once(layer):
        layer(torch.randn(20, 301))
    assert layer.kept is None
