"""What the project promises its users: a citation file, versions that run, commands."""

import datetime
import importlib.metadata
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_citation_file_keeps_to_its_format() -> None:
    """Services that read it, and GitHub's "Cite this repository", refuse a file that does not."""
    schema = json.loads((ROOT / "tests/data/cff-1.2.0.schema.json").read_text("utf8"))
    given = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    assert isinstance(given["date-released"], datetime.date)
    given["date-released"] = given["date-released"].isoformat()
    jsonschema.validate(given, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given | {"type": "book"}, schema)


def test_every_pinned_version_runs_on_every_python_that_is_promised() -> None:
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text("utf8"), re.M)
    installed = {
        canonicalize_name(d.name): d.metadata.get("Requires-Python") or ""
        for d in importlib.metadata.distributions()
    }
    known = [name for name, _ in pins if canonicalize_name(name) in installed]
    assert len(known) > 150
    least = re.search(r'requires-python = ">=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]
    refusing = [
        name
        for name in known
        if not SpecifierSet(installed[canonicalize_name(name)]).contains(f"{least}.0")
    ]
    assert refusing == []
