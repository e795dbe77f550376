"""learner: stop and resume bit for bit, the learning rate, checkpoints that do not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.learner import Learner, train
from dsnotes.model import DeepSeek
from dsnotes.training import next_token_loss

SMALL = replace(TINY, vocab_size=16, hidden_size=32, num_hidden_layers=2)


def build(steps: int = 8, seed: int = 0) -> Learner:
    torch.manual_seed(seed)
    return Learner(DeepSeek(SMALL), steps=steps, learning_rate=1e-2, seed=seed)


def step(learner: Learner) -> dict[str, float]:
    """Uses both kinds of random numbers."""
    tokens = torch.randint(16, (2, 6), generator=learner.generator)
    more = torch.randint(16, (2, 2), generator=learner.sampler)
    tokens = torch.cat([tokens, more], dim=1)
    loss = next_token_loss(learner.model(tokens), tokens)
    learner.update(loss)
    return {"loss": loss.item()}


class Interrupted(Exception):
    pass


def interrupted_at(number: int) -> object:
    def stop(learner: Learner) -> dict[str, float]:
        if learner.step == number:
            raise Interrupted
        return step(learner)

    return stop


@pytest.mark.parametrize("number", [3, 4, 7])
def test_a_run_that_was_stopped_ends_with_the_same_numbers(tmp_path: Path, number: int) -> None:
    """Saved every 2 steps; another process would start with another seed, as here."""
    whole = build()
    expected = train(whole, step, progress=False)
    file = tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        train(build(), interrupted_at(number), checkpoint=file, save_every=2, progress=False)
    resumed = build(seed=1)
    found = train(resumed, step, checkpoint=file, save_every=2, progress=False)
    assert found == expected
    assert len(found) == 8
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_only_the_steps_that_are_left_are_taken(tmp_path: Path) -> None:
    file, calls = tmp_path / "run.pt", []

    def counted(learner: Learner) -> dict[str, float]:
        calls.append(learner.step)
        return step(learner)

    with pytest.raises(Interrupted):
        train(build(), interrupted_at(5), checkpoint=file, save_every=2, progress=False)
    train(build(), counted, checkpoint=file, progress=False)
    assert calls == [4, 5, 6, 7]  # the fifth was taken but not saved
    train(build(), counted, checkpoint=file, progress=False)
    assert calls == [4, 5, 6, 7]  # finished: nothing to do
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_learning_rate_rises_stays_and_falls() -> None:
    learner, rates = build(steps=100), []
    for _ in range(100):
        rates.append(learner.rate())
        learner.step += 1
    assert rates[0] == pytest.approx(1e-3)
    assert rates[9:70] == pytest.approx([1e-2] * 61)
    assert rates[70:] == pytest.approx([1e-2 * k / 30 for k in range(30, 0, -1)])


def test_a_step_uses_that_rate() -> None:
    """The first step of AdamW moves a weight by the rate, but for the decay of the weight."""
    learner = build()
    before = learner.model.lm_head.weight.clone()
    step(learner)
    moved = (learner.model.lm_head.weight - before).abs()
    assert moved.median().item() == pytest.approx(1e-3, rel=0.05)  # a tenth: it is rising


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    train(build(steps=2), step, checkpoint=file, progress=False)
    with pytest.raises(ValueError, match="belongs to a run of 2 steps, got a learner of 3"):
        train(build(steps=3), step, checkpoint=file, progress=False)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        build(steps=0)
    with pytest.raises(ValueError, match=r"learning_rate must be above 0, got 0\.0"):
        Learner(DeepSeek(SMALL), steps=1, learning_rate=0.0)
    with pytest.raises(ValueError, match="save_every must be at least 1, got 0"):
        train(build(), step, save_every=0)
