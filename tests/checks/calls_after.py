"""A valid call of every public function of the part after R1, for `test_arguments`."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dsnotes.after import compressor, deepseek_v4, dspark, fp4, hyper, indexer, routing, sparse
from dsnotes.after.compressed import CompressedAttention, GroupedLinear
from dsnotes.after.compressed_cache import CompressedCache, CompressorState
from dsnotes.after.config import DEEPSEEK_V4_FLASH, TINY_V4, TINY_V32
from dsnotes.after.eplb import Placement, rebalance_experts
from dsnotes.after.muon import groups_of
from dsnotes.after.self_verification import Review
from dsnotes.config import TINY, Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.rope import rope_frequencies, rope_rotation
from dsnotes.training.state import TrainState

MODULES = tuple(
    f"after.{name}"
    for name in (
        *("compressed", "compressed_cache", "compressor", "config", "deepseek_v4", "distillation"),
        *("dspark", "eplb", "fp4", "hyper", "indexer", "ledger", "muon", "newton_schulz", "nsa"),
        *("offpolicy", "routing", "self_verification", "sparse"),
    )
)
APART = {
    "after.config.ConfigV32.__init__": "checks its fields; tests/after/test_config.py",
    "after.config.ConfigV4.__init__": "checks its fields; tests/after/test_config.py",
    "after.compressed_cache.CompressorState.__init__": "made by CompressedCache alone",
    "after.compressed_cache.LayerState.__init__": "made by CompressedCache alone",
    "after.compressed.CompressedAttention.chosen": "a step inside of forward",
    "after.fp4.Fp4Weight.forward": "called by register_parametrization with the weight",
    "after.muon.Muon.add_param_group": "takes what PyTorch's does; tests/after/test_muon.py",
    "after.muon.Muon.step": "takes what PyTorch's does",
    "after.compressed_cache.CompressedCache.layer": "called with an x that is checked",
    "after.compressed_cache.LayerState.extend": "a step inside of CompressedAttention",
    "after.indexer.Selection.mask": "of a tuple that `select` makes",
    "after.compressor.Scorer.__init__": "made by Indexer alone",
}


def floats(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) - 0.5


def words(*shape: int) -> Tensor:
    return torch.randint(5, shape, generator=torch.Generator().manual_seed(0))


def yes(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.bool)


def placement() -> Placement:
    return rebalance_experts(
        floats(2, 4) + 1, num_replicas=6, num_groups=2, num_nodes=1, num_gpus=2
    )


def sparse_model() -> DeepSeek:
    plain = {k: v for k, v in vars(TINY_V32).items() if not k.startswith("index_")}
    return DeepSeek(Config(**plain))


def shared() -> Pass:
    angles = rope_frequencies(TINY_V32)
    return Pass(rope_rotation(torch.arange(3), angles, dtype=torch.float32))


def losses() -> dict[str, Any]:
    return {
        "log_probs": -torch.ones(2, 3),
        "old_log_probs": -torch.ones(2, 3),
        "advantages": floats(2),
        "mask": yes(2, 3),
        "clip": 0.2,
        "beta": 0.1,
        "ref_log_probs": -torch.ones(2, 3),
        "delta": 0.5,
        "sampled_log_probs": -torch.ones(2, 3),
    }


CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    "after.newton_schulz.singular_values": lambda: {"sigma": floats(3) + 0.5},
    "after.newton_schulz.orthogonalize": lambda: {"x": floats(2, 3, 4)},
    "after.newton_schulz.newton_schulz_flops": lambda: {"n": 2, "m": 3, "steps": 1},
    "after.muon.matrices": lambda: {"weight": floats(2, 6, 5)},
    "after.muon.groups_of": lambda: {"model": nn.Linear(4, 3), "adamw": "x"},
    "after.muon.Muon.__init__": lambda: {
        "params": groups_of(nn.Linear(4, 3)),
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 0.1,
        "gamma": 0.1,
        "eps": 1e-8,
    },
    "after.muon.use_muon": lambda: {
        "state": TrainState.create(DeepSeek(TINY), steps=1, learning_rate=1e-3),
        "learning_rate": 0.1,
        "adamw": "lm_head",
    },
    "after.distillation.distillation_loss": lambda: {
        "logits": floats(2, 3, 5),
        "teachers": [floats(2, 3, 5)],
        "mask": yes(2, 3),
        "weights": [1.0],
    },
    "after.distillation.sampled_distillation_loss": lambda: {
        "log_probs": -torch.ones(2, 3),
        "teacher_log_probs": -torch.ones(2, 3),
        "mask": yes(2, 3),
    },
    "after.dspark.MarkovHead.__init__": lambda: {"vocab_size": 5, "rank": 2},
    "after.dspark.MarkovHead.forward": lambda: {
        "self": dspark.MarkovHead(vocab_size=5, rank=2),
        "before": words(2, 3),
    },
    "after.dspark.ConfidenceHead.__init__": lambda: {"hidden_size": 4, "rank": 2},
    "after.dspark.ConfidenceHead.forward": lambda: {
        "self": dspark.ConfidenceHead(hidden_size=4, rank=2),
        "h": floats(2, 3, 4),
        "before": floats(2, 3, 2),
    },
    "after.dspark.draft": lambda: {
        "logits": floats(2, 3, 5),
        "head": dspark.MarkovHead(vocab_size=5, rank=2),
        "last": words(2),
        "generator": torch.Generator(),
    },
    "after.dspark.acceptance": lambda: {
        "p_draft": floats(2, 5).softmax(-1),
        "p_target": floats(2, 5).softmax(-1),
    },
    "after.dspark.dspark_loss": lambda: {
        "draft_logits": floats(2, 3, 5),
        "target_logits": floats(2, 3, 5),
        "tokens": words(2, 3),
        "confidence": floats(2, 3),
        "gamma": 4.0,
        "ce": 0.1,
        "tv": 0.9,
        "bce": 1.0,
    },
    "after.dspark.schedule": lambda: {
        "confidence": [[0.9, 0.8], [0.2]],
        "steps_per_second": lambda tokens: 1 / (4 + tokens),
    },
    "after.eplb.balanced_packing": lambda: {"weight": floats(2, 4) + 1, "num_packs": 2},
    "after.eplb.replicate_experts": lambda: {"weight": floats(2, 4) + 1, "num_phy": 6},
    "after.eplb.rebalance_experts": lambda: {
        "weight": floats(2, 4) + 1,
        "num_replicas": 6,
        "num_groups": 2,
        "num_nodes": 1,
        "num_gpus": 2,
    },
    "after.eplb.gpu_loads": lambda: {
        "weight": floats(2, 4) + 1,
        "placement": placement(),
        "num_gpus": 2,
    },
    "after.fp4.quantize_fp4": lambda: {"x": floats(2, 64)},
    "after.fp4.encode_scale": lambda: {"scale": torch.tensor([0.5, 2.0])},
    "after.fp4.decode_scale": lambda: {"byte": torch.tensor([126, 128], dtype=torch.uint8)},
    "after.fp4.codes": lambda: {"x": floats(2, 4)},
    "after.fp4.decode": lambda: {"codes": torch.tensor([1, 15], dtype=torch.uint8)},
    "after.fp4.pack": lambda: {"codes": torch.tensor([1, 15], dtype=torch.uint8)},
    "after.fp4.unpack": lambda: {"packed": torch.tensor([1, 255], dtype=torch.uint8)},
    "after.fp4.scale_for": lambda: {"amax": floats(3) + 1, "fmt": fp4.E2M1, "rule": "floor"},
    "after.fp4.round_trip": lambda: {
        "x": floats(2, 4),
        "fmt": fp4.E2M1,
        "rule": "even",
        "block": 2,
    },
    "after.fp4.to_fp8": lambda: {"q": fp4.quantize_fp4(floats(128, 128))},
    "after.fp4.straight_through": lambda: {"weight": floats(2, 64)},
    "after.hyper.sinkhorn": lambda: {"logits": floats(3, 4, 4), "iters": 2, "eps": 1e-6},
    "after.hyper.gains": lambda: {"matrices": floats(3, 4, 4)},
    "after.hyper.start_streams": lambda: {"embeddings": floats(2, 4), "hc_mult": 3},
    "after.hyper.collapse": lambda: {"weights": floats(2, 3), "streams": floats(2, 3, 4)},
    "after.hyper.HyperConnection.__init__": lambda: {
        "hidden_size": 4,
        "hc_mult": 3,
        "hc_sinkhorn_iters": 2,
        "hc_eps": 1e-6,
        "rms_norm_eps": 1e-6,
        "initializer_range": 0.02,
    },
    "after.hyper.HyperConnection.forward": lambda: {
        "self": hyper.HyperConnection(4, hc_mult=3),
        "streams": floats(2, 3, 4),
        "sublayer": torch.tanh,
    },
    "after.hyper.HyperConnection.mappings": lambda: {
        "self": hyper.HyperConnection(4, hc_mult=3),
        "streams": floats(2, 3, 4),
    },
    "after.hyper.HyperConnection.unconstrained": lambda: {
        "self": hyper.HyperConnection(4, hc_mult=3),
        "streams": floats(2, 3, 4),
    },
    "after.hyper.HyperHead.__init__": lambda: {
        "hidden_size": 4,
        "hc_mult": 3,
        "hc_eps": 1e-6,
        "rms_norm_eps": 1e-6,
        "initializer_range": 0.02,
    },
    "after.hyper.HyperHead.forward": lambda: {
        "self": hyper.HyperHead(4, hc_mult=3),
        "streams": floats(2, 3, 4),
    },
    "after.indexer.select": lambda: {"scores": floats(2, 3, 5), "mask": yes(2, 3, 5), "topk": 2},
    "after.indexer.indexer_loss": lambda: {
        "scores": floats(2, 3, 5),
        "target": floats(2, 3, 5).softmax(-1),
        "mask": yes(2, 3, 5),
    },
    "after.indexer.Indexer.__init__": lambda: {"config": TINY_V32},
    "after.indexer.Indexer.key": lambda: {
        "self": indexer.Indexer(TINY_V32),
        "x": floats(2, 3, 64),
        "rotation": shared().rotation,
    },
    "after.indexer.Indexer.forward": lambda: {
        "self": indexer.Indexer(TINY_V32),
        "x": floats(2, 3, 64),
        "compressed": floats(2, 3, 48),
        "keys": floats(2, 3, 16),
        "rotation": shared().rotation,
    },
    "after.ledger.kv_bytes_per_token": lambda: {"config": DEEPSEEK_V4_FLASH},
    "after.ledger.window_bytes": lambda: {"config": DEEPSEEK_V4_FLASH},
    "after.ledger.parts": lambda: {"config": TINY_V4},
    "after.ledger.grouped_kv_bytes_per_token": lambda: {"layers": 2, "groups": 2, "head_dim": 4},
    "after.nsa.compress": lambda: {"x": floats(2, 8, 1, 3), "length": 4, "stride": 2},
    "after.nsa.attend": lambda: {
        "query": floats(2, 8, 4, 3),
        "key": floats(2, 8, 2, 3),
        "value": floats(2, 8, 2, 5),
        "mask": yes(2, 2, 8, 8),
    },
    "after.nsa.importance": lambda: {
        "probs": floats(2, 1, 2, 8, 3),
        "length": 4,
        "stride": 2,
        "block": 4,
    },
    "after.nsa.choose_blocks": lambda: {"scores": floats(2, 1, 8, 4), "block": 2, "topn": 3},
    "after.nsa.native_sparse_attention": lambda: {
        "query": floats(2, 8, 4, 3),
        "keys": floats(3, 2, 8, 2, 3),
        "values": floats(3, 2, 8, 2, 5),
        "gates": floats(3, 2, 8, 4),
        "length": 4,
        "stride": 2,
        "block": 4,
        "topn": 3,
        "window": 2,
    },
    "after.offpolicy.unbiased_kl": lambda: {
        "log_probs": -torch.ones(2, 3),
        "old_log_probs": -torch.ones(2, 3),
        "ref_log_probs": -torch.ones(2, 3),
    },
    "after.offpolicy.off_policy_mask": lambda: {
        "log_probs": -torch.ones(2, 3),
        "sampled_log_probs": -torch.ones(2, 3),
        "advantages": floats(2),
        "mask": yes(2, 3),
        "delta": 0.5,
    },
    "after.offpolicy.v32_loss": losses,
    "after.offpolicy.sampling_support": lambda: {
        "logits": floats(2, 5),
        "top_p": 0.9,
        "top_k": 3,
    },
    "after.offpolicy.kept_log_probs": lambda: {
        "logits": floats(2, 3, 5),
        "tokens": words(2, 3),
        "support": yes(2, 3, 5),
        "mask": yes(2, 2),
    },
    "after.offpolicy.keep_routing": lambda: {"model": DeepSeek(TINY), "indices": [words(2, 4)]},
    "after.routing.ClampedMLP.__init__": lambda: {
        "hidden_size": 4,
        "intermediate_size": 3,
        "limit": 10.0,
    },
    "after.routing.ClampedMLP.forward": lambda: {
        "self": routing.ClampedMLP(4, 3, limit=10.0),
        "x": floats(2, 4),
    },
    "after.routing.GateV4.__init__": lambda: {"config": TINY_V4, "hashed": True},
    "after.routing.GateV4.forward": lambda: {
        "self": routing.GateV4(TINY_V4, hashed=True),
        "x": floats(3, 64),
        "tokens": words(3),
    },
    "after.routing.MoEV4.__init__": lambda: {"config": TINY_V4, "layer_idx": 1},
    "after.routing.MoEV4.forward": lambda: {
        "self": routing.MoEV4(TINY_V4, 0),
        "x": floats(2, 3, 64),
        "tokens": words(2, 3),
    },
    "after.self_verification.score_reward": lambda: {"claimed": 0.5, "true": 1.0},
    "after.self_verification.verifier_reward": lambda: {
        "claimed": 0.5,
        "true": 1.0,
        "meta": 0.5,
        "formatted": True,
    },
    "after.self_verification.prover_reward": lambda: {
        "claimed": 0.5,
        "true": 1.0,
        "meta": 0.5,
        "formatted": True,
    },
    "after.self_verification.automatic_label": lambda: {
        "scores": [0.5, 0.5],
        "confirmed": [True, True],
        "at_least": 1,
    },
    "after.self_verification.review_additions": lambda: {"totals": [3], "summands": [3]},
    "after.self_verification.meta_score": lambda: {
        "review": Review(0.5, frozenset({0})),
        "true": Review(0.5, frozenset({0})),
    },
    "after.sparse.SparseMLA.__init__": lambda: {"config": TINY_V32, "layer_idx": 1},
    "after.sparse.SparseMLA.forward": lambda: {
        "self": sparse.SparseMLA(TINY_V32),
        "x": floats(2, 3, 64),
        "shared": shared(),
    },
    "after.sparse.SparseMLA.loss": lambda: {
        "self": sparse.SparseMLA(TINY_V32),
        "x": floats(2, 3, 64),
        "shared": shared(),
        "sparse": True,
    },
    "after.sparse.SparseMLA.attention": lambda: {
        "self": sparse.SparseMLA(TINY_V32),
        "query": floats(2, 3, 4, 24),
        "latents": floats(2, 5, 40),
        "mask": yes(2, 3, 5),
    },
    "after.sparse.record_losses": lambda: {"model": sparse_model(), "sparse": True},
    "after.sparse.use_sparse_attention": lambda: {"model": sparse_model(), "config": TINY_V32},
    "after.compressed_cache.streams": lambda: {"ratio": 4},
    "after.compressed_cache.CompressedCache.__init__": lambda: {
        "config": TINY_V4,
        "batch_size": 2,
        "capacity": 8,
    },
    "after.compressor.layer_frequencies": lambda: {"config": TINY_V4, "ratio": 4},
    "after.compressor.turn": lambda: {
        "x": floats(2, 3, 8),
        "positions": torch.arange(3),
        "frequencies": floats(2),
        "back": False,
    },
    "after.compressor.visible": lambda: {"positions": torch.arange(5), "entries": 2, "ratio": 4},
    "after.compressor.Compressor.__init__": lambda: {
        "config": TINY_V4,
        "ratio": 4,
        "head_dim": 16,
    },
    "after.compressor.Compressor.forward": lambda: {
        "self": compressor.Compressor(TINY_V4, 4),
        "x": floats(2, 9, 64),
        "start": 0,
        "state": CompressorState(2, ratio=4, head_dim=32, capacity=16),
    },
    "after.compressor.Compressor.pool": lambda: {
        "self": compressor.Compressor(TINY_V4, 4),
        "kv": floats(2, 3, 4, 64),
        "gate": floats(2, 3, 4, 64),
    },
    "after.compressor.Scorer.forward": lambda: {
        "self": compressor.Scorer(hidden_size=64, n_heads=3, head_dim=16),
        "x": floats(2, 5, 64),
        "query": floats(2, 5, 3, 16),
        "keys": floats(2, 4, 16),
    },
    "after.compressor.Indexer.__init__": lambda: {"config": TINY_V4},
    "after.compressor.Indexer.choose": lambda: {
        "self": compressor.Indexer(TINY_V4),
        "x": floats(2, 9, 64),
        "latent": floats(2, 9, 48),
        "positions": torch.arange(9),
    },
    "after.compressor.SparseCompressor.__init__": lambda: {"config": TINY_V4},
    "after.compressed.CompressedAttention.__init__": lambda: {"config": TINY_V4, "layer_idx": 1},
    "after.compressed.CompressedAttention.forward": lambda: {
        "self": CompressedAttention(TINY_V4, 1),
        "x": floats(2, 9, 64),
        "cache": CompressedCache(TINY_V4, batch_size=2, capacity=16),
    },
    "after.compressed.CompressedAttention.query": lambda: {
        "self": CompressedAttention(TINY_V4, 1),
        "latent": floats(2, 9, 48),
        "positions": torch.arange(9),
    },
    "after.compressed.CompressedAttention.attend": lambda: {
        "self": CompressedAttention(TINY_V4, 1),
        "query": floats(2, 3, 4, 32),
        "keys": floats(2, 5, 32),
        "mask": yes(2, 3, 5),
    },
    "after.compressed.CompressedAttention.weights": lambda: {
        "self": CompressedAttention(TINY_V4, 1),
        "query": floats(2, 3, 4, 32),
        "keys": floats(2, 5, 32),
        "mask": yes(2, 3, 5),
    },
    "after.compressed.GroupedLinear.__init__": lambda: {"in_features": 8, "rank": 3, "groups": 2},
    "after.compressed.GroupedLinear.forward": lambda: {
        "self": GroupedLinear(8, 3, groups=2),
        "input": floats(2, 8),
    },
    "after.deepseek_v4.DecoderLayerV4.__init__": lambda: {"config": TINY_V4, "layer_idx": 1},
    "after.deepseek_v4.DecoderLayerV4.forward": lambda: {
        "self": deepseek_v4.DecoderLayerV4(TINY_V4, 0),
        "streams": floats(2, 3, 4, 64),
        "tokens": words(2, 3),
        "cache": CompressedCache(TINY_V4, batch_size=2, capacity=8),
    },
    "after.deepseek_v4.BackboneV4.__init__": lambda: {"config": TINY_V4},
    "after.deepseek_v4.BackboneV4.forward": lambda: {
        "self": deepseek_v4.BackboneV4(TINY_V4),
        "tokens": words(2, 3),
        "cache": CompressedCache(TINY_V4, batch_size=2, capacity=8),
    },
    "after.deepseek_v4.DeepSeekV4.__init__": lambda: {"config": TINY_V4},
    "after.deepseek_v4.DeepSeekV4.forward": lambda: {
        "self": deepseek_v4.DeepSeekV4(TINY_V4),
        "tokens": words(2, 3),
        "cache": CompressedCache(TINY_V4, batch_size=2, capacity=8),
    },
    "after.deepseek_v4.DeepSeekV4.new_cache": lambda: {
        "self": deepseek_v4.DeepSeekV4(TINY_V4),
        "batch_size": 2,
        "capacity": 8,
    },
    "after.deepseek_v4.DeepSeekV4.generate": lambda: {
        "self": deepseek_v4.DeepSeekV4(replace(TINY_V4, num_hidden_layers=1, compress_ratios=(0,))),
        "prompts": words(2, 3),
        "max_new_tokens": 2,
        "temperature": 1.0,
        "generator": torch.Generator(),
    },
}
