"""Notebooks as they stand in git; `make book` executes them, each in an empty folder."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@each
def test_stripped_with_stable_cell_ids(path: Path) -> None:
    """An id says what the cell does: numbers lie once a cell is inserted, Jupyter's are noise."""
    notebook = nbformat.read(path, as_version=4)
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids)), "cell ids must be unique"
    assert (ids[0], ids[1]) == ("title", "imports")
    hands_over = any("import glue" in cell.source for cell in notebook.cells)
    assert ids[-1] == "glue" or not hands_over  # a page of its own need not hand anything over
    word = r"(?![0-9a-f]{8})[a-z0-9]+"
    named = re.compile(rf"(?=[a-z]){word}(-{word})*")
    unnamed = [i for i in ids if not named.fullmatch(i)]
    assert unnamed == [], "name a cell by what it does, like `load-figure`"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs, f"cell {cell.id} has outputs: run `make format`"
            assert cell.execution_count is None, f"cell {cell.id} is numbered: run `make format`"


@each
def test_code_is_seeded_and_asserted(path: Path) -> None:
    """An experiment ends in an assertion, and what is random has a seed."""
    notebook = nbformat.read(path, as_version=4)
    source = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
    names = {n.attr for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute)}
    asserts = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Assert)]
    assert asserts, "no cell checks its result"
    if names & {"randn", "rand", "randint", "multinomial"}:
        assert names & {"manual_seed", "Generator"}, "random numbers without a seed"
