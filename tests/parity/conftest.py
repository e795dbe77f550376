"""Twins: one of our models and transformers' DeepseekV3 with the same weights."""

import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.config import Config
from dsnotes.model.deepseek import DeepSeek

from .wide import WideTorch

Twins = tuple[DeepSeek, Any]


@pytest.fixture
def twins(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Twins]:
    """twins(config, dtype=torch.float32): both models, equal weights, norms and biases not trivial.

    The peer computes norms, gate and angles in float32 whatever its weights are. To compare in
    float64 its modules see a `torch` whose float32 is float64; its formulas stay as they are.
    """
    from transformers import DeepseekV3ForCausalLM, modeling_rope_utils
    from transformers.models.deepseek_v3 import modeling_deepseek_v3

    def build(config: Config, *, dtype: torch.dtype = torch.float32) -> Twins:
        if dtype == torch.float64:
            for module in (modeling_deepseek_v3, modeling_rope_utils):
                monkeypatch.setattr(module, "torch", WideTorch("torch"))
        ours = DeepSeek(config)
        with torch.no_grad():
            for name, tensor in ours.state_dict().items():
                if name.endswith("norm.weight"):
                    tensor.add_(torch.randn_like(tensor) / 5)
                elif name.endswith("e_score_correction_bias"):
                    tensor.copy_(torch.randn_like(tensor) / 5)
        theirs = DeepseekV3ForCausalLM(_peer_config(config)).eval()
        theirs.load_state_dict(_fuse_experts(ours.state_dict()))
        if dtype == torch.float64:
            theirs.set_experts_implementation("eager")  # grouped_mm knows no float64 on a CPU
        return ours.to(dtype), theirs.to(dtype)

    return build


def _peer_config(config: Config) -> Any:
    """The same architecture in transformers' words, which know the V3 gate only."""
    from transformers import DeepseekV3Config

    assert (config.scoring_func, config.topk_method) == ("sigmoid", "noaux_tc")
    fields = asdict(config)
    for name in ("scoring_func", "topk_method", "num_nextn_predict_layers"):
        del fields[name]
    rope = {"rope_type": "default", "rope_theta": fields.pop("rope_theta")}
    if (scaling := fields.pop("rope_scaling")) is not None:
        rope |= scaling | {"rope_type": scaling.pop("type")}
    heads = config.num_attention_heads
    return DeepseekV3Config(
        **fields, num_key_value_heads=heads, rope_parameters=rope, num_nextn_predict_layers=0
    )


def _fuse_experts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Released names, one tensor per expert, to the peer's: gate and up of all experts stacked."""
    fused = {name: tensor for name, tensor in state.items() if ".experts." not in name}
    for prefix in {name.split(".experts.")[0] for name in state if ".experts." in name}:

        def stack(which: str, prefix: str = prefix) -> Tensor:
            pattern = re.compile(re.escape(prefix) + rf"\.experts\.(\d+)\.{which}_proj\.weight")
            found = {int(m[1]): state[n] for n in state if (m := pattern.fullmatch(n))}
            return torch.stack([found[i] for i in range(len(found))])

        fused[f"{prefix}.experts.gate_up_proj"] = torch.cat([stack("gate"), stack("up")], dim=1)
        fused[f"{prefix}.experts.down_proj"] = stack("down")
    return fused


@pytest.fixture
def fuse_experts() -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Our names to the peer's, for weights and for gradients."""
    return _fuse_experts


@pytest.fixture
def parity(request: pytest.FixtureRequest) -> Callable[[str, Tensor, float], None]:
    """parity(what, largest absolute difference, bound): checks it; `--junitxml` lists them all."""

    def check(what: str, difference: Tensor, bound: float) -> None:
        request.node.user_properties.append((what, f"{difference:.1e}"))
        assert difference < bound, f"{what}: {difference:.1e}, allowed {bound:.0e}"

    return check
