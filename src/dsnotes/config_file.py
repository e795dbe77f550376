"""config.json as other programs write it: read into the fields of `Config`, and written back.

A field is read correctly, or it is refused by name. There are four kinds of fields: a field of
`Config`; a field that must have a certain value, because the model here computes nothing else; a
field that does not change what the model computes; and any other field, which is refused. A model
of another family is refused by its `model_type`, even when all its fields are known.

Sources
    DeepSeek's released files, and those that transformers 5 saves for `deepseek_v2` and
    `deepseek_v3`. The two differ in what they leave out: transformers keeps no `scoring_func` and,
    for V3, no `topk_method`, and writes theta and YaRN as `rope_parameters`.
    Kimi-K2 (`kimi_k2`) is V3's architecture in other sizes; transformers reads it as `deepseek_v3`.

Departures
    - YaRN scales the softmax alone. A file whose YaRN scales cos and sin too is refused: that is
      the meaning of `attention_factor`, and in transformers of mscale fields that are absent or
      not equal.
    - V2 with `norm_topk_prob` is refused: transformers ignores the field.
    - Settings that no released class has, such as a softmax gate with a selection bias, are written
      under the `model_type` "dsnotes", so that no other reader takes them for V2 or V3.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsnotes.config import Config

LFS = b"version https://git-lfs"  # how a Git LFS pointer begins

_V3 = {"scoring_func": ("sigmoid",), "topk_method": ("noaux_tc",)}
_V2 = {
    "scoring_func": ("softmax",),
    "topk_method": ("greedy", "group_limited_greedy"),
    "norm_topk_prob": (False,),
}
# model_type -> what its class computes whether the file says so or not, and the class's name
_FAMILIES: dict[str, tuple[dict[str, tuple[Any, ...]], str]] = {
    "deepseek_v3": (_V3, "DeepseekV3ForCausalLM"),
    "kimi_k2": (_V3, "DeepseekV3ForCausalLM"),
    "deepseek_v2": (_V2, "DeepseekV2ForCausalLM"),
    "dsnotes": ({}, "DeepSeek"),
}

_FIXED: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False,),
    "attention_dropout": (0, None),
    "hidden_act": ("silu", "swish"),
    "mlp_bias": (False,),
    "moe_layer_freq": (1,),
    "partial_rotary_factor": (1, None),
    "rope_interleave": (True,),
    "tie_word_embeddings": (False,),
}

_SAYS_NOTHING = {
    # what wrote the file, and how to run or print the model
    *("architectures", "auto_map", "dtype", "model_type", "torch_dtype", "transformers_version"),
    *("chunk_size_feed_forward", "output_attentions", "output_hidden_states", "return_dict"),
    *("output_router_logits", "pretraining_tp", "ep_size", "use_cache"),
    *("id2label", "label2id", "problem_type", "is_encoder_decoder"),
    # tokens, and training
    *("bos_token_id", "eos_token_id", "pad_token_id", "aux_loss_alpha", "seq_aux"),
    "quantization_config",  # of the weights: `dsnotes.weights.checkpoint` looks at it
}

# fields that follow from others
_DERIVED: dict[str, Callable[["Config"], int]] = {
    "num_key_value_heads": lambda config: config.num_attention_heads,
    "head_dim": lambda config: config.qk_rope_head_dim,  # in transformers: what RoPE turns
    "qk_head_dim": lambda config: config.qk_head_dim,
    "num_experts": lambda config: config.n_routed_experts,
    "num_local_experts": lambda config: config.n_routed_experts,
    "num_mtp_layers": lambda config: config.num_nextn_predict_layers,
}

_ROPE = ("rope_scaling", "rope_parameters")
_YARN = {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow"}


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file. ValueError names a file that is something else, and says what."""
    path = Path(path)
    if path.exists() and not path.is_file():  # a pipe or device could be read for ever
        raise ValueError(f"{path} is not JSON: it is no file")
    content = path.read_bytes()
    if content.startswith(LFS):
        raise ValueError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`")
    try:
        found = json.loads(content.decode("utf8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold a JSON object, got {type(found).__name__}")
    return found


def architecture(raw: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """The values of the fields of `Config`, called `names`, in a released configuration.

    `rope_scaling` is a dictionary of the fields of `RopeScaling`, or None. ValueError names a field
    that is missing, unknown or of another family, or a value that the model here does not compute.

        >>> architecture(DEEPSEEK_V3.to_json(), set(vars(DEEPSEEK_V3)))["kv_lora_rank"]
        512
    """
    family = _family(raw)
    _check_known(raw, names)
    values = {name: raw[name] for name in names if name in raw} | _rope(raw)
    for name, allowed in family.items():
        if len(allowed) == 1:
            values.setdefault(name, allowed[0])
        if name in values:
            _check_allowed(name, values[name], allowed, f" with model_type {raw['model_type']!r}")
    # neither changes the function: the files say by their tensors whether modules are there
    optional = {"initializer_range", "num_nextn_predict_layers"}
    if missing := sorted(names - values.keys() - optional):
        raise ValueError(f"config.json lacks {missing}")
    for name, absent in {"n_shared_experts": 0, "num_nextn_predict_layers": 0}.items():
        if values.get(name, absent) is None:
            values[name] = absent
    if values["topk_method"] == "greedy":  # null: no groups
        values |= {n: 1 for n in ("n_group", "topk_group") if values[n] is None}
    return values


def check_derived(raw: Mapping[str, Any], config: "Config") -> None:
    """ValueError when a field that follows from other fields contradicts them."""
    for name, follows in _DERIVED.items():
        absent = name == "num_key_value_heads" and raw.get(name) is None
        if name in raw and not absent:
            _check_allowed(name, raw[name], (follows(config),), "")


def config_json(config: "Config") -> dict[str, Any]:
    """The released configuration that stands for `config`, which `architecture` reads."""
    fields = asdict(config)
    model_type = next(
        name
        for name, (family, _) in _FAMILIES.items()
        if all(fields[field] in allowed for field, allowed in family.items())
    )
    if config.rope_scaling is not None and config.rope_scaling.mscale == 0:
        # other readers take 0 for "absent", and then scale cos and sin
        fields["rope_scaling"]["attention_factor"] = 1.0
    return fields | {
        "architectures": [_FAMILIES[model_type][1]],
        "model_type": model_type,
        "num_key_value_heads": config.num_attention_heads,
        "hidden_act": "silu",
        "rope_interleave": True,
        "tie_word_embeddings": False,
    }


def _family(raw: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    """The values that `model_type` fixes; none when the file names no `model_type`."""
    if (model_type := raw.get("model_type")) is None:
        return {}
    if not isinstance(model_type, str) or model_type not in _FAMILIES:
        raise ValueError(f"model_type must be one of {sorted(_FAMILIES)}, got {model_type!r}")
    family, name = _FAMILIES[model_type]
    if raw.get("architectures") is not None:
        _check_allowed("architectures", raw["architectures"], ([name], []), "")
    return family


def _check_known(raw: Mapping[str, Any], names: set[str]) -> None:
    for name, allowed in _FIXED.items():
        if name in raw:
            _check_allowed(name, raw[name], allowed, "")
    known = names | _FIXED.keys() | _SAYS_NOTHING | set(_ROPE) | _DERIVED.keys()
    if unknown := sorted(n for n in raw if n not in known and not str(n).startswith("_")):
        raise ValueError(
            f"config.json holds {unknown}, which V2 and V3 do not have; remove what does not "
            "change the function of the model"
        )


def _rope(raw: Mapping[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling` from either spelling."""
    given = {name: raw[name] for name in _ROPE if raw.get(name) not in (None, {})}
    for name, value in given.items():
        if not isinstance(value, Mapping):
            raise ValueError(f"{name} must be an object or null, got {value!r}")
    if len(given) == 2 and given["rope_scaling"] != given["rope_parameters"]:
        raise ValueError(f"rope_scaling and rope_parameters must agree, got {given}")
    name, rope = next(iter(given.items()), ("rope_parameters", {}))
    rope = {k: v for k, v in rope.items() if v is not None or k == "truncate"}

    thetas = [t for t in (rope.pop("rope_theta", None), raw.get("rope_theta")) if t is not None]
    if len(thetas) == 2 and thetas[0] != thetas[1]:
        raise ValueError(f"rope_theta ({thetas[1]}) and {name}.rope_theta ({thetas[0]}) must agree")
    kinds = {k: rope.pop(k) for k in ("rope_type", "type") if k in rope}
    if len(kinds) == 2 and kinds["rope_type"] != kinds["type"]:
        raise ValueError(f"{name}.rope_type and {name}.type must agree, got {kinds}")
    kind = next(iter(kinds.values()), "default")
    if kind not in ("default", "yarn"):
        raise ValueError(f"{name}.rope_type must be 'default' or 'yarn', got {kind!r}")
    for field in ("partial_rotary_factor", "truncate"):
        if field in rope:
            _check_allowed(f"{name}.{field}", rope.pop(field), (1,), "")
    theta = thetas[0] if thetas else 10000.0
    scaling = _yarn(name, rope, raw) if kind == "yarn" else None
    if kind == "default" and rope:
        raise ValueError(f"{name} of type 'default' must hold nothing but rope_theta, got {rope}")
    return {"rope_theta": theta, "rope_scaling": scaling}


def _yarn(name: str, rope: dict[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `RopeScaling`, if cos and sin are not scaled."""
    mscale, all_dim = rope.pop("mscale", None), rope.pop("mscale_all_dim", None)
    if (attention := rope.pop("attention_factor", None)) is not None:
        _check_allowed(f"{name}.attention_factor", attention, (1,), ": cos and sin are not scaled")
        mscale = all_dim = all_dim or 0.0
    if mscale != all_dim or (attention is None and not mscale):
        raise ValueError(
            f"{name}.mscale and {name}.mscale_all_dim must be given, equal and above 0 (cos and "
            f"sin are not scaled), got {mscale!r} and {all_dim!r}"
        )
    if unknown := sorted(rope.keys() - _YARN):
        raise ValueError(f"{name} holds {unknown}, which YaRN does not have here")
    if "factor" not in rope:
        raise ValueError(f"config.json lacks {name}.factor")
    rope.setdefault("original_max_position_embeddings", raw.get("max_position_embeddings"))
    return rope | {"mscale": mscale, "mscale_all_dim": all_dim}


def _check_allowed(name: str, value: Any, allowed: tuple[Any, ...], why: str) -> None:
    if value not in allowed:
        expected = " or ".join(map(repr, allowed))
        raise ValueError(f"{name} must be {expected}{why}, got {value!r}")
