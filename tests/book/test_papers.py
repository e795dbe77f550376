"""The map of the papers against the citations that the sections and their notebooks contain."""

import re
from pathlib import Path

import nbformat
import pytest
import yaml

ROOT = Path(__file__).parents[2]
SECTIONS = sorted(
    {  # a section may have several pages: fp8, fp8-accumulation
        p.stem.partition("-")[0]
        for part in ("model", "training", "rl", "results", "whole", "after")
        for p in (ROOT / "book" / part).glob("*.md")
        if p.stem != "index"
    }
)
ROWS = yaml.safe_load((ROOT / "book" / "data" / "papers.yml").read_text("utf8"))
CITE = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")


def texts(section: str) -> list[str]:
    """The pages of a section and the prose of its notebook."""
    pages = [p for p in (ROOT / "book").glob("*/*.md") if p.stem.partition("-")[0] == section]
    found = [p.read_text("utf8") for p in pages]
    notebook = ROOT / "notebooks" / f"{section}.ipynb"
    if notebook.is_file():
        cells = nbformat.read(notebook, as_version=4).cells
        found += [cell.source for cell in cells if cell.cell_type == "markdown"]
    return found


CITED = {
    section: {
        key.strip() for text in texts(section) for m in CITE.findall(text) for key in m.split(",")
    }
    for section in SECTIONS
}


@pytest.mark.parametrize("row", ROWS, ids=[row["key"] for row in ROWS])
def test_used_in_names_the_sections_that_cite_the_paper(row: dict) -> None:
    citing = {section for section in SECTIONS if row["key"] in CITED[section]}
    assert set(row["used_in"]) == citing


def test_the_papers_added_to_the_list_of_the_post_are_used() -> None:
    assert [row["key"] for row in ROWS if not row["post"] and not row["used_in"]] == []


def test_the_map_says_who_first_proposed_what_v3_uses() -> None:
    """Loss-free balancing is four months older; multi-token prediction has forebears too."""
    brought = {row["key"]: row["brought"] for row in ROWS}
    assert "原始论文" in brought["aux-loss-free"]
    assert "都出自这里" not in brought["deepseek-v3"]
    assert "Loss-Free" in brought["deepseek-v3"]
