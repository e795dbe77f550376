"""distillation: the loss by hand, the sampled estimator enumerated, the direction of the KL."""

import pytest
import torch
from torch import Tensor

from dsnotes.after.distillation import distillation_loss, sampled_distillation_loss

VOCAB = 11


@pytest.fixture
def logits() -> tuple[Tensor, Tensor, Tensor]:
    """Student and two experts, one row each, float64."""
    return torch.randn(3, 1, 1, VOCAB, generator=torch.Generator().manual_seed(2)).double().unbind()


ONE = torch.ones(1, 1, dtype=torch.bool)


def test_by_hand() -> None:
    student = torch.tensor([0.5, 0.25, 0.25]).log()[None, None]
    first = torch.tensor([0.25, 0.5, 0.25]).log()[None, None]
    second = torch.tensor([0.5, 0.25, 0.25]).log()[None, None]
    found = distillation_loss(student, [first, second], ONE, weights=[0.75, 0.25])
    ln2 = torch.tensor(2.0).log().item()
    assert found.item() == pytest.approx(0.75 * (0.5 * ln2 - 0.25 * ln2))


def test_mean_over_marked_rows_and_nothing_else() -> None:
    student, teacher = torch.randn(2, 2, 3, 5).double()
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    rows = [distillation_loss(student[i : i + 1, t : t + 1], [teacher[i : i + 1, t : t + 1]], ONE)
            for i, t in mask.nonzero().tolist()]  # fmt: skip
    holes = [x.masked_fill(~mask[..., None], torch.nan) for x in (student, teacher)]
    leaf = holes[0].requires_grad_()
    found = distillation_loss(leaf, [holes[1]], mask)
    assert found.item() == pytest.approx(torch.stack(rows).mean().item(), abs=1e-14)
    (slope,) = torch.autograd.grad(found, leaf)
    assert (slope[~mask] == 0).all()


def test_one_token_is_unbiased_and_noisy(logits: tuple[Tensor, Tensor, Tensor]) -> None:
    """Over all samples from the student: the same value and gradient, and a large spread."""
    student, teacher, _ = logits
    leaf = student.clone().requires_grad_()
    loss = distillation_loss(leaf, [teacher], ONE)
    (exact,) = torch.autograd.grad(loss, leaf)
    p, log_e = student.softmax(-1)[0, 0], teacher.log_softmax(-1)[0, 0]
    values, slopes = [], []
    for token in range(VOCAB):
        log_p = leaf.log_softmax(-1)[0, :, token][None].reshape(1, 1)
        value = sampled_distillation_loss(log_p, log_e[token].reshape(1, 1), ONE)
        values.append(value.detach())
        slopes.append(torch.autograd.grad(value, leaf)[0][0, 0])
    assert (p * torch.stack(values)).sum().item() == pytest.approx(loss.item(), abs=1e-14)
    slope = torch.stack(slopes)
    assert torch.allclose((p[:, None] * slope).sum(0), exact[0, 0], atol=1e-14)
    spread = (p * (slope - exact[0, 0]).square().sum(1)).sum().sqrt()
    assert spread > 2 * exact.norm()


def test_trap_6_the_student_stands_first(logits: tuple[Tensor, Tensor, Tensor]) -> None:
    """A student that can hold one of two peaks chooses one; the other direction lies between.

    The student's mean moves along a line; the teacher has its peaks at -3 and 3."""
    grid = torch.arange(-6, 7).double()
    teacher = torch.logaddexp(-(grid - 3).square(), -(grid + 3).square())[None, None]
    places = torch.linspace(-4, 4, 81).double()
    right, wrong = [], []
    for place in places:
        student = -(grid - place).square()[None, None]
        right.append(distillation_loss(student, [teacher], ONE).item())
        wrong.append(distillation_loss(teacher, [student], ONE).item())  # the mistake
    best = places[torch.tensor(right).argmin()].abs()
    between = places[torch.tensor(wrong).argmin()].abs()
    assert best == pytest.approx(3, abs=0.1)
    assert between == pytest.approx(0, abs=0.1)


def test_a_log_ratio_differentiated_as_it_stands_teaches_nothing(
    logits: tuple[Tensor, Tensor, Tensor],
) -> None:
    """grad of log(pi / pi_E) is grad log pi, whose mean over samples from pi is 0."""
    student, _, _ = logits
    leaf = student.clone().requires_grad_()
    p = student.softmax(-1)
    (slope,) = torch.autograd.grad((p * leaf.log_softmax(-1)).sum(), leaf)
    assert slope.abs().max() < 1e-14


def test_bad_input(logits: tuple[Tensor, Tensor, Tensor]) -> None:
    student, first, second = logits
    with pytest.raises(ValueError, match=r"weights must be one a teacher \(2\), got 1"):
        distillation_loss(student, [first, second], ONE)
    with pytest.raises(ValueError, match=r"teachers\[0\] must be detached"):
        distillation_loss(student, [first.clone().requires_grad_()], ONE)
    cut = first.clone()
    cut[..., 0] = -torch.inf  # the student gives probability to what the expert excludes
    with pytest.raises(ValueError, match="logits lie too far apart"):
        distillation_loss(student, [cut], ONE)
    with pytest.raises(ValueError, match="teacher_log_probs must be detached"):
        sampled_distillation_loss(student[..., 0], student[..., 0].clone().requires_grad_(), ONE)
