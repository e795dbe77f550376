"""Window, CSA and HCA layers against transformers' `deepseek_v4`, in the model it runs them in.

Hooks on the attention layers of the peer note what goes in and comes out, so that its own masks and
its own cache are part of the comparison. Thirty-two indexer heads: with few, ReLU leaves scores of
exactly 0, and which of equal entries is chosen is nobody's error.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dsnotes.after.compressed import CompressedAttention
from dsnotes.after.compressed_cache import CompressedCache
from dsnotes.after.config import TINY_V4, ConfigV4
from dsnotes.config import RopeScaling

from ..wide import WideTorch

YARN = RopeScaling(factor=16.0, original_max_position_embeddings=64)
CONFIGS = {"plain": TINY_V4, "yarn": replace(TINY_V4, rope_scaling=YARN)}
KINDS = ("window", "CSA", "HCA", "CSA again")  # of the layers of TINY_V4
BOUND = {torch.float32: 3e-6, torch.float64: 1e-13}
Noted = dict[int, list[tuple[Tensor, Tensor]]]


def peer_config(config: ConfigV4) -> Any:
    from transformers import DeepseekV4Config

    fields = asdict(config)
    kinds = {0: "sliding_attention", 4: "compressed_sparse_attention"}
    ratios = fields.pop("compress_ratios")
    types = [kinds.get(r, "heavily_compressed_attention") for r in ratios]
    rates = {kind: r for kind, r in zip(types, ratios, strict=True) if r}
    scaling = fields.pop("rope_scaling")
    if scaling is not None:
        fields["rope_parameters"] = {
            "rope_type": "yarn",
            "factor": scaling["factor"],
            "original_max_position_embeddings": scaling["original_max_position_embeddings"],
            "beta_fast": scaling["beta_fast"],
            "beta_slow": scaling["beta_slow"],
        }
    return DeepseekV4Config(**fields, layer_types=types, compress_rates=rates)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """In float64 the modules of the peer see a `torch` whose float32 is float64."""
    from transformers import modeling_rope_utils
    from transformers.models.deepseek_v4 import modeling_deepseek_v4

    chosen: torch.dtype = request.param
    if chosen == torch.float64:
        for module in (modeling_deepseek_v4, modeling_rope_utils):
            monkeypatch.setattr(module, "torch", WideTorch("torch"))
        monkeypatch.setattr(Tensor, "float", Tensor.double)
    return chosen


@pytest.fixture(params=list(CONFIGS))
def twins(
    request: pytest.FixtureRequest, dtype: torch.dtype
) -> tuple[list[CompressedAttention], Any, ConfigV4]:
    """Our four attention layers and the whole model of the peer, equal and uneven weights."""
    from transformers import DeepseekV4ForCausalLM

    config = CONFIGS[request.param]
    theirs = DeepseekV4ForCausalLM(peer_config(config)).eval().requires_grad_(False)
    for name, tensor in theirs.named_parameters():
        if "self_attn" in name:
            centre = float(name.endswith("norm.weight"))
            nn.init.normal_(tensor, mean=centre, std=0.3 if tensor.ndim == 1 else 0.15)
    theirs.set_experts_implementation("eager")
    theirs.to(dtype)
    ours = []
    for index, layer in enumerate(theirs.model.layers):
        mine = CompressedAttention(config, index).to(dtype).requires_grad_(False)
        mine.load_state_dict(layer.self_attn.state_dict())
        ours.append(mine)
    return ours, theirs, config


@contextmanager
def noted(model: Any) -> Iterator[Noted]:
    """What goes into and out of each attention layer of the peer, call by call."""
    calls: Noted = {index: [] for index in range(len(model.model.layers))}
    hooks = []
    for index, layer in enumerate(model.model.layers):

        def note(_m: Any, args: Any, kwargs: Any, output: Any, index: int = index) -> None:
            x = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
            calls[index].append((x, output[0]))

        hooks.append(layer.self_attn.register_forward_hook(note, with_kwargs=True))
    yield calls
    for hook in hooks:
        hook.remove()


def test_prefill_equals_transformers(twins: Any, dtype: torch.dtype, parity: Callable) -> None:
    ours, theirs, _ = twins
    with noted(theirs) as calls:
        theirs(torch.randint(256, (2, 75)), use_cache=False)
    for index, kind in enumerate(KINDS):
        ((x, expected),) = calls[index]
        assert expected.abs().max() > 0.1
        parity(kind, (ours[index](x) - expected).abs().max(), BOUND[dtype])


def test_decoding_equals_transformers(twins: Any, dtype: torch.dtype, parity: Callable) -> None:
    """A prompt that ends inside a window, a second piece, then token by token."""
    from transformers import DynamicCache

    ours, theirs, config = twins
    tokens = torch.randint(256, (2, 75))
    held = DynamicCache(config=theirs.config)
    with noted(theirs) as calls:
        for piece in tokens.split([23, *[1] * 52], dim=1):
            theirs(piece, past_key_values=held, use_cache=True)
    for index, kind in enumerate(KINDS):
        cache = CompressedCache(config, batch_size=2, capacity=80, dtype=dtype)
        differences = [(ours[index](x, cache) - y).abs().max() for x, y in calls[index]]
        parity(kind, torch.stack(differences).max(), BOUND[dtype])


def test_gradients_equal_transformers(twins: Any, dtype: torch.dtype, parity: Callable) -> None:
    """Of all parameters but the indexer's, which the choice gives none."""
    ours, theirs, _ = twins
    tokens = torch.randint(256, (2, 40))
    theirs.requires_grad_(True)
    with noted(theirs) as calls:
        theirs(tokens, use_cache=False)
        for index, kind in enumerate(KINDS):
            ((x, expected),) = calls[index]
            upstream = torch.randn_like(expected)
            theirs.zero_grad()
            expected.backward(upstream, retain_graph=True)
            mine = ours[index].requires_grad_(True)
            mine(x.detach()).backward(upstream)
            peers = dict(theirs.model.layers[index].self_attn.named_parameters())
            for name, parameter in mine.named_parameters():
                if "indexer" in name:
                    assert parameter.grad is None
                    continue
                got, wanted = parameter.grad, peers[name].grad
                assert got is not None
                scale = wanted.abs().max()
                bound = 20 * BOUND[dtype]
                parity(f"{kind}: {name}", (got - wanted).abs().max() / scale, bound)
