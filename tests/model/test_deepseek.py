"""The assembled model: names and counts of the release, generation, and what it refuses."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dsnotes.config import DEEPSEEK_V2, DEEPSEEK_V2_LITE, DEEPSEEK_V3, TINY, Config
from dsnotes.model.balance import expert_load
from dsnotes.model.cache import LatentCache
from dsnotes.model.counts import breakdown
from dsnotes.model.deepseek import DeepSeek, next_token_probs
from dsnotes.model.mtp import add_modules, mtp_loss, predict
from dsnotes.model.speculative import speculate, teacher_forced_acceptance
from dsnotes.rl.objective import completion_mask, token_log_probs
from dsnotes.rl.rollout import sample
from dsnotes.training.loop import next_token_loss

SMALL = replace(
    TINY, num_hidden_layers=2, n_routed_experts=8, num_experts_per_tok=2, initializer_range=0.1
)


@pytest.fixture(scope="module")
def model() -> DeepSeek:
    torch.manual_seed(0)
    return DeepSeek(SMALL).double().requires_grad_(False)


# The release: name -> shape, {e} any routed expert. D 7168, H 128 heads, ranks 1536 and 512.
ATTENTION = {
    "input_layernorm": (7168,),
    "self_attn.q_a_proj": (1536, 7168),
    "self_attn.q_a_layernorm": (1536,),
    "self_attn.q_b_proj": (128 * 192, 1536),
    "self_attn.kv_a_proj_with_mqa": (576, 7168),
    "self_attn.kv_a_layernorm": (512,),
    "self_attn.kv_b_proj": (128 * 256, 512),
    "self_attn.o_proj": (7168, 128 * 128),
    "post_attention_layernorm": (7168,),
}
DENSE = {
    "mlp.gate_proj": (18432, 7168),
    "mlp.up_proj": (18432, 7168),
    "mlp.down_proj": (7168, 18432),
}
MOE = {"mlp.gate": (256, 7168)} | {
    f"mlp.{part}.{name}": shape
    for part in ("experts.{e}", "shared_experts")
    for name, shape in (
        ("gate_proj", (2048, 7168)),
        ("up_proj", (2048, 7168)),
        ("down_proj", (7168, 2048)),
    )
}


@pytest.fixture(scope="module")
def v3() -> dict[str, Tensor]:
    """All 45,000 tensors of the main model, without memory and without drawing initial values."""
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):
        patch.setattr(torch.nn.Linear, "reset_parameters", lambda self: None)
        return DeepSeek(DEEPSEEK_V3).state_dict()


def test_names_and_shapes_of_the_release(v3: dict[str, Tensor]) -> None:
    expected = {"model.embed_tokens": (129280, 7168), "model.norm": (7168,)}
    expected |= {"lm_head": (129280, 7168)}
    for i in range(61):
        layer = ATTENTION | (DENSE if i < 3 else MOE)
        expected |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    found, experts = {}, Counter()
    biases = 0
    for name, tensor in v3.items():
        if name.endswith(".mlp.gate.e_score_correction_bias"):
            assert (tensor.shape, tensor.dtype) == ((256,), torch.float32)
            biases += 1
            continue
        merged = re.sub(r"\.experts\.\d+\.", ".experts.{e}.", name).removesuffix(".weight")
        found[merged] = tuple(tensor.shape)
        experts[merged] += 1
    assert found == expected
    assert {n for name, n in experts.items() if "{e}" in name} == {256}
    assert biases == 58


def test_v3_has_671_billion_parameters(v3: dict[str, Tensor]) -> None:
    assert sum(tensor.numel() for tensor in v3.values()) == 671_026_419_200


@pytest.mark.parametrize("config", [DEEPSEEK_V2, DEEPSEEK_V2_LITE, TINY])
def test_size_is_the_counted_one(config: Config) -> None:
    config = replace(config, num_hidden_layers=2)
    with torch.device("meta"):
        state = DeepSeek(config).state_dict()
    assert sum(t.numel() for t in state.values()) == sum(part.total for part in breakdown(config))


def test_initial_weights() -> None:
    """Matrices N(0, initializer_range), embedding and head included; norms 1; biases 0."""
    state = DeepSeek(replace(TINY, initializer_range=0.006)).state_dict()
    for name, tensor in state.items():
        if tensor.ndim == 2:
            assert tensor.std().item() == pytest.approx(0.006, rel=0.15), name
        else:
            assert set(tensor.tolist()) == ({0.0} if "bias" in name else {1.0}), name


def test_logits_do_not_see_the_future(model: DeepSeek) -> None:
    tokens = torch.randint(SMALL.vocab_size, (2, 10))
    changed = tokens.clone()
    changed[:, 6:] = torch.randint(SMALL.vocab_size, (2, 4))
    difference = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))
    assert difference[:6].max() < 1e-12
    assert difference[6:].min() > 1e-3


def test_hidden_state_and_head_make_the_logits(model: DeepSeek) -> None:
    """The seam for all that reads the last state: `model.hidden` ends there, after the norm."""
    tokens = torch.randint(SMALL.vocab_size, (2, 5))
    hidden = model.hidden(tokens)
    assert hidden.shape == (2, 5, SMALL.hidden_size)
    assert torch.equal(model.lm_head(hidden), model(tokens))
    unit = hidden / model.model.norm.weight
    torch.testing.assert_close(unit.square().mean(-1), torch.ones(2, 5).double(), rtol=0, atol=1e-5)


def test_device_and_type_are_those_of_the_weights() -> None:
    with torch.device("meta"):
        model = DeepSeek(SMALL).bfloat16()
    assert (model.device, model.dtype) == (torch.device("meta"), torch.bfloat16)


@settings(deadline=None, max_examples=15)
@given(
    pieces=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    rejected=st.integers(0, 3),
    absorb=st.booleans(),
)
def test_cached_in_any_pieces_with_any_rollback(
    model: DeepSeek, pieces: list[int], rejected: int, absorb: bool
) -> None:
    """After each piece some wrong tokens are run and taken back: the logits do not notice."""
    tokens = torch.randint(SMALL.vocab_size, (2, sum(pieces)))
    cache = model.new_cache(batch_size=2, capacity=sum(pieces) + rejected)
    logits = []
    for piece in tokens.split(pieces, dim=1):
        logits.append(model(piece, cache=cache, absorb=absorb))
        held = cache.lengths
        if rejected:
            model(torch.randint(SMALL.vocab_size, (2, rejected)), cache=cache, absorb=absorb)
            cache.truncate(held)
    torch.testing.assert_close(torch.cat(logits, dim=1), model(tokens), rtol=0, atol=1e-10)


def test_what_a_pass_shares_is_made_once(model: DeepSeek, monkeypatch: pytest.MonkeyPatch) -> None:
    """One decode step of three layers once asked for positions eight times, for masks three."""
    asked: list[int] = []
    opened = LatentCache.open
    monkeypatch.setattr(LatentCache, "open", lambda cache, n: asked.append(n) or opened(cache, n))
    cache = model.new_cache(batch_size=2, capacity=8)
    for n in (4, 1):
        model(torch.randint(SMALL.vocab_size, (2, n)), cache=cache)
    assert asked == [4, 1]
    assert cache.lengths.tolist() == [5, 5]


def test_a_model_learns() -> None:
    """Counting modulo 7 within 60 steps."""
    model = DeepSeek(replace(TINY, initializer_range=0.02))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    tokens = (torch.arange(12) + torch.arange(7)[:, None]) % 7
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(
            model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1
    assert model.generate([[2, 3, 4]], max_new_tokens=5).tolist() == [[5, 6, 0, 1, 2]]


def test_greedy_generation_is_the_argmax_of_the_whole_sequence(model: DeepSeek) -> None:
    """Prompts of unequal length together, against each one alone without any cache."""
    prompts = [[3, 1, 4, 1, 5], [9], [2, 6, 5]]
    got = model.generate(prompts, max_new_tokens=6)
    for row, prompt in zip(got.tolist(), prompts, strict=True):
        for _ in range(6):
            prompt = [*prompt, int(model(torch.tensor([prompt]))[0, -1].argmax())]
        assert row == prompt[-6:]


def test_sampling_repeats_with_its_seed_and_only_then(model: DeepSeek) -> None:
    def draw(seed: int) -> list:
        generator = torch.Generator().manual_seed(seed)
        return model.generate(
            torch.tensor([[1, 2], [3, 4]]), max_new_tokens=20, temperature=1.0, generator=generator
        ).tolist()

    assert draw(1) == draw(1) != draw(2)


def test_sampling_follows_the_distribution(model: DeepSeek) -> None:
    """4,000 draws of the next token: total variation to the model's own top-p distribution."""
    prompt = torch.tensor([[1, 2, 3]])
    probs = next_token_probs(model(prompt)[0, -1], temperature=0.7, top_p=0.5)
    drawn = model.generate(prompt.expand(4000, -1), max_new_tokens=1, temperature=0.7, top_p=0.5)
    seen = drawn.flatten().bincount(minlength=SMALL.vocab_size) / 4000
    assert 0.5 * (seen - probs).abs().sum() < 0.06
    assert not seen[probs == 0].any()


def test_generation_ends_with_the_stop_token(model: DeepSeek) -> None:
    prompts = [[3, 1, 4, 1, 5], [9]]
    free = model.generate(prompts, max_new_tokens=8)
    stop = int(free[0, 2])
    assert stop not in free[1].tolist()
    got = model.generate(prompts, max_new_tokens=8, stop_token=stop)
    end = free[0].tolist().index(stop) + 1
    assert got[0, :end].tolist() == free[0, :end].tolist()
    assert set(got[0, end:].tolist()) <= {stop}
    assert torch.equal(got[1], free[1])
    alone = model.generate(prompts[:1], max_new_tokens=8, stop_token=stop)
    assert alone.shape == (1, end)


def test_next_token_probs() -> None:
    logits = torch.tensor([1.0, 3.0, 2.0, -1.0]).log_softmax(dim=0)
    p = logits.exp()
    torch.testing.assert_close(next_token_probs(logits, temperature=1.0), p)
    torch.testing.assert_close(next_token_probs(logits, temperature=0.5), p**2 / (p**2).sum())
    assert next_token_probs(logits, temperature=0.0).tolist() == [0, 1, 0, 0]
    # p = 0.66, 0.24, 0.09, 0.01: one token reaches 0.6, two reach 0.7
    assert next_token_probs(logits, temperature=1.0, top_p=0.6).tolist() == [0, 1, 0, 0]
    kept = next_token_probs(logits, temperature=1.0, top_p=0.7)
    torch.testing.assert_close(kept, torch.stack([0 * p[0], p[1], p[2], 0 * p[3]]) / p[1:3].sum())
    tiny = next_token_probs(logits, temperature=1.0, top_p=1e-9)
    assert tiny.tolist() == [0, 1, 0, 0]


REFUSED: dict[str, tuple[Callable[[DeepSeek], object], str]] = {
    "token too large": (
        lambda m: m(torch.tensor([[0, 256]])),
        r"tokens must lie in 0 to 255, got 0 to 256",
    ),
    "negative token": (
        lambda m: m.generate([[3, -1]], max_new_tokens=1),
        r"prompts\[0\] must lie in 0 to 255, got -1 to 3",
    ),
    "empty sequence": (
        lambda m: m(torch.zeros(2, 0, dtype=torch.long)),
        r"tokens must not be empty, got shape \(2, 0\)",
    ),
    "empty prompt": (
        lambda m: m.generate([[1], []], max_new_tokens=1),
        r"prompts\[1\] must be a row",
    ),
    "no prompt": (lambda m: m.generate([], max_new_tokens=1), "at least one prompt"),
    "nothing to generate": (
        lambda m: m.generate([[1]], max_new_tokens=0),
        "max_new_tokens must be at least 1, got 0",
    ),
    "cache too short": (
        lambda m: m(
            torch.zeros(1, 5, dtype=torch.long), cache=m.new_cache(batch_size=1, capacity=4)
        ),
        "LatentCache is full: capacity 4, 0 tokens held, 5 more do not fit",
    ),
    "cache for another batch": (
        lambda m: m(
            torch.zeros(1, 2, dtype=torch.long), cache=m.new_cache(batch_size=3, capacity=4)
        ),
        "cache must hold 1 sequences, got 3",
    ),
    "too long": (
        lambda m: m(torch.zeros(1, 513, dtype=torch.long)),
        r"position 512 is beyond max_position_embeddings \(512\)",
    ),
    "too long to generate": (
        lambda m: m.generate([[1] * 500], max_new_tokens=14),
        r"capacity 513 exceeds max_position_embeddings \(512\)",
    ),
    "negative temperature": (
        lambda m: m.generate([[1]], max_new_tokens=1, temperature=-1.0),
        "temperature must be at least 0, got -1.0",
    ),
    "top_p of 0": (
        lambda m: m.generate([[1]], max_new_tokens=1, temperature=1.0, top_p=0.0),
        r"top_p must lie in \(0, 1\], got 0.0",
    ),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_refused(
    model: DeepSeek, call: Callable[[DeepSeek], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(model)


def test_tokens_that_are_no_integers_are_refused(model: DeepSeek) -> None:
    with pytest.raises(TypeError, match=r"prompts\[0\] must be integers"):
        model.generate([torch.tensor([1.5, 2.0])], max_new_tokens=1)


DTYPES = [torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32]


@pytest.mark.parametrize("dtype", DTYPES)
def test_tokens_of_any_whole_number_type(model: DeepSeek, dtype: torch.dtype) -> None:
    """One byte is one token; NumPy on Windows counts in 32 bits, packed data sets in 16."""
    drafting = add_modules(DeepSeek(TINY))
    tokens = torch.randint(100, (2, 6))
    small, lengths = tokens.to(dtype), torch.tensor([2, 3])
    logits = drafting(tokens)
    hidden = drafting.model(tokens)
    for call in (
        drafting,
        lambda t: next_token_loss(logits, t),
        lambda t: predict(drafting, hidden, t)[0],
        lambda t: mtp_loss(predict(drafting, hidden, t), t, weight=0.3, documents=t),
        lambda t: speculate(drafting, t, max_new_tokens=3).tokens,
        lambda t: drafting.generate(t, max_new_tokens=3),
        lambda t: drafting.generate(list(t), max_new_tokens=3),
        lambda t: token_log_probs(logits, t),
        lambda t: completion_mask(t, lengths.to(t.dtype), eos=3),
        lambda t: teacher_forced_acceptance(drafting, t),
        lambda t: expert_load(t, n_routed_experts=100),
        lambda t: sample(drafting, t, group_size=2, max_new_tokens=2, stop_token=3,
                         generator=torch.Generator().manual_seed(0)).tokens,
    ):  # fmt: skip
        assert torch.equal(call(small), call(tokens))


def test_next_to_temperature_0_all_mass_is_on_the_largest(model: DeepSeek) -> None:
    for temperature in (5e-324, 1e-39, 1e-20):
        found = next_token_probs(torch.tensor([1.0, 2.0, -3e38]), temperature=temperature)
        assert found.tolist() == [0, 1, 0]
        new = model.generate([[1, 2]], max_new_tokens=4, temperature=temperature)
        assert torch.equal(new, model.generate([[1, 2]], max_new_tokens=4))


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_generation_under_autocast(model: DeepSeek) -> None:
    drafting, prompts = add_modules(DeepSeek(TINY)), torch.tensor([[1, 2, 3]])
    with torch.autocast("cpu", torch.bfloat16):
        assert model.generate(prompts, max_new_tokens=3).shape == (1, 3)
        assert speculate(drafting, prompts, max_new_tokens=3).tokens.shape == (1, 3)


def test_tokens_and_draws_elsewhere_than_the_weights() -> None:
    with torch.device("meta"):
        model = DeepSeek(SMALL)
    with pytest.raises(ValueError, match="tokens must be on meta like the weights, got cpu"):
        model(torch.tensor([[1, 2]]))
    with pytest.raises(ValueError, match="cache must be on cpu like the weights, got meta"):
        DeepSeek(SMALL)(torch.tensor([[1, 2]]), cache=model.new_cache(batch_size=1, capacity=2))
    with pytest.raises(ValueError, match="generator must be on meta like the weights, got cpu"):
        model.generate([[1]], max_new_tokens=1, generator=torch.Generator())
