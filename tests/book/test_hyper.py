"""What the section on hyper-connections says in words, against the code and the record."""

import itertools
import json
import re
from pathlib import Path

from dsnotes.after.config import DEEPSEEK_V4_FLASH, DEEPSEEK_V4_PRO
from dsnotes.config import DEEPSEEK_V3

BOOK = Path(__file__).parents[2] / "book"
PAGE = (BOOK / "after" / "hyper.md").read_text("utf8")
RECORD = json.loads((BOOK / "data" / "runs" / "hyper.json").read_text("utf8"))


def test_the_number_of_sublayers_is_that_of_v3() -> None:
    assert 2 * DEEPSEEK_V3.num_hidden_layers == 122
    assert "六十一层、一百二十二个子层" in PAGE


def test_values_are_those_of_the_configurations() -> None:
    for config in (DEEPSEEK_V4_FLASH, DEEPSEEK_V4_PRO):
        assert (config.hc_mult, config.hc_sinkhorn_iters, config.hc_eps) == (4, 20, 1e-6)


def test_the_training_record_has_three_seeds_and_bears_what_is_said() -> None:
    runs = {(run["variant"], run["seed"]): run for run in RECORD["runs"]}
    assert RECORD["seeds"] == [0, 1, 2]
    assert {variant for variant, _ in runs} == {"plain", "free", "mhc", "near"}
    for (variant, _), run in runs.items():
        forward = [pair[0] for pair in run["gain"]]
        if variant == "free":
            assert forward[-1] > 100  # "三位数、四位数"
        elif variant != "plain":
            assert max(abs(g - 1) for g in forward) < 1e-3  # "贴着 1"


def test_what_is_said_of_the_losses_is_so() -> None:
    """Free is the lowest with every seed, just apart from plain; mHC is on both sides of plain."""
    loss = {(run["variant"], run["seed"]): run["held_out"] for run in RECORD["runs"]}
    seeds, others = range(3), ("plain", "mhc", "near")
    assert all(loss["free", s] < loss[v, s] for s in seeds for v in others)
    assert max(loss["free", s] for s in seeds) < min(loss["plain", s] for s in seeds)
    for variant in ("mhc", "near"):
        assert len({loss[variant, s] < loss["plain", s] for s in seeds}) == 2
    ends = sorted(run["gain"][-1][0] for run in RECORD["runs"] if run["variant"] == "free")
    assert ends[0] < 1000 < ends[-1]
    jumped = {
        (run["variant"], run["seed"])
        for run in RECORD["runs"]
        if max(b - a for a, b in itertools.pairwise(run["loss"])) > 0.4
    }
    assert sorted(variant for variant, _ in jumped) == ["mhc", "near", "plain"]
    assert all(loss[v, s] == max(loss[v, i] for i in seeds) for v, s in jumped)


def test_what_was_read_in_translation_says_so() -> None:
    for paragraph in PAGE.split("\n\n"):
        if "deepseek-v41" in paragraph:
            assert "译本" in paragraph


def test_every_trap_of_the_page_is_numbered_in_order() -> None:
    assert re.findall(r"\{admonition\} 常见错误 (\d)", PAGE) == list("123456")
