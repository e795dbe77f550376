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
    for run in runs:
        # then a choice of experts that rounding has turned sends the two apart
        alike = run["differences"][: run["steps_alike"]]
        assert len(alike) >= 10
        assert max(alike) < 1e-5
    assert all(0 < run["idle"] < 1 for run in runs)


def of(row: str, *path: str) -> list[float]:
    """One number for each seed, in order."""
    found = [run for run in RECORD["runs"] if run["variant"] == row]
    for name in path:
        found = [run[name] for run in found]
    return found  # type: ignore[return-value]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def overlap(a: list[float], b: list[float]) -> bool:
    return max(min(a), min(b)) <= min(max(a), max(b))


def times(row: str, before: str, name: str) -> float:
    """What a row has, as a multiple of another's, in the mean."""
    return mean(of(row, name)) / mean(of(before, name))


def test_what_the_pages_say_of_losses() -> None:
    loss = {row: of(row, "loss") for row in ("dense", "experts", "bias", "mla", "mtp", "fp8", "rl")}
    pairs = zip(loss["experts"], loss["dense"], strict=True)
    assert all(experts < dense for experts, dense in pairs)  # of each seed
    assert overlap(loss["experts"], loss["dense"])
    assert overlap(loss["bias"], loss["experts"])
    assert min(loss["bias"]) <= min(loss["mla"]) <= max(loss["mla"]) <= max(loss["bias"])
    assert max(loss["mtp"]) < min(loss["mla"])
    assert overlap(loss["fp8"], loss["mtp"])
    assert min(loss["rl"]) > max(loss["mtp"]) + 1


def test_what_the_pages_say_of_speed() -> None:
    speed = "tokens_per_second"
    assert times("experts", "dense", speed) == pytest.approx(0.7, abs=0.07)
    assert times("mla", "bias", speed) == pytest.approx(0.8, abs=0.07)
    assert times("mtp", "mla", speed) == pytest.approx(1.1, abs=0.05)
    assert times("fp8", "mtp", speed) == pytest.approx(0.2, abs=0.05)
    passes = RECORD["tables"]["passes_per_second"]
    assert passes["mla"] / passes["mtp"] == pytest.approx(1.6, abs=0.1)
    assert 1.7 < mean(of("mtp", "tokens_per_pass")) < 2
    assert overlap(of("fp8", "tokens_per_pass"), of("mtp", "tokens_per_pass"))
    assert max(of("rl", "tokens_per_pass")) < min(of("mtp", "tokens_per_pass"))


def test_what_the_pages_say_of_load_and_rules() -> None:
    assert all(2 < x < 3 for x in of("experts", "max_vio"))
    assert all(0.05 < x < 0.15 for x in of("bias", "max_vio"))
    assert times("mla", "bias", "cache_bytes") == 1 / 4
    rules = {row: of(row, "verse", "rules") for row in ("bias", "mla", "mtp", "rl")}
    assert max(rules["mla"]) < 0.01 < min(rules["bias"])
    assert max(of("mla", "verse", "rhyme")) < 0.05 < min(of("bias", "verse", "rhyme"))
    assert mean(rules["mtp"]) < 0.01
    assert 0.4 < mean(rules["rl"]) < 0.5
    before, after = of("rl", "before", "verse", "characters"), of("rl", "verse", "characters")
    assert all(b < 0.55 * a for a, b in zip(before, after, strict=True))


def test_what_the_pages_say_of_four_processes() -> None:
    runs = [run for run in RECORD["runs"] if run["variant"] == "processes"]
    alike = min(run["steps_alike"] for run in runs)
    assert 1e-6 < max(max(run["differences"][:alike]) for run in runs) < 1e-5
    assert 1e-3 < max(max(run["differences"][alike:]) for run in runs) < 1e-2
    four, one = "training_tokens_per_second", "one_process_tokens_per_second"
    assert all(run["cores"] == 2 and run[four] <= run[one] for run in runs)


def test_poems_before_and_after_are_of_prompts_that_were_drawn(script: ModuleType) -> None:
    groups = {poem.rhyme for poem in quatrains(held_out=True)}
    for run in RECORD["runs"]:
        if run["variant"] == "rl":
            assert len(run["poems"]) == script.SHOWN
            assert {pair["rhyme"] for pair in run["poems"]} <= groups


def test_curves_are_means_of_ten_steps(script: ModuleType) -> None:
    assert script.curve([1.0] * 10 + [2.0, 4.0]) == [1.0, 3.0]
