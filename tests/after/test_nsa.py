"""Native sparse attention: eq 5 to 10 against loops, and what is easily got wrong."""

import pytest
import torch
from torch import Tensor

from dsnotes.after.nsa import attend, choose_blocks, compress, importance, native_sparse_attention

SIZES = {"length": 4, "stride": 2, "block": 8, "topn": 4, "window": 5}
SEQ, HEADS, GROUPS = 37, 4, 2


def inputs(batch: int = 2, seq: int = SEQ) -> dict[str, Tensor]:
    return {
        "query": torch.randn(batch, seq, HEADS, 8, dtype=torch.float64),
        "keys": torch.randn(3, batch, seq, GROUPS, 8, dtype=torch.float64),
        "values": torch.randn(3, batch, seq, GROUPS, 6, dtype=torch.float64),
        "gates": torch.rand(3, batch, seq, HEADS, dtype=torch.float64),
    }


def overlap(i: int, j: int) -> int:
    """Strides that summary i (of l tokens) and block j (of l') share, counted from 0."""
    first, last = i * SIZES["stride"], i * SIZES["stride"] + SIZES["length"]
    begin, end = j * SIZES["block"], (j + 1) * SIZES["block"]
    return max(0, min(last, end) - max(first, begin)) // SIZES["stride"]


def by_the_equations(
    query: Tensor, keys: Tensor, values: Tensor, gates: Tensor, *, wrong: str = ""
) -> Tensor:
    """One sequence, one query at a time."""
    length, stride, block, topn, window = SIZES.values()
    out = torch.zeros(len(query), HEADS, values.shape[-1], dtype=query.dtype)
    shared = HEADS // GROUPS
    for t in range(len(query)):
        n_cmp = max(0, (t + 1 - length) // stride + 1)  # (7), t + 1 tokens are there
        scores: dict[int, dict[int, float]] = {}
        for h in range(HEADS):
            k, v = keys[0, :, h // shared], values[0, :, h // shared]
            spans = [slice(i * stride, i * stride + length) for i in range(n_cmp)]
            if spans:
                k_cmp = torch.stack([k[s].mean(0) for s in spans])
                v_cmp = torch.stack([v[s].mean(0) for s in spans])
                p = (k_cmp @ query[t, h] / 8**0.5).softmax(0)  # (8)
                out[t, h] += gates[0, t, h] * (p @ v_cmp)
                for j in range(t // block + 1):
                    mine = sum(overlap(i, j) * float(p[i]) for i in range(n_cmp))
                    scores.setdefault(h, {})[j] = mine
        for h in range(HEADS):
            group = [i for i in range(HEADS) if i // shared == h // shared]
            if wrong == "each head chooses":
                group = [h]
            total = {
                j: sum(scores.get(i, {}).get(j, 0.0) for i in group) for j in range(t // block + 1)
            }
            forced = {0, t // block, max(0, t // block - 1)}
            rest = sorted((j for j in total if j not in forced), key=lambda j: -total[j])
            best = [*forced, *rest][:topn]
            seen = [s for s in range(t + 1) if s // block in best]
            for c, where in ((1, seen), (2, range(max(0, t + 1 - window), t + 1))):
                k, v = keys[c, list(where), h // shared], values[c, list(where), h // shared]
                out[t, h] += gates[c, t, h] * ((k @ query[t, h] / 8**0.5).softmax(0) @ v)
    return out


@pytest.mark.parametrize("seq", [1, 3, 4, 9, SEQ])
def test_output_follows_the_equations(seq: int) -> None:
    given = inputs(seq=seq)
    found = native_sparse_attention(**given, **SIZES)
    for i in range(2):
        one = {"query": given["query"][i]} | {n: given[n][:, i] for n in list(given)[1:]}
        torch.testing.assert_close(found[i], by_the_equations(**one))


def test_gates_weigh_the_branches() -> None:
    given = inputs()
    parts = []
    for c in range(3):
        only = torch.zeros_like(given["gates"])
        only[c] = 1
        parts.append(native_sparse_attention(**given | {"gates": only}, **SIZES))
    weighed = torch.einsum("cbth,cbthv->bthv", given["gates"], torch.stack(parts))
    torch.testing.assert_close(native_sparse_attention(**given, **SIZES), weighed)


def test_it_is_dense_attention_when_every_block_is_chosen() -> None:
    given, only = inputs(), torch.zeros(3, 2, SEQ, HEADS, dtype=torch.float64)
    only[1] = 1
    causal = torch.ones(1, 1, SEQ, SEQ).bool().tril()
    dense, _ = attend(given["query"], given["keys"][1], given["values"][1], causal)
    sizes = SIZES | {"topn": -(-SEQ // SIZES["block"])}
    torch.testing.assert_close(native_sparse_attention(**given | {"gates": only}, **sizes), dense)


def test_a_summary_of_a_short_sequence_is_empty() -> None:
    assert compress(torch.randn(1, 3, 2, 8), length=4, stride=2).shape == (1, 0, 2, 8)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"stride": 3}, "length must be a multiple of stride"),
        ({"block": 7}, "block must be a multiple of stride"),
        ({"topn": 2}, "topn must be at least 3"),
        ({"window": 0}, "window must be at least 1"),
        ({"length": 0}, "length must be at least 1"),
    ],
)
def test_wrong_sizes_are_refused_by_name(change: dict[str, int], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        native_sparse_attention(**inputs(), **SIZES | change)


def test_heads_that_do_not_share_evenly_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="query must have a multiple of 2 heads"):
        attend(
            torch.randn(1, 4, 3, 8),
            torch.randn(1, 4, 2, 8),
            torch.randn(1, 4, 2, 8),
            torch.ones(1, 1, 4, 4).bool(),
        )


# --- traps ---


def test_trap_7_equation_9_counts_from_one() -> None:
    """With l, d, l' = 32, 16, 64 a block collects five summaries, weights 1 2 2 2 1.

    Counted from 1 as printed they are those that overlap it; counted from 0 the first block would
    read four summaries before the text and miss three of its own.
    """
    probs = torch.eye(12)[None, None, None]  # query i looks at summary i alone
    found = importance(probs, length=32, stride=16, block=64)[0, 0].T
    assert found[1].tolist() == [0, 0, 0, 1, 2, 2, 2, 1, 0, 0, 0, 0]
    printed = torch.zeros(3, 13)  # [j - 1, i], summary i counted from 1; 0 is outside
    for j in range(1, 4):
        for m in range(4):
            for n in range(2):
                printed[j - 1, 4 * j - m - n] += 1
    assert torch.equal(found[:3], printed[:, 1:])
    zero_based = [4 * 0 - m - n for m in range(4) for n in range(2)]
    assert sum(i < 0 for i in zero_based) == 7


def test_trap_8_the_heads_of_a_group_share_their_blocks() -> None:
    given = inputs(batch=1, seq=64)
    one = {"query": given["query"][0]} | {n: given[n][:, 0] for n in list(given)[1:]}
    found = native_sparse_attention(**given, **SIZES)[0]
    torch.testing.assert_close(found, by_the_equations(**one))
    wrong = by_the_equations(**one, wrong="each head chooses")
    assert (found - wrong).abs().amax(dim=(1, 2)).gt(0.01).sum() > 10


def test_blocks_are_whole_and_causal() -> None:
    mask = choose_blocks(torch.rand(2, GROUPS, SEQ, 4), block=8, topn=3)
    assert not mask.triu(1).any()
    last = mask[:, :, -1, : 4 * 8].unflatten(-1, (4, 8))
    assert torch.equal(last.all(-1), last.any(-1))
