"""run: stages done once, times of all calls, and what a stage leaves when it is broken off."""

import json
from pathlib import Path

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.state import Report, TrainState
from dsnotes.whole.run import Run, Stopped


def run(out: Path, corpus: Path, **more: object) -> Run:
    return Run(out, size="tiny", seed=0, corpus=corpus, **more)


def state() -> TrainState:
    torch.manual_seed(0)
    return TrainState.create(DeepSeek(TINY), steps=5, learning_rate=1e-3)


def step(state: TrainState) -> Report:
    """A loss that depends on what is drawn."""
    tokens = torch.randint(TINY.vocab_size, (2, 4), generator=state.generator)
    state.update(state.model(tokens).square().mean())
    return {"first": tokens[0, 0].item()}


def test_a_stage_is_done_once(tmp_path: Path, corpus: Path) -> None:
    calls = []

    def work(run: Run) -> dict[str, int]:
        calls.append(run)
        return {"found": 7}

    first = run(tmp_path, corpus).stage("count", work)
    assert first["found"] == 7
    assert run(tmp_path, corpus).stage("count", work) == first
    assert len(calls) == 1


def test_a_stage_that_fails_leaves_no_result_but_its_time(tmp_path: Path, corpus: Path) -> None:
    def work(run: Run) -> dict[str, int]:
        raise KeyboardInterrupt

    ours = run(tmp_path, corpus)
    with pytest.raises(KeyboardInterrupt):
        ours.stage("count", work)
    assert ours.result("count") is None
    clock = json.loads((tmp_path / "clock.json").read_text("utf8"))
    assert list(clock["count"]) == ["seconds", "cpu_seconds"]


def test_broken_off_within_a_step_it_goes_on_from_what_was_saved(
    tmp_path: Path, corpus: Path
) -> None:
    whole, broken = run(tmp_path / "a", corpus), run(tmp_path / "b", corpus)
    history = whole.train("read", state(), step)
    taken = []

    def breaks(state: TrainState) -> Report:
        taken.append(state.step)
        if taken == [0, 1, 2]:
            torch.randint(9, (3,), generator=state.generator)  # and spoils what is drawn next
            raise KeyboardInterrupt
        return step(state)

    with pytest.raises(KeyboardInterrupt):
        broken.train("read", state(), breaks)
    assert broken.train("read", state(), breaks) == history
    assert taken == [0, 1, 2, 2, 3, 4]
    for name, weight in whole.model("read").state_dict().items():
        assert torch.equal(weight, broken.model("read").state_dict()[name]), name


def test_stop_ends_after_the_step_at_hand(tmp_path: Path, corpus: Path) -> None:
    ours = run(tmp_path, corpus)

    def stops(state: TrainState) -> Report:
        ours.stop = state.step == 2
        return step(state)

    with pytest.raises(Stopped, match="stopped in read, after step 3 of 5"):
        ours.train("read", state(), stops)
    assert (tmp_path / "read.pt").exists()
    assert not (tmp_path / "read").exists()


def test_a_stop_in_the_last_step_loses_nothing(tmp_path: Path, corpus: Path) -> None:
    ours = run(tmp_path, corpus)

    def stops(state: TrainState) -> Report:
        ours.stop = state.step == 4
        return step(state)

    assert len(ours.train("read", state(), stops)) == 5
    with pytest.raises(Stopped, match="stopped before more"):
        ours.stage("more", lambda run: {})


def test_settings_of_a_folder(tmp_path: Path, corpus: Path) -> None:
    run(tmp_path, corpus)
    run(tmp_path, corpus, until=3.0)  # how long is no setting
    with pytest.raises(ValueError, match=r"out must be a folder of this run, .* has another seed"):
        Run(tmp_path, size="tiny", seed=1, corpus=corpus)
    with pytest.raises(ValueError, match="size must be one of tiny, laptop, gpu, got 'big'"):
        Run(tmp_path, size="big", seed=0)
    (tmp_path / "few.txt").write_text("尤 白日依山盡黃河入海流欲窮千里目更上一層樓\n", "utf8")
    with pytest.raises(ValueError, match="corpus must hold poems to train on and to hold out"):
        run(tmp_path / "new", tmp_path / "few.txt")
