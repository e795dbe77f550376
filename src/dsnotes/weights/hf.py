"""Weights to transformers' V3 class, and from its V3 and V2; files: see `weights.checkpoint`.

Both sides bear the released names. transformers keeps the experts of a layer in two stacked
tensors, `experts.gate_up_proj` (E, 2I, D) with the gate first and `experts.down_proj` (E, D, I).

Departures
    - Those classes have no place for the multi-token prediction modules: they stay behind.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.config import Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.weights.checkpoint import load_weights

if TYPE_CHECKING:  # loading transformers takes seconds: only who converts waits for it
    from transformers import DeepseekV2ForCausalLM, DeepseekV3ForCausalLM


def from_transformers(peer: "DeepseekV3ForCausalLM | DeepseekV2ForCausalLM") -> DeepSeek:
    """A model of ours with the weights, type and device of transformers' one.

    ValueError as `Config.from_json` when the peer has a setting that our model does not compute:
    rope_interleave off, biases in attention, tied embeddings, another kind of RoPE scaling.

        >>> from_transformers(to_transformers(model)).config == model.config
        True
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in peer.state_dict().items():
        if name.endswith(".experts.gate_up_proj"):
            prefix = name.removesuffix(".gate_up_proj")
            for e, both in enumerate(tensor.unbind()):  # gate first
                gate, up = both.chunk(2)
                tensors[f"{prefix}.{e}.gate_proj.weight"] = gate
                tensors[f"{prefix}.{e}.up_proj.weight"] = up
        elif name.endswith(".experts.down_proj"):
            prefix = name.removesuffix(".down_proj")
            for e, down in enumerate(tensor.unbind()):
                tensors[f"{prefix}.{e}.down_proj.weight"] = down
        else:
            tensors[name] = tensor
    model = DeepSeek(Config.from_json(peer.config.to_dict())).to(peer.device, peer.dtype)
    load_weights(model, tensors)
    return model


@checked
def to_transformers(model: DeepSeek) -> "DeepseekV3ForCausalLM":
    """transformers' model with the weights, type and device of ours, without prediction modules.

    ValueError for what its V3 class does not know: the gates of V1 and V2, no shared expert.

        >>> to_transformers(model)(tokens).logits.shape
        torch.Size([2, 16, 256])
    """
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    config = model.config
    if (config.scoring_func, config.topk_method) != ("sigmoid", "noaux_tc"):
        raise ValueError(
            "scoring_func and topk_method must be 'sigmoid' and 'noaux_tc' for transformers' V3, "
            f"got {config.scoring_func!r} and {config.topk_method!r}"
        )
    if config.n_shared_experts < 1:
        raise ValueError("n_shared_experts must be at least 1 for transformers' V3, got 0")
    peer: Any = DeepseekV3ForCausalLM(DeepseekV3Config(**config.to_json()))
    peer.to(model.device)
    for parameter in peer.parameters():  # not the buffers: selection bias and angles stay float32
        parameter.data = parameter.data.to(model.dtype)
    ours = model.state_dict()

    def stacked(prefix: str, which: str) -> Tensor:
        names = (f"{prefix}.{e}.{which}.weight" for e in range(config.n_routed_experts))
        return torch.stack([ours[name] for name in names])

    tensors = {}
    for name in peer.state_dict():
        prefix, _, last = name.rpartition(".")
        if last == "gate_up_proj":
            gate, up = (stacked(prefix, which) for which in ("gate_proj", "up_proj"))
            tensors[name] = torch.cat([gate, up], dim=1)
        else:
            tensors[name] = stacked(prefix, last) if last == "down_proj" else ours[name]
    peer.load_state_dict(tensors)
    done: DeepseekV3ForCausalLM = peer.eval()
    return done
