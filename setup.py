"""What pyproject.toml cannot say: a wheel carries the book's data and tests to practise, and the
addresses of the project are those of the environment (`website/extensions/dsbook/repo.py`).
"""

import importlib.util
import json
import os
import re
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


def addresses() -> dict[str, str]:
    """The links that an index of packages shows; none without an address."""
    book, repository = (os.environ.get(n, "").rstrip("/") for n in ("BOOK_URL", "BOOK_REPO_URL"))
    branch = os.environ.get("BOOK_REPO_BRANCH") or "main"
    found = {"Documentation": book} if book else {}
    if repository:
        found |= {
            "Source": repository,
            "Issues": f"{repository}/issues",
            "Changelog": f"{repository}/blob/{branch}/CHANGELOG.md",
        }
    return found


def readme(text: str, changelog: str = "") -> str:
    """README.md as it stands beside no other file: links within the repository, whose pictures an
    index cannot show, lead to it where its address is known and are plain text where it is not.
    """
    files = changelog.removesuffix("CHANGELOG.md")
    text = re.sub(r"^!\[[^\]]*\]\((?!https?:)[^)]*\)\n\n?", "", text, flags=re.M)
    return re.sub(
        r"\[([^\]]*)\]\((?!https?:|#)([^)]+)\)", rf"[\1]({files}\2)" if files else r"\1", text
    )


links = addresses()
setup(
    cmdclass={"build_py": BuildWithData},
    long_description=readme((ROOT / "README.md").read_text("utf8"), links.get("Changelog", "")),
    long_description_content_type="text/markdown",
    project_urls=links,
)
