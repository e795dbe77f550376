"""On-policy distillation: several experts become one student, on the tokens the student writes.

The student samples; every expert says how probable each next token would have been; the student
moves towards them by a KL whose first argument is the student. Where a text is the student's own,
its mistakes are corrected, which a text of a teacher does not contain.

Equations
    V4 (arXiv 2606.19348) section 5.1.2: L_OPD = sum_i w_i KL(pi || pi_E_i), over the full
        vocabulary and not by an estimate from the sampled token

Departures
    The report gives no average over tokens; here it is one mean over all tokens given.

Legend: row j of logits is about the token in place j + 1, as in `rl.objective`; the caller leaves
the last row out. Samples come from the student and carry no gradient.
"""

from collections.abc import Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import narrowed, widened
from dsnotes.rl.objective import check_mask


@checked
def distillation_loss(
    logits: Float[Tensor, "batch seq vocab"],
    teachers: Sequence[Float[Tensor, "batch seq vocab"]],
    mask: Bool[Tensor, "batch seq"],
    *,
    weights: Sequence[float] = (1.0,),
) -> Float[Tensor, ""]:
    """sum_i w_i KL(pi || pi_E_i) over the whole vocabulary (V4 section 5.1.2), row mean.

    `teachers` are logits of the experts on the tokens that the student wrote; they carry no
    gradient. ValueError when their number is not that of the weights, or a KL is not finite.

        >>> student, teacher = torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]])
        >>> distillation_loss(student, [teacher], torch.tensor([[True]]))
        tensor(0.1201)
    """
    if len(teachers) != len(weights):
        raise ValueError(f"weights must be one a teacher ({len(teachers)}), got {len(weights)}")
    check_mask(mask, **{f"teachers[{i}]": teacher for i, teacher in enumerate(teachers)})
    log_p = widened(logits[mask]).log_softmax(dim=-1)  # (rows, vocab)
    loss = log_p.new_zeros(())
    for weight, teacher in zip(weights, teachers, strict=True):
        log_e = widened(teacher[mask]).log_softmax(dim=-1)
        loss = loss + weight * (log_p.exp() * (log_p - log_e)).sum(dim=-1).mean()
    return narrowed(loss, logits, what="logits lie too far apart")


@checked
def sampled_distillation_loss(
    log_probs: Float[Tensor, "batch seq"],
    teacher_log_probs: Float[Tensor, "batch seq"],
    mask: Bool[Tensor, "batch seq"],
) -> Float[Tensor, ""]:
    """The same KL from the sampled tokens alone: log(pi / pi_E), with that times grad log pi.

    Unbiased over samples from pi, and far noisier than `distillation_loss`.

        >>> pi = torch.tensor([[-1.0]], requires_grad=True)
        >>> loss = sampled_distillation_loss(pi, torch.tensor([[-1.5]]), torch.tensor([[True]]))
        >>> loss.item(), torch.autograd.grad(loss, pi)[0].item()
        (0.5, 0.5)
    """
    check_mask(mask, teacher_log_probs=teacher_log_probs)
    pi = log_probs[mask]
    gap = (pi - teacher_log_probs[mask]).detach()
    return (gap * (pi - pi.detach()).exp()).mean()  # the factor is 1, its gradient that of pi
