"""What the project promises its users: a citation file, versions that run, commands."""

import datetime
import importlib.metadata
import json
import os
import re
import subprocess
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


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_make_runs_where_the_locale_knows_no_chinese(tmp_path: Path, locale: str) -> None:
    """Python 3.11 reads the path of the installed project in the encoding of the locale."""
    more = tmp_path / "more.mk"
    more.write_text("show:\n\t@echo $$LC_ALL\n", "utf8")
    done = subprocess.run(
        ["make", "-s", "-f", "Makefile", "-f", str(more), "show"],
        env=os.environ | {"LC_ALL": locale}, capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.strip() == "C.UTF-8"


def test_without_a_gpu_make_gpu_says_so_and_fails() -> None:
    done = subprocess.run(
        ["make", "-s", "-o", ".venv/.installed", "gpu"],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stdout == ""
    said = "make gpu: PyTorch finds no CUDA GPU on this machine, nothing ran"
    assert done.stderr.splitlines()[0] == said
    assert "pytest" not in done.stderr


def test_lab_starts_for_root_too() -> None:
    done = subprocess.run(
        ["make", "-n", "lab"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "--allow-root" in done.stdout
    assert "--ip=127.0.0.1" in done.stdout
