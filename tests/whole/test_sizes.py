"""sizes: what other libraries read right, and what a page can hold."""

from dataclasses import replace

import pytest
import torch

from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.training.fp8.linear import QUANTIZED_LINEARS
from dsnotes.whole.sizes import SIZES


@pytest.mark.parametrize("name", SIZES)
def test_no_block_of_scales_is_cut(name: str) -> None:
    """transformers divides a matrix evenly among its scales: 160 rows would be two blocks of 80."""
    with torch.device("meta"):
        model = add_modules(DeepSeek(replace(SIZES[name].model, vocab_size=3035)))
    for weight, tensor in model.state_dict().items():
        if weight.split(".")[-2] in QUANTIZED_LINEARS:
            assert all(size <= 128 or size % 128 == 0 for size in tensor.shape), weight


def test_the_model_of_a_page_is_small() -> None:
    with torch.device("meta"):
        model = add_modules(DeepSeek(replace(SIZES["laptop"].model, vocab_size=3035)))
    assert sum(parameter.numel() for parameter in model.parameters()) < 4_000_000
