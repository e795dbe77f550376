"""The data of 让它写诗: what its models know and a poem of each, recorded by ``website/poet.py``.

Besides, from dsnotes, the readings of the characters, and the table by which what a reader types in
simplified characters becomes what the models know.
"""

import json
from pathlib import Path
from typing import Any

from dsnotes.data.poems import readings

ROOT = Path(__file__).parents[4]
RECORD = Path(__file__).with_suffix(".json")
SIMPLIFIED = ROOT / "book" / "data" / "simplified.txt"
SCRIPTS = ("poet/engine", "poet/decode", "poet/verse")  # loaded before the figure's own


def data() -> dict[str, Any]:
    """The record, and both tables as far as the models' characters go."""
    record = json.loads(RECORD.read_text("utf8"))
    known = set(record["characters"])
    table: dict[str, str] = {}
    for character, names in readings().items():
        for name in names if character in known else ():
            table[name] = table.get(name, "") + character
    rows = [row for row in SIMPLIFIED.read_text("utf8").splitlines() if not row.startswith("#")]
    pairs = [row[0] + "".join(c for c in row[1:] if c in known) for row in rows]
    return {**record, "readings": table, "simplified": [pair for pair in pairs if pair[1:]]}
