"""Three submissions of one section to try the grading with: right, with a common mistake, blank."""

import json
import re
from pathlib import Path

from dsnotes.practice import mechanisms
from dsnotes.practice.notebook import solutions

NAMES = {"right": "样例-对", "trapped": "样例-踩坑", "blank": "样例-空白"}


def write(folder: Path, *, name: str = "moe", notebooks: Path | None = None) -> list[Path]:
    """Write the folders of three students, made from the book's own code and answers.

    Args:
        folder: of the class.
        name: of the section.
        notebooks: of the book, with `solutions/`; None where there are none.

    Returns:
        The files.
    """
    section = mechanisms.load(name)
    bug = next(bug for bug in section.bugs if bug.trap)
    texts = {m: mechanisms.source(m) for m in section.modules}
    modules = {
        "right": texts,
        "trapped": texts | {bug.module: mechanisms.planted(bug)},
        "blank": {m: mechanisms.blanked(m, section.blanks) for m in section.modules},
    }
    written = []
    for kind, student in NAMES.items():
        (folder / student).mkdir(parents=True, exist_ok=True)
        for module, text in modules[kind].items():
            written.append(folder / student / f"{module.rpartition('.')[2]}.py")
            written[-1].write_text(text, "utf8")
        if notebooks:
            path = notebooks / f"{name}.ipynb"
            answers = {"right": solutions(path), "trapped": _wrong(path), "blank": {}}[kind]
            written.append(folder / student / path.name)
            written[-1].write_text(filled(path, answers), "utf8")
    return written


def filled(path: Path, answers: dict[str, str]) -> str:
    """The text of a notebook of the book with these answers in its cells, by label."""
    book = json.loads(path.read_text("utf8"))
    for cell in book["cells"]:
        label = cell.get("id", "").replace("exercise", path.stem)
        if label in answers and "exercise" in cell["metadata"].get("tags", []):
            cell["source"] = answers[label]
    return json.dumps(book, ensure_ascii=False)


def _wrong(path: Path) -> dict[str, str]:
    """The last of the wrong answers that lie beside a notebook, by label."""
    text = (path.parent / "solutions" / path.name).with_suffix(".py").read_text("utf8")
    _, *parts = re.split(r"^# %% (.+)\n", text, flags=re.MULTILINE)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return {head.partition(" ")[0]: code for head, code in pairs if " wrong" in head}
