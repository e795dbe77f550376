"""Against torch.distributed.pipelining, an implementation of DualPipeV that we did not write."""

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from dsnotes.training.dualpipe.actions import Action, Kind, Pair
from dsnotes.training.dualpipe.engine import torch_dualpipev
from dsnotes.training.dualpipe.launch import Ranks
from dsnotes.training.dualpipe.runtime import one_process
from dsnotes.training.dualpipe.schedule import dualpipev

KINDS = {
    "FORWARD": Kind.FORWARD,
    "FULL_BACKWARD": Kind.BACKWARD,
    "BACKWARD_INPUT": Kind.BACKWARD_INPUT,
    "BACKWARD_WEIGHT": Kind.BACKWARD_WEIGHT,
}


def _torch_order(num_ranks: int, m: int) -> list[list[object]]:
    """The actions of all ranks as torch plans them, built in this process without any peer."""
    from torch.distributed.pipelining import PipelineStage, ScheduleDualPipeV
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=num_ranks, store=FakeStore())
    try:
        cpu, n = torch.device("cpu"), 2 * num_ranks
        stages = [PipelineStage(nn.Identity(), index, n, cpu) for index in (0, n - 1)]
        planned = ScheduleDualPipeV(stages, n_microbatches=m, loss_fn=F.mse_loss).pipeline_order
        return [planned[rank] for rank in range(num_ranks)]
    finally:
        dist.destroy_process_group()


def _ours(action, num_ranks: int) -> Action | Pair:
    """An action of torch in our words."""
    if action.sub_actions:
        return Pair(*(_ours(part, num_ranks) for part in action.sub_actions))
    direction = int(action.stage_index >= num_ranks)
    kind = KINDS[action.computation_type.name]
    return Action(kind, action.stage_index, direction, action.microbatch_index)


@pytest.mark.parametrize(("ranks", "m"), [(2, 4), (2, 8), (4, 8), (4, 10), (4, 20), (8, 16)])
def test_the_order_of_actions_is_that_of_torch(ranks: int, m: int) -> None:
    planned = _torch_order(ranks, m)
    for ours, theirs in zip(dualpipev(ranks, m).actions, planned, strict=True):
        assert list(ours) == [_ours(action, ranks) for action in theirs]


def test_gradients_are_those_of_torch() -> None:
    """One model, three ways: our runtime, ScheduleDualPipeV, and a single process."""
    stages = [
        nn.Sequential(nn.RMSNorm(64), nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 64))
        for _ in range(4)
    ]
    inputs, targets = torch.randn(2, 6, 2, 16, 64)
    with Ranks(2) as ranks:
        ours = ranks.step(
            dualpipev(2, 6), stages, inputs, targets, loss=F.mse_loss, hidden_shape=(2, 16, 64),
            timeout=300.0,
        )  # fmt: skip
        loss, theirs, _ = torch_dualpipev(
            ranks, stages, inputs, targets, loss=F.mse_loss, timeout=300.0
        )
    value, reference = one_process(stages, inputs, targets, loss=F.mse_loss)
    assert ours.loss == pytest.approx(loss, rel=1e-6)
    assert ours.loss == pytest.approx(value, rel=1e-6)
    assert theirs.keys() == ours.gradients.keys() == reference.keys()
    largest = max(float(g.abs().max()) for g in reference.values())
    for name, gradient in ours.gradients.items():
        torch.testing.assert_close(gradient, theirs[name], rtol=0, atol=1e-5 * largest)
        torch.testing.assert_close(gradient, reference[name], rtol=0, atol=1e-5 * largest)
