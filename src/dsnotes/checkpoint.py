"""The released checkpoint: safetensors files, an index, and weights in FP8 with their scales.

Our parameters bear the released names, so a checkpoint is `state_dict` cut into files, with one
index that says which tensor lies where. Loading is strict: a tensor too many, too few or of another
shape is an error, and nothing is loaded.

Layout (README_WEIGHTS of the release and its file listing; V3, arXiv 2412.19437)
    model.safetensors.index.json    "weight_map" from tensor to file, "metadata" with "total_size"
    FP8 (E4M3)    every linear layer of attention and feed-forward parts: `weight`, and beside it a
                  float32 `weight_scale_inv` per 128x128 block, edge blocks included, which is
                  multiplied to dequantise
    BF16          embedding, head, router, norms, eh_proj; FP32: the router's selection bias
    model.layers.{L} and on         prediction modules, each with a copy of embedding and head

Departures
    - The types of the release are written on demand; reading goes by the type found in the file.
    - All tensors are read before the first is copied, so that an error leaves nothing half done.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsnotes.config import Config
from dsnotes.fp8 import BLOCK, Quantized, dequantize, quantize
from dsnotes.fp8_linear import QUANTIZED_LINEARS
from dsnotes.model import DeepSeek
from dsnotes.mtp import add_modules

INDEX = "model.safetensors.index.json"
SCALE = "_scale_inv"  # appended to the name of the weight


def save(
    model: DeepSeek, folder: str | Path, *, fp8: bool = False, shard_bytes: int = 5_000_000_000
) -> None:
    """Write config.json, safetensors files of at most `shard_bytes` (or one tensor) and the index.

    With `fp8` the types are those of the release, otherwise those of the model. ValueError when
    `shard_bytes` is not positive.

        >>> save(model, "tiny-v3", fp8=True)
    """
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be at least 1, got {shard_bytes}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    room, total = shard_bytes, 0
    for name, tensor in _stored(model.state_dict(), fp8=fp8):
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
        total += tensor.nbytes
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards, start=1):
        file = f"model-{i:05}-of-{len(shards):05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2), "utf8")
    (folder / "config.json").write_text(json.dumps(config_json(model.config), indent=2), "utf8")


def load(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> DeepSeek:
    """Read a folder in the released layout, with the prediction modules if it holds them.

    FP8 weights are dequantised; all is converted to `dtype`. Raises ValueError as `load_weights`,
    and when index and files do not agree.

        >>> load("tiny-v3").config == model.config
        True
    """
    folder = Path(folder)
    tensors = _read(folder)
    model = DeepSeek(Config.from_json(folder / "config.json"))
    first_module = f"model.layers.{model.config.num_hidden_layers}."
    if any(name.startswith(first_module) for name in tensors):
        add_modules(model)
    model.to(dtype)
    load_weights(model, tensors)
    return model


@torch.no_grad()
def load_weights(model: DeepSeek, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors of the released names into a model; FP8 ones need their `weight_scale_inv`.

    ValueError, before anything is copied, for missing, surplus and mis-shaped tensors, a scale
    without an FP8 weight or the reverse, and a module's embedding or head that is no copy of the
    main model's.

        >>> load_weights(model, other.state_dict())
    """
    state = model.state_dict()
    quantized = {n for n, t in tensors.items() if n in state and t.dtype == torch.float8_e4m3fn}
    expected = state.keys() | {name + SCALE for name in quantized}
    if missing := expected - tensors.keys():
        raise ValueError(f"checkpoint lacks {_some(missing)}")
    if surplus := tensors.keys() - expected:
        raise ValueError(f"checkpoint holds {_some(surplus)}, unknown to this model")
    for name, tensor in state.items():
        _check_shape(name, tensors[name], tuple(tensor.shape))
        if name in quantized:
            blocks = tuple(-(-n // b) for n, b in zip(tensor.shape, (128, 128), strict=True))
            _check_shape(name + SCALE, tensors[name + SCALE], blocks)
    for copy, main in _copies(model.config):
        if copy in state and not torch.equal(tensors[copy], tensors[main]):
            raise ValueError(f"{copy} must be a copy of {main}, but differs")
    for name, target in state.items():
        source = tensors[name]
        if name in quantized:
            source = dequantize(Quantized(source, tensors[name + SCALE].float(), BLOCK))
        target.copy_(source)


def config_json(config: Config) -> dict[str, Any]:
    """What config.json holds: our fields, and what other readers of the file need besides.

    >>> config_json(TINY)["model_type"]
    'deepseek_v3'
    """
    v3 = config.topk_method == "noaux_tc"
    return asdict(config) | {
        "architectures": ["DeepseekV3ForCausalLM" if v3 else "DeepseekV2ForCausalLM"],
        "model_type": "deepseek_v3" if v3 else "deepseek_v2",
        "num_key_value_heads": config.num_attention_heads,
        "tie_word_embeddings": False,
    }


def _stored(state: dict[str, Tensor], *, fp8: bool) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors as they go to the files; each with memory of its own, as these need it."""
    for name, tensor in state.items():
        if not fp8 or name.endswith("e_score_correction_bias"):
            yield name, tensor.clone()
        elif name.split(".")[-2] in QUANTIZED_LINEARS:
            q = quantize(tensor, group=BLOCK)
            yield name, q.data
            yield name + SCALE, q.scale_inv
        else:
            yield name, tensor.to(torch.bfloat16, copy=True)


def _read(folder: Path) -> dict[str, Tensor]:
    """All tensors that the index lists."""
    weight_map = json.loads((folder / INDEX).read_text("utf8"))["weight_map"]
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(weight_map.values())):
        if not (folder / file).exists():
            raise ValueError(f"{INDEX} lists {file}, which {folder} does not hold")
        listed = {name for name, where in weight_map.items() if where == file}
        found = load_file(folder / file)
        if listed != found.keys():
            raise ValueError(f"{INDEX} and {file} disagree on {_some(listed ^ found.keys())}")
        tensors |= found
    return tensors


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}")


def _copies(config: Config) -> Iterator[tuple[str, str]]:
    """Tensors that each prediction module holds a second time, and the originals."""
    for k in range(config.num_nextn_predict_layers):
        layer = f"model.layers.{config.num_hidden_layers + k}"
        yield f"{layer}.embed_tokens.weight", "model.embed_tokens.weight"
        yield f"{layer}.shared_head.head.weight", "lm_head.weight"


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = f" and {len(ordered) - 3} more" if len(ordered) > 3 else ""
    return ", ".join(ordered[:3]) + more
