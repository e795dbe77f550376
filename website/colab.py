"""Copies of the notebooks for Colab, whose first cell installs the library.

    BOOK_REPO_URL=https://github.com/team/book python website/colab.py [--ref v1.2.3]

They are written to _build/colab/notebooks. On a tag, the workflow of the forge puts that folder on
the branch `colab`, which the Colab buttons of the book lead to.
"""

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook.repo import address  # noqa: E402


def with_install(notebook: dict, requirement: str) -> dict:
    """The notebook, led by a cell that installs what it needs."""
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "install",
        "metadata": {"cellView": "form"},
        "outputs": [],
        "source": [
            "# @title 先运行这一格：安装本书的库\n",
            f'%pip install --quiet "{requirement}"',
        ],
    }
    return notebook | {"cells": [cell, *notebook["cells"]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--ref", default="main", help="the tag or branch that is installed")
    parser.add_argument("--output", type=Path, default=ROOT / "_build" / "colab")
    given = parser.parse_args()
    repository = address("BOOK_REPO_URL")
    if not repository:
        sys.exit("set BOOK_REPO_URL to the address of the repository, which the cell installs from")
    folder = given.output / "notebooks"
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = json.loads(path.read_text("utf8"))
        copy = with_install(notebook, f"dsnotes @ git+{repository}@{given.ref}")
        text = json.dumps(copy, ensure_ascii=False, indent=1) + "\n"
        (folder / path.name).write_text(text, "utf8")
    print(f"{folder}: {len(list(folder.glob('*.ipynb')))} notebooks")


if __name__ == "__main__":
    main()
