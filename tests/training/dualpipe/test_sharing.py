"""Any stack of stages, in any schedule: the gradients of nn.Sequential, or an error that names why.

Here the ranks are threads (`inprocess`): thousands of stacks in the time of one start of processes.
A few of the same cases run on processes in test_processes.
"""

import copy
import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dsnotes.training.dualpipe.runtime import one_process
from dsnotes.training.dualpipe.schedule import SCHEDULES, dualpipe, dualpipev, one_f_one_b
from dsnotes.training.dualpipe.sharing import SharedParameters, tied

sys.path.insert(0, str(Path(__file__).parent))
import faults
import inprocess

SHAPE = (2, 4)
EXAMPLES = int(os.environ.get("DSNOTES_EXAMPLES", "40"))


class Cuts(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class WithoutGrad(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Unused(nn.Module):
    """A weight that is there and not used, and one that is used for odd micro-batches only."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)
        self.sometimes = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.used(x)
        return y * self.sometimes if x.sum().item() > 0 else y


class Half(nn.Module):
    """One of two layers is frozen, and the weight of one is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.trained = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.trained(torch.tanh(self.trained(self.frozen(x))))


class Recomputed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layer, x, use_reentrant=False)


STAGES = {
    "linear": lambda: nn.Linear(4, 4),
    "norm": lambda: nn.Sequential(nn.RMSNorm(4), nn.Linear(4, 4, bias=False)),
    "frozen": lambda: nn.Linear(4, 4).requires_grad_(False),
    "half": Half,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
    "unused": Unused,
    "recomputed": Recomputed,
    "shares": None,  # one of the modules before it
    "ties": None,  # a module with the weight of one before it
    "cuts": lambda: Cuts(4, 4),
    "without grad": lambda: WithoutGrad(4, 4),
}


def build(kinds: list[str], picks: list[int]) -> list[nn.Module]:
    stages: list[nn.Module] = []
    for kind, pick in zip(kinds, picks, strict=True):
        earlier = [stage for stage in stages if isinstance(stage, nn.Linear)]
        if kind in ("shares", "ties") and not earlier:
            kind = "linear"
        if kind == "shares":
            stages.append(earlier[pick % len(earlier)])
        elif kind == "ties":
            stage = nn.Sequential(nn.Tanh(), nn.Linear(4, 4))
            stage[1].weight = earlier[pick % len(earlier)].weight
            stages.append(stage)
        else:
            stages.append(STAGES[kind]())
    return stages


def reference(stages: list[nn.Module], inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The gradients of nn.Sequential, without anything of ours."""
    model = copy.deepcopy(nn.Sequential(*stages))
    total = sum(faults.scaled_mse(model(x), y) for x, y in zip(inputs, targets, strict=True)) / len(
        inputs
    )
    if total.requires_grad:
        total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@st.composite
def pipelines(draw):
    """The arguments of a schedule, and a kind and a number for each stage."""
    name = draw(st.sampled_from(list(SCHEDULES)))
    ranks = draw(st.sampled_from([2, 4] if name == "DualPipe" else [1, 2, 3]))
    least = 2 * ranks if name.startswith("DualPipe") else 1
    extra = draw(st.integers(0, 2)) * (2 if name == "DualPipe" else 1)
    n = 2 * ranks if name == "DualPipeV" else ranks
    kinds = draw(st.lists(st.sampled_from(list(STAGES)), min_size=n, max_size=n))
    picks = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    return (name, ranks, least + extra), kinds, picks, draw(st.integers(0, 2**20))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(pipelines())
def test_any_stack_of_stages_has_the_gradients_of_one_process(pipeline) -> None:
    (name, *sizes), kinds, picks, seed = pipeline
    schedule = SCHEDULES[name](*sizes)
    torch.manual_seed(seed)
    stages = build(kinds, picks)
    inputs, targets = torch.randn(2, schedule.num_micro_batches, *SHAPE)
    cutting = {s for s, stage in enumerate(stages) if s and isinstance(stage, Cuts | WithoutGrad)}
    if cutting:
        with pytest.raises(ValueError, match=r"stage \d+ passes no gradient to stage") as caught:
            inprocess.step(
                schedule, stages, inputs, targets, loss=faults.scaled_mse, hidden_shape=SHAPE
            )
        assert int(str(caught.value).split()[1]) in cutting
        return
    results = inprocess.step(
        schedule, stages, inputs, targets, loss=faults.scaled_mse, hidden_shape=SHAPE
    )
    expected = reference(stages, inputs, targets)
    first = {name: names[0] for names in tied(stages) for name in names}
    found: dict[str, Tensor] = {}
    for result in results:  # whoever holds a parameter has all of its gradient
        for name, gradient in result.gradients.items():
            gradient = found.setdefault(first.get(name, name), gradient)
            torch.testing.assert_close(result.gradients[name], gradient, rtol=0, atol=0)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-3)
    losses = {m: value for result in results for m, value in result.losses.items()}
    _, alone = one_process(stages, inputs, targets, loss=faults.scaled_mse)
    assert alone.keys() == expected.keys()
    assert len(losses) == schedule.num_micro_batches


def test_names_of_what_stages_share() -> None:
    first, last = nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.Linear(4, 4))
    last[1].weight = first.weight
    assert tied([first, nn.Tanh(), last, first]) == [
        ("0.weight", "2.1.weight", "3.weight"), ("0.bias", "3.bias"),
    ]  # fmt: skip
    assert tied([first, nn.Linear(4, 4)]) == []


def test_ties_that_are_none_are_refused() -> None:
    stages = {0: nn.Linear(4, 4), 3: nn.Linear(4, 4)}
    with pytest.raises(ValueError, match=r"tied says that 3\.weight and 0\.weight are one param"):
        SharedParameters(dualpipe(4, 8), stages, [("0.weight", "3.weight")])


def _constant(y: Tensor, target: Tensor) -> Tensor:
    return target.sum()


def _unreduced(y: Tensor, target: Tensor) -> Tensor:
    return F.mse_loss(y, target, reduction="none")


@pytest.mark.parametrize(
    ("loss", "said"), [(_constant, r"shape \(\), requires_grad False"), (_unreduced, r"\(2, 4\)")]
)
def test_a_loss_that_is_none_is_named(loss, said: str) -> None:
    inputs, targets = torch.randn(2, 4, *SHAPE)
    stages = [nn.Linear(4, 4) for _ in range(4)]
    with pytest.raises(ValueError, match=rf"loss must return one number .*{said}"):
        inprocess.step(dualpipev(2, 4), stages, inputs, targets, loss=loss, hidden_shape=SHAPE)


def test_a_pipeline_of_one_rank_without_any_weight() -> None:
    inputs, targets = torch.randn(2, 3, *SHAPE)
    (result,) = inprocess.step(
        one_f_one_b(1, 3), [nn.Tanh()], inputs, targets, loss=F.mse_loss, hidden_shape=SHAPE
    )
    assert result.gradients == {}
    assert sum(result.losses.values()) / 3 == pytest.approx(
        float(F.mse_loss(inputs.tanh(), targets))
    )
