"""hf: weights to transformers and back, and what cannot be converted."""

from dataclasses import replace

import pytest
import torch

from dsnotes.config import TINY, RopeScaling
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.weights.hf import from_transformers, to_transformers

SMALL = replace(
    TINY, num_hidden_layers=2, n_routed_experts=8, num_experts_per_tok=2, initializer_range=0.1
)
YARN = RopeScaling(factor=8.0, original_max_position_embeddings=64)


def build(**changes: object) -> DeepSeek:
    model = DeepSeek(replace(SMALL, **changes)).requires_grad_(False)
    for name, tensor in model.state_dict().items():
        if name.endswith("e_score_correction_bias"):
            tensor.copy_(torch.randn_like(tensor) / 5)
    return model


@pytest.mark.parametrize("changes", [{}, {"rope_scaling": YARN}, {"q_lora_rank": None}],
                         ids=["plain", "YaRN", "no query compression"])  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_there_and_back(changes: dict, dtype: torch.dtype) -> None:
    """Logits of both agree; the way back restores configuration and every bit."""
    model = build(**changes).to(dtype)
    peer = to_transformers(model)
    tokens = torch.randint(256, (2, 12))
    assert peer.dtype == dtype
    assert {b.dtype for b in peer.buffers()} == {torch.float32}  # selection bias and angles
    if dtype == torch.float32:
        assert (peer(tokens).logits - model(tokens)).abs().max() < 1e-4
    back = from_transformers(peer)
    assert back.config == model.config
    state = back.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(state[name], tensor), name
        assert state[name].dtype == tensor.dtype, name


def test_a_v2_of_transformers() -> None:
    """The softmax gate with groups and YaRN, from a model in memory."""
    from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

    names = ("vocab_size", "hidden_size", "num_hidden_layers", "intermediate_size",
             "first_k_dense_replace", "moe_intermediate_size", "n_shared_experts",
             "n_routed_experts", "num_experts_per_tok", "n_group", "topk_group",
             "num_attention_heads", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim",
             "qk_rope_head_dim", "v_head_dim", "max_position_embeddings")  # fmt: skip
    sizes = {name: getattr(SMALL, name) for name in names}
    yarn = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16,
            "mscale": 0.707, "mscale_all_dim": 0.707}  # fmt: skip
    peer = DeepseekV2ForCausalLM(
        DeepseekV2Config(
            **sizes,
            topk_method="group_limited_greedy",
            rope_parameters=yarn,
            initializer_range=0.2,
        )
    ).eval()
    ours = from_transformers(peer)
    assert (ours.config.scoring_func, ours.config.norm_topk_prob) == ("softmax", False)
    tokens = torch.randint(256, (2, 12))
    assert (peer(tokens).logits - ours(tokens)).abs().max() < 1e-4


def test_copies_are_independent() -> None:
    model = build()
    peer = to_transformers(model)
    before = model(tokens := torch.randint(256, (1, 5)))
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.zero_()
    assert torch.equal(model(tokens), before)


def test_prediction_modules_stay_behind() -> None:
    model = add_modules(build())
    back = from_transformers(to_transformers(model))
    assert {n for n in model.state_dict() if n not in back.state_dict()} == {
        n for n in model.state_dict() if n.startswith("model.layers.2.")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring_func": "softmax"}, "scoring_func and topk_method must be 'sigmoid' and 'noaux"),
        ({"topk_method": "group_limited_greedy"}, "got 'sigmoid' and 'group_limited_greedy'"),
        ({"n_shared_experts": 0}, "n_shared_experts must be at least 1"),
    ],
)
def test_what_the_peer_does_not_know(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        to_transformers(DeepSeek(replace(SMALL, **changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_interleave": False}, "rope_interleave must be True, got False"),
        ({"attention_bias": True}, "attention_bias must be False, got True"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings must be False, got True"),
        ({"hidden_act": "gelu"}, "hidden_act must be 'silu' or 'swish', got 'gelu'"),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
            "rope_parameters.rope_type must be 'default' or 'yarn', got 'linear'",
        ),
        (
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1e4,
                    "factor": 8.0,
                    "original_max_position_embeddings": 64,
                }
            },
            "rope_parameters.mscale and rope_parameters.mscale_all_dim must be given, equal",
        ),
    ],
)
def test_what_we_do_not_know(changes: dict, message: str) -> None:
    peer = to_transformers(build())
    for name, value in changes.items():
        setattr(peer.config, name, value)
    with pytest.raises(ValueError, match=message):
        from_transformers(peer)
