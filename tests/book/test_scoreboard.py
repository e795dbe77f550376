"""The scoreboard: its record has every row, of the model that the code builds now."""

import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest

from dsnotes.data.poems import quatrains
from dsnotes.training import growth

ROOT = Path(__file__).parents[2]
RECORD = json.loads((ROOT / "book/data/runs/scoreboard.json").read_text("utf8"))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`experiments/scoreboard.py`, imported as a module."""
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import scoreboard

    return scoreboard


def test_every_row_of_every_seed(script: ModuleType) -> None:
    found = [(run["variant"], run["seed"]) for run in RECORD["runs"]]
    assert found == [(row, seed) for row in script.ROWS for seed in RECORD["seeds"]]
    assert RECORD["settings"]["config"] == asdict(growth.CONFIG)


def test_sizes_are_those_of_the_code(script: ModuleType) -> None:
    for run in RECORD["runs"]:
        if run["variant"] != "processes":
            stage = "mtp" if run["variant"] == "rl" else run["variant"]
            expected = script.sizes(stage, growth.build(stage, seed=0))
            assert {name: run[name] for name in expected} == expected, run["variant"]


def test_four_processes_train_as_one_does() -> None:
    runs = [run for run in RECORD["runs"] if run["variant"] == "processes"]
    assert all(run["largest_difference"] < 1e-4 for run in runs)
    assert all(0 < run["idle"] < 1 for run in runs)


def test_poems_before_and_after_are_of_prompts_that_were_drawn(script: ModuleType) -> None:
    groups = {poem.rhyme for poem in quatrains(held_out=True)}
    for run in RECORD["runs"]:
        if run["variant"] == "rl":
            assert len(run["poems"]) == script.SHOWN
            assert {pair["rhyme"] for pair in run["poems"]} <= groups


def test_curves_are_means_of_ten_steps(script: ModuleType) -> None:
    assert script.curve([1.0] * 10 + [2.0, 4.0]) == [1.0, 3.0]
