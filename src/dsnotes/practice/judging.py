"""The blank cells of a notebook, as a submission filled them in, judged with the book's own checks.

    python -m dsnotes.practice.judging job.json

is started by `notebook.judge` and writes a line of JSON for each exercise. The checks, the set-up
and the answers to earlier exercises are always the book's.
"""

import ast
import json
import math
import os
import random
import re
import sys
import threading
from pathlib import Path
from typing import Any

import torch

from dsnotes.practice import bounded
from dsnotes.practice.cells import VERDICTS, Verdict
from dsnotes.practice.hidden import CASES
from dsnotes.practice.notebook import blanks, code_cells, solutions
from dsnotes.practice.seeds import shifted

DRAWS = 20  # inputs drawn for a function


def main(job: dict[str, Any]) -> None:
    """Judge the cells of a job one after the other."""
    path, solved = Path(job["path"]), solutions(Path(job["path"]))
    torch.set_num_threads(1)
    for label, answer in job["given"].items():
        prepared(path, label, solved)  # loads what it imports, before the clock starts
        _write(job, label)
        clock = threading.Timer(job["seconds"], _late, [job, label])
        clock.daemon = True
        clock.start()
        with torch.set_grad_enabled(True):
            verdict = once(path, label, answer, solved)
            if verdict.state == "right" and job["seed"] and label in job["moved"]:
                with shifted(job["seed"]):
                    again = once(path, label, answer, solved)
                if again.state != "right":
                    verdict = Verdict("wrong", f"换一个种子就不对。{again.message}")
            if verdict.state == "right" and job["seed"] and label in CASES:
                verdict = drawn(path, label, answer, solved, job["seed"])
        clock.cancel()
        _write(job, label, verdict)


def prepared(path: Path, label: str, solved: dict[str, str]) -> dict[str, Any]:
    """Names that stand when the cell of `label` runs: the set-up, and answers before it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_cells(path):
        here = cell["id"].replace("exercise", path.stem) if "exercise" in cell["tags"] else ""
        if here == label:
            break
        if here:
            exec(compile(solved[here], f"<answer {here}>", "exec"), names)
        elif cell["id"] == "imports" or "setup" in cell["tags"]:
            exec(compile(cell["source"], f"<cell {cell['id']}>", "exec"), names)
    return names


def answered(path: Path, label: str, answer: str, solved: dict[str, str]) -> dict[str, Any]:
    """The names after the answer has run; those of the book are put back if it took them."""
    names = prepared(path, label, solved)
    asked = {
        node.id if isinstance(node, ast.Name) else node.name
        for node in ast.walk(ast.parse(blanks(path)[label]))
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }
    ours = {name: value for name, value in names.items() if name not in asked}
    lines = ["" if re.match(r"\s*[%!]", line) else line for line in answer.splitlines()]
    exec(compile("\n".join(lines), "<答案>", "exec"), names)
    return names | ours


def once(path: Path, label: str, answer: str, solved: dict[str, str]) -> Verdict:
    """Run an answer and its check."""
    blank = blanks(path)[label]
    try:
        if ast.dump(ast.parse(answer)) == ast.dump(ast.parse(blank)):
            return Verdict("blank")
        names = answered(path, label, answer, solved)
        (check,) = (
            cell["source"]
            for cell in code_cells(path)
            if cell["id"] == f"check-{label.rpartition('-')[2]}"
        )
        VERDICTS.clear()
        exec(compile(check, f"<check {label}>", "exec"), names)
        return VERDICTS.get(label, Verdict("error", "检查没有运行。"))
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: the class goes on
        if "ellipsis" in str(error).lower():
            return Verdict("blank")
        return Verdict("error", f"{type(error).__name__}: {error}"[:300])


def drawn(path: Path, label: str, answer: str, solved: dict[str, str], seed: int) -> Verdict:
    """Compare a function with the book's on inputs that the seed draws."""
    name, make = CASES[label]
    ours = answered(path, label, solved[label], solved)[name]
    inputs = [
        (make(random.Random(f"{seed} {draw}")), make(random.Random(f"{seed} {draw}")))
        for draw in range(DRAWS)
    ]
    wanted = [(ours(*arguments), arguments) for arguments, _ in inputs]  # some work in place
    try:
        theirs = answered(path, label, answer, solved)[name]
        found = [(theirs(*copies), copies) for _, copies in inputs]
    except BaseException as error:
        return Verdict("wrong", f"换一组输入就出错：{type(error).__name__}: {error}"[:300])
    if not all(map(same, found, wanted)):
        return Verdict("wrong", "换一组输入就不对：它只对检查里的那几组。")
    return Verdict("right")


def same(found: Any, wanted: Any) -> bool:
    """Whether two results agree, numbers to a thousandth; a list may be a tuple or a tensor.

    >>> same(([1, 2.0001], "a"), ((1, 2), "a")), same([1, 2], [1, 3])
    (True, False)
    """
    if hasattr(found, "tolist"):
        found = found.detach().tolist() if hasattr(found, "detach") else found.tolist()
    if hasattr(wanted, "tolist"):
        wanted = wanted.detach().tolist() if hasattr(wanted, "detach") else wanted.tolist()
    if isinstance(wanted, list | tuple):
        return (
            isinstance(found, list | tuple)
            and len(found) == len(wanted)
            and all(map(same, found, wanted))
        )
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return math.isclose(found, wanted, rel_tol=1e-3, abs_tol=1e-3) or found == wanted
    return bool(found == wanted)


def _write(job: dict[str, Any], label: str, verdict: Verdict | None = None) -> None:
    line: dict[str, str] = {"label": label}
    if verdict:
        line |= {"state": verdict.state, "message": verdict.message}
    with open(job["report"], "a", encoding="utf8") as file:
        file.write(json.dumps(line) + "\n")


def _late(job: dict[str, Any], label: str) -> None:
    message = f"等了 {job['seconds']:g} 秒还没有结束：循环会停下来吗？"
    _write(job, label, Verdict("error", message))
    os._exit(3)


if __name__ == "__main__":
    bounded.limit()
    with open(os.devnull, "w") as nowhere:  # what a submission prints is not kept
        os.dup2(nowhere.fileno(), 1)
    main(json.loads(Path(sys.argv[1]).read_text("utf8")))
