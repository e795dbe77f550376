"""checkpoint: the released layout written and read, FP8 weights, names and counts of V3, errors."""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from dsnotes.config import DEEPSEEK_V2, DEEPSEEK_V3, TINY, Config
from dsnotes.model.counts import released_parameters
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules, modules, predict
from dsnotes.model.rope import rope_frequencies
from dsnotes.training.fp8.linear import QUANTIZED_LINEARS
from dsnotes.weights.checkpoint import INDEX, load, load_weights, save
from dsnotes.weights.shards import SINGLE

# Attention matrices with edge blocks: 150 rows are a block and 22 rows.
SMALL = replace(
    TINY,
    num_hidden_layers=2,
    hidden_size=150,
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    initializer_range=0.1,
)


@pytest.fixture
def model() -> DeepSeek:
    model = add_modules(DeepSeek(SMALL)).requires_grad_(False)
    for name, tensor in model.state_dict().items():
        if name.endswith("e_score_correction_bias"):
            tensor.copy_(torch.randn_like(tensor) / 5)
    return model


def headers(folder: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every stored tensor, from the headers of the files the index names."""
    index = json.loads((folder / INDEX).read_text())
    found = {}
    for file in set(index["weight_map"].values()):
        with safe_open(folder / file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (no mapping)
                assert index["weight_map"][name] == file
                part = opened.get_slice(name)
                found[name] = (part.get_dtype(), tuple(part.get_shape()))
    assert found.keys() == index["weight_map"].keys()
    return found


def edit(folder: Path, name: str, tensor: Tensor | None) -> None:
    """Replace or remove one tensor, in its file and in the index."""
    index = json.loads((folder / INDEX).read_text())
    file = index["weight_map"].get(name) or next(iter(index["weight_map"].values()))
    tensors = load_file(folder / file)
    if tensor is None:
        del tensors[name], index["weight_map"][name]
    else:
        tensors[name], index["weight_map"][name] = tensor, file
    save_file(tensors, folder / file)
    (folder / INDEX).write_text(json.dumps(index))


def test_saved_and_loaded_in_shards(model: DeepSeek, tmp_path: Path) -> None:
    """Bit for bit, prediction module included, from files of at most 100 kB or one tensor."""
    save(model, tmp_path, shard_bytes=100_000)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 5
    for file in files:
        tensors = load_file(file)
        assert len(tensors) == 1 or sum(t.nbytes for t in tensors.values()) <= 100_000
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == 4 * released_parameters(SMALL)
    loaded = load(tmp_path)
    assert loaded.config == SMALL
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(t, state[name]) for name, t in model.state_dict().items())
    tokens = torch.randint(256, (2, 7))
    assert torch.equal(
        predict(loaded, loaded.hidden(tokens), tokens)[0],
        predict(model, model.hidden(tokens), tokens)[0],
    )


@pytest.mark.parametrize("fp8", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_nothing_is_left_of_the_model_without_memory(
    model: DeepSeek, tmp_path: Path, fp8: bool, dtype: torch.dtype
) -> None:
    """`load` makes no random weights, and what no file holds is as it is in a model made anew."""
    save(model, tmp_path, fp8=fp8)
    before = torch.get_rng_state()
    loaded = load(tmp_path, dtype=dtype)
    assert torch.equal(torch.get_rng_state(), before)
    assert loaded.model.embed_tokens is modules(loaded)[0].embed_tokens
    assert all(p.requires_grad and not p.is_meta for p in loaded.parameters())
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in loaded.state_dict().values())
    assert torch.equal(loaded.model.frequencies, rope_frequencies(SMALL))
    anew = add_modules(DeepSeek(SMALL)).to(dtype)
    types = {name: tensor.dtype for name, tensor in anew.state_dict().items()}
    assert {name: tensor.dtype for name, tensor in loaded.state_dict().items()} == types
    load_weights(anew, loaded.state_dict())
    tokens = torch.randint(256, (2, 7))
    assert torch.equal(loaded(tokens), anew(tokens))


def test_training_a_loaded_model_leaves_the_file_alone(model: DeepSeek, tmp_path: Path) -> None:
    save(model, tmp_path)
    with torch.no_grad():
        for parameter in load(tmp_path).parameters():
            parameter.zero_()
    assert same(load(tmp_path), model)


def test_saving_over_the_files_of_a_loaded_model(model: DeepSeek, tmp_path: Path) -> None:
    save(model, tmp_path)
    loaded = load(tmp_path)
    save(loaded, tmp_path)
    assert same(loaded, model)
    assert same(load(tmp_path), model)


def test_a_model_without_memory_gets_its_own(model: DeepSeek) -> None:
    """Once all tensors are known to fit, and none of theirs."""
    with torch.device("meta"):
        empty = add_modules(DeepSeek(SMALL))
    tensors = model.state_dict()
    with pytest.raises(ValueError, match=r"checkpoint lacks lm_head\.weight"):
        load_weights(empty, {n: t for n, t in tensors.items() if n != "lm_head.weight"})
    assert empty.device.type == "meta"
    with pytest.raises(ValueError, match=r"model\.embed_tokens\.weight must hold numbers, got a t"):
        load_weights(empty, empty.state_dict())
    load_weights(empty, tensors)
    assert same(empty, model)
    assert all(t.data_ptr() != tensors[n].data_ptr() for n, t in empty.state_dict().items())


def test_without_modules(tmp_path: Path) -> None:
    model = DeepSeek(SMALL)
    save(model, tmp_path)
    assert load(tmp_path, dtype=torch.float64).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("config", [SMALL, replace(DEEPSEEK_V2, num_hidden_layers=1), DEEPSEEK_V3])
def test_configuration_survives(config: Config) -> None:
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_fp8_types_are_those_of_the_release(model: DeepSeek, tmp_path: Path) -> None:
    """Linear layers E4M3 with a scale per 128x128 block, edge blocks included; the rest BF16, the
    selection bias FP32."""
    save(model, tmp_path, fp8=True)
    found = headers(tmp_path)
    for name, tensor in model.state_dict().items():
        shape = tuple(tensor.shape)
        if name.endswith("e_score_correction_bias"):
            assert found.pop(name) == ("F32", shape)
        elif name.split(".")[-2] in QUANTIZED_LINEARS:
            assert found.pop(name) == ("F8_E4M3", shape)
            blocks = tuple((n + 127) // 128 for n in shape)
            assert found.pop(f"{name}_scale_inv") == ("F32", blocks)
        else:
            assert found.pop(name) == ("BF16", shape)
    assert not found


def test_fp8_is_dequantised_by_multiplying(model: DeepSeek, tmp_path: Path) -> None:
    """Block by block, edge blocks included; dividing by the scale would be off by its square."""
    save(model, tmp_path, fp8=True)
    name = "model.layers.0.self_attn.o_proj.weight"  # (150, 64): two blocks, the second of 22 rows
    stored = {n: t for f in tmp_path.glob("*.safetensors") for n, t in load_file(f).items()}
    codes, scale = stored[name].float(), stored[f"{name}_scale_inv"]
    assert scale.shape == (2, 1)
    expected = torch.cat([codes[:128] * scale[0], codes[128:] * scale[1]])
    loaded = load(tmp_path).state_dict()
    assert torch.equal(loaded[name], expected)
    original = model.state_dict()[name]
    assert ((expected - original).abs() <= original.abs() / 16 + scale.max() * 2**-10).all()
    divided = torch.cat([codes[:128] / scale[0], codes[128:] / scale[1]])
    assert (divided / original).median() > 1e5
    for other, tensor in model.state_dict().items():
        if "norm" in other or "embed" in other:
            assert torch.equal(loaded[other], tensor.bfloat16().float())
        if other.endswith("bias"):
            assert torch.equal(loaded[other], tensor)


def test_bfloat16_leaves_the_selection_bias_in_float32(model: DeepSeek, tmp_path: Path) -> None:
    save(model, tmp_path, fp8=True)
    state = load(tmp_path, dtype=torch.bfloat16).state_dict()
    for name, tensor in state.items():
        assert tensor.dtype == (torch.float32 if "bias" in name else torch.bfloat16)
        if "bias" in name:
            assert torch.equal(tensor, model.state_dict()[name])


def test_full_v3_names_shapes_and_counts() -> None:
    """On the meta device: 684,489,845,504 elements, 684,531,386,000 with scales, 91,991 tensors."""
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(torch.nn.Linear, "reset_parameters", lambda self: None)
        patch.setattr(torch.nn.Embedding, "reset_parameters", lambda self: None)
        state = add_modules(DeepSeek(DEEPSEEK_V3)).state_dict()
    scales = {
        name: -(-tensor.shape[0] // 128) * -(-tensor.shape[1] // 128)
        for name, tensor in state.items()
        if name.split(".")[-2] in QUANTIZED_LINEARS
    }
    elements = sum(tensor.numel() for tensor in state.values())
    assert elements == 684_489_845_504
    assert sum(scales.values()) == 41_540_496
    assert elements + sum(scales.values()) == 684_531_386_000
    assert len(state) + len(scales) == 91_991
    assert scales["model.layers.7.self_attn.kv_a_proj_with_mqa.weight"] == 5 * 56

    own = "model.layers.61."
    module = {n.removeprefix(own): t for n, t in state.items() if n.startswith(own)}
    shapes = {n: tuple(t.shape) for n, t in module.items() if "." not in n.removesuffix(".weight")}
    assert shapes == {
        "embed_tokens.weight": (129280, 7168),
        "enorm.weight": (7168,),
        "hnorm.weight": (7168,),
        "eh_proj.weight": (7168, 14336),
        "input_layernorm.weight": (7168,),
        "post_attention_layernorm.weight": (7168,),
    }
    assert module["shared_head.norm.weight"].shape == (7168,)
    assert module["shared_head.head.weight"].shape == (129280, 7168)
    unique = [t for n, t in module.items() if not n.startswith("embed") and ".head." not in n]
    assert sum(t.numel() for t in unique) == 11_610_068_224
    block = {n for n in module if n.startswith(("self_attn", "mlp"))}
    assert block == {
        n.removeprefix("model.layers.60.")
        for n in state
        if n.startswith(("model.layers.60.self_attn", "model.layers.60.mlp"))
    }
    assert Counter(n.split(".")[1] for n in block if n.startswith("mlp"))["experts"] == 3 * 256


# --- bad input: each time one error, and nothing loaded ---

GATE = "model.layers.1.mlp.experts.2.gate_proj.weight"


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.layers.1.self_attn.o_proj.weight", None, "checkpoint lacks model.layers.1.self"),
        ("model.layers.2.eh_proj.weight", None, "checkpoint lacks model.layers.2.eh_proj.weight"),
        ("model.layers.9.norm.weight", torch.ones(2), r"holds model\.layers\.9\.norm\.weight, unk"),
        ("model.norm.weight", torch.ones(7), r"norm\.weight must have shape \(150,\), got \(7,\)"),
        (f"{GATE}_scale_inv", None, f"checkpoint lacks {GATE}_scale_inv"),
        (f"{GATE}_scale_inv", torch.ones(1, 1), r"must have shape \(1, 2\), got \(1, 1\)"),
        (GATE, torch.ones(32, 150), f"checkpoint holds {GATE}_scale_inv, unknown"),
        (
            "model.layers.2.shared_head.head.weight",
            torch.ones(256, 150),
            r"shared_head\.head\.weight must be a copy of lm_head\.weight, but differs",
        ),
    ],
    ids=[
        "missing", "missing in module", "surplus", "mis-shaped", "scale missing",
        "scale mis-shaped", "scale without FP8", "copy differs",
    ],
)  # fmt: skip
def test_contradictory_checkpoints(
    model: DeepSeek, tmp_path: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    save(model, tmp_path, fp8=True)
    edit(tmp_path, name, tensor)
    with pytest.raises(ValueError, match=message):
        load(tmp_path)


def test_an_error_leaves_the_model_as_it_was(model: DeepSeek) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other = {name: tensor + 1 for name, tensor in before.items()}
    other["model.norm.weight"] = torch.ones(7)
    with pytest.raises(ValueError, match=r"model\.norm\.weight must have shape"):
        load_weights(model, other)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


def test_index_and_files_must_agree(model: DeepSeek, tmp_path: Path) -> None:
    save(model, tmp_path, shard_bytes=100_000)
    file = sorted(tmp_path.glob("*.safetensors"))[0]
    tensors = load_file(file)
    save_file(tensors | {"stray": torch.ones(1)}, file)
    with pytest.raises(ValueError, match=f"{file.name} disagree on stray"):
        load(tmp_path)
    file.unlink()
    with pytest.raises(ValueError, match=f"does not hold {file.name}, or not as a file"):
        load(tmp_path)


# --- files of others ---


FP8_WEIGHT = "model.layers.0.self_attn.o_proj.weight"


def single(model: DeepSeek, folder: Path) -> Path:
    """The checkpoint as one model.safetensors without an index."""
    save(model, folder)
    (folder / INDEX).unlink()
    (shard,) = folder.glob("*.safetensors")
    return shard.rename(folder / SINGLE)


def same(a: DeepSeek, b: DeepSeek) -> bool:
    other = b.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in a.state_dict().items())


def test_one_file_without_an_index(model: DeepSeek, tmp_path: Path) -> None:
    single(model, tmp_path)
    assert same(load(tmp_path), model)


def test_links_into_a_cache_are_followed(model: DeepSeek, tmp_path: Path) -> None:
    """A download cache keeps the files apart, and in the snapshot links to them."""
    save(model, tmp_path / "blobs", shard_bytes=100_000)
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted((tmp_path / "blobs").iterdir())):
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", f"{i:064}"))
        file.rename(tmp_path / "blobs" / f"{i:064}")
    assert same(load(snapshot), model)


def test_saving_over_links_leaves_what_they_lead_to(model: DeepSeek, tmp_path: Path) -> None:
    save(model, tmp_path / "a")
    (tmp_path / "b").mkdir()
    for file in (tmp_path / "a").iterdir():
        (tmp_path / "b" / file.name).symlink_to(file)
    before = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    other = add_modules(DeepSeek(SMALL)).requires_grad_(False)
    save(other, tmp_path / "b")
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == before
    assert same(load(tmp_path / "b"), other)


def test_saving_again_leaves_no_old_shards(model: DeepSeek, tmp_path: Path) -> None:
    save(model, tmp_path, shard_bytes=100_000)
    (tmp_path / SINGLE).write_bytes(b"")
    (tmp_path / "tokenizer.json").write_text("{}")
    save(model, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json", "model-00001-of-00001.safetensors", INDEX, "tokenizer.json",
    ]  # fmt: skip
    assert same(load(tmp_path), model)


def test_two_checkpoints_in_one_folder(model: DeepSeek, tmp_path: Path) -> None:
    """transformers would read the one file, others the index."""
    save(model, tmp_path)
    save_file({"model.norm.weight": torch.ones(150)}, tmp_path / SINGLE)
    with pytest.raises(
        ValueError, match=r"holds two checkpoints, model\.safetensors and the files"
    ):
        load(tmp_path)


def test_an_empty_folder(model: DeepSeek, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load(tmp_path)
    single(model, tmp_path).unlink()
    with pytest.raises(
        ValueError, match=r"must hold model\.safetensors\.index\.json or model\.safe"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS"),
        (lambda b: b"", r"\(0 bytes\) is no safetensors file, or it was cut short"),
        (lambda b: b[:5], r"\(5 bytes\) is no safetensors file"),
        (lambda b: b[:2000], r"\(2000 bytes\) is no safetensors file"),
        (lambda b: b[:-1], "is no safetensors file, or it was cut short"),
        (lambda b: b + b"0", "is no safetensors file"),
        (lambda b: b"\xff" * 999, "is no safetensors file"),
        (lambda b: b"<!DOCTYPE html><html>404</html>", "is no safetensors file"),
        (lambda b: b.replace(b'"F32"', b'"X32"'), "is no safetensors file"),
        (lambda b: b.replace(b'"data_offsets":[0,', b'"data_offsets":[9,', 1), "is no safeten"),
        (lambda b: (2**63).to_bytes(8, "little") + b[8:], "is no safetensors file"),
    ],
    ids=["pointer", "empty", "5 bytes", "header cut", "cut", "longer", "noise", "web page",
         "unknown type", "hole", "huge header"],
)  # fmt: skip
@pytest.mark.parametrize("indexed", [True, False])
def test_a_damaged_shard_is_named(
    model: DeepSeek,
    tmp_path: Path,
    damage: Callable[[bytes], bytes],
    message: str,
    indexed: bool,
) -> None:
    if indexed:
        save(model, tmp_path, shard_bytes=100_000)
        file = sorted(tmp_path.glob("*.safetensors"))[3]
    else:
        file = single(model, tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=f"{file.name} .*{message}|{file.name} {message}"):
        load(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling link", "device"])
def test_a_shard_that_is_no_file(model: DeepSeek, tmp_path: Path, kind: str) -> None:
    """A pipe would be waited for, a device read for ever."""
    save(model, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    file.unlink()
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "folder":
            file.mkdir()
        case "dangling link":
            file.symlink_to("gone")
        case "device":
            file.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=f"does not hold {file.name}, or not as a file"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
        ("{", "is not JSON"),
        ("[]", "must hold a JSON object, got list"),
        ("{}", 'must hold an object "weight_map", got None'),
        ('{"weight_map": []}', r'must hold an object "weight_map", got \[\]'),
        ('{"weight_map": {"a": null}}', "must name a file of its own folder for a, got None"),
        ('{"weight_map": {"a": ["b"]}}', "must name a file of its own folder for a, got"),
        ('{"weight_map": {"a": ""}}', "must name a file of its own folder for a, got ''"),
        ('{"weight_map": {"a": ".."}}', "must name a file of its own folder for a, got '..'"),
        ('{"weight_map": {"a": "../out/x.safetensors"}}', "must name a file of its own folder"),
        ('{"weight_map": {"a": "/etc/passwd"}}', "must name a file of its own folder"),
        ('{"weight_map": {"a": "sub/x.safetensors"}}', "must name a file of its own folder"),
        ('{"weight_map": {"a": "..\\\\x.safetensors"}}', "must name a file of its own folder"),
        ('{"weight_map": {"a": "C:x.safetensors"}}', "must name a file of its own folder"),
        ('{"weight_map": {"a": "\\u0000"}}', "does not hold"),
        ('{"weight_map": {"a": "' + "x" * 5000 + '"}}', "cannot be read: .* too long"),
        ('{"weight_map": {}}', "checkpoint lacks"),
    ],
)
def test_a_malformed_index(model: DeepSeek, tmp_path: Path, content: str, message: str) -> None:
    save(model, tmp_path / "in")
    save(model, tmp_path / "out")
    (tmp_path / "in" / INDEX).write_text(content)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "in")


@pytest.mark.parametrize(
    "dtype",
    [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64,
     torch.float8_e5m2, torch.float8_e8m0fnu],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight", FP8_WEIGHT])
def test_weights_that_are_no_floats(
    model: DeepSeek, tmp_path: Path, dtype: torch.dtype, name: str
) -> None:
    save(model, tmp_path)
    edit(tmp_path, name, model.state_dict()[name].to(dtype))
    with pytest.raises(ValueError, match=rf"{name} must hold floats, got {dtype}"):
        load(tmp_path)


def test_a_vector_in_fp8_has_no_blocks(model: DeepSeek, tmp_path: Path) -> None:
    save(model, tmp_path)
    edit(tmp_path, "model.norm.weight", torch.ones(150).to(torch.float8_e4m3fn))
    edit(tmp_path, "model.norm.weight_scale_inv", torch.ones(2))
    with pytest.raises(
        ValueError, match=r"model\.norm\.weight must hold floats, got torch.float8_e4"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (torch.tensor([[1.0], [torch.nan]]), "must hold finite numbers of at least 0"),
        (torch.tensor([[1.0], [torch.inf]]), "must hold finite numbers of at least 0"),
        (torch.tensor([[1.0], [-1.0]]), "must hold finite numbers of at least 0"),
        (
            torch.tensor([[127], [255]], dtype=torch.uint8).view(torch.float8_e8m0fnu),
            "must hold fi",
        ),
        (torch.ones(2, 1, dtype=torch.int32), "must hold floats or UE8M0, got torch.int32"),
        (torch.ones(2, 1, dtype=torch.complex64), "must hold floats or UE8M0, got torch.complex64"),
    ],
)
def test_bad_scales(model: DeepSeek, tmp_path: Path, scale: Tensor, message: str) -> None:
    save(model, tmp_path, fp8=True)
    edit(tmp_path, f"{FP8_WEIGHT}_scale_inv", scale)
    with pytest.raises(ValueError, match=f"{FP8_WEIGHT}_scale_inv {message}"):
        load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float8_e8m0fnu, torch.bfloat16, torch.float64], ids=str)
def test_scales_of_other_types(model: DeepSeek, tmp_path: Path, dtype: torch.dtype) -> None:
    """Powers of two, as UE8M0 holds them, mean the same in every type."""
    save(model, tmp_path / "a", fp8=True)
    save(model, tmp_path / "b", fp8=True)
    for name, tensor in load_file(next((tmp_path / "a").glob("*.safetensors"))).items():
        if name.endswith("_scale_inv"):
            power = torch.exp2(tensor.log2().ceil())
            edit(tmp_path / "a", name, power)
            edit(tmp_path / "b", name, power.to(dtype))
    assert same(load(tmp_path / "a"), load(tmp_path / "b"))


def test_stray_tensors_that_change_nothing(model: DeepSeek, tmp_path: Path) -> None:
    """Angles that follow from the configuration; parts of no width, as of no shared expert."""
    save(model, tmp_path)
    edit(tmp_path, "model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(4))
    edit(tmp_path, "model.layers.1.mlp.other_experts.up_proj.weight", torch.ones(0, 150))
    assert same(load(tmp_path), model)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a small checkpoint."""
    folder = tmp_path_factory.mktemp("intact")
    small = replace(SMALL, vocab_size=8, hidden_size=8, num_nextn_predict_layers=0)
    save(DeepSeek(small), folder, shard_bytes=4000)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_of_any_kind_is_an_error_that_names_something(
    intact: dict[str, bytes], data: st.DataObject
) -> None:
    """Bytes changed, cut out or put in anywhere: it loads, or a ValueError says what is wrong."""
    name = data.draw(st.sampled_from(sorted(intact)))
    content = intact[name]
    start = data.draw(st.integers(0, min(len(content), 4000)))
    length = data.draw(st.integers(0, 8))
    new = data.draw(st.binary(max_size=8) | st.sampled_from([b"null", b"[]", b"{}", b"-1", b"1e9"]))
    with tempfile.TemporaryDirectory() as folder:
        for file, old in intact.items():
            Path(folder, file).write_bytes(old)
        Path(folder, name).write_bytes(content[:start] + new + content[start + length :])
        try:
            load(folder)
        except ValueError as error:
            message = str(error)
        else:
            return
        assert len(message) > 20


def edit_config(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | changes))


@pytest.mark.parametrize(
    "field",
    ["vocab_size", "hidden_size", "num_hidden_layers", "moe_intermediate_size", "kv_lora_rank"],
)
def test_a_configuration_of_a_far_larger_model_fills_no_memory(
    model: DeepSeek, tmp_path: Path, field: str
) -> None:
    save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {field: 10**13}))
    with pytest.raises(ValueError, match=r"checkpoint lacks most of the \d+ numbers that config"):
        load(tmp_path)


def test_a_module_that_the_configuration_denies(model: DeepSeek, tmp_path: Path) -> None:
    save(model, tmp_path)
    edit_config(tmp_path, num_nextn_predict_layers=0)
    with pytest.raises(
        ValueError, match=r"\(model\.layers\.2\.\*\), but num_nextn_predict_layers is 0"
    ):
        load(tmp_path)


@pytest.mark.parametrize(
    "quantization",
    [
        {"quant_method": "awq", "bits": 4},
        {"quant_method": "compressed-tensors"},
        {"quant_method": "fp8", "weight_block_size": [64, 64]},
        {"quant_method": "fp8", "weight_block_size": None},
        "fp8",
        [],
    ],
    ids=str,
)
def test_other_quantizations(model: DeepSeek, tmp_path: Path, quantization: object) -> None:
    save(model, tmp_path)
    edit_config(tmp_path, quantization_config=quantization)
    with pytest.raises(ValueError, match="quantization_config must be"):
        load(tmp_path)


def test_the_quantization_of_the_release(model: DeepSeek, tmp_path: Path) -> None:
    save(model, tmp_path, fp8=True)
    plain = load(tmp_path)
    said = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8"}
    edit_config(tmp_path, quantization_config=said | {"weight_block_size": [128, 128]})
    assert same(load(tmp_path), plain)


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.float8_e4m3fn], ids=str)
def test_bad_dtype(model: DeepSeek, tmp_path: Path, dtype: torch.dtype) -> None:
    save(model, tmp_path)
    with pytest.raises(ValueError, match=r"dtype must be one of .*, got torch"):
        load(tmp_path, dtype=dtype)


def test_long_lists_of_names_are_cut(model: DeepSeek) -> None:
    with pytest.raises(ValueError, match=r"checkpoint lacks lm_head\.weight, .* and \d+ more$"):
        load_weights(model, {})


def test_bad_shard_size(model: DeepSeek, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shard_bytes must be at least 1, got 0"):
        save(model, tmp_path, shard_bytes=0)
