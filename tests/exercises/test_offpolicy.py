"""The exercises of the section on what came after R1, solved with the library or by trying."""

import math

import pytest
import torch

from dsnotes.after.distillation import distillation_loss
from dsnotes.after.offpolicy import off_policy_mask, sampling_support, unbiased_kl
from dsnotes.after.self_verification import SCORES, prover_reward
from dsnotes.rl.objective import k3

from .notebook import NOTEBOOKS, answers
from .page import exercise, solution


def solved(label: str) -> dict[str, object]:
    """The names that the solution of an exercise defines."""
    names: dict[str, object] = {"torch": torch}
    exec(answers(NOTEBOOKS / "offpolicy.ipynb")[label].right, names)
    return names


def test_offpolicy_1() -> None:
    """The derivatives by small steps of the log-prob."""
    found, step = solved("offpolicy-1"), 1e-6
    pi, old, ref = (torch.tensor(p).double().log() for p in (0.2, 0.1, 0.4))
    assert found["value_k3"] == pytest.approx(k3(pi, ref).item(), abs=1e-4)
    assert found["value_unbiased"] == pytest.approx(unbiased_kl(pi, old, ref).item(), abs=2e-4)
    slope = (k3(pi + step, ref) - k3(pi - step, ref)) / (2 * step)
    assert found["weight_k3"] == pytest.approx(slope.item(), abs=1e-4)
    slope = (unbiased_kl(pi + step, old, ref) - unbiased_kl(pi - step, old, ref)) / (2 * step)
    assert found["weight_unbiased"] == pytest.approx(slope.item(), abs=2e-4)
    assert r"\approx0.307" in solution("offpolicy-1")
    assert r"\approx-1.386" in solution("offpolicy-1")


def test_offpolicy_2() -> None:
    sampled = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.2, 0.4], [0.5, 0.1]]).log()
    now = torch.tensor([[0.1, 0.1], [0.1, 0.1], [0.4, 0.8], [0.05, 0.5]]).log()
    keep = off_policy_mask(
        now,
        sampled,
        torch.tensor([1.0, -1, -1, -1]),
        torch.ones(4, 2, dtype=torch.bool),
        delta=0.5,
    )
    assert keep.tolist() == solved("offpolicy-2")["keeps"] == [True, False, True, True]
    assert (sampled - now).mean(1)[3].item() == pytest.approx(0.35, abs=0.005)
    text = exercise("offpolicy-2")
    for row in ("| 丙 | 0.2、0.4 | 0.4、0.8 |", "| 丁 | 0.5、0.1 | 0.05、0.5 |"):
        assert row in text


def test_offpolicy_3() -> None:
    """Whatever the logits, the ratio of a policy that has not moved is what top-p leaves."""
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        logits = 2 * torch.randn(40, generator=g).double()
        p, support = logits.softmax(-1), sampling_support(logits, top_p=0.7)
        sampled = p[support] / p[support].sum()
        assert torch.allclose(p[support] / sampled, p[support].sum())
        assert 0.7 <= p[support].sum() < 0.9
    assert 0.7 < float(str(solved("offpolicy-3")["guess"])) < 0.9


def test_offpolicy_4() -> None:
    """Descent on the loss itself, and the general result on five answers and three experts."""
    first, second = torch.tensor([[[0.9, 0.1]], [[0.5, 0.5]]]).double().log()[:, None]
    assert descended([first, second], [1.0, 1.0])[0].item() == pytest.approx(0.75, abs=1e-6)
    assert solved("offpolicy-4")["both"] == 0.75
    g = torch.Generator().manual_seed(0)
    experts = list(torch.randn(3, 1, 1, 5, generator=g).double().log_softmax(-1))
    weights = [0.5, 1.5, 1.0]
    mixed = sum(w / 3 * e for w, e in zip(weights, experts, strict=True))
    assert torch.allclose(descended(experts, weights), mixed.softmax(-1).flatten(), atol=1e-6)


def descended(experts: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    logits = torch.zeros_like(experts[0])
    row = torch.ones(1, 1, dtype=torch.bool)
    for _ in range(2000):
        leaf = logits.clone().requires_grad_()
        loss = distillation_loss(leaf, experts, row, weights=weights)
        logits = logits - torch.autograd.grad(loss, leaf)[0]
    return logits.softmax(-1).flatten()


def test_offpolicy_5() -> None:
    """The cell itself is judged in `test_notebooks`; the page shows its lines."""
    code = answers(NOTEBOOKS / "offpolicy.ipynb")["offpolicy-5"].right
    wrong = exercise("offpolicy-5")
    assert "/ rewards.std()" in wrong
    assert "/ rewards.std()" not in code
    assert "rho.detach()" in wrong
    assert "rho.detach()" not in code
    assert "(surrogate - beta * kl) * keep" in wrong
    assert "surrogate * keep[:, None] - beta * kl" in code


def test_offpolicy_6() -> None:
    """What the whole reward pays, less what the proof itself earns whatever is claimed."""
    pay = [
        0.6 * prover_reward(c, 1.0, meta=1.0) + 0.4 * prover_reward(c, 0.0, meta=1.0)
        for c in SCORES
    ]
    found = solved("offpolicy-6")
    assert [p - 0.6 * 0.76 for p in pay] == pytest.approx(found["pay"])
    assert SCORES[pay.index(max(pay))] == found["claim"] == 1
    assert math.isclose(pay[1] - 0.6 * 0.76, 0.12)


def test_offpolicy_7() -> None:
    """Graded by the tests of the section (`tests/practice`)."""
    assert "`python -m dsnotes.practice offpolicy`" in exercise("offpolicy-7")


def test_offpolicy_8() -> None:
    """The planted bugs are tried in `tests/practice`; these two are the ones the page means."""
    assert "`python -m dsnotes.practice --bug offpolicy-1`" in exercise("offpolicy-8")
    assert "`--bug offpolicy-2`" in exercise("offpolicy-8")
