"""reward_model: the Bradley-Terry loss by its definition, the scalar head, padding, learning."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.reward_model import RewardModel, bradley_terry_loss, preference_probability

SMALL = replace(TINY, vocab_size=16, num_hidden_layers=1, initializer_range=0.2)


def build() -> RewardModel:
    model = RewardModel(DeepSeek(SMALL))
    torch.nn.init.normal_(model.score.weight)
    return model


# --- loss ---


def test_loss_by_definition() -> None:
    chosen, rejected = torch.tensor([1.0, 0.0, -2.0]), torch.tensor([0.0, 0.0, 3.0])
    terms = [-math.log(1 / (1 + math.exp(-d))) for d in (1.0, 0.0, -5.0)]
    assert bradley_terry_loss(chosen, rejected).item() == pytest.approx(sum(terms) / 3)
    expected = [1 / (1 + math.exp(-d)) for d in (1.0, 0.0, -5.0)]
    assert preference_probability(chosen, rejected).tolist() == pytest.approx(expected)


def test_gradient_is_the_probability_of_being_wrong() -> None:
    """d loss / d r_chosen = -(1 - sigmoid(difference)) / pairs: little where told apart."""
    chosen = torch.tensor([3.0, 0.0], requires_grad=True)
    rejected = torch.tensor([0.0, 0.0], requires_grad=True)
    bradley_terry_loss(chosen, rejected).backward()
    wrong = 1 - preference_probability(chosen, rejected).detach()
    assert torch.allclose(chosen.grad, -wrong / 2)
    assert torch.allclose(rejected.grad, wrong / 2)


def test_only_differences_count() -> None:
    chosen, rejected = torch.randn(50), torch.randn(50)
    shifted = bradley_terry_loss(chosen + 7.0, rejected + 7.0)
    assert shifted.item() == pytest.approx(bradley_terry_loss(chosen, rejected).item(), rel=1e-5)


def test_far_apart_scores_stay_finite() -> None:
    """log(sigmoid(-1000)) is -inf when it is computed in two steps."""
    a, b = torch.tensor([1000.0]), torch.tensor([-1000.0])
    assert bradley_terry_loss(a, b).item() == 0.0
    assert bradley_terry_loss(b, a).item() == 2000.0
    assert (b - a).sigmoid().log().isinf().item()


def test_strengths_are_recovered() -> None:
    """Labels drawn from known scores: the loss has its minimum at their differences."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([0.0, 1.0, 2.5])
    i, j = torch.randint(3, (2, 20_000), generator=generator)
    i, j = i[i != j], j[i != j]
    first = torch.rand(len(i), generator=generator) < preference_probability(truth[i], truth[j])
    chosen, rejected = torch.where(first, i, j), torch.where(first, j, i)
    found = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([found], max_iter=15)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = bradley_terry_loss(found[chosen], found[rejected])
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.allclose(found.detach() - found[0].item(), truth, atol=0.12)


# --- model ---


def test_score_is_a_scalar_head_on_the_last_token() -> None:
    model, tokens = build().double(), torch.randint(16, (1, 7))
    hidden = model.model(tokens)[0, 4]
    expected = hidden @ model.score.weight[0]
    assert model(tokens, lengths=torch.tensor([5])).item() == pytest.approx(expected.item())


def test_padding_changes_nothing() -> None:
    model, tokens = build(), torch.randint(16, (3, 9))
    lengths = torch.tensor([9, 4, 1])
    with torch.no_grad():
        before = model(tokens, lengths=lengths)
        tokens[1, 4:] = (tokens[1, 4:] + 1) % 16
        tokens[2, 1:] = (tokens[2, 1:] + 1) % 16
        after = model(tokens, lengths=lengths)
        alone = model(tokens[1:2, :4], lengths=lengths[1:2])
    assert torch.allclose(before, after, atol=1e-6)
    assert torch.allclose(before[1:2], alone, atol=1e-5)


def test_starts_from_the_weights_of_the_model_and_leaves_them_alone() -> None:
    start = DeepSeek(SMALL)
    model, tokens = RewardModel(start), torch.randint(16, (4, 6))
    lengths = torch.full((4,), 6)
    assert torch.equal(model.model(tokens), start.model(tokens))
    assert model(tokens, lengths=lengths).abs().max() == 0
    before = {name: p.clone() for name, p in start.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):  # the head is 0 at first, so the backbone moves in the second step
        r = model(tokens, lengths=lengths)
        optimizer.zero_grad()
        bradley_terry_loss(r[:2], r[2:]).backward()
        optimizer.step()
    assert not torch.equal(model.model(tokens), start.model(tokens))
    assert all(torch.equal(p, before[name]) for name, p in start.named_parameters())


def test_learns_a_preference() -> None:
    """Pairs where the answer with token 3 is preferred; new ones are told apart afterwards."""
    torch.manual_seed(0)
    model = RewardModel(DeepSeek(SMALL))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)

    def pairs(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        rejected = torch.randint(4, 16, (n, 6))
        chosen = rejected.clone()
        chosen[torch.arange(n), torch.randint(6, (n,))] = 3
        return chosen, rejected

    def scores(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = torch.full((n,), 6)
        a, b = (model(tokens, lengths=lengths) for tokens in pairs(n))
        return a, b

    for _ in range(40):
        loss = bradley_terry_loss(*scores(32))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    chosen, rejected = scores(200)
    assert (chosen > rejected).float().mean() > 0.95


def test_bfloat16() -> None:
    model = RewardModel(DeepSeek(SMALL).bfloat16())
    tokens = torch.randint(16, (2, 5))
    assert model(tokens, lengths=torch.tensor([5, 5])).dtype == torch.bfloat16


def test_bad_input() -> None:
    model, tokens = build(), torch.randint(16, (2, 5))
    for lengths, got in (([0, 5], "0 to 5"), ([1, 6], "1 to 6")):
        with pytest.raises(ValueError, match=f"lengths must lie in 1 to 5, got {got}"):
            model(tokens, lengths=torch.tensor(lengths))
    with pytest.raises(ValueError, match="chosen must hold at least one score, got none"):
        bradley_terry_loss(torch.zeros(0), torch.zeros(0))


def test_wrong_shapes_are_named_without_run_time_annotations() -> None:
    """As a reader runs them, without the annotations that tests switch on."""
    calls = [
        (
            "bradley_terry_loss(torch.zeros(3, 1), torch.zeros(3))",
            "chosen must be a floating-point",
        ),
        (
            "bradley_terry_loss(torch.zeros(3, 1), torch.zeros(3, 1))",
            "chosen must be a floating-point",
        ),
        ("bradley_terry_loss(torch.zeros(1), torch.zeros(3))", "rejected must be a floating-point"),
        (
            "bradley_terry_loss(torch.tensor(1.), torch.tensor(1.))",
            "chosen must be a floating-point",
        ),
        (
            "bradley_terry_loss(torch.tensor([1]), torch.tensor([0]))",
            "chosen must be a floating-point",
        ),
        ("bradley_terry_loss(torch.zeros(1), [0.0])", "rejected must be a floating-point"),
        (
            "preference_probability(torch.zeros(3, 1), torch.zeros(3))",
            "chosen must be a floating-point",
        ),
        ("preference_probability(1.0, 2.0)", "chosen must be a floating-point"),
        ("model(tokens, lengths=torch.tensor([3]))", "lengths must be a whole-number tensor"),
        (
            "model(tokens[:1], lengths=torch.tensor([3, 2]))",
            "lengths must be a whole-number tensor",
        ),
        (
            "model(tokens, lengths=torch.tensor([[3], [2]]))",
            "lengths must be a whole-number tensor",
        ),
        (
            "model(tokens, lengths=torch.tensor([3.0, 2.0]))",
            "lengths must be a whole-number tensor",
        ),
        (
            "model(tokens, lengths=torch.tensor([True, True]))",
            "lengths must be a whole-number tensor",
        ),
        ("model(tokens[0], lengths=torch.tensor([3]))", "tokens must be a whole-number tensor"),
        ("model(tokens[:0], lengths=torch.tensor([]))", "lengths must be a whole-number tensor"),
        (
            "model(tokens[:0], lengths=torch.tensor([1])[:0])",
            "tokens must be (batch, seq), not empty",
        ),
        ("RewardModel(torch.nn.Linear(2, 2))", "model must be a DeepSeek, got a Linear"),
    ]
    code = (
        "import torch; from dsnotes.config import TINY\n"
        "from dsnotes.model.deepseek import DeepSeek\n"
        "from dsnotes.rl.reward_model import *\n"
        "model, tokens = RewardModel(DeepSeek(TINY)), torch.zeros(2, 4, dtype=torch.long)\n"
    ) + "".join(
        f"try: print('accepted', {call})\n"
        "except (ValueError, TypeError) as error: print(str(error).splitlines()[0])\n"
        for call, _ in calls
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    lines = run.stdout.splitlines()
    assert len(lines) == len(calls), run.stderr
    for (call, expected), line in zip(calls, lines, strict=True):
        assert line.startswith(expected), (call, line)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_finite_scores_have_the_loss_of_float64(dtype: torch.dtype) -> None:
    """60000 - -60000 is more than float16 holds; the loss of the pair is 120000 all the same."""
    top = min(torch.finfo(dtype).max, 1e38) * 0.9
    values = torch.tensor([top, -top, 0.0, 1.0, -3.5, torch.finfo(dtype).tiny], dtype=dtype)
    chosen, rejected = (x.flatten() for x in torch.meshgrid(values, values, indexing="ij"))
    for c, r in zip(chosen, rejected, strict=True):
        c, r = c[None].clone().requires_grad_(), r[None].clone().requires_grad_()
        loss = bradley_terry_loss(c, r)
        loss.backward()
        d = r.detach().double() - c.detach().double()
        assert loss.item() == pytest.approx(F.softplus(d).item(), rel=1e-6)
        slope = torch.sigmoid(d).item()
        precision = max(torch.finfo(dtype).eps, 1e-6)
        assert c.grad.item() == pytest.approx(-slope, rel=precision, abs=1e-7)
        assert r.grad.item() == pytest.approx(slope, rel=precision, abs=1e-7)


def test_same_loss_as_cross_entropy_over_the_pair() -> None:
    """Softmax over the two scores is the same model."""
    chosen, rejected = torch.randn(20), torch.randn(20)
    both = torch.stack([chosen, rejected], dim=1)
    expected = F.cross_entropy(both, torch.zeros(20, dtype=torch.long))
    assert bradley_terry_loss(chosen, rejected).item() == pytest.approx(expected.item(), rel=1e-5)
