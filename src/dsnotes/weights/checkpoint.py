"""The released checkpoint: safetensors files, an index, and weights in FP8 with their scales.

Our parameters bear the released names, so a checkpoint is `state_dict` cut into files, with one
index that says which tensor lies where. Loading is strict: a tensor too many, too few or of another
shape is an error, and nothing is loaded.

Files of others are read right or refused with an error that names the file, tensor or field and
says what it is: a Git LFS pointer, a shard cut short, whole numbers where weights should be.

Layout (README_WEIGHTS of the release and its file listing; V3, arXiv 2412.19437)
    model.safetensors.index.json    "weight_map" from tensor to file, "metadata" with "total_size"
    FP8 (E4M3)    every linear layer of attention and feed-forward parts: `weight`, and beside it a
                  float32 `weight_scale_inv` per 128x128 block, edge blocks included, which is
                  multiplied to dequantise
                  (or UE8M0, a power of two in one byte)
    BF16          embedding, head, router, norms, eh_proj; FP32: the router's selection bias
    model.layers.{L} and on         prediction modules, each with a copy of embedding and head

Departures
    - The types of the release are written on demand; reading goes by the type found in the file.
    - `rotary_emb.inv_freq`, which some files hold, follows from the configuration and is passed
      over, as are tensors without elements.
    - All tensors are checked before the first is copied, so that an error leaves nothing half done.
      They are copied out of the mapped file: its tensors are not aligned, and a product over them
      may differ in the last digit.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.config import Config
from dsnotes.config_file import read_json
from dsnotes.model.counts import breakdown
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.training.fp8.formats import BLOCK, Quantized, dequantize, quantize
from dsnotes.training.fp8.linear import QUANTIZED_LINEARS
from dsnotes.weights.shards import INDEX, SINGLE, read_tensors, some

SCALE = "_scale_inv"  # appended to the name of the weight
QUANTIZATION = {  # as the released config.json says it; without it others read no scales
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": list(BLOCK),
}
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


@checked
def save(
    model: DeepSeek, folder: str | Path, *, fp8: bool = False, shard_bytes: int = 5_000_000_000
) -> None:
    """Write config.json, safetensors files of at most `shard_bytes` (or one tensor) and the index.

    With `fp8` the types are those of the release, otherwise those of the model. The files of an
    older checkpoint in `folder` are removed. ValueError when `shard_bytes` is not positive.

        >>> save(model, "tiny-v3", fp8=True)
    """
    if shard_bytes < 1:
        raise ValueError(f"shard_bytes must be at least 1, got {shard_bytes}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # removed, not written over: a name may be a link into a cache; the index goes first, so that
    # what is left by an interrupted save cannot be read
    for old in (folder / INDEX, *folder.glob("model-*-of-*.safetensors"), folder / SINGLE):
        old.unlink(missing_ok=True)
    shards: list[dict[str, Tensor]] = [{}]
    room, total = shard_bytes, 0
    for name, tensor in stored(model.state_dict(), fp8=fp8):
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
    config = model.config.to_json() | ({"quantization_config": QUANTIZATION} if fp8 else {})
    (folder / "config.json").write_text(json.dumps(config, indent=2), "utf8")
    (folder / INDEX).write_text(json.dumps(index, indent=2), "utf8")


@checked
def load(folder: str | Path, *, dtype: torch.dtype = torch.float32) -> DeepSeek:
    """Read a folder in the released layout, with the prediction modules if it holds them.

    FP8 weights are dequantised; all is converted to `dtype`. Nothing outside the folder is read but
    what a link in it leads to. Raises ValueError as `Config.from_json` and `load_weights`, for a
    file that is not what its name says, and when index, files and configuration do not agree.

        >>> save(model, "tiny-v3")
        >>> load("tiny-v3").config == model.config
        True
    """
    if dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {FLOATS}, got {dtype}")
    folder = Path(folder)
    raw = read_json(folder / "config.json")
    config = Config.from_json(raw)
    _check_quantization(raw.get("quantization_config"))
    tensors = read_tensors(folder)
    _check_size(config, tensors)
    with torch.device("meta"):  # names and sizes alone: no memory, no random numbers
        model = DeepSeek(config)
    first_module = f"model.layers.{config.num_hidden_layers}."
    if any(name.startswith(first_module) for name in tensors):
        if config.num_nextn_predict_layers == 0:
            raise ValueError(
                f"checkpoint holds a prediction module ({first_module}*), but "
                "num_nextn_predict_layers is 0"
            )
        add_modules(model)
    model.to(dtype)
    load_weights(model, tensors)
    return model


@torch.no_grad()
@checked
def load_weights(model: DeepSeek, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors of the released names into a model; FP8 ones need their `weight_scale_inv`.

    ValueError, before anything is copied, for missing, surplus and mis-shaped tensors, numbers that
    are neither floating-point nor E4M3, a scale without an FP8 weight or the reverse, a scale that
    is not finite, and a module's embedding or head that is no copy of the main model's. A
    model on the device "meta" is moved to the CPU.

        >>> load_weights(model, DeepSeek(TINY).state_dict())
    """
    state = model.state_dict()
    tensors = {
        name: tensor
        for name, tensor in tensors.items()
        if name in state or not (name.endswith(".rotary_emb.inv_freq") or tensor.numel() == 0)
    }
    quantized = {n for n, t in tensors.items() if n in state and t.dtype == torch.float8_e4m3fn}
    expected = state.keys() | {name + SCALE for name in quantized}
    if missing := expected - tensors.keys():
        raise ValueError(f"checkpoint lacks {some(missing)}")
    if surplus := tensors.keys() - expected:
        raise ValueError(f"checkpoint holds {some(surplus)}, unknown to this model")
    for name, tensor in state.items():
        _check_shape(name, tensors[name], tuple(tensor.shape))
        if name in quantized and tensor.ndim == 2:
            blocks = tuple(-(-n // b) for n, b in zip(tensor.shape, (128, 128), strict=True))
            _check_shape(name + SCALE, tensors[name + SCALE], blocks)
            _check_scale(name + SCALE, tensors[name + SCALE])
        elif tensors[name].dtype not in FLOATS:
            raise ValueError(f"{name} must hold floats, got {tensors[name].dtype}")
        if tensors[name].is_meta:
            raise ValueError(f"{name} must hold numbers, got a tensor on the device meta")

    def read(name: str) -> Tensor:
        if name not in quantized:
            return tensors[name]
        return dequantize(Quantized(tensors[name], tensors[name + SCALE].float(), BLOCK))

    for copy, main in copies(model.config):
        if copy in state:
            ours, theirs = read(copy), read(main)
            if ours.dtype != theirs.dtype or not torch.equal(ours, theirs):
                raise ValueError(f"{copy} must be a copy of {main}, but differs")
    if model.device.type == "meta":
        state = model.to_empty(device="cpu").state_dict()
    for name, target in state.items():
        target.copy_(read(name))


def stored(state: dict[str, Tensor], *, fp8: bool) -> Iterator[tuple[str, Tensor]]:
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


def _check_size(config: Config, tensors: Mapping[str, Tensor]) -> None:
    """ValueError where a model of `config` would fill the memory, and the files do not."""
    described = sum(part.total for part in breakdown(config))
    held = sum(tensor.numel() for tensor in tensors.values())
    if described > 2 * held:  # a few tensors that lack are named later
        raise ValueError(
            f"checkpoint lacks most of the {described} numbers that config.json describes, "
            f"it holds {held}"
        )


def _check_quantization(found: Any) -> None:
    """ValueError unless the weights are said to be plain, or FP8 as in the release."""
    if found is None:
        return
    said = found if isinstance(found, dict) else {}
    blocks = said.get("weight_block_size", list(BLOCK))
    if said.get("quant_method") != "fp8" or blocks != list(BLOCK):
        raise ValueError(
            "quantization_config must be of quant_method 'fp8' with weight_block_size "
            f"{list(BLOCK)}, got {found}"
        )


def _check_scale(name: str, scale: Tensor) -> None:
    if scale.dtype not in (*FLOATS, torch.float8_e8m0fnu):
        raise ValueError(f"{name} must hold floats or UE8M0, got {scale.dtype}")
    if not (scale.float().isfinite() & (scale.float() >= 0)).all():
        raise ValueError(f"{name} must hold finite numbers of at least 0, and does not")


def _check_shape(name: str, tensor: Tensor, expected: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must have shape {expected}, got {tuple(tensor.shape)}")


def copies(config: Config) -> Iterator[tuple[str, str]]:
    """Tensors that each prediction module holds a second time, and the originals."""
    for k in range(config.num_nextn_predict_layers):
        layer = f"model.layers.{config.num_hidden_layers + k}"
        yield f"{layer}.embed_tokens.weight", "model.embed_tokens.weight"
        yield f"{layer}.shared_head.head.weight", "lm_head.weight"
