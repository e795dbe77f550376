"""The MoE block against transformers' DeepseekV3MoE and DeepseekV2Moe: same weights, same input.

Outputs and the gradients of every weight and of the input, float32 to 1e-5 and float64 to 1e-10.
"""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.config import TINY, Config
from dsnotes.model.moe import MoE

from .wide import WideTorch

BASE = replace(TINY, n_group=1, topk_group=1, routed_scaling_factor=1.0)
GROUPS = replace(BASE, n_routed_experts=32, n_group=8, topk_group=3, num_experts_per_tok=6)
V2 = replace(GROUPS, scoring_func="softmax", norm_topk_prob=False, n_shared_experts=2)
CASES = {  # configuration, standard deviation and mean of the biases
    "v3, no groups": (BASE, 0.0, 0.0),
    "v3, biases of both signs": (BASE, 0.3, 0.0),
    "v3, groups": (GROUPS, 0.1, 0.0),
    "v3, groups, all biases negative": (GROUPS, 0.1, -2.0),
    "v3, gates not normalised": (replace(GROUPS, norm_topk_prob=False), 0.1, 0.0),
    "v3, gates times 2.5, three shared": (
        replace(GROUPS, routed_scaling_factor=2.5, n_shared_experts=3),
        0.1,
        0.0,
    ),
    # not normalised: normalised, the one gate value is constant and the gate gets no gradient
    "v3, one expert a token": (
        replace(BASE, num_experts_per_tok=1, norm_topk_prob=False),
        0.1,
        0.0,
    ),
    "v2, best expert of each group": (replace(V2, topk_method="group_limited_greedy"), 0.0, 0.0),
    "v2, gates times 16": (
        replace(V2, topk_method="group_limited_greedy", routed_scaling_factor=16.0),
        0.0,
        0.0,
    ),
    "v2-lite, greedy": (replace(V2, topk_method="greedy", n_group=1, topk_group=1), 0.0, 0.0),
}
BOUNDS = {torch.float32: 1e-5, torch.float64: 1e-10}


def peer_module(config: Config) -> ModuleType:
    if config.scoring_func == "sigmoid":
        from transformers.models.deepseek_v3 import modeling_deepseek_v3 as module
    else:
        from transformers.models.deepseek_v2 import modeling_deepseek_v2 as module
    return module


def peer_block(config: Config, *, experts_implementation: str) -> Any:
    from transformers import DeepseekV2Config, DeepseekV3Config

    fields = {
        name: getattr(config, name)
        for name in (
            "hidden_size",
            "moe_intermediate_size",
            "n_routed_experts",
            "n_shared_experts",
            "num_experts_per_tok",
            "n_group",
            "topk_group",
            "norm_topk_prob",
            "routed_scaling_factor",
        )
    }
    module = peer_module(config)
    if config.scoring_func == "sigmoid":
        theirs = module.DeepseekV3MoE(DeepseekV3Config(**fields))
    else:
        theirs = module.DeepseekV2Moe(DeepseekV2Config(**fields, topk_method=config.topk_method))
    theirs.experts.config._experts_implementation = experts_implementation
    return theirs


def stacked(experts: Any, read: Callable[[Any], Tensor]) -> dict[str, Tensor]:
    """The experts in the peer's layout; `read` takes the value or the gradient of a parameter."""
    gate_up = [
        torch.cat([read(e.gate_proj.weight), read(e.up_proj.weight)], dim=0) for e in experts
    ]
    down = [read(e.down_proj.weight) for e in experts]
    return {
        "experts.gate_up_proj": torch.stack(gate_up),
        "experts.down_proj": torch.stack(down),
    }


def in_peer_layout(moe: MoE, read: Callable[[Any], Tensor]) -> dict[str, Tensor]:
    rest = {n: read(p) for n, p in moe.named_parameters() if not n.startswith("experts.")}
    return rest | stacked(moe.experts, read)


@pytest.mark.parametrize("dtype", BOUNDS, ids=["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_block_agrees(
    case: str,
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    parity: Callable[[str, Tensor, float], None],
) -> None:
    config, spread, mean = CASES[case]
    ours = MoE(config)
    with torch.no_grad():
        ours.gate.weight.normal_(std=0.2)  # affinities that differ clearly
        if ours.gate.e_score_correction_bias is not None:
            ours.gate.e_score_correction_bias.normal_(mean=mean, std=spread)
    ours.to(dtype)

    # float32 runs the peer's default; grouped_mm knows no float64 on a CPU
    default = "grouped_mm" if dtype == torch.float32 else "eager"
    theirs = peer_block(config, experts_implementation=default).to(dtype)
    if dtype == torch.float64:
        monkeypatch.setattr(peer_module(config), "torch", WideTorch("torch"))
    weights = in_peer_layout(ours, lambda p: p.detach())
    weights |= {f"gate.{name}": tensor for name, tensor in ours.gate.named_buffers()}
    theirs.load_state_dict(weights)

    x, upstream = torch.randn(2, 2, 32, config.hidden_size, dtype=dtype).unbind()
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = ours(mine), theirs(other)
    y.backward(upstream)
    expected.backward(upstream)

    assert y.abs().mean() > 0.01  # large enough for the bound to mean something
    bound = BOUNDS[dtype]
    parity(f"{case}: output", (y - expected).abs().max(), bound)
    gradients = in_peer_layout(ours, lambda p: p.grad) | {"input": mine.grad}
    for name, gradient in gradients.items():
        peer = other.grad if name == "input" else theirs.get_parameter(name).grad
        assert peer.abs().max() > 1e-3, name
        parity(f"{case}: gradient of {name}", (gradient - peer).abs().max(), bound)


def test_default_implementation_of_the_peer_is_the_one_compared_with() -> None:
    """A freshly built model chooses grouped_mm by itself, on a CPU too."""
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    small = DeepseekV3Config(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        moe_intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        n_routed_experts=8,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
    )
    assert DeepseekV3ForCausalLM(small).config._experts_implementation == "grouped_mm"
