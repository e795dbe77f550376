"""Make book/data/simplified.txt: which traditional characters a simplified one can stand for.

    python experiments/prepare_simplified.py opencc_python_reimplemented-0.1.7-py2.py3-none-any.whl

From the table STCharacters of OpenCC (Apache-2.0), as far as the characters have a reading in
`dsnotes.data.poems`. A row is the simplified character, then what it can stand for, the most
frequent in the verses first: 云 is 雲 there. What is a word of its own, like 干, stays itself
unless another is `MORE` times as frequent.
"""

import argparse
import zipfile
from collections import Counter
from pathlib import Path

from prepare_poems import checked_file

from dsnotes.data.poems import readings, verses

TABLE = (
    "opencc_python_reimplemented-0.1.7-py2.py3-none-any.whl",
    "sha256",
    "QbO5KUPHvtKR9Ejpx/rUtXfIwurjD8/lp07fiBhJOqY=",
    "pip download --no-deps opencc-python-reimplemented==0.1.7",
)
OUT = Path(__file__).parents[1] / "book" / "data" / "simplified.txt"
HEAD = "# 简体字与它可能代表的繁体字，常见的在前；取自 OpenCC 的 STCharacters（Apache-2.0）\n"
MORE = 3


def rows(text: str) -> list[str]:
    """The rows of OpenCC's table as they are written here."""
    used = Counter(c for verse in verses() for line in verse.lines for c in line)
    found = []
    for simple, others in (line.split("\t") for line in text.splitlines()):
        known = {c for c in (*others.split(), simple) if c in readings()}
        weight = {c: used[c] * (MORE if c == simple else 1) for c in known}
        if known - {simple}:
            found.append(simple + "".join(sorted(known, key=lambda c: (-weight[c], c))))
    return sorted(found)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("table", type=Path, help=TABLE[0])
    given = options.parse_args()
    try:
        wheel = checked_file(given.table, TABLE)
    except ValueError as error:
        options.error(str(error))
    with zipfile.ZipFile(wheel) as opened:
        text = opened.read("opencc/dictionary/STCharacters.txt").decode("utf8")
    OUT.write_text(HEAD + "\n".join(rows(text)) + "\n", "utf8")


if __name__ == "__main__":
    main()
