"""A small corpus in a file, so that a run of size `tiny` takes seconds."""

from pathlib import Path

import pytest

from dsnotes.data.poems import VERSE_FORMS, verses


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
