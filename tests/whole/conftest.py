"""A small corpus in a file, so that a run of size `tiny` takes seconds, and such a run."""

from pathlib import Path

import pytest

from dsnotes.data.poems import VERSE_FORMS, verses
from dsnotes.whole.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty poems of each form."""
    path = tmp_path_factory.mktemp("corpus") / "verses.txt"
    rows = [
        f"{v.rhyme} {''.join(v.lines)} {v.title}".rstrip()
        for form in VERSE_FORMS
        for held_out, count in ((False, 50), (True, 10))
        for v in [v for v in verses(held_out=held_out) if v.form == form][:count]
    ]
    path.write_text("\n".join(rows) + "\n", "utf8")
    return path


def arguments(out: Path, corpus: Path, *more: str) -> list[str]:
    given = ["--size", "tiny", "--seed", "1", "--out", str(out), "--corpus", str(corpus)]
    return [*given, "--threads", "1", *more]


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The folder of a run that is done; nobody may write there."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert main(arguments(out, corpus)) == 0
    return out
