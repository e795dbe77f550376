"""Alternative texts of figures: there for every figure, and without a number that was measured.

They are typed and not computed, so they describe shapes. Whole numbers that are settings stay (8 of
32 experts), and so do the numbers inside a drawing, which are drawn there.
"""

import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
BOOK = ROOT / "book"
PAGES = sorted(p for p in BOOK.glob("*/*.md") if "{nbfigure}" in p.read_text("utf8"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLOT = re.compile(r"^`{3,}\{nbfigure\}.*\n(?:^:(?!alt).*\n)*^:alt: (.*)$", re.MULTILINE)

NAMES = re.compile(r"(?:LLaMA-|Qwen|AlpacaEval )\d+\.\d+")  # of models and tests
MEASURED = re.compile(
    r"\d\.\d|\d ?[%％]|\d [kKMGT]?(?:B|FLOP)\b|约 ?\d|\d ?(?:以上|以下|附近|左右|倍)"
)
EXACT = {"最后 9 个 YaRN 是 40 倍", "最后 9 个是 40 倍"}  # the factor of YaRN, a setting


def measured(text: str) -> list[str]:
    for exact in EXACT:
        text = text.replace(exact, "")
    return MEASURED.findall(NAMES.sub("", text))


def shown_by(notebook: Path) -> list[str | None]:
    """For each cell that shows a plot its alternative text, or None."""
    return [
        cell.metadata.get("mystnb", {}).get("image", {}).get("alt")
        for cell in nbformat.read(notebook, as_version=4).cells
        if cell.cell_type == "code" and "plt.show()" in cell.source
    ]


@pytest.mark.parametrize("text", ["停在 0.6 附近", "升到 71%", "都在 3 以上", "约 16 步", "8.1 TB"])
def test_what_counts_as_measured(text: str) -> None:
    assert measured(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_plots_of_a_page_carry_no_measured_number(page: Path) -> None:
    text = page.read_text("utf8")
    found = PLOT.findall(text)
    assert len(found) == text.count("{nbfigure}")
    assert [alt for alt in found if measured(alt)] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_plots_of_a_notebook_have_one_and_carry_no_measured_number(notebook: Path) -> None:
    found = shown_by(notebook)
    assert None not in found
    assert [alt for alt in found if alt and measured(alt)] == []


def test_every_section_with_plots_is_looked_at() -> None:
    assert {p.stem for p in PAGES} >= {
        *("moe", "balance", "mla", "mtp", "fp8", "dualpipe", "reward", "grpo", "v3", "r1")
    }
