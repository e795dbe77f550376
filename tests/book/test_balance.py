"""What the section on balancing says about its sources and its record."""

import json
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "model" / "balance.md").read_text("utf8")
NOTEBOOK = nbformat.read(ROOT / "notebooks" / "balance.ipynb", as_version=4)
TABLE = (ROOT / "book" / "appendix" / "reproduction.md").read_text("utf8")
TEXTS = [PAGE, TABLE, *(cell.source for cell in NOTEBOOK.cells if cell.cell_type == "markdown")]
RECORD = json.loads((ROOT / "book" / "data" / "runs" / "balance.json").read_text("utf8"))


def test_the_loss_of_v1_is_that_of_one_sequence() -> None:
    definition = PAGE[PAGE.index("V1 的专家级损失") : PAGE.index(r"\mathcal L_{\text{ExpBal}}")]
    assert "**一个序列**" in definition
    assert "整批" not in definition
    assert not any("V1 的辅助损失" in text for text in TEXTS)  # ours is not, in two ways


def test_both_scopes_are_recorded_on_three_seeds_and_shown() -> None:
    for variant in ("aux", "aux_seq"):
        runs = [run for run in RECORD["runs"] if run["variant"] == variant]
        assert sorted(run["seed"] for run in runs) == [0, 1, 2]
        assert f"balance.ipynb::{variant}_global:" in PAGE
        assert f"balance.ipynb::{variant}_domain:" in PAGE


def test_the_bias_update_has_a_peer() -> None:
    assert not any("没有可比的独立实现" in text for text in TEXTS)
    lacking = [text for text in TEXTS if "`transformers` 没有" in text]
    assert TABLE in lacking
    assert all("Megatron-Core" in text for text in lacking)
    assert "<rep-balance>" in PAGE


def test_a_proportional_step_is_a_departure_and_all_four_sizes_are_answered() -> None:
    trap = PAGE[PAGE.index("常见错误 3：") : PAGE.index("常见错误 4：")]
    assert "原始计数" in trap
    assert "不是 V3 的做法" in trap
    solution = PAGE[PAGE.index(":label: sol-balance-5") : PAGE.index("小项目：均衡的范围")]
    assert len(set(re.findall(r"balance\.ipynb::prop_\w+", solution))) == 4
    assert "0.028 到 0.040" in solution


def test_the_gain_by_scope_is_stated_with_its_condition() -> None:
    """V3 §4.5.3: at a similar level of batch-wise balance, on the validation loss."""
    for line in PAGE.splitlines():
        if "收益来自" in line:
            assert "条件" in line or "相近程度" in line


@pytest.mark.parametrize(
    ("label", "tag"),
    [
        *(("select", "V3-16"), ("update", "LF-Alg. 1"), ("maxvio", "LF-4")),
        *(("seq", "V3-17"), ("f", "V3-18"), ("norm", "V3-19"), ("p", "V3-20")),
        *(("v1", "V1-12"), ("v1f", "V1-13"), ("v1p", "V1-14")),
    ],
)
def test_every_equation_keeps_its_number(label: str, tag: str) -> None:
    found = re.findall(rf"\\tag\{{{re.escape(tag)}\}}\n\$\$ \(eq-balance-{label}\)", PAGE)
    assert len(found) == 1


def test_the_two_ways_of_looking_are_named_once() -> None:
    """What runs in the notebook and what was run for long have names of their own."""
    for word in ("记录的", "现场", "当场训练", "数据文件"):
        assert not any(word in text for text in [PAGE, *TEXTS[2:]]), word
    assert "**笔记本**指" in PAGE
    assert "**长实验**指" in PAGE
