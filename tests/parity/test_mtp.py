"""Prediction modules and speculative decoding against transformers, from one checkpoint folder."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dsnotes.config import TINY, RopeScaling
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules, modules, predict
from dsnotes.model.speculative import speculate
from dsnotes.weights import checkpoint

SMALL = replace(
    TINY, num_hidden_layers=2, n_routed_experts=8, num_experts_per_tok=2, initializer_range=0.1
)
CONFIGS = {
    "one module": SMALL,
    "two modules": replace(SMALL, num_nextn_predict_layers=2),
    "dense layers, experts in the module": replace(SMALL, first_k_dense_replace=2),
    "YaRN": replace(
        SMALL, rope_scaling=RopeScaling(factor=8.0, original_max_position_embeddings=64)
    ),
}


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[DeepSeek, Any]:
    """Our model, and the peer's read from the folder where ours was saved in three shards."""
    from transformers import DeepseekV3ForCausalLM

    ours = add_modules(DeepSeek(request.param)).requires_grad_(False)
    for name, tensor in ours.state_dict().items():
        if name.endswith(("norm.weight", "e_score_correction_bias")):
            tensor.add_(torch.randn_like(tensor) / 5)
    checkpoint.save(ours, tmp_path, shard_bytes=500_000)

    class Peer(DeepseekV3ForCausalLM):
        # the pattern it finds the modules by is fixed to the 61 layers of V3
        _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
            rf"model\.layers\.{request.param.num_hidden_layers + k}\..*"
            for k in range(request.param.num_nextn_predict_layers)
        ]

    return ours, Peer.from_pretrained(tmp_path).eval()


def test_logits_of_every_depth(pair: tuple[DeepSeek, Any], parity: Callable) -> None:
    """Teacher-forced over a sequence. The peer wants inputs of one length at every depth: its last
    k rows, fed tokens that are not known, are left out."""
    from transformers.cache_utils import MtpCache
    from transformers.modeling_layers import MtpModel

    ours, theirs = pair
    drafter = MtpModel.from_pretrained(theirs).eval()
    tokens = torch.randint(256, (1, 30))
    found = predict(ours, ours.model(tokens), tokens)
    with torch.no_grad():
        output = theirs(tokens, output_hidden_states=True)
        parity("main logits", (output.logits - ours(tokens)).abs().max(), 1e-4)
        h, cache = output.hidden_states[-1], MtpCache(config=theirs.config.get_mtp_config())
        for k in range(1, len(modules(ours)) + 1):
            fed, positions = tokens.roll(-k, dims=1), torch.arange(30)[None] + k
            h = drafter.forward_layer(k - 1, h, positions, cache, input_ids=fed)
            expected = drafter._project_to_logits(h)[:, : 30 - k]
            assert expected.std() > 0.5
            parity(f"logits, depth {k}", (found[k - 1] - expected).abs().max(), 1e-4)


def test_greedy_speculation(pair: tuple[DeepSeek, Any]) -> None:
    """generate(use_mtp=True) of the peer, its plain greedy text and ours: the same 48 tokens."""
    ours, theirs = pair
    prompt = torch.randint(256, (1, 9))
    options = {"max_new_tokens": 48, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    mask = torch.ones_like(prompt)
    plain = theirs.generate(prompt, attention_mask=mask, **options)[:, 9:]
    drafted = theirs.generate(prompt, attention_mask=mask, use_mtp=True, **options)[:, 9:]
    assert torch.equal(drafted, plain)
    assert torch.equal(speculate(ours, prompt, max_new_tokens=48).tokens, plain)


def test_names_are_found_by_pattern(pair: tuple[DeepSeek, Any]) -> None:
    """The peer looks for the modules by these names; none of ours may escape it."""
    ours, theirs = pair
    pattern = re.compile("|".join(theirs._keys_to_ignore_on_load_unexpected))
    assert {n for n in ours.state_dict() if pattern.match(n)} == {
        n for n in ours.state_dict() if n not in DeepSeek(ours.config).state_dict()
    }
