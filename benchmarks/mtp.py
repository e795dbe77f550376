"""Speculative decoding with a prediction module: acceptance, tokens per step, time per token.

A small model is trained on the texts of `dsnotes.training.texts` with one module, then continues
held-out text with and without drafts. The peer of a time is our own plain decoding, run in turns
with it; tokens per step have none, for with one draft they are 1 + a by definition. A step reads
two tokens, which here may visit twice as many experts, and runs the module besides, so that a gain
in steps is not one in time. One thread."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from benchmarks._measure import medians, row
from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.model.speculative import speculate, teacher_forced_acceptance
from dsnotes.training import texts
from dsnotes.training.loop import language_step, train
from dsnotes.training.state import TrainState

CONFIG = replace(TINY, hidden_size=96, initializer_range=0.02)
STEPS, PROMPT, NEW = 200, 32, 64
NOTE = f"hidden 96, 3 layers, 16 experts top-4, {STEPS} steps of 8 x 128 bytes, temperature 1"


def rows() -> list[dict[str, Any]]:
    """Rows for the table of `benchmarks.run`; about a minute, nearly all of it training."""
    model = trained()
    return [*acceptance(model), speed(model)]


def trained() -> DeepSeek:
    """One module, loss weight 0.3."""
    torch.manual_seed(0)
    model = add_modules(DeepSeek(CONFIG))
    data = texts.batches(steps=STEPS, batch_size=8, seq_len=128, seed=0)
    state = TrainState.create(model, steps=STEPS, learning_rate=3e-3)
    for _ in train(state, partial(language_step, mtp_weight=0.3), data, progress=False):
        pass
    return model.requires_grad_(False)


def acceptance(model: DeepSeek) -> list[dict[str, Any]]:
    """Along held-out text, and in text sampled after its beginnings, counted and teacher-forced."""
    held = texts.held_out(seq_len=128).tokens[::4]
    prompts, generator = held[:, :PROMPT], torch.Generator().manual_seed(0)
    found = speculate(model, prompts, max_new_tokens=NEW, temperature=1.0, generator=generator)
    rate, sampled = found.acceptance_rate, torch.cat([prompts, found.tokens], dim=1)
    forced = [teacher_forced_acceptance(model, text).item() for text in (held, sampled)]
    return [
        row("MTP acceptance on held-out text", forced[0], unit="share", note=NOTE),
        row("MTP acceptance, sampled; peer: same text, teacher-forced", rate, forced[1],
            unit="share", note=NOTE),
        row("MTP tokens per step", found.tokens_per_step, unit="tokens", note=NOTE),
    ]  # fmt: skip


def speed(model: DeepSeek) -> dict[str, Any]:
    """One sequence, sampled; the peer is `generate`, token by token."""
    prompt = texts.held_out(seq_len=128).tokens[:1, :PROMPT]

    def run(continued: Callable[..., Any]) -> None:
        generator = torch.Generator().manual_seed(0)
        continued(model, prompt, max_new_tokens=NEW, temperature=1.0, generator=generator)

    timed = medians({"ours": lambda: run(speculate), "peer": lambda: run(DeepSeek.generate)})
    each = {way: [ms / NEW for ms in timed[way]] for way in timed}
    return row("speculative decoding; peer: plain", **each, unit="ms/token", note=NOTE)
