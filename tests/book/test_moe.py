"""What the section on mixtures of experts says, against the code and the shapes of V3."""

import inspect
import re
from pathlib import Path

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


def test_the_arithmetic_of_the_opening() -> None:
    opening = PAGE[PAGE.index("## 要解决的问题") : PAGE.index("## 直觉")]
    wide, inner = DEEPSEEK_V3.hidden_size, DEEPSEEK_V3.moe_intermediate_size
    by_hand = 2 * (257 * 3 * wide * inner + 256 * wide)
    assert by_hand == 2 * (
        moe_parameters(DEEPSEEK_V3).total - 256
    )  # the bias of the choice adds nothing
    shown = rf"2\,(257\times3\times{wide}\times{inner}+256\times{wide})"
    assert rf"{shown}\approx{by_hand / 1e9:.2f}\times10^9" in opening
    assert rf"$2664000/2048/24\approx{2664e3 / 2048 / 24:.1f}$" in opening
    stored = sum(part.total for part in breakdown(DEEPSEEK_V3)) / 1e9
    used = sum(part.activated for part in breakdown(DEEPSEEK_V3)) / 1e9
    assert rf"\times{stored:.2f}/{used:.2f}$" in opening


def test_what_the_papers_leave_open_is_listed_as_such() -> None:
    """Three of the four points are in the papers, so none is said to be absent from them."""
    assert "论文没有写、只见于代码或配置的有四处" not in PAGE
    for name in ("model-1", "model-2", "moe-1", "moe-3"):
        assert f"<amb-{name}>" in PAGE
    ambiguities = (BOOK / "appendix" / "ambiguities.md").read_text("utf8")
    entry = ambiguities[ambiguities.index("(amb-moe-1)=") : ambiguities.index("(amb-moe-2)=")]
    assert "没有说是否含偏置" not in entry
    assert "不含偏置的 $s_{i,t}$" in entry
