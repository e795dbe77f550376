"""What the section on Muon says of its race and of its sizes, against the record and the code."""

import json
import re
from pathlib import Path

import pytest
import torch

from dsnotes.after.muon import Muon
from dsnotes.after.newton_schulz import HYBRID, SETTLE, STEEP

BOOK = Path(__file__).parents[2] / "book"
PAGE = (BOOK / "after" / "muon.md").read_text("utf8")
RECORD = json.loads((BOOK / "data" / "runs" / "muon_race.json").read_text("utf8"))
RUNS, SEARCH = RECORD["runs"], RECORD["tables"]["search"]


def of(rule: str, runs: list[dict]) -> list[dict]:
    return [run for run in runs if run["variant"] == rule]


@pytest.mark.parametrize("rule", ["adamw", "muon"])
def test_each_side_ran_at_the_best_rate_of_its_own_search(rule: str) -> None:
    """The best of the search has a worse one on both its sides, each half or double."""
    tried = of(rule, SEARCH)
    rates = [run["learning_rate"] for run in tried]
    assert rates == pytest.approx([rates[0] * 2**i for i in range(len(rates))])
    losses = [run["held_out"] for run in tried]
    best = losses.index(min(losses))
    assert 0 < best < len(losses) - 1
    assert {run["learning_rate"] for run in of(rule, RUNS)} == {rates[best]}
    assert {run["seed"] for run in tried}.isdisjoint(RECORD["seeds"])


def test_three_seeds_a_side_and_all_of_one_below_all_of_the_other() -> None:
    adamw, muon = ([run["held_out"] for run in of(rule, RUNS)] for rule in ("adamw", "muon"))
    assert len(adamw) == len(muon) == 3
    assert max(muon) < min(adamw)
    assert "三个种子里" in PAGE


def test_the_coefficients_on_the_page_are_those_of_the_code() -> None:
    printed = re.findall(r"\$\(a,b,c\)=\(([^)]*)\)\$", PAGE)
    assert [tuple(map(float, one.split(","))) for one in printed] == [STEEP, SETTLE]
    assert HYBRID == (STEEP,) * 8 + (SETTLE,) * 2


def test_the_values_of_the_table_are_the_defaults() -> None:
    defaults = Muon([torch.nn.Parameter(torch.zeros(2, 2))], lr=1.0).defaults
    row = {
        symbols: value.strip()
        for symbols, value in re.findall(r"^\| (\$.*?) \| .* \| (.*?) ?\|$", PAGE, re.MULTILINE)
    }
    assert float(row[r"$\mu$"]) == defaults["momentum"]
    assert float(row[r"$\gamma$"]) == defaults["gamma"]
    assert row[r"$\eta$、$\lambda$"] == rf"$\lambda={defaults['weight_decay']}$"
