"""Sparse attention: the equations term by term, one output three ways, the losses, the traps.

`scores_of` computes eq 1 of one sequence token by token and head by head. Each `wrong` variant is
a mistake seen in public code; a trap test holds ours against the right one and shows that the
wrong one chooses other tokens or learns something else.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsnotes.after.config import TINY_V32, ConfigV32
from dsnotes.after.indexer import Indexer, Selection, indexer_loss, select
from dsnotes.after.sparse import SparseMLA, record_losses, use_sparse_attention
from dsnotes.config import TINY, RopeScaling
from dsnotes.model.cache import LatentCache
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import MLA, Pass
from dsnotes.model.rope import rope_frequencies, rope_rotation

SEQ = 12
YARN = replace(TINY_V32, rope_scaling=RopeScaling(factor=4.0, original_max_position_embeddings=64))


@pytest.fixture(params=[TINY_V32, YARN], ids=["V3.2", "YaRN"])
def config(request: pytest.FixtureRequest) -> ConfigV32:
    return request.param


def attention(config: ConfigV32) -> SparseMLA:
    """A layer in float64 with uneven attention, and norms that are not trivial."""
    layer = SparseMLA(config).double()
    for name, parameter in layer.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        if "norm.weight" in name:
            parameter.data += 1
    return layer


def rotation(config: ConfigV32, positions: Tensor) -> Tensor:
    return rope_rotation(positions, rope_frequencies(config), dtype=torch.float64)


def hidden(config: ConfigV32, *, batch: int = 2, seq: int = SEQ) -> Tensor:
    return torch.randn(batch, seq, config.hidden_size, dtype=torch.float64)


def whole(config: ConfigV32, *, seq: int = SEQ, absorb: bool | None = None) -> Pass:
    return Pass(rotation(config, torch.arange(seq)), absorb=absorb)


def turned(x: Tensor, position: int, config: ConfigV32, wrong: str) -> Tensor:
    r = config.qk_rope_head_dim
    if wrong == "no rope":
        return x
    if wrong == "rope on the last channels":
        return torch.cat([x[:-r], turned(x[-r:], position, config, "")])
    angle = position * rope_frequencies(config)
    part = x[:r]
    a, b = (part[0::2], part[1::2]) if wrong == "interleaved rope" else part.chunk(2)
    a, b = a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()
    both = torch.stack([a, b], 1).flatten() if wrong == "interleaved rope" else torch.cat([a, b])
    return torch.cat([both, x[r:]])


def scores_of(layer: SparseMLA, config: ConfigV32, x: Tensor, *, wrong: str = "") -> Tensor:
    """Eq 1 for one sequence (seq, hidden); -inf for later tokens."""
    indexer, heads, d = layer.indexer, config.index_n_heads, config.index_head_dim
    scores = torch.full((len(x), len(x)), float("-inf"), dtype=x.dtype)
    keys = []
    for s, h in enumerate(x):
        key = indexer.wk.weight @ h
        if wrong != "RMSNorm":
            key = key - key.mean()
        key = key / (key.square().mean() + 1e-6).sqrt() * indexer.k_norm.weight
        if wrong != "RMSNorm":
            key = key + indexer.k_norm.bias
        keys.append(turned(key, s, config, wrong))
    for t, h in enumerate(x):
        compressed = layer.q_a_proj.weight @ h
        norm = (compressed.square().mean() + 1e-6).sqrt()
        compressed = compressed / norm * layer.q_a_layernorm.weight
        query = (indexer.wq_b.weight @ compressed).view(heads, d)
        weights = indexer.weights_proj.weight @ h
        if wrong != "no scale":
            weights = weights / heads**0.5 / d**0.5
        for s in range(t + 1):
            scores[t, s] = 0
            for j in range(heads):
                product = turned(query[j], t, config, wrong) @ keys[s]
                scores[t, s] += weights[j] * product.clamp(min=0)
    return scores


def ours(layer: SparseMLA, config: ConfigV32, x: Tensor) -> Tensor:
    """The scores of the library for one sequence, later tokens hidden."""
    *_, scores, mask = layer._scored(x[None], whole(config, seq=len(x)))
    return scores.masked_fill(~mask, float("-inf"))[0].detach()


def sets(scores: Tensor, k: int) -> list[set[int]]:
    """The best k of each row, of those that are visible."""
    return [
        {s for s in row.argsort(descending=True)[:k].tolist() if row[s] > float("-inf")}
        for row in scores
    ]


def test_scores_follow_equation_1(config: ConfigV32) -> None:
    layer, x = attention(config), hidden(config)[0]
    torch.testing.assert_close(ours(layer, config, x), scores_of(layer, config, x).detach())


def test_output_follows_equation_2(config: ConfigV32) -> None:
    """Attention of every head over the latents of one set, decompressed one by one."""
    layer, x = attention(config).requires_grad_(False), hidden(config)[0]
    shared = whole(config)
    query, latents = layer.query(x[None], shared.rotation)[0], layer.latent(x[None], shared[0])[0]
    c, n = config.kv_lora_rank, config.qk_nope_head_dim
    up = layer.kv_b_proj.weight.view(config.num_attention_heads, -1, c)
    expected = []
    for t, chosen in enumerate(sets(scores_of(layer, config, x), config.index_topk)):
        assert len(chosen) == min(t + 1, config.index_topk)
        kept = latents[sorted(chosen)]
        heads = []
        for i in range(config.num_attention_heads):
            key = torch.cat([kept[:, :c] @ up[i, :n].T, kept[:, c:]], dim=-1)
            weights = (key @ query[t, i] * layer.softmax_scale).softmax(0)
            heads.append(weights @ (kept[:, :c] @ up[i, n:].T))
        expected.append(layer.o_proj.weight @ torch.cat(heads))
    for absorb in (False, True):
        found = layer(x[None], whole(config, absorb=absorb))[0]
        torch.testing.assert_close(found, torch.stack(expected))


@pytest.mark.parametrize("absorb", [False, True])
def test_it_is_dense_attention_when_k_reaches_the_sequence(config: ConfigV32, absorb: bool) -> None:
    sparse = attention(replace(config, index_topk=SEQ))
    dense = MLA(config).double()
    dense.load_state_dict({k: v for k, v in sparse.state_dict().items() if "indexer" not in k})
    x = hidden(config)
    expected = dense(x, whole(config, absorb=absorb))
    torch.testing.assert_close(sparse(x, whole(config, absorb=absorb)), expected)


def test_it_differs_from_dense_attention_when_k_does_not(config: ConfigV32) -> None:
    layer, x = attention(config), hidden(config)
    dense = MLA(config).double()
    dense.load_state_dict({k: v for k, v in layer.state_dict().items() if "indexer" not in k})
    difference = (layer(x, whole(config)) - dense(x, whole(config))).abs().amax(dim=(0, 2))
    assert difference[: config.index_topk].max() < 1e-12
    assert difference[config.index_topk :].min() > 1e-3


@pytest.mark.parametrize("pieces", [[SEQ], [5, 4, 3], [1] * SEQ, [SEQ - 1, 1]])
@pytest.mark.parametrize("absorb", [None, False, True])
def test_a_cache_gives_what_the_whole_sequence_gives(
    config: ConfigV32, pieces: list[int], absorb: bool | None
) -> None:
    layer, x = attention(config).requires_grad_(False), hidden(config)
    cache = LatentCache(
        config, batch_size=2, capacity=SEQ, num_layers=1, width=layer.cache_width, dtype=x.dtype
    )
    outputs = []
    for piece in x.split(pieces, dim=1):
        positions, mask = cache.open(piece.shape[1])
        outputs.append(layer(piece, Pass(rotation(config, positions), mask, cache, absorb)))
        cache.advance()
    torch.testing.assert_close(torch.cat(outputs, dim=1), layer(x, whole(config)))


def test_a_narrow_cache_is_refused_by_name() -> None:
    layer, cache = attention(TINY_V32).float(), LatentCache(TINY_V32, batch_size=2, capacity=SEQ)
    positions, _ = cache.open(SEQ)
    turns = rope_rotation(positions, rope_frequencies(TINY_V32), dtype=torch.float32)
    with pytest.raises(ValueError, match="latents must be"):
        layer(hidden(TINY_V32).float(), Pass(turns, cache=cache))


def test_select_never_shows_a_hidden_token() -> None:
    mask = torch.rand(3, SEQ, SEQ) < 0.4
    chosen = select(torch.randn(3, SEQ, SEQ), mask, topk=6)
    assert isinstance(chosen, Selection)
    found = chosen.mask(SEQ)
    assert not (found & ~mask).any()
    assert (found.sum(-1) == mask.sum(-1).clamp(max=6)).all()
    with pytest.raises(ValueError, match="topk must be at least 1"):
        select(torch.randn(1, 2, 2), torch.ones(1, 2, 2).bool(), topk=0)


# --- the losses ---


def test_losses_follow_equations_3_and_4(config: ConfigV32) -> None:
    layer, x = attention(config), hidden(config)[0]
    scores = scores_of(layer, config, x).detach()
    query, latents = layer.query(x[None], whole(config)[0]), layer.latent(x[None], whole(config)[0])
    latent, key_rope = latents[0].split([config.kv_lora_rank, config.qk_rope_head_dim], dim=-1)
    up = layer.kv_b_proj.weight.view(config.num_attention_heads, -1, config.kv_lora_rank)
    for sparse in (False, True):
        expected = 0.0
        for t, best in enumerate(sets(scores, config.index_topk)):
            seen = sorted(best) if sparse else list(range(t + 1))
            p = torch.zeros(len(seen), dtype=x.dtype)
            for i in range(config.num_attention_heads):
                key = torch.cat([latent @ up[i, : config.qk_nope_head_dim].T, key_rope], -1)[seen]
                p += (key @ query[0, t, i] * layer.softmax_scale).softmax(0).detach()
            p /= p.abs().sum()
            guess = scores[t, seen].softmax(0)
            expected += (p * (p / guess).log()).sum() / len(x)
        found = layer.loss(x[None], whole(config), sparse=sparse)
        torch.testing.assert_close(found.detach(), expected)


def test_the_loss_is_least_where_the_scores_foretell_the_attention() -> None:
    target = torch.rand(2, 5, 5).tril()
    target /= target.sum(-1, keepdim=True)
    causal = torch.ones(1, 5, 5).bool().tril()
    assert indexer_loss(target.log(), target, causal).abs() < 1e-6
    assert indexer_loss(torch.zeros(2, 5, 5), target, causal) > 0.01


@pytest.mark.parametrize("sparse", [False, True])
def test_the_loss_reaches_the_indexer_alone_and_no_other_loss_does(sparse: bool) -> None:
    """V3.2-Exp report §2.1: the indexer's input is detached; the model learns from its own loss."""
    layer, x = attention(TINY_V32), hidden(TINY_V32).requires_grad_()
    layer.loss(x, whole(TINY_V32), sparse=sparse).backward()
    reached = {name for name, p in layer.named_parameters() if p.grad is not None}
    assert reached == {f"indexer.{name}" for name, _ in layer.indexer.named_parameters()}
    assert x.grad is None


def test_a_model_becomes_sparse_and_its_indexers_learn() -> None:
    """Warm-up on one batch: the loss of every layer falls, the dense weights do not move."""
    torch.manual_seed(0)
    model = DeepSeek(replace(TINY, initializer_range=0.2))
    config = replace(TINY_V32, initializer_range=0.2, index_topk=SEQ)
    tokens = torch.randint(TINY.vocab_size, (4, SEQ))
    before = model(tokens)
    use_sparse_attention(model, config)
    assert (model(tokens) - before).abs().max() < 1e-4
    cache = model.new_cache(batch_size=4, capacity=SEQ)
    torch.testing.assert_close(model(tokens, cache=cache), model(tokens))
    own = [p for name, p in model.named_parameters() if ".indexer." in name]
    optimizer, first = torch.optim.Adam(own, lr=3e-3), None
    for _ in range(60):
        with record_losses(model, sparse=False) as losses:
            model(tokens)
        first = losses if first is None else first
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    assert len(losses) == TINY.num_hidden_layers
    assert all(new < old / 2 for new, old in zip(losses, first, strict=True))
    assert model.lm_head.weight.grad is None


def test_a_model_that_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="hidden_size 64, got 128"):
        use_sparse_attention(DeepSeek(TINY), replace(TINY_V32, hidden_size=128))
    model = use_sparse_attention(DeepSeek(TINY), TINY_V32)
    with pytest.raises(ValueError, match="layer 0, got SparseMLA"):
        use_sparse_attention(model, TINY_V32)


# --- traps ---


@pytest.mark.parametrize("wrong", ["interleaved rope", "no rope", "rope on the last channels"])
def test_trap_1_the_indexer_turns_its_first_channels_in_halves(wrong: str) -> None:
    """The released demonstration turned adjacent pairs until November, as MLA does."""
    layer, x = attention(TINY_V32), hidden(TINY_V32)[0]
    right, found = scores_of(layer, TINY_V32, x), ours(layer, TINY_V32, x)
    assert sets(found, 4) == sets(right, 4)
    other = sets(scores_of(layer, TINY_V32, x, wrong=wrong), 4)
    assert sum(a != b for a, b in zip(sets(right, 4), other, strict=True)) >= 3


def test_trap_2_the_choice_depends_on_content_not_on_distance() -> None:
    """A window with every eighth token beyond is a fixed pattern: two texts get the same set."""
    layer, x = attention(TINY_V32), hidden(TINY_V32)

    def pattern(t: int) -> set[int]:
        return {s for s in range(t + 1) if t - s < 3 or (t - s) % 8 == 0}

    one, other = (sets(ours(layer, TINY_V32, text), 4) for text in x)
    assert one != other
    assert one[-1] != pattern(SEQ - 1)
    assert other[-1] != pattern(SEQ - 1)


def test_trap_3_the_target_is_the_attention_of_the_layer_itself() -> None:
    """Similarity of the inputs is another distribution: a perfect guess of it guesses wrong."""
    layer, x = attention(TINY_V32), hidden(TINY_V32)
    query, latents, _, mask = layer._scored(x, whole(TINY_V32))
    own = layer.attention(query, latents, mask)
    similar = (x @ x.mT / x.shape[-1] ** 0.5).masked_fill(~mask, float("-inf")).softmax(-1)
    assert indexer_loss(own.log(), own, mask) < 1e-9
    assert indexer_loss(similar.log(), own, mask) > 1
    shared = (select(own, mask, topk=4).mask(SEQ) & select(similar, mask, topk=4).mask(SEQ))[:, 4:]
    assert shared.sum(-1).double().mean() < 3


def test_trap_4_the_loss_of_the_model_gives_the_indexer_no_gradient() -> None:
    layer, x = attention(TINY_V32), hidden(TINY_V32)
    layer(x, whole(TINY_V32)).square().sum().backward()
    assert all(p.grad is None for p in layer.indexer.parameters())
    assert layer.q_b_proj.weight.grad is not None


def test_trap_5_the_norm_of_the_key_is_a_layer_norm_with_a_bias() -> None:
    layer, x = attention(TINY_V32), hidden(TINY_V32)[0]
    right = scores_of(layer, TINY_V32, x)
    assert sets(scores_of(layer, TINY_V32, x, wrong="RMSNorm"), 4) != sets(right, 4)
    assert {name for name, _ in Indexer(TINY_V32).k_norm.named_parameters()} == {"weight", "bias"}


def test_trap_5_a_forgotten_scale_chooses_alike_and_learns_otherwise() -> None:
    layer, x = attention(TINY_V32), hidden(TINY_V32)[0]
    right, wrong = (scores_of(layer, TINY_V32, x, wrong=w)[None].detach() for w in ("", "no scale"))
    assert sets(wrong[0], 4) == sets(right[0], 4)
    query, latents, _, mask = layer._scored(x[None], whole(TINY_V32))
    target = layer.attention(query, latents, mask)
    assert indexer_loss(wrong, target, mask) > 3 * indexer_loss(right, target, mask)


@pytest.mark.parametrize(("heads", "few"), [(1, False), (2, False), (32, True)])
def test_trap_6_few_indexer_heads_leave_many_scores_of_exactly_zero(heads: int, few: bool) -> None:
    """Where the best k reach into a tie at 0, which tokens are chosen is the sorting's accident."""
    config = replace(TINY_V32, index_n_heads=heads)
    scores = ours(attention(config), config, hidden(config, seq=64)[0])
    zeros = int((scores == 0).sum()) / (64 * 65 / 2)
    assert zeros < 1e-3 if few else zeros > 0.5**heads / 2
