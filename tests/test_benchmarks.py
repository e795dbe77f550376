"""The stopwatch of `benchmarks/`, and one benchmark in a hurry."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import _measure

    monkeypatch.setattr(_measure, "ROUNDS", 4)
    return _measure


def busy(milliseconds: float) -> None:
    """Use the processor, on whatever clock it is measured."""
    end = time.process_time() + milliseconds / 1e3
    while time.process_time() < end:
        pass


def test_ways_take_turns(measure, monkeypatch: pytest.MonkeyPatch) -> None:
    order = []
    monkeypatch.setattr(measure, "milliseconds", lambda call: order.append(call()) or len(order))
    timed = measure.medians({"ours": lambda: "a", "peer": lambda: "b"})
    assert order == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert timed == {"ours": [1, 4, 5, 8], "peer": [2, 3, 6, 7]}


def test_what_takes_twice_as_long_has_the_ratio_two(measure) -> None:
    row = measure.row("x", **measure.medians({"ours": lambda: busy(4), "peer": lambda: busy(2)}))
    assert row["ours"] == pytest.approx(4, rel=0.2)
    assert row["ratio"] == pytest.approx(2, rel=0.2)


def test_the_ratio_is_of_rounds_not_of_medians(measure) -> None:
    row = measure.row("x", [1.0, 20.0, 3.0], [2.0, 40.0, 3.0], note="n")
    assert row == {"what": "x", "ours": 3.0, "peer": 3.0, "ratio": 0.5, "spread": [0.5, 0.75],
                   "unit": "ms", "note": "n"}  # fmt: skip
    alone = measure.row("x", 3.0, unit="s")
    assert alone["ours"] == 3.0
    assert alone["peer"] is alone["ratio"] is alone["spread"] is None
    assert measure.row("x", 3.0, 2.0)["spread"] is None


def test_the_command_prints_a_table_and_writes_it(tmp_path: Path) -> None:
    """fp8 is the cheapest one: about five seconds."""
    out = tmp_path / "new" / "bench.json"
    command = [sys.executable, "-m", "benchmarks.run", "fp8", "--rounds", "1", "--json", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text("utf8"))["rows"]
    assert len(done.stdout.splitlines()) == 1 + len(rows) + 1  # head, rows, machine
    for row in rows:
        assert row["ours"] > 0
        assert row["what"] in done.stdout


def test_rows_of_a_gpu_need_one() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.run", "model", "--gpu"], cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--gpu: there is no GPU that PyTorch can use, nothing ran" in done.stderr


def test_rounds_below_one_are_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.run", "--rounds", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--rounds: must be at least 1, got 0" in done.stderr
    assert "Traceback" not in done.stderr
