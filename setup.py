"""What pyproject.toml cannot say: a wheel carries the data of the book, see src/dsnotes/data."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithData(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "dsnotes", "data", "book")
            shutil.copytree("book/data", target, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithData})
