"""Speculative decoding with a prediction module: acceptance, tokens per step, time per token.

A small model is trained on the texts of `dsnotes.training.texts` with one module, then continues
held-out text with and without drafts. The peer of a time is our own plain decoding, run in turns
with it; tokens per step have none, for with one draft they are 1 + a by definition. A step reads
two tokens, which here may visit twice as many experts, and runs the module besides, so that a gain
in steps is not one in time. One thread."""

import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules, mtp_loss, predict
from dsnotes.model.speculative import speculate, teacher_forced_acceptance
from dsnotes.training import texts
from dsnotes.training.loop import next_token_loss

CONFIG = replace(TINY, hidden_size=96, initializer_range=0.02)
STEPS, PROMPT, NEW = 200, 32, 64
NOTE = f"hidden 96, 3 layers, 16 experts top-4, {STEPS} steps of 8 x 128 bytes, temperature 1"


def rows() -> list[dict[str, Any]]:
    """Rows for the table of `benchmarks.run`; about a minute, nearly all of it training."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = trained()
        return [*acceptance(model), *speed(model)]
    finally:
        torch.set_num_threads(threads)


def trained() -> DeepSeek:
    """One module, loss weight 0.3."""
    torch.manual_seed(0)
    model = add_modules(DeepSeek(CONFIG))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    for step, batch in enumerate(texts.batches(steps=STEPS, batch_size=8, seq_len=128, seed=0)):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (step + 1) / 10)
        hidden = model.model(batch.tokens)
        ahead = mtp_loss(predict(model, hidden, batch.tokens), batch.tokens, weight=0.3)
        optimizer.zero_grad()
        (next_token_loss(model.head(hidden), batch.tokens) + ahead).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.requires_grad_(False)


def acceptance(model: DeepSeek) -> list[dict[str, Any]]:
    """Along held-out text, and in text sampled after its beginnings, counted and teacher-forced."""
    held = texts.held_out(seq_len=128).tokens[::4]
    prompts, generator = held[:, :PROMPT], torch.Generator().manual_seed(0)
    found = speculate(model, prompts, max_new_tokens=NEW, temperature=1.0, generator=generator)
    rate, sampled = found.acceptance_rate, torch.cat([prompts, found.tokens], dim=1)
    forced = [teacher_forced_acceptance(model, text).item() for text in (held, sampled)]
    return [
        row("MTP acceptance on held-out text", forced[0], None, "share"),
        row("MTP acceptance, sampled; peer: same text, teacher-forced", rate, forced[1], "share"),
        row("MTP tokens per step", found.tokens_per_step, None, "tokens"),
    ]


def speed(model: DeepSeek) -> list[dict[str, Any]]:
    """One sequence, sampled; the peer is `generate`, token by token."""
    prompt = texts.held_out(seq_len=128).tokens[:1, :PROMPT]
    times: dict[str, list[float]] = {"ours": [], "peer": []}
    for repeat in range(6):
        generator = torch.Generator().manual_seed(repeat)
        options = {"max_new_tokens": NEW, "temperature": 1.0, "generator": generator}
        for name, run in (("ours", speculate), ("peer", DeepSeek.generate)):
            start = time.perf_counter()
            run(model, prompt, **options)
            if repeat > 0:
                times[name].append(1e3 * (time.perf_counter() - start) / NEW)
    ours, peer = (median(times[name]) for name in ("ours", "peer"))
    return [row("speculative decoding; peer: plain", ours, peer, "ms/token")]


def row(what: str, ours: float, peer: float | None, unit: str) -> dict[str, Any]:
    """One line of the table."""
    return {
        "what": what,
        "ours": ours,
        "peer": peer,
        "ratio": None if peer is None else ours / peer,
        "unit": unit,
        "note": NOTE,
    }
