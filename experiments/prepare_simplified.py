"""Make book/data/simplified.txt: which traditional characters a simplified one can stand for.

    pip download --no-deps opencc-python-reimplemented==0.1.7
    python experiments/prepare_simplified.py opencc_python_reimplemented-0.1.7-py2.py3-none-any.whl

From the table STCharacters of OpenCC (Apache-2.0), as far as the characters have a reading in
`dsnotes.data.poems`. A row is the simplified character, then the traditional ones, the most
frequent in the quatrains first: 云 is 雲 before it is 云.
"""

import sys
import zipfile
from collections import Counter
from pathlib import Path

from dsnotes.data.poems import quatrains, readings

OUT = Path(__file__).parents[1] / "book" / "data" / "simplified.txt"
HEAD = "# 简体字与它可能代表的繁体字，常见的在前；取自 OpenCC 的 STCharacters（Apache-2.0）\n"


def main(wheel: str) -> None:
    used = Counter(c for poem in quatrains() for line in poem.lines for c in line)
    with zipfile.ZipFile(wheel) as opened:
        text = opened.read("opencc/dictionary/STCharacters.txt").decode("utf8")
    rows = []
    for simple, others in (line.split("\t") for line in text.splitlines()):
        known = [c for c in others.split() if c in readings()]
        if simple in readings() and simple not in known:
            known.append(simple)
        known.sort(key=lambda c: -used[c])
        if known and known != [simple]:
            rows.append(simple + "".join(known))
    OUT.write_text(HEAD + "\n".join(sorted(rows)) + "\n", "utf8")


if __name__ == "__main__":
    main(sys.argv[1])
