"""What a trained model costs to use, and the files that it leaves.

    decode     tokens a second over the latent cache, absorbed or decompressed, and with drafts or
               without; how many drafts are accepted; the bytes of the cache
    release    the checkpoint in the released layout, FP8 with scales, read by transformers as well;
               the scripts that a web page loads (`weights.script`)

Departures
    - V3 (arXiv 2412.19437) 5.4.3 measures drafts where a pass costs the reading of all weights. On
      a CPU a pass over two tokens costs nearly twice one over one.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from dsnotes.data.poems import Verse
from dsnotes.model.cache import LatentCache
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.speculative import speculate
from dsnotes.training.verses import END, PAD, room
from dsnotes.weights import checkpoint
from dsnotes.weights.script import about_verses, save_script
from dsnotes.whole.judging import held_out_loss, spread
from dsnotes.whole.run import Result, Run
from dsnotes.whole.writing import prompt_of

_PAGE = {"before": ("cold_start", "强化前"), "after": ("reinforce", "强化后")}
_TEMPERATURES = 0.0, 0.5, 1.0


def decode(run: Run) -> Result:
    """Time the reinforced model, one poem at a time in four ways; count accepted drafts.

    Rates are medians, in tokens a second. The share of accepted drafts is over many quatrains.
    """
    model, poems = run.model("reinforce"), spread(run.held_out, run.size.timed)
    rates: dict[str, list[float]] = {}
    for verse in [poems[0], *poems]:  # the first warms up
        prompt, length = _prompt(run, verse), room(verse.form)
        drawn: dict[str, Any] = {
            "max_new_tokens": length,
            "temperature": 1.0,
            "generator": run.generator(run.seed),
        }
        text = model.generate(prompt, **drawn)
        ways: dict[str, Callable[[], object]] = {
            "absorbed": partial(_feed, model, prompt, text, absorb=True),
            "decompressed": partial(_feed, model, prompt, text, absorb=False),
            "without_drafts": partial(model.generate, prompt, **drawn),
            "with_drafts": partial(speculate, model, prompt, **drawn),
        }
        for way, work in ways.items():
            rates.setdefault(way, []).append(length / _seconds(run, work))
    untitled = [verse._replace(title="") for verse in spread(run.held_out, run.size.judged)]
    prompts = torch.cat([_prompt(run, verse) for verse in untitled if verse.form == "七絕"])
    return {
        "tokens_per_second": {way: round(median(found[1:]), 1) for way, found in rates.items()},
        "accepted": {
            str(temperature): speculate(
                model,
                prompts,
                max_new_tokens=room("七絕"),
                temperature=temperature,
                generator=run.generator(run.seed),
            ).acceptance_rate
            for temperature in _TEMPERATURES
        },
        **_cache_bytes(model),
    }


def release(run: Run) -> Result:
    """Save the model as released; read it back, here and by transformers; compare greedy poems.

    `same_by_transformers` is the share of equal ones, null where it or accelerate is not installed.
    """
    model = run.model("reinforce")
    folder = run.keep("release", model, fp8=True)
    ours = checkpoint.load(folder).to(run.device)
    prompts = [_prompt(run, verse) for verse in spread(run.held_out, 2)]
    greedy: dict[str, Any] = {"max_new_tokens": room("七律"), "stop_token": END}
    theirs = None
    texts = [ours.generate(prompt, **greedy).tolist() for prompt in prompts]
    unrounded = [model.generate(prompt, **greedy).tolist() for prompt in prompts]
    if find_spec("transformers") and find_spec("accelerate"):
        theirs = _same(texts, _by_transformers(folder, prompts))
    page = {name: _script(run, name, *source) for name, source in _PAGE.items()}
    return {
        "bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        "loss": held_out_loss(ours, run.vocabulary, run.held_out),
        "same_as_unrounded": _same(texts, unrounded),
        "same_by_transformers": theirs,
        "page_bytes": page,
    }


def _by_transformers(folder: Path, prompts: Sequence[Tensor]) -> list[Any]:
    """Greedy continuations by transformers' own reading of the files."""
    import transformers

    transformers.logging.set_verbosity_error()  # of the prediction module, which it passes over
    transformers.logging.disable_progress_bar()
    config: Any = transformers.AutoConfig.from_pretrained(folder)
    config.quantization_config["dequantize"] = True  # also where a GPU could multiply in FP8
    auto: Any = transformers.AutoModelForCausalLM
    peer = auto.from_pretrained(folder, config=config, dtype=torch.float32)
    peer = peer.float().eval().to(prompts[0].device)
    said = {"max_new_tokens": room("七律"), "eos_token_id": END, "pad_token_id": PAD}
    texts = [peer.generate(prompt, do_sample=False, **said) for prompt in prompts]
    lengths = [prompt.shape[1] for prompt in prompts]
    return [text[:, n:].tolist() for text, n in zip(texts, lengths, strict=True)]


def _script(run: Run, name: str, stage: str, label: str) -> int:
    """Write `weights-<name>.js` for the page; the bytes of its weights."""
    return save_script(
        run.model(stage),
        run.folder / f"weights-{name}.js",
        name=name,
        symbols=run.vocabulary.symbols,
        about=about_verses(run.vocabulary, label=label),
        embedding="fp8",
    )


def _cache_bytes(model: DeepSeek) -> dict[str, int]:
    """Bytes of a token in the cache: the latents, and the keys and values of all heads instead."""
    config = model.config
    by_head = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)
    one = partial(LatentCache, config, batch_size=1, capacity=1, dtype=model.dtype)
    return {"cache_bytes": one().nbytes, "cache_bytes_by_head": one(width=by_head).nbytes}


def _prompt(run: Run, verse: Verse) -> Tensor:
    return torch.tensor([run.vocabulary.prompt(*prompt_of(verse))], device=run.device)


@torch.no_grad()
def _feed(model: DeepSeek, prompt: Tensor, text: Tensor, *, absorb: bool) -> None:
    """Read a text behind its prompt token by token, as in writing it, but with nothing drawn."""
    cache = model.new_cache(batch_size=1, capacity=prompt.shape[1] + text.shape[1])
    model(prompt, cache=cache)
    for token in text.T:
        model(token[None], cache=cache, absorb=absorb)


def _seconds(run: Run, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if run.device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _same(texts: Sequence[Any], others: Sequence[Any]) -> float:
    same: list[bool] = [a == b for a, b in zip(texts, others, strict=True)]
    return sum(same) / len(same)
