"""growth: a stage is the one before it and one part more."""

import itertools
from dataclasses import asdict

import pytest
import torch

from dsnotes.model import counts
from dsnotes.model.attention import GroupedQueryAttention
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import MLA
from dsnotes.training import growth, poems
from dsnotes.training.fp8.linear import Fp8Linear
from dsnotes.training.growth import STAGES, Stage

PAIRS = list(itertools.pairwise(STAGES))
WHERE = {  # what a part replaces or adds; nothing else may change
    "experts": (".mlp.",),
    "bias": (),
    "mla": (".self_attn.",),
    "mtp": ("model.layers.4.",),
    "fp8": (),
}
SETTINGS = {
    "experts": {"first_k_dense_replace"},
    "bias": {"gamma"},
    "mla": {"heads"},
    "mtp": {"num_nextn_predict_layers", "mtp_weight"},
    "fp8": set(),
}


@pytest.fixture(scope="module")
def models() -> dict[str, DeepSeek]:
    return {stage: growth.build(stage, seed=0) for stage in STAGES}


def settings(stage: Stage) -> dict[str, object]:
    heads = growth.key_value_heads(stage)
    return asdict(growth.config_of(stage)) | growth.options(stage) | {"heads": heads}


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_one_part_changes(before: Stage, after: Stage, models: dict[str, DeepSeek]) -> None:
    """The settings, and the weights: shared ones start equal, bit for bit."""
    old, new = settings(before), settings(after)
    assert {name for name in old if old[name] != new[name]} == SETTINGS[after]
    assert growth.parts(after) == (*growth.parts(before), after)
    a, b = (models[stage].state_dict() for stage in (before, after))
    differ = set(a.keys() ^ b.keys())
    differ |= {name for name in a.keys() & b.keys() if a[name].shape != b[name].shape}
    replaced = {n for n in a.keys() | b.keys() if any(part in n for part in WHERE[after])}
    assert differ <= replaced
    assert bool(differ) == bool(replaced)
    if after != "experts":  # other shapes draw other random numbers
        assert all(torch.equal(a[name], b[name]) for name in a.keys() - replaced)


def test_the_parts_are_there(models: dict[str, DeepSeek]) -> None:
    for stage, model in models.items():
        own = growth.parts(stage)
        kinds = {type(layer.self_attn) for layer in model.model.layers}
        assert kinds == {MLA if "mla" in own else GroupedQueryAttention}
        assert len(model.model.layers) == 4 + ("mtp" in own)
        assert any(isinstance(m, Fp8Linear) for m in model.modules()) == ("fp8" in own)
        assert type(model.lm_head) is torch.nn.Linear
        parts = counts.breakdown(
            growth.config_of(stage), num_key_value_heads=growth.key_value_heads(stage)
        )
        inner = model.model
        main = [inner.embed_tokens, *inner.layers[:4], inner.norm, model.lm_head]
        stored = sum(t.numel() for module in main for t in module.state_dict().values())
        assert sum(part.total for part in parts) == stored


def test_experts_multiply_as_much_as_the_dense_network() -> None:
    dense, experts = (growth.config_of(stage) for stage in ("dense", "experts"))
    gate = 3 * experts.n_routed_experts * experts.hidden_size
    assert counts.multiply_adds(experts, past=13) == counts.multiply_adds(dense, past=13) + gate


def test_the_cache_of_latent_attention_is_a_quarter(models: dict[str, DeepSeek]) -> None:
    sizes = [models[s].new_cache(batch_size=1, capacity=1).nbytes for s in ("bias", "mla")]
    assert sizes == [4096, 1024]


@pytest.mark.parametrize("stage", STAGES)
def test_a_step_of_every_stage(stage: Stage) -> None:
    state = growth.start(stage, steps=1, seed=0)
    before = {name: p.detach().clone() for name, p in state.model.named_parameters()}
    [report] = growth.training(state, stage, seed=0, progress=False)
    assert report["loss"] == pytest.approx(8.0, abs=0.1)  # ln 3031
    own = growth.parts(stage)
    layers = {"dense": 0, "experts": 3, "bias": 3, "mla": 3, "mtp": 4, "fp8": 4}[stage]
    assert report["load"].shape == ((layers, 8) if layers else (0, 0))
    assert all(
        not torch.equal(before[n], p) for n, p in state.model.named_parameters() if p.ndim > 1
    )
    biases = [b for n, b in state.model.named_buffers() if "correction_bias" in n]
    assert any(bool(b.any()) for b in biases) == ("bias" in own)


def test_all_stages_of_a_seed_read_the_same_poems() -> None:
    first = [next(poems.batches(steps=1, batch_size=growth.BATCH_SIZE, seed=0)) for _ in range(2)]
    assert torch.equal(first[0].tokens, first[1].tokens)
