"""speculative: exact for greedy and sampling, drafts as without cache, acceptance, bad input."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dsnotes.config import TINY
from dsnotes.model import speculative
from dsnotes.model.deepseek import DeepSeek, next_token_probs
from dsnotes.model.mtp import add_modules, mtp_loss, predict
from dsnotes.model.speculative import (
    expected_tokens_per_step,
    speculate,
    teacher_forced_acceptance,
    verify,
)
from dsnotes.training.texts import counting

SMALL = replace(
    TINY,
    vocab_size=4,
    hidden_size=16,
    num_hidden_layers=1,
    first_k_dense_replace=1,
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    initializer_range=0.3,
)


def build(depth: int) -> DeepSeek:
    """In float64, with drafts neither always right nor never."""
    model = add_modules(DeepSeek(replace(SMALL, num_nextn_predict_layers=depth))).double()
    return model.requires_grad_(False)


def total_variation(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().sum().item() / 2


def two_tokens(
    p: Tensor, q: Tensor, *, rule: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
) -> Tensor:
    """Distribution of the first token when `rule(p, q)` gives, for every draft v, the probability
    of keeping it and the distribution that replaces it."""
    keep, other = rule(p, q)
    return q * keep + (q * (1 - keep)).sum() * other


# --- the rule ---


def test_rule_is_exact_by_enumeration() -> None:
    """Drafts of every value against the accepted shares of `verify`, V = 4, D = 2.

    Nothing is sampled but u and the residual, 60,000 times per pair of drafts; the exact joint
    distribution of the next two tokens is p_1(a) p_2(b), whatever q is.
    """
    p = torch.tensor([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1]]).double()
    q = torch.tensor([[0.1, 0.6, 0.1, 0.2], [0.4, 0.3, 0.2, 0.1]]).double()
    n = 60_000
    first, second = torch.zeros(4).double(), torch.zeros(4, 4).double()
    for a, b in itertools.product(range(4), repeat=2):
        drafts = torch.tensor([[a, b]]).expand(n, 2)
        kept, extra = verify(drafts, q.expand(n, 2, 4), p.expand(n, 3, 4))
        weight = q[0, a] * q[1, b] / n
        got = torch.where(kept[:, None] > torch.arange(2), drafts, extra[:, None])
        first.index_add_(0, got[:, 0], torch.full((n,), weight.item()).double())
        both = kept >= 1  # a second token is known only then
        pairs = got[both, 0] * 4 + got[both, 1]
        second.view(-1).index_add_(0, pairs, torch.full((len(pairs),), weight.item()).double())
    assert total_variation(first, p[0]) < 0.004
    # given the first draft was kept, the second token follows p_2 exactly
    assert total_variation(second.sum(0) / second.sum(), p[1]) < 0.004


def test_trap_5_rejected_drafts_drawn_again_from_p() -> None:
    """Redrawing from p counts double what p and q share: off by 0.10 in total variation here."""
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])

    def residual(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        rest = (p - q).clamp(min=0)
        return (p / q).clamp(max=1), rest / rest.sum()

    def wrong(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        return (p / q).clamp(max=1), p

    assert total_variation(two_tokens(p, q, rule=residual), p) < 1e-6
    assert two_tokens(p, q, rule=wrong).tolist() == pytest.approx([0.40, 0.32, 0.28])
    assert total_variation(two_tokens(p, q, rule=wrong), p) == pytest.approx(0.10)

    n = 200_000
    drafts = torch.multinomial(q, n, replacement=True)[:, None]
    kept, extra = verify(drafts, q.expand(n, 1, 3), torch.stack([p, p]).expand(n, 2, 3))
    token = torch.where(kept == 1, drafts[:, 0], extra)
    assert total_variation(token.bincount() / n, p) < 0.006
    assert kept.double().mean().item() == pytest.approx(torch.minimum(p, q).sum().item(), abs=0.006)


def test_trap_5_bonus_token() -> None:
    """All accepted: one more token, from p behind the last draft; without it a step gains a, not
    1 + a, tokens."""
    p = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.1, 0.9]])
    n = 20_000
    drafts = torch.randint(2, (n, 1))
    kept, extra = verify(drafts, p[:1].expand(n, 1, 3), p.expand(n, 2, 3))
    assert (kept == 1).all()
    assert total_variation(extra.bincount(minlength=3) / n, p[1]) < 0.01


def test_greedy_rule() -> None:
    """One-hot distributions: accept what is equal, else take the model's own token."""
    p = F.one_hot(torch.tensor([[2, 0, 1]]), 3).double()
    for drafts, expected in (([2, 0], (2, 1)), ([2, 1], (1, 0)), ([1, 0], (0, 2))):
        d = torch.tensor([drafts])
        kept, extra = verify(d, F.one_hot(d, 3).double(), p)
        assert (kept.item(), extra.item()) == expected


def test_equal_distributions_up_to_rounding() -> None:
    """p below q by one rounding error at one token: nothing is left to draw from, yet it draws."""
    q = torch.full((5000, 1, 4), 0.25)
    p = q.clone()
    p[..., 0] = 0.25 - 1e-3  # a coarse rounding error, so that refusals occur
    kept, extra = verify(torch.zeros(5000, 1, dtype=torch.long), q, torch.cat([p, q], dim=1))
    assert 0 < (kept == 0).sum() < 100
    assert set(extra.tolist()) == {0, 1, 2, 3}


# --- decoding ---


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 6])
def test_greedy_is_the_same_token_by_token(depth: int, length: int) -> None:
    """Rows accept different numbers of drafts, so that their caches are rolled back apart."""
    model, prompts = build(depth), torch.randint(4, (5, length))
    found = speculate(model, prompts, max_new_tokens=24)
    assert torch.equal(found.tokens, model.generate(prompts, max_new_tokens=24))
    assert len(found.accepted.unique()) >= 2 + depth // 2  # it was not trivial
    assert 1 < found.tokens_per_step <= depth + 1


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(
    "options", [{"temperature": 1.0}, {"temperature": 0.7, "top_p": 0.8}], ids=["T1", "T0.7 top-p"]
)
def test_sampling_has_the_distribution_of_plain_sampling(depth: int, options: dict) -> None:
    """Three tokens of a vocabulary of four: 64 outcomes, their probabilities computed exactly.

    8,000 draws of a distribution over m outcomes are off by about sqrt(m / (2 pi n)), 0.036, in
    total variation.
    """
    torch.manual_seed(3)
    model, prompt = build(depth), torch.tensor([[1, 0, 2]])
    exact = outcomes(model, prompt, **options)
    n = 8_000
    generator = torch.Generator().manual_seed(0)
    found = speculate(model, prompt.expand(n, -1), max_new_tokens=3, generator=generator, **options)
    frequency = histogram(found.tokens)
    assert 0.1 < found.acceptance_rate < 0.95
    assert total_variation(frequency, exact) < 0.045


def test_trap_5_in_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test sees a decoder that draws from p on refusal."""
    torch.manual_seed(3)
    model, prompt = build(1), torch.tensor([[1, 0, 2]])

    def wrong(
        drafts: Tensor, q: Tensor, p: Tensor, *, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        kept, _ = verify(drafts, q, p, generator=generator)
        row = torch.arange(len(p))
        return kept, torch.multinomial(p[row, kept], 1, generator=generator)[:, 0]

    monkeypatch.setattr(speculative, "verify", wrong)
    generator = torch.Generator().manual_seed(0)
    found = speculate(
        model, prompt.expand(8_000, -1), max_new_tokens=3, temperature=1.0, generator=generator
    )
    assert total_variation(histogram(found.tokens), outcomes(model, prompt, temperature=1.0)) > 0.06


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_drafts_come_from_the_modules_as_without_cache(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every q is that of `predict` over the text so far and the drafts before it.

    Latents of refused drafts left in a cache would change it, while the output stays exact.
    """
    model, prompts = build(depth), torch.randint(4, (3, 4))
    seen = []

    def watch(drafts: Tensor, q: Tensor, p: Tensor, **kwargs: object) -> tuple[Tensor, Tensor]:
        found = verify(drafts, q, p, **kwargs)
        seen.append((drafts, q, found[0]))
        return found

    monkeypatch.setattr(speculative, "verify", watch)
    generator = torch.Generator().manual_seed(0)
    done = speculate(model, prompts, max_new_tokens=12, temperature=1.0, generator=generator)
    assert (done.accepted > 0).any()
    assert (done.accepted == 0).any()
    for row in range(3):
        text, known = torch.cat([prompts[row], done.tokens[row]]), 5
        for drafts, q, kept in seen:
            if known >= len(text):
                break
            tokens = torch.cat([text[:known], drafts[row]])[None]
            logits = predict(model, model.hidden(tokens), tokens)
            for k in range(1, depth + 1):  # its input ends with draft k - 1, token known + k - 2
                expected = logits[k - 1][0, known - 2].softmax(-1)
                assert torch.allclose(q[row, k - 1], expected, atol=1e-10)
            known += int(kept[row]) + 1


def test_seed() -> None:
    model, prompts = build(1), torch.randint(4, (2, 3))

    def run(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return speculate(
            model, prompts, max_new_tokens=12, temperature=1.0, generator=generator
        ).tokens

    assert torch.equal(run(0), run(0))
    assert not torch.equal(run(0), run(1))


def test_one_new_token_needs_no_step() -> None:
    model, prompts = build(1), torch.randint(4, (2, 3))
    found = speculate(model, prompts, max_new_tokens=1)
    assert torch.equal(found.tokens, model.generate(prompts, max_new_tokens=1))
    assert found.accepted.shape == (2, 0)


# --- acceptance ---


def test_expected_tokens_per_step() -> None:
    """1 + a for one draft: the published 85 to 90 % would give 1.85 to 1.90."""
    assert expected_tokens_per_step(0.85) == 1.85
    assert expected_tokens_per_step(0.9) == 1.9
    assert expected_tokens_per_step(1.0, depth=3) == 4
    assert expected_tokens_per_step(0.5, depth=2) == 1.75


def test_teacher_forced_acceptance_term_by_term() -> None:
    model, tokens = build(2), torch.randint(4, (2, 7))
    logits, ahead = model(tokens), predict(model, model.hidden(tokens), tokens)
    found = teacher_forced_acceptance(model, tokens, temperature=0.5)
    for k in (1, 2):
        overlaps = []
        for row in range(2):
            for i in range(7 - k):
                p = next_token_probs(logits[row, i + k], temperature=0.5)
                q = next_token_probs(ahead[k - 1][row, i], temperature=0.5)
                overlaps.append(sum(min(a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True)))
        assert found[k - 1].item() == pytest.approx(sum(overlaps) / len(overlaps))


def test_acceptance_of_a_trained_model() -> None:
    """Counting with jumps: the drafter knows as much as the model, so nearly every draft is taken.

    Sampled text and teacher-forced text of the same language agree. With one draft, tokens per
    step are 1 + a by definition: the last line but one checks the two counters, nothing else.
    """
    model = trained()
    text = counting(sequences=64, seq_len=40, vocab_size=16, jump=0.3, seed=9)
    expected = teacher_forced_acceptance(model, text).item()
    generator = torch.Generator().manual_seed(0)
    found = speculate(model, text[:, :8], max_new_tokens=40, temperature=1.0, generator=generator)
    assert expected > 0.9
    assert found.acceptance_rate == pytest.approx(expected, abs=0.04)
    assert found.tokens_per_step == pytest.approx(expected_tokens_per_step(found.acceptance_rate))
    jumps = (found.tokens.diff(dim=1) % 16 != 1).double().mean().item()
    assert jumps == pytest.approx(0.3 * 15 / 16, abs=0.04)  # it does speak the language


def test_tokens_per_step_of_two_drafts_follow_from_the_overlaps() -> None:
    """1 + a_1 + a_1 a_2, with the overlaps of p and q along the text that was written.

    An estimate, for a_2 is a mean over all places and not only over those behind an accepted draft.
    """
    model = build(2)
    found = speculate(
        model, torch.randint(4, (400, 3)), max_new_tokens=40, temperature=1.0,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    first, second = teacher_forced_acceptance(model, found.tokens).tolist()
    assert 0.2 < first < 0.95
    steps = found.accepted[found.accepted >= 0]
    assert (steps >= 1).double().mean().item() == pytest.approx(first, abs=0.02)
    assert found.tokens_per_step == pytest.approx(1 + first + first * second, abs=0.03)


# --- bad input ---


def test_bad_input() -> None:
    model, prompts = build(1), torch.randint(4, (2, 3))
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        speculate(model, prompts, max_new_tokens=0)
    with pytest.raises(ValueError, match="prompts must lie in 0 to 3, got 4 to 4"):
        speculate(model, torch.full((1, 2), 4), max_new_tokens=2)
    with pytest.raises(ValueError, match="tokens must not be empty"):
        speculate(model, torch.zeros(1, 0, dtype=torch.long), max_new_tokens=2)
    with pytest.raises(ValueError, match="temperature must be at least 0"):
        speculate(model, prompts, max_new_tokens=2, temperature=-1.0)
    with pytest.raises(ValueError, match=r"capacity 513 exceeds max_position_embeddings \(512\)"):
        speculate(model, prompts, max_new_tokens=509)
    with pytest.raises(ValueError, match="has no multi-token prediction modules"):
        speculate(DeepSeek(SMALL), prompts, max_new_tokens=2)
    with pytest.raises(ValueError, match=r"acceptance must lie between 0 and 1, got 1\.5"):
        expected_tokens_per_step(1.5)
    p = torch.full((1, 3, 4), 0.25)
    with pytest.raises(ValueError, match="1 and 2 places for 1 drafts, got 1 and 3"):
        verify(torch.zeros(1, 1, dtype=torch.long), p[:, :1], p)


def outcomes(model: DeepSeek, prompt: Tensor, **options: float) -> Tensor:
    """Exact probabilities of all 64 continuations of three tokens."""
    texts = torch.tensor(list(itertools.product(range(4), repeat=3)))
    logits = model(torch.cat([prompt.expand(64, -1), texts], dim=1))[:, 2:5]
    probs = next_token_probs(logits, **options)
    return probs.gather(-1, texts[..., None])[..., 0].prod(dim=1)


def histogram(tokens: Tensor) -> Tensor:
    codes = (tokens * torch.tensor([16, 4, 1])).sum(dim=1)
    return codes.bincount(minlength=64) / len(tokens)


def trained() -> DeepSeek:
    """One layer, one module, on the counting language with jumps."""
    torch.manual_seed(0)
    config = replace(SMALL, vocab_size=16, hidden_size=32, initializer_range=0.05)
    model = add_modules(DeepSeek(config))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
    data = counting(sequences=32 * 70, seq_len=24, vocab_size=16, jump=0.3, seed=1)
    for tokens in data.split(32):
        hidden = model.hidden(tokens)
        main = F.cross_entropy(model.lm_head(hidden)[:, :-1].mT, tokens[:, 1:])
        optimizer.zero_grad()
        (main + mtp_loss(predict(model, hidden, tokens), tokens, weight=0.3)).backward()
        optimizer.step()
    return model.requires_grad_(False)
