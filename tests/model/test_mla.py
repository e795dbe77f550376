"""Latent attention: the equations term by term, three ways with one output, and the known traps.

`by_the_equations` computes one sequence token by token and head by head from the equations. Each
`wrong` variant of it is a mistake seen in public code; the trap tests hold our output against the
right one and check that the wrong one is far off, so that they would notice the mistake in ours.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dsnotes.config import DEEPSEEK_V3, TINY, Config, RopeScaling
from dsnotes.model.cache import LatentCache, cache_elements_per_token, head_cache_elements_per_token
from dsnotes.model.mla import MLA, Pass
from dsnotes.model.rope import rope_frequencies, rope_rotation

YARN = replace(TINY, rope_scaling=RopeScaling(factor=4.0, original_max_position_embeddings=64))
CONFIGS = {
    "V3": TINY,
    "no query compression": replace(TINY, q_lora_rank=None),
    "YaRN": YARN,
    "values wider than keys": replace(TINY, v_head_dim=40),
}
SEQ = 12


def attention(config: Config, *, seed: int = 0) -> MLA:
    """A block in float64: weights that make attention uneven, norms that are not 1."""
    torch.manual_seed(seed)
    mla = MLA(config).double()
    for name, parameter in mla.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        if "layernorm" in name:
            parameter.data += 1
    return mla.requires_grad_(False)


def rotation(config: Config, positions: Tensor) -> Tensor:
    return rope_rotation(positions, rope_frequencies(config), dtype=torch.float64)


def whole(mla: MLA, config: Config, x: Tensor, *, absorb: bool | None = None) -> Tensor:
    """The training form: the sequence at once, no cache."""
    return mla(x, Pass(rotation(config, torch.arange(x.shape[1])), absorb=absorb))


def run(
    mla: MLA, config: Config, x: Tensor, cache: LatentCache, *, absorb: bool | None = None
) -> Tensor:
    """The next tokens over a cache, which then holds them."""
    positions, mask = cache.open(x.shape[1])
    output = mla(x, Pass(rotation(config, positions), mask, cache, absorb))
    cache.advance()
    return output


def stepwise(mla: MLA, config: Config, x: Tensor, *, pieces: list[int], absorb: bool) -> Tensor:
    """The same sequence in pieces over a latent cache."""
    cache = LatentCache(config, batch_size=len(x), capacity=x.shape[1], num_layers=1, dtype=x.dtype)
    outputs = [run(mla, config, piece, cache, absorb=absorb) for piece in x.split(pieces, dim=1)]
    return torch.cat(outputs, dim=1)


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean() + 1e-6).sqrt() * weight


def rope(x: Tensor, position: int, theta: Tensor, *, half_split: bool = False) -> Tensor:
    a, b = (x[: len(x) // 2], x[len(x) // 2 :]) if half_split else (x[0::2], x[1::2])
    cos, sin = (position * theta).cos(), (position * theta).sin()
    pair = (a * cos - b * sin, a * sin + b * cos)
    return torch.cat(pair) if half_split else torch.stack(pair, dim=1).flatten()


def by_the_equations(mla: MLA, config: Config, x: Tensor, *, wrong: str = "") -> Tensor:
    """V3 eq 1-11 for one sequence (seq, hidden), with the norms of section 4.2 and YaRN."""
    n, r = config.qk_nope_head_dim, config.qk_rope_head_dim
    v, c, heads = config.v_head_dim, config.kv_lora_rank, config.num_attention_heads
    theta = rope_frequencies(config)
    if wrong == "all frequencies divided":
        plain = rope_frequencies(replace(config, rope_scaling=None))
        theta = plain / config.rope_scaling.factor
    half = wrong == "half-split rope"
    w_dkv, w_kr = mla.kv_a_proj_with_mqa.weight.split([c, r])
    up = mla.kv_b_proj.weight.view(heads, n + v, c)
    w_uk, w_uv = up[:, :n], up[:, n:]

    keys, values, rope_keys, queries = [], [], [], []
    for t, h in enumerate(x):
        latent = w_dkv @ h  # (1)
        if wrong != "latent without norm":
            latent = rms(latent, mla.kv_a_layernorm.weight)
        key = w_kr[:, :c] @ latent if wrong == "rope key from the latent" else w_kr @ h
        if wrong == "rope key normalised":
            key = rms(key, torch.ones(r, dtype=x.dtype))
        rope_keys.append(rope(key, t, theta, half_split=half))  # (3)
        keys.append(w_uk @ latent)  # (2)
        values.append(w_uv @ latent)  # (5)
        if config.q_lora_rank is None:
            query = mla.q_proj.weight @ h
        else:
            compressed = mla.q_a_proj.weight @ h  # (6)
            if wrong != "query latent without norm":
                compressed = rms(compressed, mla.q_a_layernorm.weight)
            query = mla.q_b_proj.weight @ compressed  # (7), (8)
        queries.append(query.view(heads, n + r))

    mscale = 1.0
    if config.rope_scaling is not None and wrong != "no mscale":
        mscale = 0.1 * math.log(config.rope_scaling.factor) + 1
    outputs = []
    for t in range(len(x)):
        o = []
        for i in range(heads):
            content = queries[t][i, :n]
            position = rope(queries[t][i, n:], t, theta, half_split=half)
            scores = []
            for j in range(t + 1):
                parts = content @ keys[j][i], position @ rope_keys[j]  # (4), (9)
                if wrong == "parts scaled apart":
                    scores.append(parts[0] / math.sqrt(n) + parts[1] / math.sqrt(r))
                else:
                    scores.append((parts[0] + parts[1]) / math.sqrt(n + r) * mscale**2)
            weights = torch.stack(scores).softmax(dim=0)
            o.append(sum(w * values[j][i] for j, w in enumerate(weights)))  # (10)
        outputs.append(mla.o_proj.weight @ torch.cat(o))  # (11)
    return torch.stack(outputs)


def check(config: Config, *wrongs: str) -> None:
    """Ours is the equations' output; every wrong variant differs from it by more than 1 %."""
    mla = attention(config)
    x = torch.randn(1, SEQ, config.hidden_size, dtype=torch.float64)
    expected = by_the_equations(mla, config, x[0])
    torch.testing.assert_close(whole(mla, config, x)[0], expected, rtol=0, atol=1e-10)
    for wrong in wrongs:
        off = (by_the_equations(mla, config, x[0], wrong=wrong) - expected).abs().max()
        assert off > 0.01 * expected.std(), f"{wrong} would not be noticed"


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_equations(config: Config) -> None:
    check(config)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("absorb", [True, False], ids=["absorbed", "decompressed"])
@pytest.mark.parametrize("pieces", [[1] * SEQ, [7, 3, 1, 1], [SEQ]], ids=str)
def test_three_ways_give_one_output(config: Config, absorb: bool, pieces: list[int]) -> None:
    mla = attention(config)
    x = torch.randn(3, SEQ, config.hidden_size, dtype=torch.float64)
    got = stepwise(mla, config, x, pieces=pieces, absorb=absorb)
    torch.testing.assert_close(got, whole(mla, config, x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_absorb_means_the_same_without_a_cache(config: Config) -> None:
    """Once the argument had no effect there: the training form can be absorbed as well."""
    mla = attention(config)
    x = torch.randn(2, SEQ, config.hidden_size, dtype=torch.float64)
    with _LargestResult() as seen:
        absorbed = whole(mla, config, x, absorb=True)
    torch.testing.assert_close(absorbed, whole(mla, config, x), rtol=0, atol=1e-10)
    with _LargestResult() as default:
        whole(mla, config, x)
    assert seen.elements != default.elements


def test_many_tokens_over_a_past_need_a_mask() -> None:
    """Without one the causal mask would be laid from the first place on, not from the last."""
    mla, turn = attention(TINY), rotation(TINY, torch.arange(3))
    x = torch.randn(1, 3, TINY.hidden_size, dtype=torch.float64)
    query, latents = mla.query(x, turn), mla.latent(x, turn)
    for attend in (mla.attend, mla.attend_absorbed):
        with pytest.raises(ValueError, match="mask must say where 2 tokens look among 3, got None"):
            attend(query[:, 1:], latents)


@pytest.mark.parametrize("absorb", [True, False], ids=["absorbed", "decompressed"])
def test_sequences_of_unequal_length_and_rollback(absorb: bool) -> None:
    """Padding in the cache and tokens taken back leave no trace in what follows."""
    mla = attention(TINY)
    x = torch.randn(2, SEQ, TINY.hidden_size, dtype=torch.float64)
    cache = LatentCache(TINY, batch_size=2, capacity=SEQ, num_layers=1, dtype=x.dtype)
    run(mla, TINY, x[:, :9], cache)
    cache.truncate(torch.tensor([4, 9]))
    rejected = torch.randn(2, 2, TINY.hidden_size, dtype=torch.float64)
    run(mla, TINY, rejected, cache, absorb=absorb)
    cache.truncate(torch.tensor([4, 9]))
    step = torch.stack([x[0, 4:7], x[1, 9:12]])
    got = run(mla, TINY, step, cache, absorb=absorb)
    expected = whole(mla, TINY, x)
    torch.testing.assert_close(got[0], expected[0, 4:7], rtol=0, atol=1e-10)
    torch.testing.assert_close(got[1], expected[1, 9:12], rtol=0, atol=1e-10)


def test_bfloat16_runs_all_ways() -> None:
    """To the digits of bfloat16, about 3."""
    mla = attention(TINY).to(torch.bfloat16)
    x = torch.randn(2, SEQ, TINY.hidden_size, dtype=torch.bfloat16)
    expected = whole(mla, TINY, x)
    assert expected.dtype == torch.bfloat16
    for absorb in (True, False):
        got = stepwise(mla, TINY, x, pieces=[7, 1, 1, 3], absorb=absorb)
        assert (got - expected).float().abs().max() < 0.05 * expected.float().std()


def test_trap_1_one_rope_key_for_all_heads() -> None:
    """The key projection has r rows for it, not heads * r, and the cache the same width."""
    mla, c = attention(TINY), TINY
    width = c.kv_lora_rank + c.qk_rope_head_dim
    assert mla.kv_a_proj_with_mqa.weight.shape == (width, c.hidden_size)
    assert LatentCache(c, batch_size=1, capacity=1).latents.shape[-1] == width
    per_head = c.kv_lora_rank + c.num_attention_heads * c.qk_rope_head_dim
    assert per_head > 1.5 * width  # in V3: 8,704 against 576


def test_trap_2_rope_key_comes_from_the_hidden_state() -> None:
    """With the latent projection at zero no latent is left, and the key is as before."""
    check(TINY, "rope key from the latent")
    mla, c = attention(TINY), TINY.kv_lora_rank
    x = torch.randn(1, SEQ, TINY.hidden_size, dtype=torch.float64)
    turn = rotation(TINY, torch.arange(SEQ))
    before = mla.latent(x, turn)
    mla.kv_a_proj_with_mqa.weight[:c] = 0
    after = mla.latent(x, turn)
    assert not after[..., :c].any()
    assert torch.equal(after[..., c:], before[..., c:])
    assert after[..., c:].abs().mean() > 0.1


def test_trap_3_latents_are_normalised_and_the_rope_key_is_not() -> None:
    check(TINY, "latent without norm", "query latent without norm", "rope key normalised")


def test_trap_3_the_cache_holds_the_latent_after_the_norm() -> None:
    """Ten times the input: the same cached latent, ten times the cached key."""
    mla, c = attention(TINY), TINY.kv_lora_rank
    x = torch.randn(1, SEQ, TINY.hidden_size, dtype=torch.float64)
    held = []
    for scale in (1, 10):
        cache = LatentCache(TINY, batch_size=1, capacity=SEQ, num_layers=1, dtype=x.dtype)
        run(mla, TINY, scale * x, cache)
        held.append(cache.latents)
    torch.testing.assert_close(held[1][..., :c], held[0][..., :c], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(held[1][..., c:], 10 * held[0][..., c:])


def test_trap_4_one_scale_for_both_parts() -> None:
    check(TINY, "parts scaled apart")
    check(YARN, "no mscale")


def test_trap_5_the_cache_is_the_latent_and_nothing_else() -> None:
    """Its bytes are those of the formula, and a step leaves no other tensor behind."""
    mla = attention(TINY)
    config = replace(TINY, num_hidden_layers=1)
    cache = LatentCache(config, batch_size=2, capacity=SEQ, dtype=torch.float64)
    state = set(vars(mla)) | {name for name, _ in mla.named_buffers()}
    x = torch.randn(2, SEQ - 1, TINY.hidden_size, dtype=torch.float64)
    for piece in (x, x[:, :1]):
        run(mla, config, piece, cache)
    assert set(vars(mla)) | {name for name, _ in mla.named_buffers()} == state
    tensors = {name: t for name, t in vars(cache).items() if isinstance(t, Tensor)}
    assert tensors.keys() == {"latents", "lengths"}
    assert cache.nbytes == 2 * SEQ * cache_elements_per_token(config) * 8


def test_trap_6_rope_pairs_are_interleaved() -> None:
    check(TINY, "half-split rope")


def test_trap_7_yarn_leaves_high_frequencies_alone() -> None:
    check(YARN, "all frequencies divided")
    theta = rope_frequencies(YARN)
    plain = rope_frequencies(replace(YARN, rope_scaling=None))
    assert theta[0] == plain[0]
    assert theta[-1] == plain[-1] / 4


class _LargestResult(TorchDispatchMode):
    """Records the largest tensor that operations create; views of existing memory do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        known = {t.untyped_storage().data_ptr() for t in tree_leaves(args) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in known:
                self.elements = max(self.elements, t.numel())
        return out


def test_trap_8_absorption_reads_the_cache_as_latents() -> None:
    """No value is rebuilt per position (W^UV comes after the sum), and W^UV is not forgotten."""
    mla, past = attention(TINY), 500
    x = torch.randn(1, past + 1, TINY.hidden_size, dtype=torch.float64)
    cache = LatentCache(TINY, batch_size=1, capacity=past + 1, num_layers=1, dtype=x.dtype)
    run(mla, TINY, x[:, :past], cache)
    positions, mask = cache.open(1)
    turn, largest, outputs = rotation(TINY, positions), {}, {}
    for absorb in (True, False):
        with _LargestResult() as seen:
            outputs[absorb] = mla(x[:, past:], Pass(turn, mask, cache, absorb))
        largest[absorb] = seen.elements
    values = past * TINY.num_attention_heads * TINY.v_head_dim
    assert largest[True] < values / 4  # at most the scores, one number per head and position
    assert largest[False] > values
    torch.testing.assert_close(outputs[True], outputs[False], rtol=0, atol=1e-10)
    mla.kv_b_proj.weight.view(TINY.num_attention_heads, -1, TINY.kv_lora_rank)[:, -1] *= 2
    changed = mla(x[:, past:], Pass(turn, mask, cache))
    assert (changed - outputs[True]).abs().max() > 1e-3  # the last row of every W^UV matters


def test_trap_9_bytes_per_token() -> None:
    """70,272 for V3 in BF16; 56.9 times more with keys and values of its 128 heads cached."""
    elements = cache_elements_per_token(DEEPSEEK_V3)
    assert elements == (512 + 64) * 61
    assert 2 * elements == 70_272
    heads = head_cache_elements_per_token(
        num_key_value_heads=128, head_dim=128, num_hidden_layers=61
    )
    assert round(heads / elements, 1) == 56.9


def test_trap_10_queries_are_compressed_in_inference_too() -> None:
    """A decoding step sends its one token through the query latent; there is no other way in."""
    mla = attention(TINY)
    assert not hasattr(mla, "q_proj")
    compressed: list[Tensor] = []
    mla.q_b_proj.register_forward_pre_hook(lambda _, inputs: compressed.append(inputs[0]))
    x = torch.randn(1, SEQ, TINY.hidden_size, dtype=torch.float64)
    stepwise(mla, TINY, x, pieces=[SEQ - 1, 1], absorb=True)
    assert [tuple(c.shape) for c in compressed] == [(1, SEQ - 1, 48), (1, 1, 48)]


def test_rope_and_absorption_do_not_commute() -> None:
    """Why the positional part is decoupled: RoPE on W^UK c would leave R_(j-t) W^UK to absorb,

    and that is another matrix for every distance j - t.
    """
    theta, w_uk = rope_frequencies(TINY), torch.randn(8, 32, dtype=torch.float64)
    to_absorb = [
        torch.stack([rope(column, distance, theta) for column in w_uk.T], dim=1)
        for distance in (0, -1, -2)
    ]
    assert torch.equal(to_absorb[0], w_uk)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert (to_absorb[a] - to_absorb[b]).abs().max() > 0.1
