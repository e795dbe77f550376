"""What the section on mixtures of experts says, against the code and the shapes of V3."""

import inspect
import re
from pathlib import Path

import pytest

from dsnotes.config import DEEPSEEK_V3
from dsnotes.model import moe
from dsnotes.model.counts import breakdown, moe_parameters
from dsnotes.model.moe import Gate

BOOK = Path(__file__).parents[2] / "book"
PAGE = (BOOK / "model" / "moe.md").read_text("utf8")


def test_equation_numbers_beside_the_gate_are_those_of_the_formulas() -> None:
    tag = re.search(r"\\softmax_i\(.*?\\tag\{V1-(\d+)\}", PAGE)
    assert tag
    line = next(
        line for line in inspect.getsource(Gate._affinity).splitlines() if ".softmax" in line
    )
    assert f"V2 (22), V1 ({tag[1]})" in line  # V2 §2.2.1: (21) is the top-K gate, (22) the softmax
    assert "§2.2.1 (21)-(22)" in inspect.getdoc(moe)


@pytest.mark.parametrize(
    ("label", "tag"),
    [
        *(("sum", "12"), ("norm", "13"), ("topk", "14"), ("score", "15"), ("bias", "16")),
        *(("v1-sum", "V1-9"), ("v1-gate", "V1-10"), ("v1-score", "V1-11")),
    ],
)
def test_every_equation_keeps_its_number(label: str, tag: str) -> None:
    assert len(re.findall(rf"\\tag\{{{tag}\}}\n\$\$ \(eq-moe-{label}\)", PAGE)) == 1


def test_the_arithmetic_of_the_opening() -> None:
    """What the whole model would cost, then one layer, where its experts are counted."""
    opening = PAGE[PAGE.index("## 要解决的问题") : PAGE.index("## 直觉")]
    stored, used = (
        round(sum(getattr(part, kind) for part in breakdown(DEEPSEEK_V3)) / 1e9, 2)
        for kind in ("total", "activated")
    )
    days = 2664e3 / 2048 / 24
    assert rf"\frac{{2664000}}{{2048\times24}}\times\frac{{{stored}}}{{{used}}}" in opening
    product = rf"{days:.1f}\times{stored / used:.1f}\approx {days * stored / used:.0f}\ \text{{天}}"
    assert product in opening
    size = PAGE[PAGE.index("### 一个专家有多大") : PAGE.index(":name: tab-moe-symbols")]
    wide, inner = DEEPSEEK_V3.hidden_size, DEEPSEEK_V3.moe_intermediate_size
    by_hand = 2 * (257 * 3 * wide * inner + 256 * wide)
    # the bias of the choice adds nothing
    assert by_hand == 2 * (moe_parameters(DEEPSEEK_V3).total - 256)
    shown = rf"2\,(257\times3\times{wide}\times{inner}+256\times{wide})"
    assert shown in size
    assert rf"\approx{by_hand / 1e9:.2f}\times10^9" in size
    assert f"{3 * wide * inner / 1e6:.1f}M" in size
    assert moe_parameters(DEEPSEEK_V3).total > 28 * moe_parameters(DEEPSEEK_V3).activated
    assert "不到原来的二十八分之一" in size


def test_the_switches_of_three_generations() -> None:
    """As released: scoring, normalisation, bias and the factor of V3."""
    table = PAGE[PAGE.index(":name: tab-moe-switches") :].split(":::")[0]
    of_v3 = {
        cells[0]: cells[-1]
        for line in table.splitlines()
        if line.startswith("|") and (cells := [c.strip() for c in line.strip("|").split("|")])
    }
    config = DEEPSEEK_V3
    assert of_v3["打分"] == config.scoring_func
    assert of_v3["选中之后归一"] == ("是" if config.norm_topk_prob else "否")
    assert of_v3["选择时加偏置"] == ("是" if config.topk_method == "noaux_tc" else "否")
    assert of_v3["再乘一个常数"] == str(config.routed_scaling_factor)
    assert of_v3["限制去处"] == f"至多 {config.topk_group} 个节点"
    assert of_v3["共享专家"] == f"另设 {config.n_shared_experts} 个"


def test_what_the_papers_leave_open_is_listed_as_such() -> None:
    """Three of the four points are in the papers, so none is said to be absent from them."""
    assert "论文没有写、只见于代码或配置的有四处" not in PAGE
    for name in ("model-1", "model-2", "moe-1", "moe-3"):
        assert f"<amb-{name}>" in PAGE
    ambiguities = (BOOK / "appendix" / "ambiguities.md").read_text("utf8")
    entry = ambiguities[ambiguities.index("(amb-moe-1)=") : ambiguities.index("(amb-moe-2)=")]
    assert "没有说是否含偏置" not in entry
    assert "不含偏置的 $s_{i,t}$" in entry
