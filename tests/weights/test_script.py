"""A model as one script for a page: the released types, nothing twice, and read back as it was."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules, predict
from dsnotes.weights.checkpoint import load, save
from dsnotes.weights.script import CALL, load_script, save_script

SYMBOLS = [chr(0x4E00 + i) for i in range(TINY.vocab_size)]


def tiny(**changes) -> DeepSeek:
    torch.manual_seed(0)
    model = DeepSeek(replace(TINY, **changes))
    return add_modules(model) if model.config.num_nextn_predict_layers else model


def write(model: DeepSeek, path: Path, **options) -> int:
    return save_script(model, path, name="tiny", symbols=SYMBOLS, about={"end": 7}, **options)


TOKENS = torch.arange(24).view(2, 12)


@torch.no_grad()
def outputs(model: DeepSeek) -> list[torch.Tensor]:
    hidden = model.hidden(TOKENS)
    return [model.lm_head(hidden), *predict(model, hidden, TOKENS)]


def test_it_is_the_released_checkpoint(tmp_path) -> None:
    model = tiny()
    write(model, tmp_path / "tiny.js")
    save(model, tmp_path / "released", fp8=True)
    read, header = load_script(tmp_path / "tiny.js")
    assert header["end"] == 7
    assert header["symbols"] == SYMBOLS
    for ours, theirs in zip(outputs(read), outputs(load(tmp_path / "released")), strict=True):
        assert torch.equal(ours, theirs)


def test_the_script_is_one_call_and_holds_nothing_twice(tmp_path) -> None:
    model = tiny()
    size = write(model, tmp_path / "tiny.js")
    text = (tmp_path / "tiny.js").read_text("utf8")
    assert text.startswith(f"{CALL}(")
    name, header, encoded = json.loads(f"[{text[len(CALL) + 1 : -3]}]")
    assert name == "tiny"
    assert header["config"]["model_type"] == "deepseek_v3"
    assert len(encoded) == -(-size // 3) * 4
    linear = sum(p.numel() for n, p in model.named_parameters() if "_proj" in n and "eh_" not in n)
    rest = sum(p.numel() for p in model.parameters()) - linear
    assert linear + 2 * rest < size < 1.15 * (linear + 2 * rest)  # scales, bias and names besides


def test_embedding_and_head_may_be_fp8_too(tmp_path) -> None:
    model = tiny()
    wide, narrow = write(model, tmp_path / "a.js"), write(model, tmp_path / "b.js", embedding="fp8")
    assert wide - narrow == pytest.approx(2 * TINY.vocab_size * TINY.hidden_size, rel=0.02)
    exact, rounded = (load_script(tmp_path / name)[0] for name in ("a.js", "b.js"))
    off = (exact.lm_head.weight - rounded.lm_head.weight).abs().max()
    assert 0 < off < 2**-4 * exact.lm_head.weight.abs().max()  # three bits of fraction


@pytest.mark.parametrize("embedding", ["bf16", "fp8"])
def test_a_tied_head_is_left_out_and_comes_back(tmp_path, embedding) -> None:
    model = tiny()
    model.lm_head.weight = model.model.embed_tokens.weight
    write(model, tmp_path / "tiny.js", embedding=embedding)
    assert '"lm_head.weight"' not in (tmp_path / "tiny.js").read_text("utf8")
    read, _ = load_script(tmp_path / "tiny.js")
    assert torch.equal(read.lm_head.weight, read.model.embed_tokens.weight)


def test_a_model_without_modules(tmp_path) -> None:
    write(tiny(num_nextn_predict_layers=0), tmp_path / "tiny.js")
    read, _ = load_script(tmp_path / "tiny.js")
    assert len(read.model.layers) == TINY.num_hidden_layers


def test_bad_input_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="symbols must be 256, got 3"):
        save_script(tiny(), tmp_path / "x.js", name="tiny", symbols=list("abc"), about={})
    (tmp_path / "other.js").write_text("alert(1);\n")
    with pytest.raises(ValueError, match=f"must be one call of {CALL}"):
        load_script(tmp_path / "other.js")
