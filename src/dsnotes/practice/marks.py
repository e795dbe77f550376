"""The mark of a submission, whatever it does, with seeds that only the grader knows."""

import ast
import sys
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dsnotes.practice import mechanisms, notebook, report
from dsnotes.practice.cells import Verdict
from dsnotes.practice.grade import Grade, grade

SECONDS = 120  # of the clock: a mechanism or a bug, all its tests
SECONDS_A_CELL = 60
OUTCOMES = {"right": "passed", "wrong": "failed", "blank": "blank", "error": "error"}
NOTEBOOKS = mechanisms.REPOSITORY / "notebooks"
NOT_YET = "没有评出来。"


class Mark(NamedTuple):
    """What became of one exercise: passed, failed, blank or error, and why, in Chinese."""

    outcome: str
    note: str = ""


@cache
def files_asked_for() -> dict[str, list[str]]:
    """Exercises by the name of the file that answers them."""
    found: dict[str, list[str]] = {}
    for name in mechanisms.SECTIONS:
        section = mechanisms.load(name)
        for module in section.modules:
            found[f"{module.rpartition('.')[2]}.py"] = [name]
        for i in range(1, len(section.bugs) + 1):
            found[f"{name}_bug_{i}.py"] = [f"{name}-bug-{i}"]
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        if labels := list(notebook.blanks(path)):
            found[path.name] = labels
    return found


class Grader:
    """Grades submissions with one seed; what the book's own answers do with it is asked first.

    A test that the book's own module does not pass with this seed counts for nobody.
    """

    def __init__(
        self,
        seed: int,
        *,
        seconds: int | float = SECONDS,
        seconds_a_cell: int | float = SECONDS_A_CELL,
    ) -> None:
        self.seed, self.seconds, self.seconds_a_cell = seed, seconds, seconds_a_cell
        self._ours: dict[str, set[str]] = {}
        self._moved: dict[str, list[str]] = {}

    def marks(self, files: dict[str, Path], exercises: Iterable[str]) -> dict[str, Mark]:
        """A mark for each of `exercises`; one without its file is blank."""
        wanted, found = list(exercises), dict[str, Mark]()
        jobs: dict[str, Callable[[], dict[str, Mark]]] = {}
        for name, path in files.items():
            labels = [x for x in files_asked_for()[name] if x in wanted]
            if not labels:
                continue
            key = path.name if name.endswith(".ipynb") else labels[0]
            if name.endswith(".ipynb"):
                jobs[key] = lambda n=name, p=path, x=labels: self._notebook(n, p, x)  # type: ignore[misc]
            else:
                jobs[key] = lambda x=labels[0]: {x: self._module(x, files)}  # type: ignore[misc]
            for label in labels:
                found[label] = Mark("error", NOT_YET)
        for job in jobs.values():
            try:
                found |= job()
            except Exception as error:  # a fault of ours, or a file of a kind we did not think of
                note = f"评分的程序出错：{type(error).__name__}: {error}"[:300]
                undone = [x for x, mark in found.items() if mark.note == NOT_YET]
                print(note, file=sys.stderr)
                found |= {x: Mark("error", note) for x in undone}
        return {x: found.get(x, Mark("blank", "没有交。")) for x in wanted}

    def _notebook(self, name: str, path: Path, labels: list[str]) -> dict[str, Mark]:
        book = NOTEBOOKS / name
        try:
            given = notebook.submitted(path, labels)
        except (OSError, ValueError):
            return {label: Mark("error", "不是读得懂的笔记本。") for label in labels}
        if name not in self._moved:
            ours = {k: v for k, v in notebook.solutions(book).items() if _function(book, k)}
            said = self._judge(book, ours, list(ours))
            self._moved[name] = [label for label in ours if said[label].state == "right"]
        said = self._judge(book, given, self._moved[name])
        gone = Mark("blank", "笔记本里没有这一格。")
        marks = {label: Mark(OUTCOMES[v.state], v.message) for label, v in said.items()}
        return {label: marks.get(label, gone) for label in labels}

    def _judge(self, book: Path, given: dict[str, str], moved: list[str]) -> dict[str, Verdict]:
        return notebook.judge(book, given, seed=self.seed, moved=moved, seconds=self.seconds_a_cell)

    def _module(self, exercise: str, files: dict[str, Path]) -> Mark:
        name, _, number = exercise.partition("-bug-")
        section = mechanisms.load(name)
        if number:
            bug = section.bugs[int(number) - 1]
            start = {bug.module: mechanisms.planted(bug)}
            given = {bug.module: files[f"{name}_bug_{number}.py"]}
        else:
            start = {m: mechanisms.blanked(m, section.blanks) for m in section.modules}
            named = {m: f"{m.rpartition('.')[2]}.py" for m in section.modules}
            given = {m: files[named[m]] for m in section.modules if named[m] in files}
        for path in given.values():
            if broken := report.unreadable(path):
                return Mark("error", broken.replace(f"{path.parent}/", "").replace("\n", ""))
        texts = {m: path.read_text("utf-8-sig") for m, path in given.items()}
        if all(_code(text) == _code(start[m]) for m, text in texts.items()):
            return Mark("blank")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            copies = {}
            for module, text in (start | texts).items():
                copies[module] = Path(folder, f"{module.rpartition('.')[2]}.py")
                copies[module].write_text(text, "utf8")
            done = grade(section, copies, seed=self.seed, seconds=self.seconds)
        return self._mark(
            section, done, still=[x for t in texts.values() for x in mechanisms.still_blank(t)]
        )

    def _mark(self, section: mechanisms.Section, done: Grade, still: list[str]) -> Mark:
        counted = self._counted(section)
        if not done.ended:
            ran = (
                f"等了 {self.seconds:g} 秒还没有结束。" if done.late else "程序没有运行完就结束了。"
            )
            return Mark("error", ran)
        fallen = [t for t in done.failed if t.test in counted]
        passed = {t.test for t in done.passed} & counted
        if not fallen and passed == counted:
            return Mark("passed")
        if not passed and not fallen:
            why = done.failed[0].message.strip().splitlines()[-1:] if done.failed else []
            return Mark("error", "模块读不进来。" + "".join(why)[:200])
        note = f"测试 {len(counted)} 个，通过 {len(passed)} 个。"
        if still:
            return Mark("failed", note + f"没有写：{'、'.join(still)}。")
        titles, numbers = mechanisms.traps(section)
        traps = {numbers.get(t.name.partition("[")[0], 0) for t in fallen} - {0}
        return Mark("failed", note + "".join(f"常见错误 {n}：{titles[n]}。" for n in sorted(traps)))

    def _counted(self, section: mechanisms.Section) -> set[str]:
        """Tests that the book's own modules pass with this seed."""
        if section.name not in self._ours:
            done = grade(section, {}, seed=self.seed)
            if not done.ended:
                raise RuntimeError(
                    f"the tests of {section.name} did not end:\n{done.noise[-2000:]}"
                )
            self._ours[section.name] = {t.test for t in done.passed}
        return self._ours[section.name]


def _function(path: Path, label: str) -> bool:
    """Whether an exercise asks for a function or a class; numbers are of the book's seeds."""
    body = ast.parse(notebook.blanks(path)[label]).body
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in body)


def _code(text: str) -> str:
    """A text without comments and spaces: one that only they change is not worked on."""
    return ast.dump(ast.parse(text))
