"""deepseek_v4: the model as a whole, where no other implementation is asked."""

from dataclasses import replace

import pytest
import torch

from dsnotes.after.config import DEEPSEEK_V4_FLASH, DEEPSEEK_V4_PRO, TINY_V4, ConfigV4
from dsnotes.after.deepseek_v4 import DeepSeekV4
from dsnotes.after.ledger import parts
from dsnotes.after.offpolicy import keep_routing
from dsnotes.model.moe import record_routing


@pytest.mark.parametrize("config", [TINY_V4, replace(DEEPSEEK_V4_FLASH, num_hidden_layers=5,
    compress_ratios=(0, 0, 4, 128, 4)), replace(DEEPSEEK_V4_PRO, num_hidden_layers=3,
    compress_ratios=(128, 128, 4))], ids=["tiny", "Flash", "Pro"])  # fmt: skip
def test_the_ledger_counts_what_is_built(config: ConfigV4) -> None:
    with torch.device("meta"):
        model = DeepSeekV4(config)
    biases = [b for name, b in model.named_buffers() if name.endswith("correction_bias")]
    built = sum(t.numel() for t in [*model.parameters(), *biases])
    assert built == sum(part.total for part in parts(config))


def test_a_later_token_changes_nothing_before_it() -> None:
    model = DeepSeekV4(replace(TINY_V4, initializer_range=0.2)).double()
    tokens = torch.randint(256, (1, 40))
    other = tokens.clone()
    other[0, 30] = (other[0, 30] + 1) % 256
    with torch.no_grad():
        apart = (model(tokens) - model(other)).abs().amax(-1)[0]
    assert apart[:30].max() < 1e-12  # experts sum their tokens in another order
    assert apart[30:].min() > 1e-6


def test_every_weight_learns_but_the_indexer() -> None:
    """The choice has no gradient: the indexers need a loss of their own."""
    model = DeepSeekV4(TINY_V4)
    tokens = torch.randint(256, (2, 40))
    model(tokens).logsumexp(-1).sum().backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert still
    assert all(".indexer." in name for name in still)


def test_routing_is_recorded_and_replayed() -> None:
    """As of V3's model: one entry a layer, and with them the same logits under another router."""
    model, tokens = DeepSeekV4(TINY_V4), torch.randint(256, (2, 20))
    with torch.no_grad(), record_routing(model) as sampled:
        logits = model(tokens)
    assert [routing.indices.shape for routing in sampled] == [(40, 4)] * 4
    chosen = [routing.indices for routing in sampled]
    for layer in model.model.layers[1:]:
        layer.mlp.gate.e_score_correction_bias.copy_(torch.randn(16))
    with torch.no_grad():
        assert (model(tokens) - logits).abs().max() > 1e-4
        with keep_routing(model, chosen):
            assert torch.equal(model(tokens), logits)


def test_texts_are_the_same_with_and_without_a_cache() -> None:
    model = DeepSeekV4(replace(TINY_V4, initializer_range=0.2))
    prompts = torch.randint(256, (3, 7))
    found, text = model.generate(prompts, max_new_tokens=25), prompts
    with torch.no_grad():
        for _ in range(25):
            text = torch.cat([text, model(text)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(found, text[:, 7:])


def test_what_does_not_fit_is_named() -> None:
    model = DeepSeekV4(replace(TINY_V4, max_position_embeddings=16))
    with pytest.raises(ValueError, match=r"position 16 is beyond max_position_embeddings \(16\)"):
        model(torch.zeros(1, 17, dtype=torch.long))
    with pytest.raises(ValueError, match="tokens must not be empty"):
        model(torch.zeros(1, 0, dtype=torch.long))
    with pytest.raises(ValueError, match="0 to 255"):
        model(torch.tensor([[256]]))
    with pytest.raises(ValueError, match="max_new_tokens"):
        model.generate(torch.zeros(1, 2, dtype=torch.long), max_new_tokens=0)
