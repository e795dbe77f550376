"""Every public function of the modules that compute: a broken argument is an error that names it.

`CALLS` has a valid call of each; each argument is then broken in every way that its annotation
excludes. A new function fails the first test until it has a call here, or a reason in `APART`.
"""

import dataclasses
import functools
import importlib
import inspect
import math
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import torch
from jaxtyping import AbstractArray, TypeCheckError
from torch import Tensor, nn

import dsnotes
from dsnotes.config import DEEPSEEK_V3, TINY
from dsnotes.data import poems as data_poems
from dsnotes.model import moe
from dsnotes.model.balance import BiasBalancer
from dsnotes.model.cache import LatentCache
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.mtp import add_modules, predict
from dsnotes.model.rope import rope_frequencies, rope_rotation
from dsnotes.rl import keypoints, presets, shellgame
from dsnotes.rl.objective import DAPO, Objective
from dsnotes.rl.reward import accuracy_reward
from dsnotes.rl.reward_model import RewardModel
from dsnotes.rl.rollout import sample
from dsnotes.rl.verse import verse_reward
from dsnotes.training import poems, texts, verses
from dsnotes.training.fp8.formats import BLOCK, E4M3, TILE, quantize
from dsnotes.training.fp8.linear import V3_RECIPE, Bf16Linear, Fp8Linear
from dsnotes.training.parallel import ParallelState
from dsnotes.training.state import Report, Snapshot, TrainState

from . import calls_after

Call = tuple[Callable[..., Any], dict[str, Any]]

MODULES = (
    "checks.numeric",
    *(f"model.{m}" for m in ("balance", "cache", "deepseek", "mla", "mlp", "moe", "mtp", "rope")),
    *("model.speculative", "training.fp8.formats", "training.fp8.gemm", "training.fp8.linear"),
    *("training.loop", "training.padding", "training.poems", "training.state", "training.texts"),
    *("training.parallel", "training.verses"),
    *(f"rl.{m}" for m in ("grpo", "keypoints", "objective", "poet", "ppo", "presets", "r1_zero")),
    *("rl.reward_model", "rl.rollout", "rl.shellgame", "weights.checkpoint", "weights.hf"),
    *calls_after.MODULES,
)

APART = {
    "checks.numeric.widened": "takes any tensor",
    "checks.numeric.narrowed": "a step inside of other functions, whose own arguments are checked",
    "checks.numeric.at_least": "is a check itself",
    "checks.numeric.token_ids": "is a check itself, of what `name` says",
    "checks.numeric.channels": "is a check itself, of the arguments it is given by name",
    "checks.numeric.on_device": "is a check itself, of the arguments it is given by name",
    "rl.objective.check_mask": "is a check itself, of the arguments it is given by name",
    "rl.objective.probability_ratio": "a step inside of grpo_loss and ppo_loss",
    "training.fp8.gemm.on_tensor_cores": "a step inside of gemm, whose own arguments are checked",
    "training.fp8.gemm.tensor_core_gemm": "a step inside of gemm, whose own arguments are checked",
    "training.fp8.formats.check_scales": "is a check itself, of what `name` says",
    "weights.hf.from_transformers": "takes a model of transformers; tests/weights/test_hf.py",
    "weights.hf.to_transformers": "loads transformers, which takes long; tests/weights/test_hf.py",
    "training.poems.vocabulary": "takes nothing",
    "training.poems.held_out": "takes nothing",
    "training.verses.vocabulary": "takes nothing",
    "training.verses.Vocabulary.of": "takes poems, as an iterable; tests/training/test_verses.py",
    "training.texts.corpus": "takes one of the names of domains; tests/training/test_texts.py",
    "weights.checkpoint.load": "takes files; tests/weights/test_checkpoint.py",
    "weights.checkpoint.stored": "a step inside of save",
    "weights.checkpoint.copies": "of a Config, which checks its fields",
}


def public(module: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Functions and methods of a module, constructors included, by their names."""
    found = importlib.import_module(f"dsnotes.{module}")
    for name, value in vars(found).items():
        if name.startswith("_") or getattr(value, "__module__", None) != found.__name__:
            continue
        if inspect.isfunction(value):
            yield f"{module}.{name}", value
        elif isinstance(value, type):
            for method in vars(value):
                function = getattr(value, method)
                callable_ = inspect.isfunction(function) or inspect.ismethod(function)
                ours = callable_ and function.__module__ == found.__name__
                if ours and (method == "__init__" or not method.startswith("_")):
                    yield f"{module}.{name}.{method}", function


def annotated(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The parameters that say what they take."""
    parameters = inspect.signature(function).parameters
    return {n: p for n, p in parameters.items() if p.annotation is not p.empty and n != "columns"}


FUNCTIONS = {
    name: function for module in MODULES for name, function in public(module) if annotated(function)
}


# --- valid calls ---


def ints(*shape: int, below: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(below, shape, generator=generator)


def floats(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0)) - 0.5


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@functools.cache
def model() -> DeepSeek:
    torch.manual_seed(0)
    return add_modules(DeepSeek(TINY))


@functools.cache
def plain() -> DeepSeek:
    return DeepSeek(presets.LAPTOP.config)


@functools.cache
def poet() -> DeepSeek:
    return DeepSeek(dataclasses.replace(TINY, vocab_size=len(poems.vocabulary())))


@functools.cache
def small() -> presets.Preset:
    return presets.replace(
        presets.LAPTOP, swaps=2, base_lengths=(1.0,) * 3, base_batch=4, prompts=2, group_size=2
    )


@functools.cache
def pupil() -> DeepSeek:
    return keypoints.base_policy(seed=0, steps=1)


def parallel_state() -> ParallelState:
    return ParallelState.create(model(), steps=1, learning_rate=1e-3)


def state() -> TrainState:
    return TrainState.create(DeepSeek(presets.LAPTOP.config), steps=1, learning_rate=1e-3)


def cache(held: int = 0) -> LatentCache:
    made = model().new_cache(batch_size=2, capacity=16)
    made.open(held)
    made.advance()
    return made


def opened(num_tokens: int) -> LatentCache:
    made = cache()
    made.open(num_tokens)
    return made


def balancer() -> BiasBalancer:
    return BiasBalancer([moe.Gate(TINY)], gamma=0.1)


def rotation(seq: int) -> Tensor:
    return rope_rotation(torch.arange(seq), rope_frequencies(TINY), dtype=torch.float32)


def losses() -> dict[str, Any]:
    mask = torch.ones(2, 3, dtype=torch.bool)
    return {
        "log_probs": -torch.ones(2, 3),
        "old_log_probs": -torch.ones(2, 3),
        "advantages": floats(2, 3),
        "mask": mask,
    }


HIDDEN, C_R = TINY.hidden_size, TINY.kv_lora_rank + TINY.qk_rope_head_dim
QUERY = (TINY.num_attention_heads, TINY.qk_head_dim)
E = TINY.n_routed_experts


def attention() -> dict[str, Any]:
    return {"x": floats(2, 3, HIDDEN), "rotation": rotation(3)}


def passing() -> dict[str, Any]:
    return {"x": floats(2, 3, HIDDEN), "shared": Pass(rotation(3), cache=opened(3))}


def attending() -> dict[str, Any]:
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    return {"query": floats(2, 3, *QUERY), "latents": floats(2, 4, C_R), "mask": mask}


def pairs() -> dict[str, Any]:
    tokens = keypoints.careless_answers(
        keypoints.new_prompts(3, generator=generator()), generator=generator()
    )
    return {"chosen": tokens, "rejected": tokens.flip(0)}


def played(count: int = 2) -> shellgame.Problems:
    return shellgame.problems(count, swaps=2, generator=generator())


def reward_of(tokens: Tensor) -> Tensor:
    return tokens[:, -2].float()


def step(state: TrainState, *data: Any) -> Report:
    state.update(state.model(ints(1, 3)).mean())
    return {"loss": 0.0}


# For a method "self" is the object; what stands here must be valid, and is broken one by one.
CALLS: dict[str, Callable[[], dict[str, Any]]] = {
    "model.balance.expert_load": lambda: {"indices": ints(3, 2), "n_routed_experts": 5},
    "model.balance.max_vio": lambda: {"load": ints(3) + 1},
    "model.balance.update_bias": lambda: {"bias": floats(3), "load": ints(3) + 1, "gamma": 0.1},
    "model.balance.BiasBalancer.__init__": lambda: {"gates": [moe.Gate(TINY)], "gamma": 0.1},
    "model.balance.BiasBalancer.observe": lambda: {"self": balancer(), "indices": [ints(3, 2)]},
    "model.balance.sequence_balance_loss": lambda: {
        "scores": floats(2, 3, 4).abs(),
        "num_experts_per_tok": 2,
        "alpha": 0.1,
    },
    "model.balance.normalised": lambda: {"scores": floats(2, 4).abs()},
    "model.balance.expert_balance_loss": lambda: {
        "scores": floats(2, 3, 5).abs(),
        "indices": ints(2, 3, 2),
        "alpha": 0.1,
    },
    "model.cache.LatentCache.__init__": lambda: {
        "config": TINY,
        "batch_size": 2,
        "capacity": 3,
        "num_layers": 1,
        "dtype": torch.float32,
    },
    "model.cache.LatentCache.open": lambda: {"self": cache(1), "num_tokens": 2},
    "model.cache.LatentCache.append": lambda: {
        "self": opened(3),
        "layer_idx": 0,
        "latents": floats(2, 3, C_R),
    },
    "model.cache.LatentCache.truncate": lambda: {"self": cache(3), "lengths": torch.tensor([1, 2])},
    "model.cache.cache_elements_per_token": lambda: {"config": TINY},
    "model.cache.head_cache_elements_per_token": lambda: {
        "num_key_value_heads": 2,
        "head_dim": 3,
        "num_hidden_layers": 4,
    },
    "weights.checkpoint.save": lambda: {
        "model": plain(),
        "folder": Path("saved"),
        "fp8": False,
        "shard_bytes": 10**9,
    },
    "weights.checkpoint.load_weights": lambda: {
        "model": DeepSeek(presets.LAPTOP.config),
        "tensors": plain().state_dict(),
    },
    "training.fp8.formats.cast": lambda: {"x": floats(2, 3), "fmt": E4M3},
    "training.fp8.formats.codes": lambda: {"x": floats(2, 3), "fmt": E4M3},
    "training.fp8.formats.decode": lambda: {"codes": ints(2, 3), "fmt": E4M3},
    "training.fp8.formats.bit_pattern": lambda: {"x": 1.0, "fmt": E4M3},
    "training.fp8.formats.quantize": lambda: {
        "x": floats(2, 300),
        "group": TILE,
        "fmt": E4M3,
        "power_of_two": False,
    },
    "training.fp8.formats.dequantize": lambda: {"q": quantize(floats(3, 300))},
    "training.fp8.gemm.gemm": lambda: {
        "a": quantize(floats(2, 300)),
        "b": quantize(floats(3, 300), group=BLOCK),
        "out_dtype": torch.float32,
    },
    "training.fp8.gemm.tensor_core_matmul": lambda: {
        "a": floats(2, 32),
        "b": floats(3, 32),
        "promote_every": 32,
        "fraction_bits": 13,
        "instruction_k": 32,
        "rounding": "nearest",
    },
    "training.fp8.gemm.accumulation_errors": lambda: {
        "ks": [32],
        "promote_every": [32],
        "distributions": ["normal"],
        "fraction_bits": 13,
        "share": 0.5,
        "size": 4,
        "seed": 0,
    },
    "training.fp8.gemm.random_operands": lambda: {
        "distribution": "normal",
        "k": 3,
        "size": 2,
        "seed": 0,
    },
    "training.fp8.gemm.errors": lambda: {
        "c": floats(2, 3),
        "reference": floats(2, 3) + 1,
        "share": 0.5,
    },
    "training.fp8.linear.Fp8Linear.__init__": lambda: {
        "self": Fp8Linear(8, 4),
        "in_features": 8,
        "out_features": 4,
        "recipe": V3_RECIPE,
    },
    "training.fp8.linear.Fp8Linear.forward": lambda: {
        "self": Fp8Linear(8, 4),
        "input": floats(2, 8),
    },
    "training.fp8.linear.Bf16Linear.forward": lambda: {
        "self": Bf16Linear(8, 4, bias=False),
        "input": floats(2, 8),
    },
    "training.fp8.linear.Recipe.__init__": lambda: {
        "dgrad_group": TILE,
        "gradient_format": E4M3,
        "cache_format": E4M3,
        "power_of_two": False,
        "output_dtype": torch.float32,
    },
    "training.fp8.linear.convert": lambda: {"model": nn.Sequential(), "recipe": V3_RECIPE},
    "training.fp8.linear.to_bf16": lambda: {"model": nn.Sequential()},
    "training.fp8.linear.bytes_per_parameter": lambda: {"precision": "v3"},
    "training.fp8.linear.bytes_per_cached_element": lambda: {"fmt": E4M3, "power_of_two": False},
    "rl.grpo.group_advantages": lambda: {
        "rewards": floats(2, 3),
        "scale": True,
        "correction": 1,
        "eps": 0.1,
    },
    "rl.grpo.process_advantages": lambda: {
        "rewards": floats(2, 3, 4),
        "step_ends": torch.ones(2, 3, 4, dtype=torch.bool),
        "scale": True,
        "correction": 1,
        "eps": 0.1,
    },
    "rl.grpo.grpo_loss": lambda: (
        losses()
        | {
            "objective": Objective(beta=0.1, average="constant", max_length=4),
            "ref_log_probs": -torch.ones(2, 3),
        }
    ),
    "rl.keypoints.new_prompts": lambda: {"n": 2, "generator": generator()},
    "rl.keypoints.careless_answers": lambda: {
        "prompts": keypoints.new_prompts(2, generator=generator()),
        "generator": generator(),
    },
    "rl.keypoints.written": lambda: {"tokens": pairs()["chosen"]},
    "rl.keypoints.lengths": lambda: {"tokens": pairs()["chosen"]},
    "rl.keypoints.recall": lambda: {"tokens": pairs()["chosen"]},
    "rl.keypoints.quality": lambda: {"tokens": pairs()["chosen"]},
    "rl.keypoints.show": lambda: {"row": pairs()["chosen"][0]},
    "rl.keypoints.base_policy": lambda: {"seed": 0, "steps": 1},
    "rl.keypoints.respond": lambda: {
        "policy": pupil(),
        "prompts": keypoints.new_prompts(2, generator=generator()),
        "generator": generator(),
    },
    "rl.keypoints.judged_pairs": lambda: {"policy": pupil(), "n": 2, "generator": generator()},
    "rl.keypoints.fit_reward_model": lambda: (
        pairs() | {"base": pupil(), "generator": generator(), "steps": 1}
    ),
    "rl.keypoints.agreement": lambda: pairs() | {"model": RewardModel(pupil())},
    "rl.keypoints.chase": lambda: {
        "base": pupil(),
        "reward": reward_of,
        "generator": generator(),
        "steps": 1,
        "questions": 2,
        "samples": 2,
    },
    "training.state.TrainState.__init__": lambda: dict(vars(state())),
    "training.state.Snapshot.__init__": lambda: {"path": "run.pt"},
    "training.state.Snapshot.load": lambda: {"self": Snapshot("run.pt"), "state": state()},
    "training.state.Snapshot.save": lambda: {"self": Snapshot("run.pt"), "state": state()},
    "training.state.TrainState.create": lambda: {
        "model": plain(),
        "steps": 2,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "cooldown": 0.1,
        "seed": 0,
    },
    "training.state.TrainState.update": lambda: {
        "self": (taught := state()),
        "loss": taught.model(ints(1, 3)).mean(),
    },
    "training.state.TrainState.load_state_dict": lambda: {
        "self": state(),
        "state": state().state_dict(),
    },
    "training.loop.train": lambda: {
        "state": state(),
        "step": step,
        "data": [1],
        "checkpoint": "run.pt",
        "save_every": 1,
        "description": "",
        "progress": False,
    },
    "model.mla.MLA.__init__": lambda: {"config": TINY, "layer_idx": 0},
    "model.mla.MLA.forward": lambda: passing() | {"self": model().model.layers[0].self_attn},
    "model.mla.MLA.latent": lambda: attention() | {"self": model().model.layers[0].self_attn},
    "model.mla.MLA.query": lambda: attention() | {"self": model().model.layers[0].self_attn},
    "model.mla.MLA.attend": lambda: attending() | {"self": model().model.layers[0].self_attn},
    "model.mla.MLA.attend_absorbed": lambda: (
        attending() | {"self": model().model.layers[0].self_attn}
    ),
    "model.mla.MLA.absorbed": lambda: {
        "self": model().model.layers[0].self_attn,
        "query": floats(2, 3, *QUERY),
    },
    "model.deepseek.DecoderLayer.__init__": lambda: {
        "config": TINY,
        "layer_idx": 0,
        "dense": True,
    },
    "model.deepseek.DecoderLayer.forward": lambda: passing() | {"self": model().model.layers[0]},
    "model.deepseek.Backbone.__init__": lambda: {"config": TINY},
    "model.deepseek.Backbone.forward": lambda: {
        "self": model().model,
        "tokens": ints(2, 3),
        "cache": cache(),
        "absorb": True,
    },
    "model.deepseek.DeepSeek.__init__": lambda: {"config": presets.LAPTOP.config},
    "model.deepseek.DeepSeek.forward": lambda: {
        "self": model(),
        "tokens": ints(2, 3),
        "cache": cache(),
        "absorb": True,
    },
    "model.deepseek.DeepSeek.hidden": lambda: {
        "self": model(),
        "tokens": ints(2, 3),
        "cache": cache(),
    },
    "model.deepseek.DeepSeek.new_cache": lambda: {"self": model(), "batch_size": 2, "capacity": 3},
    "model.deepseek.DeepSeek.generate": lambda: {
        "self": model(),
        "prompts": ints(2, 3),
        "max_new_tokens": 2,
        "temperature": 1.0,
        "top_p": 0.9,
        "stop_token": 0,
        "generator": generator(),
    },
    "model.deepseek.next_token_probs": lambda: {
        "logits": floats(2, 5),
        "temperature": 1.0,
        "top_p": 0.9,
    },
    "model.moe.Gate.__init__": lambda: {"config": TINY},
    "model.moe.Gate.forward": lambda: {"self": moe.Gate(TINY), "x": floats(3, HIDDEN)},
    "model.moe.MoE.__init__": lambda: {"config": TINY},
    "model.moe.MoE.forward": lambda: {"self": model().model.layers[-1].mlp, "x": floats(3, HIDDEN)},
    "model.moe.record_routing": lambda: {"model": model()},
    "model.moe.segment": lambda: {"config": TINY, "m": 2},
    "model.moe.isolate_shared": lambda: {"config": presets.LAPTOP.config, "n": 1},
    "model.moe.expert_combinations": lambda: {"config": TINY},
    "model.mtp.SharedHead.__init__": lambda: {"config": TINY, "lm_head": model().lm_head},
    "model.mtp.MTPModule.__init__": lambda: {
        "config": TINY,
        "layer_idx": 0,
        "embed_tokens": model().model.embed_tokens,
        "lm_head": model().lm_head,
    },
    "model.mtp.MTPModule.combine": lambda: {
        "self": model().model.layers[-1],
        "hidden": floats(2, 3, HIDDEN),
        "tokens": ints(2, 3),
    },
    "model.mtp.add_modules": lambda: {"model": DeepSeek(TINY)},
    "model.mtp.modules": lambda: {"model": model()},
    "model.mtp.predict": lambda: {
        "model": model(),
        "hidden": floats(2, 5, HIDDEN),
        "tokens": ints(2, 5),
    },
    "model.mtp.mtp_loss": lambda: {
        "logits": predict(model(), floats(2, 5, HIDDEN), ints(2, 5)),
        "tokens": ints(2, 5),
        "weight": 0.1,
        "documents": ints(2, 5),
    },
    "rl.objective.token_log_probs": lambda: {
        "logits": floats(2, 3, 5),
        "tokens": ints(2, 3),
        "temperature": 1.0,
    },
    "rl.objective.completion_mask": lambda: {
        "tokens": ints(2, 3),
        "prompt_lengths": torch.tensor([1, 2]),
        "eos": 0,
    },
    "rl.objective.k1": lambda: {"log_probs": floats(2, 3), "ref_log_probs": floats(2, 3)},
    "rl.objective.k2": lambda: {"log_probs": floats(2, 3), "ref_log_probs": floats(2, 3)},
    "rl.objective.k3": lambda: {"log_probs": floats(2, 3), "ref_log_probs": floats(2, 3)},
    "rl.objective.clipped_surrogate": lambda: {
        "ratio": floats(2, 3).exp(),
        "advantages": floats(2, 3),
        "clip_low": 0.2,
        "clip_high": 0.3,
    },
    "rl.ppo.token_rewards": lambda: {
        "scores": floats(2),
        "log_probs": floats(2, 3),
        "ref_log_probs": floats(2, 3),
        "mask": losses()["mask"],
        "beta": 0.1,
    },
    "rl.ppo.gae": lambda: {
        "rewards": floats(2, 3),
        "values": floats(2, 3),
        "mask": losses()["mask"],
        "gamma": 0.9,
        "lam": 0.9,
    },
    "rl.ppo.value_loss": lambda: {
        "values": floats(2, 3),
        "targets": floats(2, 3),
        "mask": losses()["mask"],
    },
    "rl.ppo.ppo_loss": lambda: (
        losses()
        | {
            "values": floats(2, 3),
            "targets": floats(2, 3),
            "value_weight": 0.5,
            "clip": 0.2,
            "entropy": floats(2, 3).abs(),
            "entropy_weight": 0.1,
        }
    ),
    "rl.reward_model.RewardModel.__init__": lambda: {"model": plain()},
    "rl.reward_model.RewardModel.forward": lambda: {
        "self": RewardModel(plain()),
        "tokens": ints(2, 3),
        "lengths": torch.tensor([2, 3]),
    },
    "rl.reward_model.preference_probability": lambda: {"chosen": floats(3), "rejected": floats(3)},
    "rl.reward_model.bradley_terry_loss": lambda: {"chosen": floats(3), "rejected": floats(3)},
    "rl.r1_zero.supervised_step": lambda: {
        "state": state(),
        "prompts": ints(2, 3),
        "completions": ints(2, 4) + 1,
    },
    "rl.r1_zero.base_step": lambda: {"state": state(), "preset": small(), "script": "digit"},
    "rl.r1_zero.respond": lambda: {
        "model": plain(),
        "preset": small(),
        "given": played(),
        "samples": 2,
        "prefix": shellgame.NO_THOUGHT,
        "temperature": 1.0,
        "sampler": generator(),
    },
    "rl.r1_zero.grpo_step": lambda: {
        "state": state(),
        "preset": small(),
        "reward": accuracy_reward,
        "prefix": shellgame.NO_THOUGHT,
        "objective": DAPO,
        "temperature": 1.0,
    },
    "rl.r1_zero.evaluate": lambda: {
        "model": plain(),
        "preset": small(),
        "problems": 2,
        "samples": 2,
        "prefix": shellgame.NO_THOUGHT,
        "seed": 0,
    },
    "rl.r1_zero.rejection_sample": lambda: {
        "model": plain(),
        "preset": small(),
        "problems": 2,
        "samples": 2,
        "keep": lambda texts, **columns: [1.0] * len(texts),
        "seed": 0,
    },
    "rl.objective.Objective.__init__": lambda: dict(vars(DAPO)),
    "rl.presets.Preset.__init__": lambda: dict(vars(small())),
    "rl.presets.new_model": lambda: {"preset": small(), "seed": 0},
    "rl.rollout.sample": lambda: {
        "model": plain(),
        "prompts": ints(2, 3),
        "group_size": 2,
        "max_new_tokens": 2,
        "stop_token": 0,
        "temperature": 1.0,
        "generator": generator(),
    },
    "rl.rollout.completion_log_probs": lambda: {
        "model": plain(),
        "rollout": sample(plain(), ints(2, 3), group_size=2, max_new_tokens=2, stop_token=0),
        "temperature": 1.0,
    },
    "rl.rollout.policy_step": lambda: {
        "state": TrainState.create(plain(), steps=1, learning_rate=1e-3),
        "rollout": sample(plain(), ints(2, 3), group_size=2, max_new_tokens=2, stop_token=0),
        "rewards": floats(2, 2),
        "max_new_tokens": 2,
        "objective": DAPO,
        "temperature": 1.0,
    },
    "rl.poet.compose": lambda: {
        "model": poet(),
        "prompts": [("五", "尤")],
        "samples": 2,
        "temperature": 1.0,
        "sampler": generator(),
    },
    "rl.poet.verse_step": lambda: {
        "state": TrainState.create(poet(), steps=1, learning_rate=1e-3),
        "prompts": 1,
        "group_size": 2,
        "reward": verse_reward,
        "objective": DAPO,
        "temperature": 1.0,
    },
    "rl.poet.score": lambda: {"texts": ["", ""], "form": ["五"] * 2, "rhyme": ["尤"] * 2},
    "rl.poet.evaluate": lambda: {"model": poet(), "samples": 1, "temperature": 1.0, "seed": 0},
    "model.rope.rope_frequencies": lambda: {"config": TINY},
    "model.rope.pair_frequencies": lambda: {
        "dim": 8,
        "base": 10000.0,
        "scaling": DEEPSEEK_V3.rope_scaling,
    },
    "model.rope.yarn_range": lambda: {
        "scaling": DEEPSEEK_V3.rope_scaling,
        "dim": 64,
        "base": 1e4,
    },
    "model.rope.softmax_scale": lambda: {"config": TINY},
    "model.rope.rope_rotation": lambda: {
        "positions": torch.arange(3),
        "frequencies": rope_frequencies(TINY),
        "dtype": torch.float32,
    },
    "model.rope.apply_rope": lambda: {
        "x": floats(2, 3, TINY.qk_rope_head_dim),
        "rotation": rotation(3),
    },
    "rl.shellgame.encode": lambda: {"text": "3 1-2 ="},
    "rl.shellgame.decode": lambda: {"tokens": [2, 8, 9]},
    "rl.shellgame.problems": lambda: {
        "count": 2,
        "swaps": 2,
        "held_out": False,
        "generator": generator(),
    },
    "rl.shellgame.read": lambda: {"prompts": played().prompts},
    "rl.shellgame.is_held_out": lambda: {"prompts": played().prompts},
    "rl.shellgame.completions": lambda: {
        "given": played(),
        "lengths": [1.0, 1.0, 1.0],
        "error": 0.1,
        "script": "digit",
        "generator": generator(),
    },
    "model.speculative.speculate": lambda: {
        "model": model(),
        "prompts": ints(2, 3),
        "max_new_tokens": 2,
        "temperature": 1.0,
        "top_p": 0.9,
        "generator": generator(),
    },
    "model.speculative.verify": lambda: {
        "drafts": ints(2, 3),
        "q": floats(2, 3, 5).softmax(-1),
        "p": floats(2, 4, 5).softmax(-1),
        "generator": generator(),
    },
    "model.speculative.expected_tokens_per_step": lambda: {"acceptance": 0.5, "depth": 1},
    "model.speculative.teacher_forced_acceptance": lambda: {
        "model": model(),
        "tokens": ints(2, 5),
        "temperature": 1.0,
        "top_p": 0.9,
    },
    "model.mlp.MLP.__init__": lambda: {"hidden_size": 4, "intermediate_size": 3},
    "model.mlp.MLP.forward": lambda: {
        "self": dsnotes.model.mlp.MLP(4, 3),
        "x": floats(2, 4),
    },
    "training.padding.padding_documents": lambda: {"tokens": ints(2, 3), "padding": 0},
    "training.padding.without_padding": lambda: {
        "routings": [moe.Routing(ints(6, 2), floats(6, 2), floats(6, 5))],
        "tokens": ints(2, 3),
        "padding": 0,
    },
    "training.verses.Vocabulary.__init__": lambda: {"symbols": verses.SPECIALS},
    "training.verses.Vocabulary.prompt": lambda: {
        "self": verses.vocabulary(),
        "form": "五絕",
        "rhyme": "尤",
        "title": "登樓",
    },
    "training.verses.Vocabulary.encode": lambda: {
        "self": verses.vocabulary(),
        "verse": data_poems.verses()[0],
    },
    "training.verses.Vocabulary.decode": lambda: {"self": verses.vocabulary(), "tokens": [2, 50]},
    "training.verses.room": lambda: {"form": "五絕"},
    "training.verses.padded": lambda: {"rows": [[1, 2], [3]]},
    "training.verses.batches": lambda: {
        "poems": data_poems.verses()[:8],
        "vocabulary": verses.vocabulary(),
        "steps": 1,
        "batch_size": 4,
        "seed": 0,
    },
    "training.verses.character_loss": lambda: {
        "model": poet(),
        "tokens": ints(2, 3) + torch.tensor([2, 50, 50]),
    },
    "training.poems.prompt": lambda: {"form": "五", "rhyme": "尤"},
    "training.poems.room": lambda: {"form": "五"},
    "training.poems.encode": lambda: {"poem": data_poems.quatrains()[0]},
    "training.poems.decode": lambda: {"tokens": [0, 1]},
    "training.poems.batches": lambda: {"steps": 1, "batch_size": 4, "seed": 0},
    "training.poems.character_loss": lambda: {
        "model": poet(),
        "tokens": poems.held_out().tokens[:2],
    },
    "training.texts.tokens": lambda: {"text": "a"},
    "training.texts.batches": lambda: {
        "steps": 1,
        "batch_size": 4,
        "seq_len": 64,
        "seed": 0,
        "domains": ["code"],
    },
    "training.texts.held_out": lambda: {"seq_len": 128, "domains": ["code"]},
    "training.texts.counting": lambda: {
        "sequences": 2,
        "seq_len": 3,
        "vocab_size": 5,
        "jump": 0.1,
        "seed": 0,
    },
    "training.texts.counting_entropy": lambda: {"vocab_size": 5, "jump": 0.1, "ahead": 1},
    "training.loop.moe_layers": lambda: {"model": model()},
    "training.loop.next_token_loss": lambda: {
        "logits": floats(2, 3, 5),
        "tokens": ints(2, 3),
        "padding": 0,
    },
    "training.loop.language_step": lambda: {
        "state": TrainState.create(model(), steps=1, learning_rate=1e-3),
        "batch": texts.Batch(ints(2, 6), ints(2, below=1)),
        "gamma": 0.1,
        "expert_alpha": 0.1,
        "sequence_alpha": 0.1,
        "mtp_weight": 0.1,
    },
    "training.parallel.ParallelState.update": lambda: {
        "self": (taught := parallel_state()),
        "loss": taught.model(ints(1, 3)).mean(),
    },
    "training.parallel.parallel_step": lambda: {
        "state": parallel_state(),
        "batch": texts.Batch(ints(2, 6), ints(2, below=1)),
        "gamma": 0.1,
        "mtp_weight": 0.1,
    },
    "training.parallel.sum_gradients": lambda: {"model": plain()},
    "training.loop.evaluate": lambda: {
        "model": model(),
        "batch": texts.Batch(ints(2, 6), ints(2, below=1)),
    },
}

CALLS |= calls_after.CALLS
APART |= calls_after.APART

MAY_BE_NEGATIVE = {"seed", "x", "eos", "stop_token", "padding"}  # -1 is no token, stops nothing
# Sizes that the weights of a module, or another argument, fix beside the names they share.
FIXED = {"hidden", "in", "pairs", "c_r", "n_r", "heads", "channels"}


# --- broken arguments ---


def dimensions(annotation: Any) -> list[str]:
    """The names of the dimensions of every array in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, AbstractArray):
        return str(annotation.dim_str).split()
    return [dim for arg in get_args(annotation) for dim in dimensions(arg)]


def shared(name: str, dim: str) -> bool:
    """Whether another argument, or the weights, say what the size of a dimension is."""
    others = [p for n, p in annotated(FUNCTIONS[name]).items() if dim in dimensions(p.annotation)]
    free = (name.rpartition(".")[2], dim) in {("rope_rotation", "pairs"), ("turn", "pairs")}
    return (dim in FIXED and not free) or len(others) > 1


def arrays(annotation: Any) -> list[Any]:
    options = get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)
    return [a for a in options if isinstance(a, type) and issubclass(a, AbstractArray)]


UNIONS = (Union, types.UnionType)
WRONG_TYPES = (torch.bool, torch.int64, torch.float32, torch.complex64)


def broken_tensors(name: str, annotation: Any, x: Tensor) -> Iterator[tuple[str, Any]]:
    """Another kind of numbers, a dimension more or less, and a size of 1 where others have more."""
    allowed = {str(d) for a in arrays(annotation) for d in a.dtypes}
    for dtype in WRONG_TYPES:
        if str(dtype).removeprefix("torch.") not in allowed and "Shaped" not in str(annotation):
            yield f"of {dtype}", (x.real if x.is_complex() else x).to(dtype)
    yield "an array of NumPy", x.detach().numpy()
    if len(arrays(annotation)) > 1:
        yield "three dimensions more", x[None, None, None]
        return
    dims = dimensions(annotation)
    groups = [dim for dim in dims if dim[0] in "*."]
    if not groups or (groups[0][0] == "*" and groups[0][1] != "#" and shared(name, groups[0])):
        yield "a dimension more", x[None]
        if x.ndim:
            yield "a dimension less", x[0]
    if not groups:
        for at, dim in enumerate(dims):
            if x.shape[at] > 1 and shared(name, dim):
                yield f"a {dim} of 1", x.narrow(at, 0, 1)
    elif dims[-1] in FIXED and x.shape[-1] > 1:
        yield f"a {dims[-1]} of 1", x[..., :1]


def broken(name: str, argument: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What the annotation of an argument does not allow, each with words for it."""
    annotation = annotated(FUNCTIONS[name])[argument].annotation
    options = get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)
    if type(None) not in options:
        yield "None", None
    if str not in options and not any(get_origin(o) is Literal for o in options):
        yield "a text", "text"
    if isinstance(value, Tensor):
        yield from broken_tensors(name, annotation, value)
    elif isinstance(value, bool):
        yield "a number", 3
    elif isinstance(value, int | float):
        yield "a truth value", True
        yield "nan", math.nan
        yield "infinity", math.inf
        if float not in options:
            yield "a half", 0.5
            if argument not in MAY_BE_NEGATIVE:
                yield "a negative count", -1
    elif isinstance(value, str):
        yield (
            "another text" if Literal in map(get_origin, options) else "a number",
            ("another" if Literal in map(get_origin, options) else 3),
        )
    elif isinstance(value, list | tuple) and hasattr(value, "_fields"):
        for field in value._fields:
            if isinstance(getattr(value, field), Tensor):
                yield f"{field} a text", value._replace(**{field: "text"})
                yield (
                    f"{field} of 4 dimensions",
                    value._replace(**{field: getattr(value, field)[None, None]}),
                )
    elif isinstance(value, list | tuple):
        yield "a number", 3
        if value and isinstance(value[0], Tensor):
            yield "a list of texts", ["text"] * len(value)
            yield "entries of one dimension", [torch.zeros(1)] * len(value)
    else:
        yield "a number", 3


CASES = [
    (name, argument)
    for name in CALLS
    if name in FUNCTIONS
    for argument in annotated(FUNCTIONS[name])
]


def run(name: str, arguments: dict[str, Any]) -> Any:
    function = FUNCTIONS[name]
    if name.endswith(".__init__") and "self" not in arguments:
        module, of, _ = name.rsplit(".", 2)
        made = getattr(importlib.import_module(f"dsnotes.{module}"), of)
        if not dataclasses.is_dataclass(made):
            return made(**arguments)
        record: Any = object.__new__(made)  # past the annotations that tests switch on
        vars(record).update(arguments)
        return record.__post_init__()
    found = function(**arguments)
    return list(found) if inspect.isgenerator(found) else found


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_every_public_function_has_a_call() -> None:
    assert FUNCTIONS.keys() - CALLS.keys() - APART.keys() == set()
    assert CALLS.keys() - FUNCTIONS.keys() == set()
    for name in sorted(CALLS):
        assert CALLS[name]().keys() - {"self"} <= annotated(FUNCTIONS[name]).keys(), name


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_are_valid(name: str) -> None:
    run(name, CALLS[name]())


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_a_broken_argument_is_named(name: str, argument: str) -> None:
    valid = CALLS[name]()
    if argument not in valid:  # of the types that PyTorch checks: dtype, device
        return
    wrong = []
    for words, value in broken(name, argument, valid[argument]):
        try:
            run(name, CALLS[name]() | {argument: value})
        except TypeCheckError:  # of the annotations that tests switch on, and readers do not
            wrong.append(f"{words}: no error of the function itself")
        except (ValueError, TypeError) as error:
            names = "|".join([argument, *getattr(valid[argument], "_fields", ())])
            if not re.search(rf"(?<![a-z_])({names})(?![a-z_])", str(error)):
                wrong.append(f"{words}: the error does not name it: {error}")
        except Exception as error:
            wrong.append(f"{words}: {type(error).__name__}: {error}")
        else:
            wrong.append(f"{words}: no error")
    assert not wrong, "\n".join(wrong)
