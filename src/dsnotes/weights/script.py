"""A model as one script: weights that a web page can load, also a page opened from a folder.

A page from `file://` may not read files, but it may run scripts that lie beside it. So the weights
are one safetensors file, written as base64 into a script that hands it over:

    DeepSeek.receive("poet", {"config": {...}, "symbols": "...", ...}, "…base64…");

`website/assets/labs/poet/engine.js` declares `DeepSeek` and runs the model.

Layout of the safetensors file
    as released (`dsnotes.weights.checkpoint`): names, FP8 (E4M3) with one float32 scale per
    128x128 block for the linear layers, BF16 for norms, router and eh_proj, FP32 for its bias

Departures from the release
    - The prediction module's copies of embedding and head are left out, and so is a head that
      is the embedding.
    - With `embedding="fp8"` embedding and head are FP8 with scales as well; the release has BF16.
      They are most of a small model: a third of its parameters here, a fiftieth in V3.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load, save
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.config import Config
from dsnotes.data.poems import RHYMES, TITLE_LENGTH, VERSE_FORMS
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.training import verses
from dsnotes.training.fp8.formats import BLOCK, quantize
from dsnotes.weights.checkpoint import SCALE, copies, load_weights, stored

CALL = "DeepSeek.receive"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@checked
def save_script(
    model: DeepSeek,
    path: str | Path,
    *,
    name: str,
    symbols: Sequence[str],
    about: Mapping[str, Any],
    embedding: Literal["bf16", "fp8"] = "bf16",
) -> int:
    """Write the script; return how many bytes the weights take, before base64.

    `symbols` says what each token stands for. `about` is what else the page needs to know, as JSON.
    ValueError when there is not one symbol a token.

        >>> save_script(model, "tiny.js", name="tiny", symbols=["x"] * 256, about={"end": 0})
        401756
    """
    if len(symbols) != model.config.vocab_size:
        raise ValueError(f"symbols must be {model.config.vocab_size}, got {len(symbols)}")
    file = save(_tensors(model, embedding))
    header = {**about, "config": model.config.to_json(), "symbols": list(symbols)}
    parts = (json.dumps(part, ensure_ascii=False, separators=(",", ":")) for part in (name, header))
    text = base64.b64encode(file).decode()
    Path(path).write_text(f'{CALL}({",".join(parts)},"{text}");\n', "utf8")
    return len(file)


@checked
def load_script(path: str | Path) -> tuple[DeepSeek, dict[str, Any]]:
    """The model of a script, in float32, and its header; ValueError for another file.

    >>> save_script(model, "tiny.js", name="tiny", symbols=["x"] * 256, about={"end": 0})
    401756
    >>> load_script("tiny.js")[1]["end"]
    0
    """
    text = Path(path).read_text("utf8")
    if not text.startswith(f"{CALL}(") or not text.endswith(");\n"):
        raise ValueError(f"{path} must be one call of {CALL}, and is not")
    _, header, encoded = json.loads(f"[{text[len(CALL) + 1 : -3]}]")
    config = Config.from_json(header["config"])
    tensors = load(base64.b64decode(encoded))
    tensors.setdefault(HEAD, tensors[EMBEDDING])
    if EMBEDDING + SCALE in tensors:
        tensors.setdefault(HEAD + SCALE, tensors[EMBEDDING + SCALE])
    model = DeepSeek(config)
    if any(name.startswith(f"model.layers.{config.num_hidden_layers}.") for name in tensors):
        add_modules(model)
        for copy, main in copies(config):
            tensors[copy] = tensors[main]
            if main + SCALE in tensors:
                tensors[copy + SCALE] = tensors[main + SCALE]
    load_weights(model, tensors)
    return model, header


@checked
def about_verses(vocabulary: verses.Vocabulary, *, label: str) -> dict[str, Any]:
    """`about` of a model that has read `training.verses`: how it is asked for a poem.

    `label` is what the page calls the model.

        >>> about = about_verses(verses.vocabulary(), label="强化后")
        >>> about["forms"]["七律"]
        {'token': 6, 'lines': 8, 'length': 7}
    """
    ids = {symbol: token for token, symbol in enumerate(vocabulary.symbols)}
    forms = {
        name: {"token": ids[f"<{name}>"], "lines": count, "length": length}
        for name, (count, length) in VERSE_FORMS.items()
    }
    rhymes = {name: ids[f"<{name}>"] for name in RHYMES}
    tokens = {"text": verses.TEXT, "end": verses.END, "title": TITLE_LENGTH}
    return {"label": label, "forms": forms, "rhymes": rhymes, **tokens}


def _tensors(model: DeepSeek, embedding: str) -> dict[str, Tensor]:
    doubled = {copy for copy, _ in copies(model.config)}
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in doubled}
    if torch.equal(state[EMBEDDING], state[HEAD]):
        del state[HEAD]
    tensors = dict(stored(state, fp8=True))
    for name in (EMBEDDING, HEAD) if embedding == "fp8" else ():
        if name in state:
            q = quantize(state[name], group=BLOCK)
            tensors |= {name: q.data, name + SCALE: q.scale_inv}
    return tensors
