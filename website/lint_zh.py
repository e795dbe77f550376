"""Check the Chinese copy (spaces, punctuation) of the book, the notebooks and the README.

python website/lint_zh.py         # list what is wrong, exit 1 if anything is
python website/lint_zh.py --fix   # rewrite it
"""

import argparse
import sys
from pathlib import Path

import autocorrect_py
import nbformat

ROOT = Path(__file__).resolve().parent.parent


def copy_of(path: Path) -> list[str]:
    """The Chinese texts of a file: the file itself, or the prose cells of a notebook."""
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        return [c.source for c in cells if c.cell_type == "markdown"]
    return [path.read_text("utf8")]


def rewrite(path: Path) -> None:
    if path.suffix == ".ipynb":
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = autocorrect_py.format_for(cell.source, "markdown")
        nbformat.write(notebook, path)
    else:
        path.write_text(autocorrect_py.format_for(path.read_text("utf8"), "markdown"), "utf8")


def main() -> int:
    parser = argparse.ArgumentParser(description="check the Chinese copy")
    parser.add_argument("--fix", action="store_true", help="rewrite instead of reporting")
    fix = parser.parse_args().fix
    files = [
        *sorted((ROOT / "book").rglob("*.md")),
        *sorted((ROOT / "notebooks").glob("*.ipynb")),
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
    ]
    wrong = 0
    for path in files:
        for text in copy_of(path):
            better = autocorrect_py.format_for(text, "markdown")
            for old, new in zip(text.splitlines(), better.splitlines(), strict=False):
                if old != new:
                    wrong += 1
                    print(f"{path.relative_to(ROOT)}\n  - {old}\n  + {new}")
        if fix:
            rewrite(path)
    return int(bool(wrong) and not fix)


if __name__ == "__main__":
    sys.exit(main())
