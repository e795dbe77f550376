"""parallel: two processes with unequal shares take the steps of one, experts and modules too."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.training.dualpipe.processes import Processes, RankError
from dsnotes.training.loop import language_step
from dsnotes.training.parallel import ParallelState, parallel_step, sum_gradients
from dsnotes.training.state import Report, TrainState
from dsnotes.training.texts import Batch

STEPS, PAD = 3, 0
OPTIONS: dict[str, Any] = {"gamma": 0.01, "mtp_weight": 0.3, "padding": PAD}


def model() -> DeepSeek:
    torch.manual_seed(0)
    return add_modules(DeepSeek(replace(TINY, num_hidden_layers=2)))


def batches() -> list[Batch]:
    """Five rows, the first and third of which are long: rank 0 holds most of the targets."""
    torch.manual_seed(1)
    made = []
    for _ in range(STEPS):
        tokens = torch.randint(1, TINY.vocab_size, (5, 12))
        for row, length in enumerate((12, 5, 11, 4, 7)):
            tokens[row, length:] = PAD
        made.append(Batch(tokens, torch.zeros(5, dtype=torch.long)))
    return made


def trained(
    kind: type[TrainState], step: Callable[..., Report], given: DeepSeek
) -> tuple[list[Report], dict[str, Tensor]]:
    state = kind.create(given, steps=STEPS, learning_rate=1e-3)
    reports = [step(state, batch, **OPTIONS) for batch in batches()]
    return reports, {name: w.detach() for name, w in state.model.state_dict().items()}


def on_a_rank(
    on_wait: Callable[[int | None], None], given: DeepSeek
) -> tuple[list[Report], dict[str, Tensor]]:
    return trained(ParallelState, parallel_step, given)


def test_two_processes_take_the_steps_of_one() -> None:
    """Loss, load, and every weight and bias; the ranks agree to the bit."""
    with Processes(2) as processes:
        found = processes.call(on_a_rank, [(model(),)] * 2, timeout=120.0)
    reports, weights = trained(TrainState, language_step, model())
    for theirs, of_rank in found:
        for ours, other in zip(reports, theirs, strict=True):
            assert other["loss"] == pytest.approx(ours["loss"], rel=1e-5)
            assert torch.equal(other["load"], ours["load"])
        for name, weight in weights.items():
            torch.testing.assert_close(of_rank[name], weight, rtol=1e-4, atol=1e-5, msg=name)
    assert all(torch.equal(found[0][1][name], found[1][1][name]) for name in weights)


def test_alone_it_is_the_language_step() -> None:
    one, other = (
        trained(*how, model())
        for how in ((TrainState, language_step), (ParallelState, parallel_step))
    )
    assert [r["loss"] for r in one[0]] == pytest.approx([r["loss"] for r in other[0]])
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


def test_a_plain_mean_of_the_gradients_is_another_loss() -> None:
    """What data parallelism by a mean over ranks would take for the loss of the batch."""
    batch = batches()[0]
    losses = [
        language_step(
            TrainState.create(model(), steps=1, learning_rate=1e-3),
            Batch(batch.tokens[rows], batch.domain[rows]),
            padding=PAD,
        )["loss"]
        for rows in (slice(None), slice(0, None, 2), slice(1, None, 2))
    ]
    assert abs(losses[0] - (losses[1] + losses[2]) / 2) > 1e-3


def test_a_weight_without_gradient_stays_without() -> None:
    given = model()
    given(torch.ones(1, 2, dtype=torch.long)).mean().backward()
    before = {name: w.grad for name, w in given.named_parameters()}
    assert None in before.values()
    sum_gradients(given)
    for name, weight in given.named_parameters():
        assert (weight.grad is None) == (before[name] is None), name


def few(on_wait: Callable[[int | None], None], given: DeepSeek) -> None:
    state = ParallelState.create(given, steps=1, learning_rate=1e-3)
    parallel_step(state, Batch(*(part[:1] for part in batches()[0])))


def test_a_batch_with_too_few_rows_is_refused() -> None:
    with (
        Processes(2) as processes,
        pytest.raises(RankError, match="batch must hold a row for each of 2 ranks, got 1"),
    ):
        processes.call(few, [(model(),)] * 2, timeout=60.0)
