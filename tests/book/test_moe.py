"""What the section on mixtures of experts says, against the code and the shapes of V3."""

import inspect
import re
from pathlib import Path

from dsnotes import moe
from dsnotes.moe import Gate

PAGE = (Path(__file__).parents[2] / "book" / "model" / "moe.md").read_text("utf8")


def test_equation_numbers_beside_the_gate_are_those_of_the_formulas() -> None:
    tag = re.search(r"\\softmax_i\(.*?\\tag\{V1-(\d+)\}", PAGE)
    assert tag
    line = next(
        line for line in inspect.getsource(Gate._affinity).splitlines() if ".softmax" in line
    )
    assert f"V2 (22), V1 ({tag[1]})" in line  # V2 §2.2.1: (21) is the top-K gate, (22) the softmax
    assert "§2.2.1 (21)-(22)" in inspect.getdoc(moe)
