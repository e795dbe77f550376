"""state: stop and resume bit for bit, the learning rate, checkpoints that do not fit."""

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.training import loop, texts
from dsnotes.training.loop import language_step, next_token_loss
from dsnotes.training.state import Report, TrainState

SMALL = replace(TINY, vocab_size=16, hidden_size=32, num_hidden_layers=2)


def build(steps: int = 8, seed: int = 0) -> TrainState:
    torch.manual_seed(seed)
    return TrainState.create(
        DeepSeek(SMALL), steps=steps, learning_rate=1e-2, cooldown=0.3, seed=seed
    )


def train(state: TrainState, step: Callable[..., Report], data=None, **options) -> list[Report]:
    """To the end, and the reports of all steps."""
    for _ in loop.train(state, step, data, **{"progress": False} | options):
        pass
    return state.history


def step(state: TrainState) -> Report:
    """Uses both kinds of random numbers."""
    tokens = torch.randint(16, (2, 6), generator=state.generator)
    more = torch.randint(16, (2, 2), generator=state.sampler)
    tokens = torch.cat([tokens, more], dim=1)
    loss = next_token_loss(state.model(tokens), tokens)
    state.update(loss)
    return {"loss": loss.item()}


class Interrupted(Exception):
    pass


def interrupted_at(number: int) -> object:
    def stop(state: TrainState) -> Report:
        if state.step == number:
            raise Interrupted
        return step(state)

    return stop


@pytest.mark.parametrize("number", [3, 4, 7])
def test_a_run_that_was_stopped_ends_with_the_same_numbers(tmp_path: Path, number: int) -> None:
    """Saved every 2 steps; another process would start with another seed, as here."""
    whole = build()
    expected = train(whole, step)
    file = tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        train(build(), interrupted_at(number), checkpoint=file, save_every=2)
    resumed = build(seed=1)
    found = train(resumed, step, checkpoint=file, save_every=2)
    assert found == expected
    assert len(found) == 8
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("number", [3, 4])
def test_a_run_over_data_goes_on_where_it_was(tmp_path: Path, number: int) -> None:
    """The batches it has seen are passed over, and the load of every step comes back."""

    def run(seed: int, step: Callable[..., Report], file: Path | None = None) -> TrainState:
        torch.manual_seed(seed)
        state = TrainState.create(DeepSeek(TINY), steps=5, learning_rate=1e-2)
        data = texts.batches(steps=5, batch_size=4, seq_len=8, seed=0)
        train(state, step, data, checkpoint=file, save_every=2)
        return state

    def stops(state: TrainState, batch: texts.Batch) -> Report:
        if state.step == number:
            raise Interrupted
        return balanced(state, batch)

    balanced = partial(language_step, gamma=0.01)
    whole = run(0, balanced)
    with pytest.raises(Interrupted):
        run(0, stops, tmp_path / "run.pt")
    resumed = run(1, balanced, tmp_path / "run.pt")
    for a, b in zip(whole.history, resumed.history, strict=True):
        assert a["loss"] == b["loss"]
        assert a["load"].equal(b["load"])
    for name, value in whole.model.state_dict().items():
        assert resumed.model.state_dict()[name].equal(value), name


def test_the_reference_is_part_of_the_state(tmp_path: Path) -> None:
    state = build()
    assert state.set_reference() is state.reference
    assert not any(p.requires_grad for p in state.reference.parameters())
    step(state)
    torch.save(state.state_dict(), tmp_path / "state.pt")
    other = build(seed=1)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for name, value in build().model.state_dict().items():
        assert other.reference.state_dict()[name].equal(value)
    assert not other.model.lm_head.weight.equal(other.reference.lm_head.weight)


def test_steps_come_one_by_one() -> None:
    """Nothing runs before the first is asked for, nothing after the last."""
    state = build()
    reports = loop.train(state, step, progress=False)
    assert state.step == 0
    first = next(reports)
    assert (state.step, state.history) == (1, [first])
    assert len(list(reports)) == 7
    assert list(loop.train(state, step, progress=False)) == []


def test_data_that_ends_too_early_is_named() -> None:
    def step_of(state: TrainState, item: int) -> Report:
        return step(state) | {"item": item}

    state = build(steps=3)
    assert [r["item"] for r in train(state, step_of, range(5))] == [0, 1, 2]
    with pytest.raises(ValueError, match="data must hold an item for each of 3 steps, got 2"):
        train(build(steps=3), step_of, range(2))


def test_only_the_steps_that_are_left_are_taken(tmp_path: Path) -> None:
    file, calls = tmp_path / "run.pt", []

    def counted(state: TrainState) -> Report:
        calls.append(state.step)
        return step(state)

    with pytest.raises(Interrupted):
        train(build(), interrupted_at(5), checkpoint=file, save_every=2)
    train(build(), counted, checkpoint=file)
    assert calls == [4, 5, 6, 7]  # the fifth was taken but not saved
    train(build(), counted, checkpoint=file)
    assert calls == [4, 5, 6, 7]  # finished: nothing to do
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_learning_rate_rises_stays_and_falls() -> None:
    state, rates = build(steps=100), []
    for _ in range(100):
        rates.append(state.optimizer.param_groups[0]["lr"])
        state.optimizer.step()
        state.scheduler.step()
    assert rates[0] == pytest.approx(1e-3)
    assert rates[9:70] == pytest.approx([1e-2] * 61)
    assert rates[70:] == pytest.approx([1e-2 * k / 30 for k in range(30, 0, -1)])


def test_a_step_uses_that_rate() -> None:
    """The first step of AdamW moves a weight by the rate, but for the decay of the weight."""
    state = build()
    before = state.model.lm_head.weight.clone()
    step(state)
    moved = (state.model.lm_head.weight - before).abs()
    assert moved.median().item() == pytest.approx(1e-3, rel=0.05)  # a tenth: it is rising


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    train(build(steps=2), step, checkpoint=file)
    with pytest.raises(ValueError, match="another run: state must be of 3 steps, got one of 2"):
        train(build(steps=3), step, checkpoint=file)


@pytest.mark.parametrize("change", [{"hidden_size": 64}, {"num_hidden_layers": 1}])
def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path, change: dict[str, int]) -> None:
    train(build(2), step, checkpoint=tmp_path / "run.pt")
    other = TrainState.create(DeepSeek(replace(SMALL, **change)), steps=2, learning_rate=1e-2)
    with pytest.raises(ValueError, match=r"run\.pt belongs to another run: "):
        train(other, step, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        ({"num_experts_per_tok": 2}, {}, "config.num_experts_per_tok 2, got 4"),
        ({"routed_scaling_factor": 3.0}, {}, "config.routed_scaling_factor 3.0, got 2.5"),
        ({"num_hidden_layers": 1}, {}, "config.num_hidden_layers 1, got 2"),
        ({}, {"learning_rate": 1e-3}, "optimizer.0.initial_lr 0.001, got 0.01"),
        ({}, {"weight_decay": 0.0}, "optimizer.0.weight_decay 0.0, got 0.1"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(
    tmp_path: Path, model: dict, options: dict, said: str
) -> None:
    """Nor is the learning rate of the old run taken without a word, or weights with another K."""
    train(build(2), step, checkpoint=tmp_path / "run.pt")
    other = TrainState.create(
        DeepSeek(replace(SMALL, **model)), **{"steps": 2, "learning_rate": 1e-2} | options
    )
    before = copy.deepcopy(other.model.state_dict())
    with pytest.raises(ValueError, match=f"another run: state must have {said}"):
        train(other, step, checkpoint=tmp_path / "run.pt")
    for name, value in other.model.state_dict().items():
        assert value.equal(before[name]), name
    assert (other.step, other.history) == (0, [])


@pytest.mark.parametrize(
    "change",
    [lambda model: model.bfloat16(), add_modules],
    ids=["bfloat16", "modules"],
)
def test_another_type_and_other_modules_are_another_model(tmp_path: Path, change) -> None:
    train(build(2), step, checkpoint=tmp_path / "run.pt")
    model = change(DeepSeek(SMALL))
    other = TrainState.create(model, steps=2, learning_rate=1e-2, cooldown=0.3)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match="another run: state must have model"):
        train(other, step, checkpoint=tmp_path / "run.pt")
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_another_optimizer_is_another_run(tmp_path: Path) -> None:
    train(build(2), step, checkpoint=tmp_path / "run.pt")
    other = build(2)
    other.optimizer = torch.optim.SGD(other.model.parameters(), lr=1e-2)
    with pytest.raises(ValueError, match="another run: state must have optimizer"):
        train(other, step, checkpoint=tmp_path / "run.pt")


def test_a_run_on_another_kind_of_device_is_another_run(tmp_path: Path) -> None:
    """A GPU draws from 16 bytes, a CPU from 5,056: neither can go on for the other."""
    state = build(steps=2)
    saved = state.state_dict() | {"sampler": torch.zeros(16, dtype=torch.uint8), "step": 1}
    torch.save(saved, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="another run: state must have a sampler of cpu"):
        train(state, step, checkpoint=tmp_path / "run.pt")
    assert state.step == 0


@pytest.mark.parametrize("state", [{}, {"steps": 2}, DeepSeek(SMALL).state_dict()])
def test_a_state_without_its_parts_is_named(state: dict) -> None:
    with pytest.raises(ValueError, match="state must hold steps, step, config, model"):
        build().load_state_dict(dict(state))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_refused(number: float) -> None:
    """Clipped to norm 1 its gradient is NaN: every weight would be, and then the checkpoint."""
    state = build()
    before = copy.deepcopy(state.model.state_dict())
    with pytest.raises(ValueError, match=f"loss must be finite, got {number}"):
        state.update(state.model(torch.zeros(1, 2).long()).sum() * number)
    assert all(value.equal(before[name]) for name, value in state.model.state_dict().items())
    assert state.step == 0


def test_a_loss_without_a_gradient_is_named() -> None:
    with pytest.raises(ValueError, match="loss must carry a gradient"):
        build().update(torch.tensor(1.0))
    frozen = build()
    frozen.model.requires_grad_(False)
    with pytest.raises(ValueError, match="loss must carry a gradient"):
        step(frozen)
    assert frozen.step == 0


@pytest.mark.parametrize("saved", [torch.zeros(3), {"steps": 2, "model": {}, "history": None}])
def test_a_file_of_another_program_is_refused(tmp_path: Path, saved: object) -> None:
    torch.save(saved, tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"run\.pt is no file that train has saved"):
        train(build(2), step, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize(
    "number",
    [float, np.float64, np.float32, np.longdouble, int, np.int64, bool, np.bool_, Fraction,
     torch.tensor, lambda x: torch.tensor([x], requires_grad=True), np.array],
    ids=["float", "float64", "float32", "longdouble", "int", "int64", "bool", "numpy bool",
         "Fraction", "tensor", "with gradient", "array"],
)  # fmt: skip
def test_what_a_step_reports_may_be_any_kind_of_number(tmp_path: Path, number) -> None:
    """Stopped and taken up, the history is that of a run without a stop: plain numbers."""

    def reports(state: TrainState) -> dict[str, object]:
        return {np.str_("loss"): number(step(state)["loss"])}

    def stops(state: TrainState) -> dict[str, object]:
        if state.step == 3:
            raise Interrupted
        return reports(state)

    expected = train(build(), reports, progress=True)
    file = tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        train(build(), stops, checkpoint=file, save_every=2)
    found = train(build(), reports, checkpoint=file, save_every=2)
    assert found == expected
    assert {type(value) for row in found for value in row.values()} == {float}
    assert {type(name) for row in found for name in row} == {str}
    plain = [step_of["loss"] for step_of in train(build(), step)]
    if number in (float, np.float64, torch.tensor, np.array):
        assert [row["loss"] for row in found] == plain


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"loss": "1.0"}, "got 'loss': '1.0'"),
        ({"loss": [1.0]}, r"got 'loss': \[1\.0\]"),
        ({"loss": None}, "got 'loss': None"),
        ({1: 1.0}, r"got 1: 1\.0"),
    ],
)
def test_a_report_that_is_no_number_is_refused_at_once(report, said: str) -> None:
    def wrong(state: TrainState) -> dict[object, object]:
        step(state)
        return report

    with pytest.raises(TypeError, match=f"step must return numbers by name, {said}"):
        train(build(), wrong)


@pytest.mark.parametrize("times", [0, 2])
def test_a_step_updates_once(times: int) -> None:
    """Without the check a step that forgets it would be repeated for ever."""

    def wrong(state: TrainState) -> Report:
        for _ in range(times):
            step(state)
        return {"loss": 0.0}

    with pytest.raises(ValueError, match=f"state.update once, it was called {times} times"):
        train(build(), wrong)


def test_a_checkpoint_may_be_text_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    file = str(tmp_path / "new" / "folder" / "run.pt")
    whole = train(build(), step)
    assert train(build(), step, checkpoint=file) == whole
    assert os.listdir(tmp_path / "new" / "folder") == ["run.pt"]
    assert train(build(), step, checkpoint=file) == whole


def test_a_checkpoint_that_cannot_be_written_is_refused_before_the_first_step(
    tmp_path: Path, monkeypatch
) -> None:
    def never(state: TrainState) -> Report:
        raise AssertionError("a step was taken")

    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match="must be the path of a file, got the folder"):
        train(build(), never, checkpoint=tmp_path)
    with pytest.raises(OSError, match="file"):
        train(build(), never, checkpoint=tmp_path / "file" / "run.pt")
    with pytest.raises(OSError, match="name too long"):
        train(build(), never, checkpoint=tmp_path / ("x" * 300))

    def denied(self: Path) -> None:  # root may write everywhere
        raise PermissionError(f"no right to write {self.name}")

    monkeypatch.setattr(Path, "touch", denied)
    with pytest.raises(PermissionError, match=r"run\.pt"):
        train(build(), never, checkpoint=tmp_path / "run.pt")


@pytest.mark.parametrize("content", ["text", "part", "empty", "other", "bit"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "run.pt"
    train(build(steps=1), step, checkpoint=file)
    whole = file.read_bytes()
    if content == "other":
        torch.save([1, 2], file)
    elif content == "bit":  # of a weight: nothing but the checksum tells
        middle = whole.index(b"data/0") + 2000
        file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 64]) + whole[middle + 1 :])
    else:
        file.write_bytes(
            {"text": b"loss 1.0", "part": whole[: len(whole) // 2], "empty": b""}[content]
        )
    with pytest.raises(ValueError, match=r"run\.pt is no file that train has saved"):
        train(build(steps=1), step, checkpoint=file)


def test_an_interruption_while_saving_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    """At each of the two moments: while the new one is written, and before it is moved."""
    file = tmp_path / "run.pt"
    expected = train(build(), step)
    with pytest.raises(Interrupted):
        train(build(), interrupted_at(3), checkpoint=file, save_every=2)
    old, save = file.read_bytes(), torch.save

    def half(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    def stop(*paths: Path) -> None:
        raise KeyboardInterrupt

    for module, name, fault in ((torch, "save", half), (os, "replace", stop)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fault)
            with pytest.raises(KeyboardInterrupt):
                train(build(), step, checkpoint=file, save_every=2)
        assert file.read_bytes() == old
        assert os.listdir(tmp_path) == ["run.pt"]
    assert torch.save is save
    file.with_name("run.pt.unfinished").write_bytes(b"left by a process that was killed")
    assert train(build(), step, checkpoint=file, save_every=2) == expected
    assert os.listdir(tmp_path) == ["run.pt"]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        build(steps=0)
    with pytest.raises(ValueError, match=r"learning_rate must be above 0 and finite, got 0\.0"):
        TrainState.create(DeepSeek(SMALL), steps=1, learning_rate=0.0)
    for rate in (float("nan"), float("inf"), -1.0):
        with pytest.raises(ValueError, match=rf"learning_rate must be .*finite.*, got {rate}"):
            TrainState.create(DeepSeek(SMALL), steps=1, learning_rate=rate)
    with pytest.raises(ValueError, match=r"weight_decay must be at least 0, got -0\.1"):
        TrainState.create(DeepSeek(SMALL), steps=1, learning_rate=1e-3, weight_decay=-0.1)
    with pytest.raises(ValueError, match=r"cooldown must lie between 0 and 1, got 1\.5"):
        TrainState.create(DeepSeek(SMALL), steps=1, learning_rate=1e-3, cooldown=1.5)
    with pytest.raises(ValueError, match="save_every must be at least 1, got 0"):
        train(build(), step, save_every=0)
