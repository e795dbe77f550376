"""Experts and absorbed attention on a GPU: their kernels against the plain way, nothing waited for.

What they compute and when they stand back is tested on a CPU, in `test_experts.py`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsnotes.config import DEEPSEEK_V3, TINY, Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.experts import Plain
from dsnotes.model.mla import MLA
from dsnotes.model.moe import MoE, Routing

CAPABILITY = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(CAPABILITY[0] != 9, reason="needs a Hopper GPU (H100, H200)"),
]

BF16 = torch.bfloat16
FINE = replace(DEEPSEEK_V3, hidden_size=512, moe_intermediate_size=264, n_routed_experts=32)
CONFIGS = {
    "fine": FINE,
    "tiny": replace(TINY, n_shared_experts=0),
    "top-1": replace(FINE, num_experts_per_tok=1, n_group=1, topk_group=1),
}


def error(found: Tensor, exact: Tensor) -> float:
    """Relative, of the whole; NaN stays NaN and is below nothing."""
    return ((found.double() - exact.double()).norm() / exact.double().norm()).item()


def experts(config: Config, dtype: torch.dtype = BF16) -> MoE:
    moe = MoE(config).to("cuda", dtype)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_(std=config.hidden_size**-0.5)
    return moe


@contextmanager
def no_waiting() -> Iterator[None]:
    """An error where the processor waits for the GPU."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this is a prototype
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- experts ---


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("tokens", [1, 5, 700])
def test_experts_against_the_loop(config: Config, tokens: int) -> None:
    moe = experts(config)
    x, upstream = torch.randn(2, tokens, config.hidden_size, device="cuda", dtype=BF16)
    x.requires_grad_()
    found, g, scores = moe.gate(x.detach())
    to = Routing(found, g.detach().requires_grad_(), scores)

    def outcome(y: Tensor, moe: MoE, x: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        return y, *torch.autograd.grad(y, [x, g, *moe.experts.parameters()], upstream.to(y.dtype))

    exact = MoE(config).to("cuda").double()
    exact.load_state_dict(moe.state_dict())
    x64, g64 = (t.detach().double().requires_grad_() for t in (x, to.weights))
    expected = outcome(exact._routed(x64, to._replace(weights=g64)), exact, x64, g64)
    loop = outcome(moe._routed(x, to), moe, x, to.weights)
    moe.gate.forward = lambda _: to
    shared, moe.shared_experts = moe.shared_experts, None
    ours = outcome(moe(x), moe, x, to.weights)
    for a, b, c in zip(ours, loop, expected, strict=True):
        assert a.dtype == b.dtype
        if c.any():
            assert error(a, c) < max(1.5 * error(b, c), 6e-3)
        else:
            assert not a.any()
    moe.shared_experts = shared
    storages = {p.untyped_storage().data_ptr() for p in moe.experts.parameters()}
    assert len(storages) == 2


def test_experts_wait_for_nothing_and_repeat_themselves() -> None:
    moe = experts(FINE)
    x, upstream = torch.randn(2, 300, FINE.hidden_size, device="cuda", dtype=BF16)

    def run() -> list[Tensor]:
        u = x.clone().requires_grad_()
        y = moe(u)
        return [y.detach(), *torch.autograd.grad(y, [u, *moe.parameters()], upstream)]

    first = run()
    with no_waiting():
        again = run()
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))


def test_experts_under_autocast() -> None:
    moe = experts(FINE, torch.float32)
    x = torch.randn(50, FINE.hidden_size, device="cuda", requires_grad=True)
    exact = moe(x)
    with torch.autocast("cuda", dtype=BF16):
        y = moe(x)
    assert y.dtype == torch.float32
    assert 1e-4 < error(y, exact) < 1e-2
    y.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in moe.parameters())


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # by torch.compile itself
def test_a_compiled_block_and_the_plain_one_agree() -> None:
    moe, x = experts(FINE), torch.randn(40, FINE.hidden_size, device="cuda", dtype=BF16)
    with torch.no_grad():
        assert error(torch.compile(moe)(x), moe(x)) < 6e-3


@pytest.mark.parametrize(("slots", "k", "n"), [(6, 2, 8), (77, 7, 1408), (64, 8, 2048), (3, 1, 5)])
def test_the_kernels_of_the_experts(slots: int, k: int, n: int) -> None:
    from dsnotes.model import moe_triton

    both, d = (torch.randn(slots, size, device="cuda", dtype=BF16) for size in (2 * n, n))
    g, place = torch.rand(slots, device="cuda"), torch.randperm(slots, device="cuda").view(-1, k)
    pairs = [
        (moe_triton.swiglu(both, g), Plain.swiglu(both, g)),
        *zip(
            moe_triton.swiglu_backward(d, both, g), Plain.swiglu_backward(d, both, g), strict=True
        ),
    ]
    pairs += [
        (moe_triton.gather_sum(d, place, dtype), Plain.gather_sum(d, place, dtype))
        for dtype in (BF16, torch.float32)
    ]
    for ours, plain in pairs:
        assert ours.dtype == plain.dtype
        torch.testing.assert_close(ours, plain, rtol=8e-3, atol=1e-5)


# --- absorbed attention ---


def attention(heads: int, c: int, r: int, dtype: torch.dtype = BF16) -> MLA:
    config = replace(TINY, num_attention_heads=heads, kv_lora_rank=c, qk_rope_head_dim=r,
                     qk_nope_head_dim=32, v_head_dim=40)  # fmt: skip
    mla = MLA(config).to("cuda", dtype).requires_grad_(False)
    torch.nn.init.normal_(mla.kv_b_proj.weight, std=c**-0.5)
    return mla


def given(
    mla: MLA, batch: int, seq: int, past: int, dtype: torch.dtype = BF16
) -> tuple[Tensor, Tensor]:
    """A query, and latents as the slice of a cache."""
    query = torch.randn(batch, seq, mla.num_heads, mla.qk_head_dim, device="cuda")
    width = mla.kv_lora_rank + mla.qk_rope_head_dim
    cache = torch.randn(2, batch, past + 9, width, device="cuda")
    cache[:, :, past:] = torch.nan  # not to be looked at
    return 3 * query.to(dtype), cache.to(dtype)[1, :, :past]


def exactly(mla: MLA, query: Tensor, latents: Tensor, mask: Tensor | None = None) -> Tensor:
    """By the plain way, in float64."""
    wide = MLA.__new__(MLA)
    wide.__dict__ = {**mla.__dict__, "_modules": {}}
    wide.kv_b_proj = torch.nn.Linear(1, 1, bias=False)
    wide.kv_b_proj.weight = torch.nn.Parameter(mla.kv_b_proj.weight.double(), requires_grad=False)
    return wide.attend_absorbed(query.double(), latents.double(), mask=mask)


SHAPES = [  # batch, past, heads, c, r
    (1, 1, 1, 16, 4),
    (2, 37, 3, 24, 8),
    (3, 1000, 5, 40, 12),
    (128, 64, 16, 128, 32),
    (1, 131_072, 128, 512, 64),
    (2, 8_192, 128, 512, 64),
    (5, 777, 100, 512, 64),
]


@pytest.mark.parametrize(("batch", "past", "heads", "c", "r"), SHAPES)
@pytest.mark.parametrize("dtype", [BF16, torch.float16])
def test_absorbed_attention(
    batch: int, past: int, heads: int, c: int, r: int, dtype: torch.dtype
) -> None:
    mla = attention(heads, c, r, dtype)
    query, latents = given(mla, batch, 1, past, dtype)
    with no_waiting():
        found = mla.attend_absorbed(query, latents)
    assert found.dtype == dtype
    assert error(found, exactly(mla, query, latents)) < (8e-3 if dtype == BF16 else 1e-3)


@pytest.mark.parametrize("seq", [1, 2, 7])
def test_absorbed_attention_with_a_mask(seq: int) -> None:
    mla = attention(20, 64, 16)
    query, latents = given(mla, 3, seq, 500)
    mask = torch.rand(3, seq, 500, device="cuda") < 0.3
    mask[..., 0], mask[1, :, 100:] = True, False
    for one in (mask, mask[:1].expand(3, -1, -1), mask.mT.contiguous().mT):
        found = mla.attend_absorbed(query, latents, mask=one)
        assert error(found, exactly(mla, query, latents, one)) < 8e-3
    assert not mla.attend_absorbed(query, latents, mask=mask & False).any()


def test_absorbed_attention_over_the_sequence_itself() -> None:
    mla = attention(20, 64, 16)
    query, latents = given(mla, 2, 300, 300)
    assert error(mla.attend_absorbed(query, latents), exactly(mla, query, latents)) < 8e-3


def test_absorbed_attention_in_float32_is_exact_to_float32() -> None:
    mla = attention(128, 512, 64, torch.float32)
    query, latents = given(mla, 2, 1, 4096, torch.float32)
    assert error(mla.attend_absorbed(query, latents), exactly(mla, query, latents)) < 1e-5


def test_absorbed_attention_has_its_gradients() -> None:
    mla = attention(20, 64, 16)
    query, latents = (t.clone().requires_grad_() for t in given(mla, 2, 1, 300))
    wide = [t.detach().double().requires_grad_() for t in (query, latents)]
    ours = torch.autograd.grad(mla.attend_absorbed(query, latents).sum(), [query, latents])
    expected = torch.autograd.grad(exactly(mla, *wide).sum(), wide)
    for a, b in zip(ours, expected, strict=True):
        assert error(a, b) < 0.02


def test_decoding_token_by_token_is_the_same_as_at_once() -> None:
    config = replace(TINY, hidden_size=128, moe_intermediate_size=64)
    model = DeepSeek(config).to("cuda", BF16)
    tokens = torch.randint(256, (3, 20), device="cuda")
    with torch.no_grad():
        whole = model(tokens)
        cache = model.new_cache(batch_size=3, capacity=20)
        parts = [model(part, cache=cache, absorb=True) for part in tokens.split([7, 1, 1, 3, 8], 1)]
    assert error(torch.cat(parts, dim=1), whole) < 0.03
