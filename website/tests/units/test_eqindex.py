"""The index of equations (dsbook.eqindex): read from docstrings and formulas, never typed."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook import eqindex  # noqa: E402


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        ("Gate (V3 eq. 13, 15-16).", [("V3", 13), ("V3", 15), ("V3", 16)]),
        ("eq 24 and 25, and\n    eqs 1, and 2", [("V1", 24), ("V1", 25), ("V1", 1), ("V1", 2)]),
        ("MaxVio (loss-free balancing eq. 4)", [("LF", 4)]),
        ("Dr. GRPO or DAPO eq 8; R1 v2 eq 7", [("DAPO", 8), ("R1", 7)]),
        ("eq (3)-(5) of DeepSeekMath", [("V1", 3), ("V1", 4), ("V1", 5)]),
        ("V3.2 eq 7, not V3 eq 27", [("V3.2", 7), ("V3", 27)]),
        ("frequency 3, seq 4, in equal parts 5", []),
    ],
)
def test_cited(docstring, found):
    assert eqindex.cited(docstring, "V1") == found


def test_symbols_are_found_with_their_lines(tmp_path):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/mod.py").write_text(
        '"""A module after V2, then V3."""\n\n\nclass A:\n    """V3 eq 1."""\n\n'
        '    def f(self):\n        """eq 2, and again eq 2."""\n'
    )
    assert eqindex.in_code(tmp_path) == {
        ("V3", 1): [("pkg.mod.A", "pkg/mod", 4)],
        ("V2", 2): [("pkg.mod.A.f", "pkg/mod", 7)],
    }


def test_every_numbered_equation_of_the_book_is_implemented_somewhere():
    """All but V3's (14), the choice without a bias: (16) takes its place, and the page says so."""
    code = eqindex.in_code(ROOT / "src")
    replaced = ("V3", 14)
    assert replaced not in code
    assert "V3 的式 14" in (ROOT / "book" / "appendix" / "equations.md").read_text("utf8")
    missing = []
    for page in sorted((ROOT / "book").rglob("*.md")):
        for tag in re.findall(r"\\tag\{([^}]*)\}", page.read_text("utf8")):
            match = re.fullmatch(r"(?:(.+)-)?(\d+)", tag)
            if match and (match[1] or "V3", int(match[2])) not in {*code, replaced}:
                missing.append((page.name, tag))
    assert missing == []
