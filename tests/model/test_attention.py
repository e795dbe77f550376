"""attention: the baselines, with one line of arithmetic a head, and in the place of MLA."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsnotes.config import TINY, RopeScaling
from dsnotes.model import counts
from dsnotes.model.attention import GroupedQueryAttention, use_attention
from dsnotes.model.cache import LatentCache, head_cache_elements_per_token
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mla import Pass
from dsnotes.model.mtp import add_modules
from dsnotes.model.rope import apply_rope, rope_rotation

SEQ = 12
GROUPS = {"MHA": 4, "GQA": 2, "MQA": 1}


def rotation(positions: Tensor, head_dim: int = 16) -> Tensor:
    frequencies = 10000.0 ** (-2 * torch.arange(head_dim // 2, dtype=torch.float64) / head_dim)
    return rope_rotation(positions, frequencies, dtype=torch.float64)


def by_the_equations(attention: GroupedQueryAttention, x: Tensor) -> Tensor:
    """One sequence, head by head: each reads the keys and values of its group."""
    turn, dim = rotation(torch.arange(len(x)), attention.head_dim), attention.head_dim
    share = attention.num_heads // attention.num_key_value_heads
    heads = []
    for i in range(attention.num_heads):
        own, group = slice(i * dim, (i + 1) * dim), i // share
        shared = slice(group * dim, (group + 1) * dim)
        query = apply_rope(x @ attention.q_proj.weight[own].T, turn)
        key = apply_rope(x @ attention.k_proj.weight[shared].T, turn)
        scores = (query @ key.T) * dim**-0.5
        causal = torch.ones(len(x), len(x), dtype=torch.bool).tril()
        heads.append(
            scores.masked_fill(~causal, -torch.inf).softmax(-1)
            @ (x @ attention.v_proj.weight[shared].T)
        )
    return torch.cat(heads, dim=-1) @ attention.o_proj.weight.T


@pytest.fixture(params=GROUPS.values(), ids=GROUPS.keys())
def attention(request: pytest.FixtureRequest) -> GroupedQueryAttention:
    made = GroupedQueryAttention(TINY, num_key_value_heads=request.param).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.requires_grad_(False)


def test_the_equations(attention: GroupedQueryAttention) -> None:
    x = torch.randn(2, SEQ, TINY.hidden_size, dtype=torch.float64)
    found = attention(x, Pass(rotation(torch.arange(SEQ))))
    for row, expected in zip(found, x, strict=True):
        torch.testing.assert_close(row, by_the_equations(attention, expected))


def test_token_by_token_over_the_cache(attention: GroupedQueryAttention) -> None:
    """And sequences of unequal length, of which one was cut short."""
    x = torch.randn(2, SEQ, TINY.hidden_size, dtype=torch.float64)
    width = 2 * attention.num_key_value_heads * attention.head_dim
    cache = LatentCache(TINY, batch_size=2, capacity=SEQ, width=width, dtype=torch.float64)

    def step(new: Tensor) -> Tensor:
        positions, mask = cache.open(new.shape[1])
        output = attention(new, Pass(rotation(positions), mask, cache))
        cache.advance()
        return output

    step(x[:, :5])
    cache.truncate(torch.tensor([5, 3]))
    ahead = torch.stack([x[0, 5:9], x[1, 3:7]])
    found = torch.cat([step(ahead[:, :1]), step(ahead[:, 1:3]), step(ahead[:, 3:])], dim=1)
    assert torch.equal(cache.lengths, torch.tensor([9, 7]))
    torch.testing.assert_close(found[0], by_the_equations(attention, x[0, :9])[5:])
    torch.testing.assert_close(found[1], by_the_equations(attention, x[1, :7])[3:])


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS.keys())
def test_a_model_with_it_trains_and_generates(groups: int) -> None:
    model = use_attention(
        DeepSeek(replace(TINY, initializer_range=0.1)), num_key_value_heads=groups
    )
    tokens = torch.randint(TINY.vocab_size, (2, SEQ))
    model(tokens).square().mean().backward()
    assert all(p.grad is not None for p in model.parameters())
    new = model.generate(tokens, max_new_tokens=4)
    with torch.no_grad():
        again = model(torch.cat([tokens, new], dim=1))[:, SEQ - 1 : -1].argmax(-1)
    assert torch.equal(new, again)
    cache = model.new_cache(batch_size=1, capacity=1)
    assert cache.latents.numel() == head_cache_elements_per_token(
        num_key_value_heads=groups, head_dim=16, num_hidden_layers=TINY.num_hidden_layers
    )


def test_only_the_attention_changes() -> None:
    torch.manual_seed(0)
    before = DeepSeek(TINY).state_dict()
    torch.manual_seed(0)
    model = use_attention(DeepSeek(TINY), num_key_value_heads=4)
    after = model.state_dict()
    changed = set(before.keys() ^ after.keys())
    changed |= {n for n in before.keys() & after.keys() if not torch.equal(before[n], after[n])}
    assert changed
    assert all(".self_attn." in name for name in changed)


@pytest.mark.parametrize(("groups", "dim"), [(4, None), (2, 32), (1, 8)])
def test_parameters_are_those_counted(groups: int, dim: int | None) -> None:
    layer = GroupedQueryAttention(TINY, num_key_value_heads=groups, head_dim=dim)
    counted = counts.attention_parameters(TINY, num_key_value_heads=groups, head_dim=dim)
    assert sum(p.numel() for p in layer.parameters()) == counted


def test_yarn_stretches_it_too() -> None:
    scaling = RopeScaling(factor=4.0, original_max_position_embeddings=64)
    plain, yarn = (
        use_attention(DeepSeek(replace(TINY, rope_scaling=s)), num_key_value_heads=2)
        for s in (None, scaling)
    )
    assert len(yarn.model.frequencies) == 8
    assert bool((yarn.model.frequencies <= plain.model.frequencies).all())
    assert not torch.equal(yarn.model.frequencies, plain.model.frequencies)
    scales = [m.model.layers[0].self_attn.softmax_scale for m in (plain, yarn)]
    assert scales[0] == pytest.approx(16**-0.5)
    assert scales[1] > scales[0]


def test_refusals() -> None:
    for groups in (0, 3, 8):
        with pytest.raises(
            ValueError, match=rf"num_key_value_heads must divide .*\(4\), got {groups}"
        ):
            GroupedQueryAttention(TINY, num_key_value_heads=groups)
    with pytest.raises(ValueError, match="head_dim must be even and at least 2, got 5"):
        use_attention(DeepSeek(TINY), num_key_value_heads=4, head_dim=5)
    with pytest.raises(ValueError, match=r"head_dim must be given where num_attention_heads \(5\)"):
        GroupedQueryAttention(replace(TINY, num_attention_heads=5), num_key_value_heads=5)
    with pytest.raises(ValueError, match="model must have no multi-token prediction modules"):
        use_attention(add_modules(DeepSeek(TINY)), num_key_value_heads=4)
    model = use_attention(DeepSeek(TINY), num_key_value_heads=4)
    with pytest.raises(ValueError, match="absorb must be None without latents, got True"):
        model(torch.zeros(1, 3, dtype=torch.long), absorb=True)
    layer = model.model.layers[0].self_attn
    with pytest.raises(ValueError, match="x must have 64 channels"):
        layer(torch.zeros(1, 3, 63), Pass(rotation(torch.arange(3))))
    with pytest.raises(ValueError, match="two channels per pair of rotation"):
        layer(torch.zeros(1, 3, 64), Pass(rotation(torch.arange(3), head_dim=8)))
