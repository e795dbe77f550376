"""The whole model against transformers' DeepseekV3ForCausalLM with the same weights."""

from collections.abc import Callable
from dataclasses import replace

import jaxtyping
import pytest
import torch

from dsnotes.config import TINY, Config, RopeScaling

# Wide enough an init that logits spread over about 1 and greedy choices are no near ties; small, so
# that all configurations together take seconds.
BASE = replace(
    TINY,
    num_hidden_layers=2,
    n_routed_experts=8,
    num_experts_per_tok=2,
    num_nextn_predict_layers=0,
    initializer_range=0.1,
)


def yarn(factor: float, original: int) -> RopeScaling:
    return RopeScaling(factor=factor, original_max_position_embeddings=original)


CONFIGS = {
    "V3 in small": replace(BASE, num_hidden_layers=3, n_routed_experts=16, num_experts_per_tok=4),
    "no query compression": replace(BASE, q_lora_rank=None),
    "no groups": replace(BASE, n_group=1, topk_group=1),
    "two groups of four, one kept": replace(BASE, n_group=2, topk_group=1),
    "YaRN, factor 4": replace(BASE, rope_scaling=yarn(4.0, 64)),
    "YaRN, factor 40, wide rope": replace(
        BASE, qk_rope_head_dim=32, rope_scaling=yarn(40.0, 4096), max_position_embeddings=163840
    ),
    "YaRN, mscale 0.707": replace(
        BASE,
        rope_scaling=RopeScaling(
            factor=8.0, original_max_position_embeddings=32, mscale=0.707, mscale_all_dim=0.707
        ),
    ),
    "dense layers only": replace(BASE, first_k_dense_replace=2),
    "experts in every layer": replace(BASE, first_k_dense_replace=0),
    "two shared experts, one layer": replace(
        BASE, n_shared_experts=2, num_hidden_layers=1, first_k_dense_replace=0
    ),
    "gate not normalised": replace(BASE, norm_topk_prob=False, routed_scaling_factor=1.0),
    "top-1": replace(BASE, num_experts_per_tok=1, n_group=1, topk_group=1),
    "values wider than keys": replace(BASE, v_head_dim=40),
    "one head": replace(BASE, num_attention_heads=1),
    "other eps and theta": replace(BASE, rms_norm_eps=1e-3, rope_theta=500.0),
}
parametrize = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


@parametrize
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)], ids=["f32", "f64"]
)
def test_logits(
    config: Config, dtype: torch.dtype, tolerance: float, twins: Callable, parity: Callable
) -> None:
    """A batch of sequences at once, and the same ones piece by piece over the latent cache."""
    ours, theirs = twins(config, dtype=dtype)
    tokens = torch.randint(config.vocab_size, (3, 40))
    with torch.no_grad():
        expected = theirs(tokens).logits
        whole = ours(tokens)
        cache = ours.new_cache(batch_size=3, capacity=40)
        pieces = tokens.split([25, 1, 6, *[1] * 8], dim=1)
        absorbed = torch.cat([ours(piece, cache=cache) for piece in pieces], dim=1)
    assert expected.std() > 0.5
    parity("logits, sequence", (whole - expected).abs().max(), tolerance)
    parity("logits, cache", (absorbed - expected).abs().max(), tolerance)


@parametrize
def test_greedy_generation(
    config: Config, twins: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 tokens for three prompts of unequal length; the peer pads them on the left."""
    # Shape checks at run time would take half of these thousand steps; the other tests have them.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    ours, theirs = twins(config)
    prompts = [torch.randint(config.vocab_size, (n,)) for n in (9, 4, 13)]
    padded = torch.zeros(3, 13, dtype=torch.long)
    mask = torch.zeros(3, 13, dtype=torch.long)
    for i, prompt in enumerate(prompts):
        padded[i, 13 - len(prompt) :], mask[i, 13 - len(prompt) :] = prompt, 1
    expected = theirs.generate(
        padded,
        attention_mask=mask,
        max_new_tokens=64,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(ours.generate(prompts, max_new_tokens=64), expected[:, 13:])


def test_gradients(twins: Callable, fuse_experts: Callable) -> None:
    """Of the next-token loss with respect to every weight, in float64."""
    ours, theirs = twins(BASE, dtype=torch.float64)
    tokens = torch.randint(BASE.vocab_size, (2, 21))
    for model, logits in ((ours, ours(tokens[:, :-1])), (theirs, theirs(tokens[:, :-1]).logits)):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    expected = {name: p.grad for name, p in theirs.named_parameters()}
    found = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, gradient in fuse_experts(found).items():
        assert (gradient - expected[name]).abs().max() < 1e-9, name
