"""Blank cells of a notebook, run with an answer and without, as plain code."""

import re
from pathlib import Path
from typing import NamedTuple

import nbformat
import torch

from dsnotes.practice.cells import VERDICTS, Verdict

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


class Answers(NamedTuple):
    """The code of `solutions/<section>.py` for one exercise."""

    right: str
    wrong: dict[str, str]  # what stands after "wrong" in the head of the block: the code


def cells(path: Path, kind: str) -> dict[str, str]:
    """Cells with the tag "exercise" or "check", by the label of the exercise, such as "moe-2"."""
    found = [c for c in nbformat.read(path, as_version=4).cells if kind in _tags(c)]
    for cell in found:
        assert re.fullmatch(rf"{kind}-\d+", cell.id), f"{path.stem}: call {cell.id} {kind}-<number>"
    return {cell.id.replace(kind, path.stem): cell.source for cell in found}


def answers(path: Path) -> dict[str, Answers]:
    """Right and wrong answers to the exercises of a notebook, by label."""
    text = (path.parent / "solutions" / f"{path.stem}.py").read_text("utf8")
    _, *parts = re.split(r"^# %% (.+)\n", text, flags=re.MULTILINE)
    found: dict[str, Answers] = {}
    for head, code in zip(parts[::2], parts[1::2], strict=True):
        label, wrong, name = re.fullmatch(r"(\w+-\d+)( wrong)?(.*)", head).groups()
        if wrong:
            found[label].wrong[name.strip()] = code  # the right one stands first
        else:
            assert label not in found, f"{label} twice"
            found[label] = Answers(code, {})
    return found


def judge(path: Path, label: str, answer: str | None = None) -> Verdict:
    """Run the set-up and the earlier solutions, then an answer (or the blank), then the check."""
    with torch.set_grad_enabled(True):  # which a notebook may switch off, for itself
        return _judge(path, label, answer)


def _judge(path: Path, label: str, answer: str | None) -> Verdict:
    solved = answers(path)
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in nbformat.read(path, as_version=4).cells:
        here = cell.id.replace("exercise", path.stem) if "exercise" in _tags(cell) else None
        if here == label:
            break
        if here:
            exec(compile(solved[here].right, f"<solution {here}>", "exec"), names)
        elif cell.id == "imports" or "setup" in _tags(cell):
            exec(compile(cell.source, f"<cell {cell.id}>", "exec"), names)
    blank = cells(path, "exercise")[label]
    exec(compile(blank if answer is None else answer, f"<answer {label}>", "exec"), names)
    VERDICTS.clear()
    exec(compile(cells(path, "check")[label], f"<check {label}>", "exec"), names)
    assert list(VERDICTS) == [label], f"the check of {label} is named {list(VERDICTS)}"
    return VERDICTS[label]


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])
