"""dspark: the drafts keep the model's distribution, and a scheduler that looks ahead does not."""

import itertools
import math

import pytest
import torch

from dsnotes.after.dspark import (
    ConfidenceHead,
    MarkovHead,
    acceptance,
    draft,
    dspark_loss,
    schedule,
)
from dsnotes.model.speculative import verify

TARGET, DRAFT = torch.tensor([0.7, 0.3]), torch.tensor([0.5, 0.5])
SPEED = {1: 1.0, 2: 0.5, 3: 0.45}  # appendix A of the paper


def test_the_confidence_wants_the_overlap() -> None:
    """(8): one minus half the distance is the sum of the smaller of the two."""
    p, q = torch.rand(2, 5, 7).softmax(-1)
    torch.testing.assert_close(acceptance(p, q), torch.minimum(p, q).sum(-1))


def test_a_draft_depends_on_the_token_before() -> None:
    head = MarkovHead(vocab_size=5, rank=3)
    logits, last = torch.randn(1, 2, 5), torch.tensor([4])
    tokens, q = draft(logits, head, last, generator=torch.Generator().manual_seed(1))
    w1, w2 = head.markov_w1.weight, head.markov_w2.weight
    for place, before in enumerate([4, int(tokens[0, 0])]):
        expected = (logits[0, place] + w1[before] @ w2.T).softmax(-1)
        torch.testing.assert_close(q[0, place], expected)


def test_drafts_of_the_markov_head_leave_the_distribution_alone() -> None:
    """By enumeration over drafts: what `verify` returns first is distributed as p."""
    torch.manual_seed(0)
    head = MarkovHead(vocab_size=3, rank=2)
    count = 40_000
    logits, p = torch.randn(1, 2, 3).expand(count, 2, 3), torch.randn(1, 3, 3).softmax(-1)
    tokens, q = draft(logits, head, torch.zeros(count, dtype=torch.long))
    accepted, extra = verify(tokens, q, p.expand(count, 3, 3))
    first = torch.where(accepted > 0, tokens[:, 0], extra)
    found = first.bincount(minlength=3) / count
    torch.testing.assert_close(found, p[0, 0], atol=0.01, rtol=0)


def thetas(c1: float, c2: float) -> list[float]:
    return [1.0, (1 + c1) * SPEED[2], (1 + c1 + c1 * c2) * SPEED[3]]


def test_appendix_a_has_these_numbers() -> None:
    assert [round(t, 3) for t in thetas(0.8, 0.9)] == [1.0, 0.9, 1.134]
    assert round(thetas(0.8, 0.0)[2], 3) == 0.81


@pytest.mark.parametrize("c2", [0.9, 0.0])
def test_the_first_draft_that_does_not_pay_ends_it(c2: float) -> None:
    assert schedule([[0.8, c2]], SPEED.__getitem__) == [0]


def best_of_all(c: list[float]) -> int:
    """The wrong scheduler: it takes the length with the largest Theta of all."""
    return max(range(3), key=thetas(*c).__getitem__)


def first_token(decide: "object") -> torch.Tensor:
    """The exact distribution of the first token when `decide(x1)` drafts are verified."""
    out = torch.zeros(2)
    for x1 in range(2):
        if decide(x1) == 0:  # type: ignore[operator]  # nothing verified: the model draws by itself
            out += DRAFT[x1] * TARGET
            continue
        accept = min(1.0, float(TARGET[x1] / DRAFT[x1]))
        residual = (TARGET - DRAFT).clamp(min=0)
        out[x1] += DRAFT[x1] * accept
        out += DRAFT[x1] * (1 - accept) * residual / residual.sum()
    return out


def test_trap_1_a_scheduler_that_looks_ahead_changes_the_text() -> None:
    """Appendix A: c_2 depends on x_1 through the Markov head, 0.9 after A and 0 after B."""
    c2 = [0.9, 0.0]
    right = first_token(lambda x1: schedule([[0.8, c2[x1]]], SPEED.__getitem__)[0])
    wrong = first_token(lambda x1: best_of_all([0.8, c2[x1]]))
    torch.testing.assert_close(right, TARGET)
    torch.testing.assert_close(wrong, torch.tensor([0.85, 0.15]))


def test_trap_2_the_target_is_no_agreement_of_the_best_token() -> None:
    """Both prefer the first token, and a third of the drafts is refused all the same."""
    p, q = torch.tensor([0.9, 0.1]), torch.tensor([0.55, 0.45])
    assert p.argmax() == q.argmax()
    assert round(acceptance(q, p).item(), 2) == 0.65


def test_greedy_admission_is_the_best_where_theta_has_one_peak() -> None:
    c = [[0.9, 0.7, 0.5], [0.6, 0.5, 0.4], [0.3, 0.2, 0.1]]

    def speed(tokens: int) -> float:
        return 1 / (6 + tokens)

    def theta(lengths: tuple[int, ...]) -> float:
        tau = sum(
            1 + sum(math.prod(cs[: j + 1]) for j in range(n))
            for cs, n in zip(c, lengths, strict=True)
        )
        return tau * speed(sum(lengths) + 3)

    best = max(itertools.product(range(4), repeat=3), key=theta)
    assert theta(tuple(schedule(c, speed))) == pytest.approx(theta(best))


def test_the_loss_by_its_terms() -> None:
    logits, target = torch.randn(2, 2, 3, 5)
    tokens, confidence = torch.randint(5, (2, 3)), torch.randn(2, 3)
    weight = torch.tensor([1.0, math.exp(-1 / 4), math.exp(-2 / 4)])
    p, q = target.softmax(-1), logits.softmax(-1)
    ce = -logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    goal = torch.minimum(p, q).sum(-1)
    c = confidence.sigmoid()
    bce = -(goal * c.log() + (1 - goal) * (1 - c).log())
    each = 0.1 * ce + 0.9 * (p - q).abs().sum(-1) + bce
    expected = (weight * each).sum() / (2 * weight.sum())
    found = dspark_loss(logits, target, tokens, confidence, gamma=4.0)
    torch.testing.assert_close(found, expected)


def test_the_target_of_the_confidence_has_no_gradient() -> None:
    logits = torch.randn(1, 2, 4, requires_grad=True)
    loss = dspark_loss(
        logits, torch.randn(1, 2, 4), torch.tensor([[1, 2]]), torch.zeros(1, 2), gamma=2.0,
        ce=0.0, tv=0.0,
    )  # fmt: skip
    (grad,) = torch.autograd.grad(loss, logits)
    assert not grad.any()


def test_the_confidence_sees_state_and_token() -> None:
    head = ConfidenceHead(hidden_size=6, rank=2)
    assert head(torch.randn(3, 4, 6), torch.randn(3, 4, 2)).shape == (3, 4)


def test_wrong_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"confidence\[0\]\[1\] must lie in 0 to 1, got 1.5"):
        schedule([[0.5, 1.5]], lambda tokens: 1.0)
    one = torch.zeros(1, 1, 2)
    with pytest.raises(ValueError, match="gamma must be above 0"):
        dspark_loss(one, one, torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1), gamma=0.0)
    with pytest.raises(ValueError, match="rank"):
        MarkovHead(vocab_size=3, rank=0)
