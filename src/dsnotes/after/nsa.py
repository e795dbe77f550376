"""Native sparse attention (NSA): three looks at the past, weighed by gates, trained from scratch.

A query attends to a summary of every block, to the few blocks whose summaries it attended to most,
and to a window of the latest tokens. Blocks are chosen by the first look, so the choice needs no
network of its own; all heads of one group share it.

Equations
    NSA (arXiv 2502.11089) §3     (5) gates, (7) compressed keys, (8) their probabilities,
                                  (9) importance of a block to be chosen, (10) sum over a group

Departures
    - (8) prints no 1/sqrt(d); the scale is used here, as in every other attention.
    - (9) fits when its indices begin at 1: a block then collects the summaries that overlap it, in
      proportion to the overlap. Counted from 0 that is l'/d j + m - n, where such a summary exists.
    - (7) has one block more than the size that the text gives; a block that ends at t counts.
    - Before the first block has ended, the compressed branch gives 0.
    - phi is the mean over the block unless another one is given; the paper's is learned.

For training alone: the queries are those of the whole sequence.

Legend of shapes: batch, seq, heads, groups (shared = heads / groups of them share a key), d
(channels of queries and keys), v, cmp (summaries), slc (blocks to choose from), and the three
branches in the order of (5): compressed, selected, window.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least


@checked
def compress(
    x: Float[Tensor, "batch seq groups d"], *, length: int, stride: int
) -> Float[Tensor, "batch cmp groups d"]:
    """One vector for each block of `length` tokens, a block every `stride`: eq 7 with phi a mean.

    >>> compress(torch.arange(8.0).view(1, 8, 1, 1), length=4, stride=2).flatten()
    tensor([1.5000, 3.5000, 5.5000])
    """
    at_least(1, length=length, stride=stride)
    if x.shape[1] < length:
        return x[:, :0]
    return x.unfold(1, length, stride).mean(dim=-1)


@checked
def attend(
    query: Float[Tensor, "batch seq heads d"],
    key: Float[Tensor, "batch past groups d"],
    value: Float[Tensor, "batch past groups v"],
    mask: Bool[Tensor, "#batch #groups seq past"],
) -> tuple[Float[Tensor, "batch seq heads v"], Float[Tensor, "batch groups shared seq past"]]:
    """Grouped-query attention: output and probabilities, 0 where a query may look nowhere."""
    batch, seq, heads, d = query.shape
    groups = key.shape[2]
    if groups == 0 or heads % groups:
        raise ValueError(f"query must have a multiple of {groups} heads, as key has, got {heads}")
    query = query.view(batch, seq, groups, -1, d)
    logits = torch.einsum("btghd,bsgd->bghts", query, key) * d**-0.5
    probs = logits.masked_fill(~mask.unsqueeze(2), float("-inf")).softmax(dim=-1)
    probs = probs.nan_to_num(0.0) if probs.shape[-1] else probs  # a row of -inf alone
    out = torch.einsum("bghts,bsgv->btghv", probs, value)
    return out.flatten(2, 3), probs


@checked
def importance(
    probs: Float[Tensor, "batch groups shared seq cmp"], *, length: int, stride: int, block: int
) -> Float[Tensor, "batch groups seq slc"]:
    """How much each block of `block` tokens was attended to by way of summaries: eq 9 and 10.

    The sum over the `shared` heads of a group is what all of them choose by. ValueError unless
    `stride` divides `length` and `block`.

        >>> probs = torch.eye(3)[None, None, None]  # three queries, each looks at one summary
        >>> importance(probs, length=2, stride=1, block=2)[0, 0]  # of tokens 0-1, 1-2 and 2-3
        tensor([[2., 0.],
                [1., 1.],
                [0., 2.]])
    """
    at_least(1, length=length, stride=stride, block=block)
    for name, value in {"length": length, "block": block}.items():
        if value % stride:
            raise ValueError(f"{name} must be a multiple of stride ({stride}), got {value}")
    total = probs.sum(dim=2)  # (10), the sum that (9) can follow as well as precede
    cmp = total.shape[-1]
    first = torch.arange(-(-(cmp * stride + length - stride) // block), device=total.device)
    first = first * (block // stride)  # the summary that begins where a block does
    out = total.new_zeros(*total.shape[:-1], len(first))
    for m in range(block // stride):
        for n in range(length // stride):
            inside = (first + m - n >= 0) & (first + m - n < cmp)
            out[..., inside] += total[..., (first + m - n)[inside]]  # (9)
    return out


@checked
def choose_blocks(
    scores: Float[Tensor, "batch groups seq slc"], *, block: int, topn: int
) -> Bool[Tensor, "batch groups seq seq"]:
    """Which tokens each query may look at: those of its `topn` blocks, up to itself.

    The first block, that of the query and the one before always are among them (§4.1: one initial
    and two local blocks). ValueError unless topn >= 3.

        >>> choose_blocks(torch.zeros(1, 1, 4, 2), block=2, topn=3).int()[0, 0]
        tensor([[1, 0, 0, 0],
                [1, 1, 0, 0],
                [1, 1, 1, 0],
                [1, 1, 1, 1]], dtype=torch.int32)
    """
    at_least(1, block=block)
    at_least(3, topn=topn)
    seq, device = scores.shape[2], scores.device
    t = torch.arange(seq, device=device)
    own, blocks = t[:, None] // block, torch.arange(-(-seq // block), device=device)
    scores = F.pad(scores, (0, len(blocks) - scores.shape[-1]))  # no summary reaches the last ones
    forced = (blocks == 0) | (blocks == own) | (blocks == own - 1)
    scores = scores.masked_fill(forced, float("inf")).masked_fill(blocks > own, float("-inf"))
    best = scores.topk(min(topn, len(blocks)), dim=-1).indices
    chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best, True)
    tokens = chosen.repeat_interleave(block, dim=-1)[..., :seq]
    return tokens & (t[None, :] <= t[:, None])


@checked
def native_sparse_attention(
    query: Float[Tensor, "batch seq heads d"],
    keys: Float[Tensor, "3 batch seq groups d"],
    values: Float[Tensor, "3 batch seq groups v"],
    gates: Float[Tensor, "3 batch seq heads"],
    *,
    length: int,
    stride: int,
    block: int,
    topn: int,
    window: int,
) -> Float[Tensor, "batch seq heads v"]:
    """o*_t of eq 5. Every branch has keys and values of its own.

    `length` and `stride` are l and d of the summaries, `block` l' and `topn` n of the choice,
    `window` w, the query included. ValueError for sizes that do not fit together.
    """
    at_least(1, window=window)
    seq, device = query.shape[1], query.device
    t = torch.arange(seq, device=device)
    key, value = (compress(x, length=length, stride=stride) for x in (keys[0], values[0]))
    ends = torch.arange(key.shape[1], device=device) * stride + length - 1
    cmp, probs = attend(query, key, value, (ends <= t[:, None])[None, None])  # (7), (8)
    scores = importance(probs, length=length, stride=stride, block=block)
    slc, _ = attend(query, keys[1], values[1], choose_blocks(scores, block=block, topn=topn))
    past = t[:, None] - t
    win, _ = attend(query, keys[2], values[2], ((past >= 0) & (past < window))[None, None])
    return torch.einsum("cbth,cbthv->bthv", gates, torch.stack([cmp, slc, win]))  # (5)
