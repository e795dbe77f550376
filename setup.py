"""What pyproject.toml cannot say: a wheel carries the book's data and tests to practise."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithData(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            package = Path(self.build_lib, "dsnotes")
            shutil.copytree(ROOT / "book/data", package / "data/book", dirs_exist_ok=True)
            carry_practice(package / "practice/material")


def carry_practice(target: Path) -> None:
    """The tests that grade, with what they import, and the titles of the common mistakes."""
    sys.path.insert(0, str(ROOT / "src"))
    # by its path: importing the package would need what is not installed while a wheel is built
    path = ROOT / "src/dsnotes/practice/mechanisms.py"
    spec = importlib.util.spec_from_file_location("mechanisms", path)
    mechanisms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mechanisms)
    shutil.rmtree(target, ignore_errors=True)
    for name in mechanisms.SECTIONS:
        for test in mechanisms.load(name).tests:
            test = ROOT / "tests" / test.partition("::")[0]
            helpers = [
                p for p in test.parent.glob("*.py") if not p.name.startswith(("test_", "conf"))
            ]
            for file in (test, *helpers):
                copy = target / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
    titles = json.dumps(mechanisms.all_traps(ROOT), ensure_ascii=False, indent=1)
    (target / "traps.json").write_text(titles, "utf8")


setup(cmdclass={"build_py": BuildWithData})
