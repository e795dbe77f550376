"""Small data sets for toy training runs, fixed or made from a seed, so that numbers repeat.

Text: four domains of about 80 kB, different enough that experts can tell them apart. They are cut
into sequences of bytes: one byte is one token, so the vocabulary is 256. The texts are in `data/`,
with source and licence in `data/README.md`; the `math` domain is generated.

Every batch holds equally many sequences of each domain. Every tenth sequence of a domain is held
out: `batches` never yields it, and `held_out` yields only those.

The counting language: every token is its predecessor plus 1, except after a jump. The best possible
prediction and its cost in nats are known exactly.
"""

import math
import random
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from dsnotes.checks.arguments import checked

DOMAINS = ("poetry", "english", "code", "math")
VOCAB_SIZE = 256
_HELD_OUT_EVERY = 10


class Batch(NamedTuple):
    """B sequences of T tokens and, of each, its domain as index into `domains`."""

    tokens: Int[Tensor, "batch seq"]
    domain: Int[Tensor, "batch"]


@cache
def corpus(domain: str) -> str:
    """The whole text of one of `DOMAINS`; ValueError for any other name.

    >>> corpus("english")[:16]
    'In the beginning'
    """
    if domain not in DOMAINS:
        raise ValueError(f"domain must be one of {DOMAINS}, got {domain!r}")
    if domain == "math":
        return _sums(count=9000, seed=0)
    return files("dsnotes").joinpath("data", f"{domain}.txt").read_text(encoding="utf-8")


@checked
def tokens(text: str) -> Int[Tensor, "seq"]:
    """The UTF-8 bytes of a text as token ids, 0 to 255.

    >>> from dsnotes.training.texts import tokens
    >>> tokens("a文")
    tensor([ 97, 230, 150, 135])
    """
    return torch.tensor(list(text.encode("utf-8")), dtype=torch.long)


@checked
def batches(
    *, steps: int, batch_size: int, seq_len: int, seed: int, domains: Sequence[str] = DOMAINS
) -> Iterator[Batch]:
    """Yield `steps` batches of training sequences, as many from each domain, ordered by `seed`.

    Equal shares, because the load of the experts would otherwise swing with the mixture. A domain
    starts again, in a new order, when fewer of its sequences are left than a batch needs.
    ValueError, at the first batch, when a size is not positive or does not fit.

        >>> first = next(batches(steps=1, batch_size=4, seq_len=64, seed=0))
        >>> first.tokens.shape, first.domain
        (torch.Size([4, 64]), tensor([0, 1, 2, 3]))
    """
    if steps < 0:
        raise ValueError(f"steps must be at least 0, got {steps}")
    sequences = _sequences(domains, seq_len, held_out=False)
    share = batch_size // len(domains)
    smallest = int(sequences.domain.bincount().min())
    if batch_size % len(domains) or not 1 <= share <= smallest:
        raise ValueError(
            f"batch_size must be a multiple of the number of domains ({len(domains)}) and at most "
            f"{smallest * len(domains)}, got {batch_size}"
        )
    generator = torch.Generator().manual_seed(seed)
    members = [(sequences.domain == i).nonzero().flatten() for i in range(len(domains))]
    orders = [members[0][:0]] * len(domains)
    for _ in range(steps):
        for i, order in enumerate(orders):
            if len(order) < share:
                orders[i] = members[i][torch.randperm(len(members[i]), generator=generator)]
        chosen = torch.cat([order[:share] for order in orders])
        orders = [order[share:] for order in orders]
        yield Batch(sequences.tokens[chosen], sequences.domain[chosen])


@checked
def held_out(*, seq_len: int, domains: Sequence[str] = DOMAINS) -> Batch:
    """All held-out sequences, domain by domain; no randomness. Errors as in `batches`.

    >>> held_out(seq_len=128, domains=["code"]).tokens.shape
    torch.Size([63, 128])
    """
    return _sequences(domains, seq_len, held_out=True)


@checked
def counting(
    *, sequences: int, seq_len: int, vocab_size: int = 32, jump: float = 0.0, seed: int
) -> Int[Tensor, "batch seq"]:
    """Sequences that count upwards modulo `vocab_size`, each from a random first token.

    With probability `jump` a token is instead drawn from the whole vocabulary, uniformly.
    ValueError when a size is not positive or `jump` lies outside 0 to 1.

        >>> counting(sequences=1, seq_len=7, vocab_size=8, seed=0)
        tensor([[7, 0, 1, 2, 3, 4, 5]])
    """
    _check_counting(vocab_size, jump)
    if sequences < 1 or seq_len < 1:
        raise ValueError(f"sequences and seq_len must be at least 1, got {sequences} and {seq_len}")
    generator = torch.Generator().manual_seed(seed)
    anew = torch.rand(sequences, seq_len, generator=generator) < jump
    value = torch.randint(vocab_size, (sequences, seq_len), generator=generator)
    place = torch.arange(seq_len).expand(sequences, -1)
    last_jump = torch.where(anew, place, 0).cummax(dim=1).values
    return (value.gather(1, last_jump) + place - last_jump) % vocab_size


@checked
def counting_entropy(*, vocab_size: int = 32, jump: float, ahead: int = 1) -> float:
    """Nats per token of the best prediction of the token `ahead` places on, in `counting`.

    With probability (1 - jump)^ahead no jump lies in between, and it is the token plus `ahead`;
    otherwise it may be any token. ValueError as in `counting`.

        >>> round(counting_entropy(vocab_size=8, jump=0.0), 3)
        0.0
    """
    _check_counting(vocab_size, jump)
    if ahead < 1:
        raise ValueError(f"ahead must be at least 1, got {ahead}")
    other = (1 - (1 - jump) ** ahead) / vocab_size  # of each token but the expected one
    if other == 0:
        return 0.0
    likely = 1 - (vocab_size - 1) * other
    return -likely * math.log(likely) - (vocab_size - 1) * other * math.log(other)


def _check_counting(vocab_size: int, jump: float) -> None:
    if vocab_size < 1:
        raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
    if not 0 <= jump <= 1:
        raise ValueError(f"jump must lie between 0 and 1, got {jump}")


def _sequences(domains: Sequence[str], seq_len: int, *, held_out: bool) -> Batch:
    """Each domain, cut into sequences without overlap; the remainder at its end is dropped."""
    if not domains:
        raise ValueError(f"domains must name at least one of {DOMAINS}, got none")
    if seq_len < 2:
        raise ValueError(f"seq_len must be at least 2, to have a next token, got {seq_len}")
    found = []
    for name in domains:
        text = tokens(corpus(name))
        rows = text[: len(text) // seq_len * seq_len].view(-1, seq_len)  # (sequences, seq)
        if len(rows) < _HELD_OUT_EVERY:
            raise ValueError(
                f"seq_len must leave {_HELD_OUT_EVERY} sequences per domain, got {seq_len}, "
                f"which leaves {len(rows)} of {name!r}"
            )
        is_held_out = torch.arange(len(rows)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
        found.append(rows[is_held_out == held_out])
    domain = torch.arange(len(found)).repeat_interleave(torch.tensor([len(r) for r in found]))
    return Batch(torch.cat(found), domain)


def _sums(*, count: int, seed: int) -> str:
    """Lines like '17+25=42': additions, subtractions and products of numbers below 100."""
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        a, b = rng.randrange(100), rng.randrange(100)
        value, sign = rng.choice(((a + b, "+"), (a - b, "-"), (a * b, "*")))
        lines.append(f"{a}{sign}{b}={value}\n")
    return "".join(lines)
