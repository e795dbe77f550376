"""Attention of V4 token by token, prefill = decode, a state of fixed size, and the known traps.

`by_the_equations` computes a layer with plain loops: every entry, every score, every softmax. Each
`wrong` variant of it is a mistake seen in public ports; the trap tests hold our layer against the
right one and check that the wrong one is far off, so that they would notice the mistake in ours.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dsnotes.after.compressed import CompressedAttention, GroupedLinear
from dsnotes.after.compressed_cache import CompressedCache
from dsnotes.after.compressor import Compressor, Indexer, SparseCompressor, turn, visible
from dsnotes.after.config import DEEPSEEK_V4_FLASH, TINY_V4, ConfigV4
from dsnotes.after.ledger import parts
from dsnotes.config import RopeScaling

WINDOW, CSA, HCA = 0, 1, 2  # layers of TINY_V4
YARN = RopeScaling(factor=16.0, original_max_position_embeddings=64)
SEQ = 53  # no multiple of a window


def layer(layer_idx: int, config: ConfigV4 = TINY_V4) -> CompressedAttention:
    """In float64, with weights that make every softmax uneven."""
    torch.manual_seed(0)
    made = CompressedAttention(config, layer_idx).double().requires_grad_(False)
    for name, tensor in made.named_parameters():
        centre = float(name.endswith("norm.weight"))
        nn.init.normal_(tensor, mean=centre, std=0.3 if tensor.ndim == 1 else 0.2)
    return made


def draw(seq: int = SEQ) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(1, seq, TINY_V4.hidden_size, dtype=torch.float64)


def apart(ours: Tensor, wrong: Tensor) -> float:
    return ((ours - wrong).abs().max() / ours.abs().max()).item()


# --- the layer by the equations ---


def angle(config: ConfigV4, ratio: int, pair: int, wrong: str) -> float:
    """One frequency, YaRN by parts where the layer compresses."""
    r = config.qk_rope_head_dim
    base = config.compress_rope_theta if ratio else config.rope_theta
    if wrong == "one base":
        base = config.rope_theta
    theta = base ** (-2 * pair / r)
    scaling = config.rope_scaling
    if not ratio or scaling is None:
        return theta
    index = [
        r * math.log(scaling.original_max_position_embeddings / (turns * 2 * math.pi))
        / (2 * math.log(base))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    ]  # fmt: skip
    low, high = max(math.floor(index[0]), 0), min(math.ceil(index[1]), r - 1)
    slowed = min(max((pair - low) / ((high - low) or 0.001), 0), 1)
    return theta * (1 - slowed) + theta / scaling.factor * slowed


def rope(x: Tensor, position: int, config: ConfigV4, ratio: int, wrong: str = "") -> Tensor:
    """The last channels of one vector turned pair by pair."""
    r, out = config.qk_rope_head_dim, x.clone()
    first = len(x) - r
    for pair in range(r // 2):
        one, two = first + 2 * pair, first + 2 * pair + 1
        if wrong == "halves":
            one, two = first + pair, first + pair + r // 2
        a = position * angle(config, ratio, pair, wrong)
        out[one] = x[one] * math.cos(a) - x[two] * math.sin(a)
        out[two] = x[one] * math.sin(a) + x[two] * math.cos(a)
    return out


def normed(x: Tensor, weight: Tensor | None = None) -> Tensor:
    y = x / (x.square().mean() + TINY_V4.rms_norm_eps).sqrt()
    return y if weight is None else y * weight


def entry(c: Compressor, x: Tensor, i: int, config: ConfigV4, wrong: str) -> Tensor:
    """C^Comp_i, normed and turned: for each token its place, its stream, its gate."""
    m, size = c.ratio, c.head_dim
    columns = slice(-size, None)  # the current stream
    before = slice(0, size)  # what the next entry reads
    if wrong == "streams swapped":
        columns, before = before, columns
    parts = [(m * i + j, j, columns) for j in range(m)]
    if c.streams == 2 and i > 0 and wrong != "no overlap":
        parts = [(m * (i - 1) + j, j, before) for j in range(m)] + parts
    values = torch.stack([(c.kv_proj.weight @ x[t])[s] for t, _, s in parts])
    gates = torch.stack(
        [(c.gate_proj.weight @ x[t])[s] + c.position_bias[j][s] for t, j, s in parts]
    )
    if wrong == "one softmax":  # the same weight for all channels
        gates = gates.mean(dim=-1, keepdim=True).expand_as(gates)
    mixed = (gates.softmax(dim=0) * values).sum(dim=0)
    position = {"at index": i, "at end": m * i + m - 1, "not turned": 0}.get(wrong, m * i)
    return rope(normed(mixed, c.kv_norm.weight), position, config, m, wrong)


def chosen(c: SparseCompressor, x: Tensor, latent: Tensor, t: int, config: ConfigV4, wrong: str
) -> list[int]:  # fmt: skip
    """The best entries for the query t among those that are complete."""
    last = len(x) if wrong == "future" else t + 1
    k, scores = c.indexer, []
    weights = k.scorer.weights_proj.weight @ x[t]
    queries = (k.q_b_proj.weight @ latent).view(config.index_n_heads, -1)
    queries = torch.stack([rope(q, t, config, c.ratio, wrong) for q in queries])
    for s in range(last // c.ratio):
        key = entry(k, x, s, config, wrong)
        scores.append((weights * (queries @ key).clamp_min(0)).sum())
    best = sorted(range(len(scores)), key=lambda s: -scores[s])[: config.index_topk]
    return [s for s in best if c.ratio * (s + 1) <= t + 1]


def by_the_equations(
    a: CompressedAttention, x: Tensor, t: int, config: ConfigV4 = TINY_V4, *, wrong: str = ""
) -> Tensor:
    """The output for token t of one sequence (seq, hidden)."""
    ratio = a.ratio
    latent = normed(a.q_a_proj.weight @ x[t], a.q_a_norm.weight)
    first = 0 if wrong == "no window" else max(0, t - config.sliding_window + 1)
    keys = [
        rope(normed(a.kv_proj.weight @ x[s], a.kv_norm.weight), s, config, ratio, wrong)
        for s in range(first, t + 1)
    ]
    which: list[int] = []
    if isinstance(a.compressor, SparseCompressor):
        which = chosen(a.compressor, x, latent, t, config, wrong)
    elif a.compressor is not None:
        which = list(range((t + 1) // ratio))
    if a.compressor is not None:
        keys += [entry(a.compressor, x, s, config, wrong) for s in which]
    scale = config.head_dim**-0.5
    if wrong == "mscale" and ratio and config.rope_scaling is not None:
        scale *= (0.1 * math.log(config.rope_scaling.factor) + 1) ** 2
    heads = []
    for h, row in enumerate((a.q_b_proj.weight @ latent).view(config.num_attention_heads, -1)):
        query = rope(normed(row), t, config, ratio, wrong)
        logits = [float(query @ key) * scale for key in keys]
        values, sink = keys, math.exp(a.sinks[h])
        if wrong == "sink is a token":  # a key and a value, here 1 in every channel
            sink, one = 0.0, torch.ones_like(query)
            logits, values = [*logits, float(query @ one) * scale], [*keys, one]
        if wrong == "no sink":
            sink = 0.0
        total = sum(map(math.exp, logits)) + sink
        out = sum(math.exp(z) / total * v for z, v in zip(logits, values, strict=True))
        assert isinstance(out, Tensor)
        heads.append(out if wrong == "not turned back" else rope(out, -t, config, ratio, wrong))
    per = len(heads) // config.o_groups
    blocks = a.o_a_proj.weight.view(config.o_groups, config.o_lora_rank, -1)
    groups = [blocks[g] @ torch.cat(heads[g * per : (g + 1) * per]) for g in range(config.o_groups)]
    return a.o_b_proj.weight @ torch.cat(groups)


KINDS = pytest.mark.parametrize("kind", [WINDOW, CSA, HCA], ids=["window", "CSA", "HCA"])


@KINDS
@pytest.mark.parametrize("scaling", [None, YARN], ids=["plain", "yarn"])
def test_layer_by_the_equations(kind: int, scaling: RopeScaling | None) -> None:
    config = replace(TINY_V4, rope_scaling=scaling)
    a, x = layer(kind, config), draw()
    got = a(x)[0]
    for t in (0, 3, 4, 15, 31, 52):
        assert torch.allclose(got[t], by_the_equations(a, x[0], t, config), atol=1e-12), t


def test_an_entry_weighs_each_channel_apart() -> None:
    """(11): the weights of one channel sum to 1 over 2m tokens, and channels differ."""
    c = layer(CSA).compressor
    assert c is not None
    ones = torch.ones(1, 3, 4, 2 * c.head_dim, dtype=torch.float64)
    assert torch.allclose(c.pool(ones, torch.randn_like(ones)), ones[:, :2, 0, : c.head_dim])


def test_the_first_entry_has_nothing_before_it() -> None:
    """(11), i = 0: zeros with gates of -inf, so a first window alone makes its entry."""
    c, x = layer(CSA).compressor, draw()
    assert c is not None
    assert torch.allclose(c(x)[0, 0], entry(c, x[0], 0, TINY_V4, ""))
    assert torch.equal(c(x[:, :4]), c(x)[:, :1])
    assert c(x[:, :3]).shape == (1, 0, TINY_V4.head_dim)


def test_entries_overlap_in_csa_alone() -> None:
    """A changed token moves the entry of its window, in CSA the next one too, and no other."""
    for kind, moved in ((CSA, [2, 3]), (HCA, [0])):
        c, x = layer(kind).compressor, draw()
        assert c is not None
        other = x.clone()
        other[:, 9] += 1
        difference = (c(x) - c(other)).abs().amax(dim=(0, 2))
        assert difference.nonzero().flatten().tolist() == moved


def test_an_entry_is_visible_from_its_last_token_on() -> None:
    assert visible(torch.arange(9), 2, ratio=4).sum(-1).tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]


@KINDS
def test_no_token_sees_a_later_one(kind: int) -> None:
    a, x = layer(kind), draw()
    other = x.clone()
    other[:, 30:] = draw(23) * 2
    assert torch.equal(a(x)[:, :30], a(other)[:, :30])


@KINDS
def test_how_far_a_layer_reaches(kind: int) -> None:
    """A window-only layer forgets the first token, the two others still know it."""
    config = replace(TINY_V4, index_topk=64)
    a, x = layer(kind, config), draw()
    other = x.clone()
    other[:, 0] += 1
    assert (torch.equal(a(x)[:, 20:], a(other)[:, 20:])) == (kind == WINDOW)


@KINDS
def test_scores_depend_on_the_distance_alone(kind: int) -> None:
    """Tokens that move by one window change nothing once the first windows are out of sight."""
    config = replace(TINY_V4, sliding_window=4)
    a = layer(kind, config)
    ratio = a.ratio or 4
    x = torch.cat([draw(ratio), draw(3 * ratio)], dim=1)
    later = torch.cat([draw(ratio), x], dim=1)
    positions = torch.arange(x.shape[1])
    q, k = torch.randn(2, 1, x.shape[1], 32, dtype=torch.float64)
    shift = ratio
    one = turn(q, positions, a.frequencies) @ turn(k, positions, a.frequencies).mT
    moved = positions + shift
    two = turn(q, moved, a.frequencies) @ turn(k, moved, a.frequencies).mT
    assert torch.allclose(one, two)
    if kind == WINDOW:
        assert torch.allclose(a(x)[:, 3:], a(later)[:, 3 + shift :])


@KINDS
def test_the_output_turned_back_depends_on_the_distance_alone(kind: int) -> None:
    """Values carry their position i; turned by -t, what is left of it is i - t."""
    a = layer(kind)
    values = torch.randn(1, 6, 32, dtype=torch.float64)
    weights = torch.rand(1, 6, 6, dtype=torch.float64)
    outs = []
    for start in (0, 100):
        positions = torch.arange(start, start + 6)
        mixed = weights @ turn(values, positions, a.frequencies)
        outs.append(turn(mixed, positions, a.frequencies, back=True))
    assert torch.allclose(outs[0], outs[1])


def test_the_sink_takes_weight_and_gives_no_value() -> None:
    """(27): weights sum to 1 - sink's share; a sink of -inf is the plain softmax."""
    a = layer(WINDOW)
    query = torch.randn(1, 2, 4, 32, dtype=torch.float64)
    keys, mask = torch.randn(1, 5, 32, dtype=torch.float64), torch.ones(1, 2, 5).bool()
    logits = torch.einsum("bthc,bsc->bths", query, keys) * 32**-0.5
    total = logits.exp().sum(-1) + a.sinks.exp()
    assert torch.allclose(a.weights(query, keys, mask), logits.exp() / total.unsqueeze(-1))
    assert (a.weights(query, keys, mask).sum(-1) < 1).all()
    a.sinks.fill_(float("-inf"))
    assert torch.allclose(a.weights(query, keys, mask), logits.softmax(-1))


def test_grouped_projection_is_a_block_diagonal_matrix() -> None:
    one = GroupedLinear(12, 5, groups=3).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    blocks = torch.block_diag(*one.weight.view(3, 5, 4))
    assert torch.allclose(one(x), x @ blocks.T)
    assert one.weight.numel() * 3 == blocks.numel()


# --- the cache ---


@KINDS
@pytest.mark.parametrize("pieces", [[53], [1] * 53, [23, *[1] * 10, 9, 11], [3, 1, 12, 16, 21]])
def test_prefill_equals_decode(kind: int, pieces: list[int]) -> None:
    a, x = layer(kind), draw()
    cache = CompressedCache(TINY_V4, batch_size=1, capacity=64, dtype=torch.float64)
    got = torch.cat([a(piece, cache) for piece in x.split(pieces, dim=1)], dim=1)
    assert torch.allclose(got, a(x), atol=1e-13)
    assert cache.layers[kind].length == 53


def test_the_state_keeps_its_size() -> None:
    """Only entries grow; a twice as large capacity doubles them and nothing else."""
    small, large = (CompressedCache(TINY_V4, batch_size=2, capacity=n) for n in (64, 128))
    assert small.fixed_nbytes == large.fixed_nbytes
    assert 2 * small.entries_nbytes == large.entries_nbytes
    before = small.fixed_nbytes
    layer(CSA).float()(torch.randn(2, 50, 64), small)
    assert small.fixed_nbytes == before


def test_two_layers_keep_their_own_lengths() -> None:
    cache = CompressedCache(TINY_V4, batch_size=1, capacity=64, dtype=torch.float64)
    layer(CSA)(draw(7), cache)
    assert [state.length for state in cache.layers] == [0, 7, 0, 0]


# --- names and sizes ---


def test_names_and_shapes_are_transformers() -> None:
    names = {n: tuple(p.shape) for n, p in layer(CSA).named_parameters()}
    assert names["compressor.indexer.scorer.weights_proj.weight"] == (32, 64)
    assert names["compressor.position_bias"] == (4, 64)
    assert names["o_a_proj.weight"] == (48, 64)
    assert "compressor.indexer.kv_proj.weight" not in dict(layer(HCA).named_parameters())
    assert not [n for n in dict(layer(WINDOW).named_parameters()) if "compressor" in n]


@pytest.mark.parametrize("config", [TINY_V4, DEEPSEEK_V4_FLASH], ids=["tiny", "flash"])
def test_sizes_are_those_of_the_ledger(config: ConfigV4) -> None:
    with torch.device("meta"):
        layers = [CompressedAttention(config, i) for i in range(config.num_hidden_layers)]
    size = sum(p.numel() for a in layers for p in a.parameters())
    (counted,) = [part for part in parts(config) if part.name == "attention"]
    assert size == counted.total


@KINDS
def test_gradients_reach_all_but_the_indexer(kind: int) -> None:
    """The choice has no gradient, so the indexer needs a loss of its own."""
    a = layer(kind).requires_grad_(True)
    a(draw()).sum().backward()
    missing = {n for n, p in a.named_parameters() if p.grad is None}
    assert missing == {n for n, _ in a.named_parameters() if "indexer" in n}


@KINDS
def test_bfloat16_stays_near(kind: int) -> None:
    config = replace(TINY_V4, index_topk=64)  # all entries: no choice that rounding could turn
    wide = layer(kind, config)
    exact = wide(draw())
    got = wide.to(torch.bfloat16)(draw().bfloat16())
    assert got.dtype == torch.bfloat16
    assert apart(exact, got.double()) < 0.05


# --- errors ---


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match=r"layer_idx must lie in 0 \.\. 3, got 4"):
        CompressedAttention(TINY_V4, 4)
    with pytest.raises(ValueError, match="x must have 64 channels"):
        layer(CSA)(torch.randn(1, 3, 65))
    cache = CompressedCache(TINY_V4, batch_size=2, capacity=5)
    with pytest.raises(ValueError, match="x must have batch 2 as the cache, got 1"):
        layer(CSA).float()(torch.randn(1, 3, 64), cache)
    with pytest.raises(ValueError, match="CompressedCache is full: capacity 5, 0 tokens held, 6"):
        layer(CSA).float()(torch.randn(2, 6, 64), cache)
    with pytest.raises(ValueError, match="capacity must be at least 1, got 0"):
        CompressedCache(TINY_V4, batch_size=2, capacity=0)
    with pytest.raises(ValueError, match="ratio must be at least 2, got 1"):
        Compressor(TINY_V4, 1)
    with pytest.raises(ValueError, match="x must have at least 4 channels"):
        turn(torch.ones(1, 3), torch.arange(1), torch.ones(2))
    with pytest.raises(ValueError, match="latent must have 48 channels"):
        Indexer(TINY_V4).choose(torch.randn(1, 3, 64), torch.randn(1, 3, 47), torch.arange(3))


# --- traps: mistakes seen in public ports ---


def held_against(
    kind: int, wrong: str, config: ConfigV4 = TINY_V4, *, t: int = SEQ - 1, seq: int = SEQ
) -> float:
    """Our layer equals the right one; how far off the wrong one is, relative."""
    a, x = layer(kind, config), draw(seq)
    got = a(x)[0, t]
    assert torch.allclose(got, by_the_equations(a, x[0], t, config), atol=1e-12)
    return apart(got, by_the_equations(a, x[0], t, config, wrong=wrong))


@KINDS
def test_trap_1_output_not_turned_back(kind: int) -> None:
    assert held_against(kind, "not turned back") > 0.1


@pytest.mark.parametrize("kind", [CSA, HCA])
def test_trap_2_mscale_of_v3_kept(kind: int) -> None:
    """V3 multiplies the scale by (0.1 ln 16 + 1)^2 under YaRN; V4 has no such factor."""
    assert (0.1 * math.log(16) + 1) ** 2 == pytest.approx(1.63, abs=0.01)
    assert held_against(kind, "mscale", replace(TINY_V4, rope_scaling=YARN)) > 0.01


@pytest.mark.parametrize("wrong", ["not turned", "at index", "at end"])
@pytest.mark.parametrize("kind", [CSA, HCA])
def test_trap_3_entries_at_another_position(kind: int, wrong: str) -> None:
    """The position of an entry is that of the first token of its window, i m."""
    assert held_against(kind, wrong) > 1e-3


def test_trap_4_one_base_for_all_layers() -> None:
    """Off from the first turned pair on; a window-only layer cannot tell."""
    assert held_against(CSA, "one base") > 1e-3
    assert held_against(HCA, "one base") > 1e-3
    assert held_against(WINDOW, "one base") < 1e-12


def test_trap_5_indexer_without_causal_mask() -> None:
    """Later entries take places of the top-k; what is left for the query is fewer."""
    config = replace(TINY_V4, index_topk=2)
    assert held_against(CSA, "future", config, t=20) > 1e-3


@KINDS
def test_trap_6_rotate_half(kind: int) -> None:
    """Released weights turn adjacent channels, not channel and channel + half."""
    assert held_against(kind, "halves") > 1e-3


@KINDS
def test_trap_7_window_missing(kind: int) -> None:
    """Nothing is wrong as long as the text is shorter than the window."""
    assert held_against(kind, "no window") > 0.01
    assert held_against(kind, "no window", t=7) < 1e-12


@pytest.mark.parametrize("wrong", ["sink is a token", "no sink"])
@KINDS
def test_trap_8_sink_is_one_number(kind: int, wrong: str) -> None:
    assert held_against(kind, wrong) > 0.01


def test_trap_9_teacher_of_the_indexer_over_entries_alone() -> None:
    """The softmax is joint, so a head that looks at its window says little about entries.

    Normalised over the entries, both heads weigh alike and the wrong entry comes first.
    """
    a = layer(CSA, replace(TINY_V4, num_attention_heads=2)).requires_grad_(False)
    a.sinks.fill_(float("-inf"))
    keys = torch.eye(3, 32, dtype=torch.float64)[None]  # one token of the window, two entries
    query = torch.zeros(1, 1, 2, 32, dtype=torch.float64)
    query[0, 0, 0, :3] = torch.tensor([6.0, 3.0, 0.0]) / a.softmax_scale  # looks at its window
    query[0, 0, 1, :3] = torch.tensor([0.0, 1.0, 2.0]) / a.softmax_scale
    weights = a.weights(query, keys, torch.ones(1, 1, 3).bool())[0, 0]
    joint = weights[:, 1:].sum(dim=0)
    alone = (weights[:, 1:] / weights[:, 1:].sum(dim=-1, keepdim=True)).sum(dim=0)
    assert joint.argmax() == 1
    assert alone.argmax() == 0


def test_trap_10_streams_swapped() -> None:
    """The first half of the channels is what the next entry reads, not the current one."""
    assert held_against(CSA, "streams swapped") > 0.01


@pytest.mark.parametrize("wrong", ["no overlap", "one softmax"])
def test_trap_11_entries_without_overlap_or_with_one_weight_a_token(wrong: str) -> None:
    assert held_against(CSA, wrong) > 0.01


def test_ties_need_many_heads() -> None:
    """With few heads ReLU leaves scores of exactly 0, and among equals any choice is right."""
    for heads, alike in ((2, True), (32, False)):
        torch.manual_seed(0)
        indexer = Indexer(replace(TINY_V4, index_n_heads=heads)).double()
        x, latent = draw(), torch.randn(1, SEQ, 48, dtype=torch.float64)
        keys = indexer(x)
        query = indexer.q_b_proj(latent).unflatten(-1, (heads, -1))
        scores = indexer.scorer(x, query, keys)
        assert bool((scores == 0).any()) == alike


def test_a_compressor_that_goes_on_needs_the_state_it_left():
    compressor = Compressor(TINY_V4, 4)
    with pytest.raises(ValueError, match="state must be given where start is above 0, got start 8"):
        compressor(torch.randn(1, 4, TINY_V4.hidden_size), start=8)
