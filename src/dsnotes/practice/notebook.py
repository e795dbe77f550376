"""Notebooks that were handed in: their cells, judged by `judging` in a process of its own."""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from dsnotes.practice import bounded
from dsnotes.practice.cells import Verdict

START = 120  # seconds for the imports of a notebook, on a busy machine
Cell = dict[str, Any]


def code_cells(path: Path) -> list[Cell]:
    """Cells of code: id, tags, source. ValueError if it is no notebook."""
    try:
        found = json.loads(path.read_text("utf-8-sig"))["cells"]
        return [
            {
                "id": cell.get("id") or cell.get("metadata", {}).get("id", ""),
                "tags": cell.get("metadata", {}).get("tags", []),
                "source": "".join(cell["source"]),
            }
            for cell in found
            if cell["cell_type"] == "code"
        ]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError("path must be a notebook (JSON with cells)") from error


def blanks(path: Path) -> dict[str, str]:
    """The cells to fill in of a notebook of the book, by label.

    Returns:
        The source by label, such as "moe-2", in the order of the notebook.
    """
    return {
        cell["id"].replace("exercise", path.stem): cell["source"]
        for cell in code_cells(path)
        if "exercise" in cell["tags"]
    }


def submitted(path: Path, labels: list[str]) -> dict[str, str]:
    """What a submission has in the cells of `labels`; one whose cell is gone is left out.

    A cell is found by its id; where a program has given new ids, it is the one above its check.
    """
    cells = code_cells(path)
    found = {}
    for label in labels:
        named = [c for c in cells if c["id"] == f"exercise-{label.rpartition('-')[2]}"]
        checks = [i for i, c in enumerate(cells) if f'check("{label}"' in c["source"]]
        if named:
            found[label] = named[0]["source"]
        elif checks and checks[0]:
            found[label] = cells[checks[0] - 1]["source"]
    return found


def solutions(path: Path) -> dict[str, str]:
    """The right answers that lie beside a notebook of the book, by label."""
    text = (path.parent / "solutions" / path.name).with_suffix(".py").read_text("utf8")
    _, *parts = re.split(r"^# %% (.+)\n", text, flags=re.MULTILINE)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {head: code for head, code in pairs if " wrong" not in head}


def judge(
    path: Path, given: dict[str, str], *, seed: int, moved: list[str], seconds: int | float
) -> dict[str, Verdict]:
    """Verdicts on the cells of one submission; whatever they do, this comes back.

    Args:
        path: the notebook of the book, with `solutions/` beside it.
        given: what was handed in, by label.
        seed: the grader's; what is right once is judged again with it. 0: only once.
        moved: labels of functions, whose seeds it moves too.
        seconds: of the clock, for each exercise.
    """
    left, verdicts = list(given), dict[str, Verdict]()
    while left:  # a cell that ends the process takes only itself along
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            report = Path(folder, "report.jsonl")
            job = {
                "path": str(path.resolve()),
                "given": {label: given[label] for label in left},
                "seed": seed,
                "moved": moved,
                "seconds": seconds,
                "report": str(report),
            }
            Path(folder, "job.json").write_text(json.dumps(job), "utf8")
            environment = {"MPLBACKEND": "Agg", "PYTHONUTF8": "1"}
            home = str(Path(__file__).parents[2])
            environment["PYTHONPATH"] = os.pathsep.join([home, os.environ.get("PYTHONPATH", "")])
            command = [sys.executable, "-m", "dsnotes.practice.judging", "job.json"]
            limit = START + len(left) * (seconds + 10)
            status, printed = bounded.run(command, Path(folder), environment, limit)
            lines = report.read_text("utf8").splitlines() if report.exists() else []
        started = ""
        for line in map(json.loads, lines):
            started = line["label"]
            if "state" in line:
                verdicts[started] = Verdict(line["state"], line["message"])
        if started and started not in verdicts:
            verdicts[started] = Verdict("error", "程序在这一格里结束了，没有运行完。")
        if not started:  # not even the set-up of the book ran
            raise RuntimeError(f"{path.name} did not start (status {status}):\n{printed[-2000:]}")
        left = [label for label in left if label not in verdicts]
    return verdicts
