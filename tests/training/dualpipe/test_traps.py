"""What demonstrations of DualPipe get wrong. The fifth trap needs processes: see test_runtime."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dsnotes.training.dualpipe.actions import Kind, Pair
from dsnotes.training.dualpipe.runtime import one_process
from dsnotes.training.dualpipe.schedule import dualpipe, one_f_one_b, zb1p
from dsnotes.training.dualpipe.timeline import Durations, formula, simulate


def test_trap_1_two_directions_split_backwards_and_pairs() -> None:
    """1F1B under another name has none of the three, and idles as long as 1F1B."""
    renamed, ours = one_f_one_b(8, 20), dualpipe(8, 20)
    for rank in range(8):
        parts = [part for action in ours.actions[rank] for part in action.parts]
        assert {part.direction for part in parts} == {0, 1}
        assert {part.kind for part in parts} == set(Kind)
        pairs = [action for action in ours.actions[rank] if isinstance(action, Pair)]
        assert len(pairs) >= 9
        assert all(p.forward.direction != p.backward.direction for p in pairs)
    wrong = {(part.kind, part.direction) for actions in renamed.actions for part in actions}
    assert wrong == {(Kind.FORWARD, 0), (Kind.BACKWARD, 0)}
    assert set(simulate(renamed).idle) == {21}
    assert set(simulate(ours).idle) == {6}


@pytest.mark.parametrize("stages", [8, 16])
def test_trap_2_b_is_the_full_backward(stages: int) -> None:
    """And without any gain from the overlap DualPipe idles one unit less than ZB1P, no more."""
    d = Durations(1, 1, 1, 3)
    idle = max(simulate(dualpipe(stages, 2 * stages), d).idle)
    b_as_input_only = (stages // 2 - 1) * (d.full_pair + d.backward_input - 3 * d.weight)
    assert formula("DualPipe", stages, d).bubble == idle == stages - 2 != b_as_input_only
    assert max(simulate(zb1p(stages, 2 * stages), d).idle) == stages - 1


def test_trap_3_zeros_between_stages_leave_no_gradient() -> None:
    """The loss does not tell: it is a number like any other."""
    stages = [nn.Sequential(nn.RMSNorm(16), nn.Linear(16, 16)) for _ in range(4)]
    inputs, targets = torch.randn(2, 4, 8, 16)
    loss, reference = one_process(stages, inputs, targets, loss=F.mse_loss)
    assert {name[0] for name in reference} == {"0", "1", "2", "3"}

    for stage in stages:
        stage.zero_grad()
    total = 0.0
    for x, target in zip(inputs, targets, strict=True):
        for stage in stages:
            y = stage(x)
            x = torch.zeros_like(y, requires_grad=True)
        value = F.mse_loss(y, target) / len(inputs)
        value.backward()
        total += value.item()
    assert total == pytest.approx(loss, rel=0.5)
    reached = [any(p.grad is not None for p in stage.parameters()) for stage in stages]
    assert reached == [False, False, False, True]


def test_trap_4_micro_batches_count_both_directions() -> None:
    schedule = dualpipe(8, 20)
    for rank in range(8):
        parts = [part for action in schedule.actions[rank] for part in action.parts]
        forwards = [part for part in parts if part.kind is Kind.FORWARD]
        assert len(forwards) == 20  # 10 each way, not 20
        assert sum(part.direction for part in forwards) == 10
    assert simulate(schedule).makespan - 6 == 60
    for per_direction in (8, 10, 14):  # enough if it were counted per direction
        rule = "even number of at least 16 (2 * num_ranks, both directions counted)"
        with pytest.raises(ValueError, match=re.escape(rule)):
            dualpipe(8, per_direction)
