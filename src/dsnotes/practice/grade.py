"""Run the tests of a section on a reader's files, in a process of its own that can be ended."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from dsnotes.practice import bounded
from dsnotes.practice.mechanisms import CARRIED, PACKAGE, REPOSITORY, Section

SECONDS_A_TEST = 60  # of the processor; the slowest takes eight
SECONDS_IN_ALL = 300


class Result(NamedTuple):
    """What became of one test; `kind` is the type of an error, `line` that of the reader's file."""

    test: str
    outcome: str  # passed, failed or skipped
    kind: str = ""
    message: str = ""
    file: str = ""
    line: int = 0

    @property
    def name(self) -> str:
        """Without its file, with its parameters."""
        return self.test.rpartition("::")[2]

    @property
    def blank(self) -> bool:
        """It met a function that is not written yet."""
        return self.kind == "NotImplementedError" and "还没有写" in self.message


class Grade(NamedTuple):
    """What the tests said; not `ended` when they were stopped, `late` if after SECONDS_IN_ALL.

    `noise` is what pytest printed.
    """

    tests: list[Result]
    ended: bool
    noise: str
    late: bool = False

    @property
    def right(self) -> bool:
        """All tests ran, and none failed."""
        return self.ended and bool(self.passed) and not self.failed

    @property
    def passed(self) -> list[Result]:
        """Tests that passed."""
        return [t for t in self.tests if t.outcome == "passed"]

    @property
    def failed(self) -> list[Result]:
        """Tests that failed, those of common mistakes first."""
        return [t for t in self.tests if t.outcome == "failed"]


def prepare(
    section: Section, files: dict[str, Path], report: Path, *, only: str = "", seed: int = 0
) -> tuple[list[str], dict[str, str]]:
    """The arguments of pytest and the environment of a run; `report` gets a line for each test.

    `files` stand for the modules that are their keys. `only` tests with this in their name. Seeds
    that tests set are moved by `seed`.
    """
    run = {
        "files": {module: str(path.resolve()) for module, path in files.items()},
        "leave_out": section.leave_out,
        "seconds": SECONDS_A_TEST,
        "report": str(report),
        "seed": seed,
    }
    root = CARRIED if CARRIED.is_dir() else REPOSITORY
    arguments = [
        "-p", "dsnotes.practice.plugin", "-p", "no:cacheprovider", "-c", os.devnull,
        "--rootdir", str(root), "--noconftest", "--import-mode=importlib",
        "-q", "--tb=short", "--color=no", "-k", only,
        *(str(root / "tests" / name) for name in section.tests),
    ]  # fmt: skip
    environment = {
        "DSNOTES_PRACTICE": json.dumps(run),
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTEST_ADDOPTS": "",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUTF8": "1",
    }
    return arguments, environment


def read(report: Path) -> list[Result]:
    """The tests of a run, in the order in which they ended."""
    lines = report.read_text("utf8").splitlines() if report.exists() else []
    return [Result(**json.loads(line)) for line in lines]


def grade(
    section: Section,
    files: dict[str, Path],
    *,
    seed: int = 0,
    seconds: int | float | None = None,
) -> Grade:
    """Run the tests of `section` with `files` in the place of the modules that are their keys.

    Args:
        section: what is graded.
        files: of the reader, by the module that each stands for.
        seed: moves the seeds that tests set, see `dsnotes.practice.seeds`; 0 leaves them.
        seconds: of the clock, for all tests together; None for SECONDS_IN_ALL.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        report = Path(folder, "report.jsonl")
        arguments, environment = prepare(section, files, report, seed=seed)
        command = [sys.executable, "-m", "pytest", *arguments]
        status, noise = bounded.run(
            command, Path(folder), environment, SECONDS_IN_ALL if seconds is None else seconds
        )
        if status is None:
            return Grade(read(report), False, "", late=True)
        ended = status in (0, 1) and report.with_suffix(".ended").exists()
        return Grade(read(report), ended, noise)
