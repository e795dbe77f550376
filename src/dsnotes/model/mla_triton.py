"""Absorbed attention on a GPU in one kernel: every latent is read once and serves all heads twice.

To decode is to read the cache. The heads share it, so they are the rows of one matrix: a tile of
latents is read, meets the queries as keys and their weights as values, and is forgotten. A program
has room for 64 heads; the 128 of V3 are two programs side by side, and the second finds the tile in
the GPU's cache. Long sequences are split among the processors; each part keeps the sum of its
exponentials, and with these the parts are weighed against each other at the end.

Equations
    V2 (arXiv 2405.04434) section 2.1.2: absorbed attention, as in `MLA.attend_absorbed`
    Milakov and Gimelshein (arXiv 1805.02867) algorithm 3: softmax in one pass, with the largest
        score so far; parts over the sequence as in Flash-Decoding

Departure: exponentials to the base 2, for which processors have an instruction; scores carry the
    factor log2(e).

Shapes: rows are batch * seq; c = kv_lora_rank, r = qk_rope_head_dim; `past`, `heads` as in `MLA`.
"""

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

HEADS = 64  # a tile of queries, whose sums (64, 512) fill the registers of one multiprocessor
TILE = 64  # latents


def attend(query: Tensor, latents: Tensor, mask: Tensor | None, *, scale: float, c: int) -> Tensor:
    """softmax(scale * query . latents) over the first c channels of the latents.

    (batch, seq, heads, c_r), contiguous, and (batch, past, c_r) to (batch, seq, heads, c), in
    bfloat16 or float16; a mask (batch or 1, seq, past) is True where a token may look, and one
    that may look nowhere gets 0.
    """
    (batch, seq, heads, width), past = query.shape, latents.shape[1]
    rows, blocks = batch * seq, triton.cdiv(heads, HEADS)
    processors = torch.cuda.get_device_properties(query.device).multi_processor_count
    size = triton.cdiv(past, max(1, processors // (blocks * rows)))
    size = triton.cdiv(size, TILE) * TILE  # positions of a part
    parts = triton.cdiv(past, size)
    out = query.new_empty(rows, parts, heads, c, dtype=torch.float32)
    total = query.new_empty(rows, parts, heads, dtype=torch.float32)
    seen = query.new_empty(1, 1, 1) if mask is None else mask.expand(batch, -1, -1)
    _part[rows * blocks, parts](
        query, latents, seen, out, total, scale * math.log2(math.e), past, size, seq,
        *latents.stride()[:2], *seen.stride(),
        heads, c, width - c, triton.next_power_of_2(c), max(16, triton.next_power_of_2(width - c)),
        HEADS, TILE, mask is not None, num_warps=8, num_stages=2,
    )  # fmt: skip
    merged = query.new_empty(batch, seq, heads, c)
    _merge[rows, heads](out, total, merged, parts, heads, c, triton.next_power_of_2(c))
    return merged


@triton.jit(do_not_specialize=["past"])  # which grows with every token
@no_type_check
def _part(
    query, latents, mask, out, total, scale, past, size, seq,
    l_batch, l_past, m_batch, m_seq, m_past,
    heads: tl.constexpr, c: tl.constexpr, r: tl.constexpr, c_2: tl.constexpr, r_2: tl.constexpr,
    HEADS: tl.constexpr, TILE: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """One part of the sequence for one row and up to HEADS heads."""
    blocks: tl.constexpr = (heads + HEADS - 1) // HEADS
    row, part = (tl.program_id(0) // blocks).to(tl.int64), tl.program_id(1)
    batch, t = row // seq, row % seq
    head = tl.program_id(0) % blocks * HEADS + tl.arange(0, HEADS)
    i, j = tl.arange(0, c_2)[None, :], tl.arange(0, r_2)[None, :]  # channels
    at = query + (row * heads + head[:, None]) * (c + r)
    content = tl.load(at + i, mask=(head[:, None] < heads) & (i < c), other=0.0)
    position = tl.load(at + c + j, mask=(head[:, None] < heads) & (j < r), other=0.0)

    largest = tl.full([HEADS], -1e30, tl.float32)
    below = tl.zeros([HEADS], tl.float32)  # the denominator of the softmax so far
    above = tl.zeros([HEADS, c_2], tl.float32)
    for start in range(part * size, min(part * size + size, past), TILE):
        n = start + tl.arange(0, TILE)
        seen = n < past
        at = latents + batch * l_batch + n[:, None].to(tl.int64) * l_past
        latent = tl.load(at + i, mask=seen[:, None] & (i < c), other=0.0)
        key = tl.load(at + c + j, mask=seen[:, None] & (j < r), other=0.0)
        if MASKED:
            seen &= (
                tl.load(mask + batch * m_batch + t * m_seq + n * m_past, mask=seen, other=0) != 0
            )
        score = tl.dot(position, tl.trans(key), tl.dot(content, tl.trans(latent))) * scale
        score = tl.where(seen[None, :], score, float("-inf"))
        new = tl.maximum(largest, tl.max(score, 1))
        weight, fade = tl.exp2(score - new[:, None]), tl.exp2(largest - new)
        below = below * fade + tl.sum(weight, 1)
        above = tl.dot(weight.to(latent.dtype), latent, above * fade[:, None])
        largest = new
    below = tl.maximum(below, 1e-30)
    at = (row * tl.num_programs(1) + part) * heads + head
    tl.store(total + at, largest + tl.log2(below), mask=head < heads)
    tl.store(
        out + at[:, None] * c + i, above / below[:, None], mask=(head[:, None] < heads) & (i < c)
    )


@triton.jit(do_not_specialize=["parts"])
@no_type_check
def _merge(out, total, merged, parts, heads, c: tl.constexpr, c_2: tl.constexpr):
    """The parts of one row and head, each weighted by its share of the exponentials."""
    at, i = tl.program_id(0).to(tl.int64) * parts * heads + tl.program_id(1), tl.arange(0, c_2)
    largest, below = -1e38, 0.0
    above = tl.zeros([c_2], tl.float32)
    for part in range(parts):
        found = tl.load(total + at + part * heads)
        new = tl.maximum(largest, found)
        weight, fade = tl.exp2(found - new), tl.exp2(largest - new)
        below = below * fade + weight
        here = tl.load(out + (at + part * heads) * c + i, mask=i < c, other=0.0)
        above = above * fade + weight * here
        largest = new
    at = tl.program_id(0).to(tl.int64) * heads + tl.program_id(1)
    tl.store(merged + at * c + i, above / below, mask=i < c)
