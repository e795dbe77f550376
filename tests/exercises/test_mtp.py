"""The exercises of the section on MTP, solved with the library: perturbed, drawn, counted."""

import math
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from dsnotes.config import DEEPSEEK_V3, TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mlp import MLP
from dsnotes.model.mtp import add_modules, mtp_loss, predict
from dsnotes.model.speculative import verify
from dsnotes.training.texts import counting_entropy

from .notebook import NOTEBOOKS, answers
from .page import exercise, solution


def test_mtp_1() -> None:
    """What depth 2 is fed is found by changing tokens, what it predicts by its loss."""
    config = replace(TINY, num_hidden_layers=1, first_k_dense_replace=1, num_nextn_predict_layers=2)
    model = add_modules(DeepSeek(config)).double().requires_grad_(False)
    tokens = torch.randint(config.vocab_size, (1, 9))

    def seen(position: int) -> int:
        """The last token that depth 2 has read at this position, both counted from 1."""
        before = predict(model, model.hidden(tokens), tokens)[1][0, position - 1]
        for last in range(9, 0, -1):
            changed = tokens.clone()
            changed[0, last - 1] = (changed[0, last - 1] + 1) % config.vocab_size
            after = predict(model, model.hidden(changed), changed)[1][0, position - 1]
            if (before - after).abs().max() > 1e-9:
                return last
        raise AssertionError(position)

    assert seen(3) == 5

    def loss_of(position: int, target: int) -> float:
        """Of depth 2 alone, when at this position it is certain of this token of the text."""
        text = torch.arange(9)[None]
        sure = torch.zeros(1, 7, 9, dtype=torch.float64)
        sure[0, position - 1, text[0, target - 1]] = 100.0
        flat = [torch.zeros(1, 8, 9, dtype=torch.float64), sure]
        return mtp_loss(flat, text, weight=1.0).item()

    assert min(range(1, 10), key=lambda target: loss_of(3, target)) == 6

    T, vocab = 4096, 4  # uniform logits: every term of the sum is ln 4
    text = torch.randint(vocab, (1, T + 1))
    logits = [torch.zeros(1, T + 1 - k, vocab, dtype=torch.float64) for k in (1, 2)]
    both = 2 * mtp_loss(logits, text, weight=1.0).item() / math.log(vocab)
    terms = round(T * both) - (T - 1)  # of depth 2: what depth 1 leaves of the sum
    assert terms == 4094
    assert 1 - terms / T == pytest.approx(0.0005, abs=5e-5)
    assert "t_{3+2}=t_5" in solution("mtp-1")
    assert "4096-2=4094" in solution("mtp-1")


def speed(rate: float, step: float) -> float:
    """Tokens per unit of time when a step with one draft takes `step`, a plain one 1."""
    generator = torch.Generator().manual_seed(0)
    q = torch.tensor([[1.0, 0.0]])
    p = torch.tensor([[rate, 1 - rate]])  # sum_v min(p, q) is the rate
    n = 200_000
    drafts = torch.zeros(n, 1, dtype=torch.long)
    kept, _ = verify(
        drafts, q.expand(n, 1, 2), torch.stack([p, p], dim=1).expand(n, 2, 2), generator=generator
    )
    return (kept + 1).double().mean().item() / step


def test_mtp_2() -> None:
    """The steps that give 1.8, or what rounds to it, in drawn drafts."""
    for rate, slower in ((0.85, 0.028), (0.9, 0.056)):
        assert speed(rate, 1 + slower) == pytest.approx(1.8, abs=0.005)
    assert speed(0.85, 1.0) == pytest.approx(1.85, abs=0.005)  # the most 1.8 may stand for
    assert speed(0.9, 1.086) == pytest.approx(1.75, abs=0.005)  # the least
    assert "1.75 到 1.85" in solution("mtp-2")


def test_mtp_3() -> None:
    """Two drafts, each accepted with probability 0.85 when those before it were."""
    n = 400_000
    q = torch.tensor([1.0, 0.0]).expand(n, 2, 2)
    p = torch.tensor([0.85, 0.15]).expand(n, 3, 2)
    generator = torch.Generator().manual_seed(0)
    kept, _ = verify(torch.zeros(n, 2, dtype=torch.long), q, p, generator=generator)
    two, one = (kept + 1).double().mean().item(), (kept.clamp(max=1) + 1).double().mean().item()
    assert two == pytest.approx(1 + 0.85 + 0.85**2, abs=0.005)
    assert two - one == pytest.approx(0.72, abs=0.005)
    assert "多 0.72 个" in solution("mtp-3")


def test_mtp_4() -> None:
    """By hand in fractions, then the same distribution drawn with `verify`."""
    p = [Fraction(k, 10) for k in (5, 3, 2)]
    q = [Fraction(k, 10) for k in (2, 2, 6)]
    kept = [qv * min(Fraction(1), pv / qv) for pv, qv in zip(p, q, strict=True)]
    rest = [max(Fraction(0), pv - qv) for pv, qv in zip(p, q, strict=True)]
    residual = [x / sum(rest) for x in rest]
    assert sum(kept) == Fraction(6, 10)
    assert residual == [Fraction(3, 4), Fraction(1, 4), 0]
    assert [k + (1 - sum(kept)) * r for k, r in zip(kept, residual, strict=True)] == p
    assert "(0.75,0.25,0)" in solution("mtp-4")
    assert "接受率 0.6" in solution("mtp-4")

    n, generator = 200_000, torch.Generator().manual_seed(0)
    places = torch.tensor([[float(x) for x in p]] * 2).expand(n, 2, 3)
    draft = torch.tensor([float(x) for x in q])
    drafts = torch.multinomial(draft, n, replacement=True, generator=generator)[:, None]
    accepted, other = verify(drafts, draft.expand(n, 1, 3), places, generator=generator)
    token = torch.where(accepted == 1, drafts[:, 0], other)
    assert accepted.double().mean().item() == pytest.approx(0.6, abs=0.005)
    assert (token.bincount(minlength=3) / n).tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.005)
    redrawn = other[accepted == 0].bincount(minlength=3).double()
    assert (redrawn / redrawn.sum()).tolist() == pytest.approx([0.75, 0.25, 0.0], abs=0.005)


def test_mtp_5() -> None:
    """What feeding a token saves, from the matrix of transitions instead of the closed form."""
    vocab = 16
    saved = {}
    for jump in (0.0, 0.1, 0.3, 0.5, 1.0):
        one = torch.full((vocab, vocab), jump / vocab, dtype=torch.float64)
        one[torch.arange(vocab), (torch.arange(vocab) + 1) % vocab] += 1 - jump
        bits = [-torch.xlogy(m, m).sum(dim=1).mean().item() for m in (one, one @ one)]
        for ahead, entropy in enumerate(bits, start=1):
            closed = counting_entropy(vocab_size=vocab, jump=jump, ahead=ahead)
            assert entropy == pytest.approx(closed, abs=1e-12)
        saved[jump] = bits[1] - bits[0]
    assert saved[0.0] == 0
    assert saved[1.0] == pytest.approx(0, abs=1e-12)
    assert max(saved, key=lambda jump: saved[jump]) == 0.3
    assert min(saved[0.1], saved[0.3], saved[0.5]) > 0.3
    assert "中间最大" in solution("mtp-5")


def test_mtp_6() -> None:
    """Two tokens drawn, and the experts they meet counted; the weights of one from its module."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(20_000, 2, 256, generator=generator).topk(8).indices.flatten(1)
    met = (chosen.sort(dim=1).values.diff(dim=1) > 0).sum(dim=1).double().mean().item() + 1
    assert met == pytest.approx(15.75, abs=0.02)
    assert "=15.75" in solution("mtp-6")
    with torch.device("meta"):
        expert = MLP(DEEPSEEK_V3.hidden_size, DEEPSEEK_V3.moe_intermediate_size)
    size = sum(weight.numel() for weight in expert.parameters())
    assert f"{size / 1e6:.2f}M" in solution("mtp-6")
    layers = DEEPSEEK_V3.num_hidden_layers - DEEPSEEK_V3.first_k_dense_replace
    assert rf"$7.75\times{layers}\times" in solution("mtp-6")
    code = answers(NOTEBOOKS / "mtp.ipynb")["mtp-6"].right
    found: dict[str, float] = {}
    exec(code, found)
    assert found["extra"] == pytest.approx((met - 8) * size * layers / 1e9, rel=0.01)


def test_mtp_7() -> None:
    """Graded by the tests of the section (`tests/practice`)."""
    assert "`python -m dsnotes.practice mtp`" in exercise("mtp-7")


def test_mtp_8() -> None:
    """The planted bugs are tried in `tests/practice`; these two are the ones the page means."""
    assert "`python -m dsnotes.practice --bug mtp-1`" in exercise("mtp-8")
    assert "`--bug mtp-3`" in exercise("mtp-8")


def test_mtp_9() -> None:
    """The hint: a draft that is certain is accepted with p(v), and what is drawn again is not v."""
    n, generator = 100_000, torch.Generator().manual_seed(0)
    p = torch.tensor([0.5, 0.3, 0.2]).expand(n, 2, 3)
    q = torch.tensor([0.0, 1.0, 0.0]).expand(n, 1, 3)
    kept, other = verify(torch.ones(n, 1, dtype=torch.long), q, p, generator=generator)
    assert kept.double().mean().item() == pytest.approx(0.3, abs=0.005)
    again = other[kept == 0].bincount(minlength=3) / (kept == 0).sum()
    assert again.tolist() == pytest.approx([5 / 7, 0, 2 / 7], abs=0.01)
    assert "$p(v)$" in solution("mtp-9")
