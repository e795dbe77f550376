"""What a tag puts out: the version it names, the files of a release, the card of the package."""

import email
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.metadata import Metadata

ROOT = Path(__file__).parents[1]
RELEASE = ROOT / "website" / "release.py"
COLAB = ROOT / "website" / "colab.py"
REPO = "https://github.com/team/book"


def settings(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text("utf8"))


# --- a tag names the version that the files name ---


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n', "utf8")
    (tmp_path / "CITATION.cff").write_text(
        "cff-version: 1.2.0\nversion: 1.2.3\ndate-released: 2026-12-01\n", "utf8"
    )
    (tmp_path / "CHANGELOG.md").write_text(
        "# 变更\n\n## 未发布\n\n- 丙。\n\n## [1.2.3] - 2026-12-01\n\n### 新增\n\n- 乙。\n\n"
        "## [1.2.2] - 2026-11-01\n\n- 甲。\n",
        "utf8",
    )
    return tmp_path


def notes(folder: Path, tag: str) -> str:
    return runpy.run_path(str(RELEASE))["notes"](folder, tag)


def test_the_notes_of_a_release_are_its_part_of_the_changelog(project: Path) -> None:
    assert notes(project, "v1.2.3") == "### 新增\n\n- 乙。\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (
            "pyproject.toml",
            "1.2.3",
            "1.2.4",
            "pyproject.toml expects 'v1.2.4'",
        ),
        ("CITATION.cff", "version: 1.2.3", "version: 1.2.2", "has version 1.2.2; expected 1.2.3"),
        ("CITATION.cff", "2026-12-01", "2026-12-02", r"lacks the heading .*2026-12-02"),
        ("CHANGELOG.md", "## [1.2.3]", "## [1.2.1]", r"lacks the heading '## \[1.2.3\]"),
    ],
)
def test_a_tag_that_the_files_contradict_is_refused(
    project: Path, file: str, old: str, new: str, said: str
) -> None:
    path = project / file
    path.write_text(path.read_text("utf8").replace(old, new), "utf8")
    with pytest.raises(ValueError, match=said):
        notes(project, "v1.2.3")


def test_a_wrong_tag_ends_the_job_with_a_line(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(RELEASE), "v9.9"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("the tag is 'v9.9'; pyproject.toml expects")
    assert done.stdout == ""


# --- what is attached ---


def test_both_forges_attach_what_the_release_script_makes() -> None:
    script = (ROOT / ".ci" / "release").read_text("utf8")
    for step in ("release.py", "-m build", "twine check --strict", "pdf.py", "zip.py", "slides.py",
                 "colab.py"):  # fmt: skip
        assert step in script, step
    assert os.access(ROOT / ".ci" / "release", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "release")], check=True)
    jobs = settings(".github/workflows/pages.yml")["jobs"]
    runs = [step.get("run", "") for step in jobs["build"]["steps"]]
    assert runs.index("make book") < runs.index('.ci/release "$GITHUB_REF_NAME"')
    (kept,) = [s["with"]["path"] for s in jobs["build"]["steps"] if s.get("with", {}).get("name")]
    assert kept.split() == ["dist/", "_build/colab/", "_build/notes.md"]
    assert any(
        "gh release create" in step.get("run", "") and "dist/*" in step["run"]
        for step in jobs["release"]["steps"]
    )
    twin = settings(".gitlab-ci.yml")
    assert '.ci/release "$CI_COMMIT_TAG"' in twin["pages"]["script"]
    assert {"public", "dist"} <= set(twin["pages"]["artifacts"]["paths"])
    assert len(twin["release"]["release"]["assets"]["links"]) == 3


def test_colab_gets_notebooks_that_install_first(tmp_path: Path) -> None:
    command = [sys.executable, str(COLAB), "--ref", "v1.2.3", "--output", str(tmp_path)]
    environment = os.environ | {"BOOK_REPO_URL": f"{REPO}/"}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    made = sorted((tmp_path / "notebooks").glob("*.ipynb"))
    assert [p.name for p in made] == sorted(p.name for p in (ROOT / "notebooks").glob("*.ipynb"))
    for path in made:
        copy = nbformat.read(path, as_version=4)
        nbformat.validate(copy)
        first, *rest = copy.cells
        install = f'%pip install --quiet "dsnotes @ git+{REPO}@v1.2.3"'
        assert first.source.splitlines()[-1] == install
        assert rest == nbformat.read(ROOT / "notebooks" / path.name, as_version=4).cells


def test_without_a_repository_there_is_nothing_to_install_from(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "BOOK_REPO_URL"}
    command = [sys.executable, str(COLAB), "--output", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "set BOOK_REPO_URL" in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- the card of the package, with an address and without ---


def metadata(folder: Path, **addresses: str) -> email.message.Message:
    """What an index of packages is told, prepared from a copy of what it is made of."""
    (folder / "src" / "dsnotes").mkdir(parents=True)
    for name in ("pyproject.toml", "setup.py", "README.md"):
        shutil.copy(ROOT / name, folder)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    for name in ["src/dsnotes/__init__.py", *project["license-files"]]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "out").mkdir()
    code = "import setuptools.build_meta as b; print(b.prepare_metadata_for_build_wheel('out'))"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BOOK_")}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, env=kept | addresses, check=True,
        capture_output=True,
    )  # fmt: skip
    (path,) = folder.glob("out/*.dist-info/METADATA")
    text = path.read_text("utf8")
    Metadata.from_email(text, validate=True)
    return email.message_from_string(text)


def targets(text: str) -> set[str]:
    return set(re.findall(r"\]\(([^)]+)\)", text))


def test_without_an_address_the_package_names_none(tmp_path: Path) -> None:
    told = metadata(tmp_path)
    assert told.get_all("Project-URL") is None
    assert told["Description-Content-Type"] == "text/markdown"
    text = told.get_payload()
    assert "# dsnotes" in text
    assert "![" not in text
    assert [t for t in targets(text) if not t.startswith(("https://", "#"))] == []


def test_with_an_address_links_lead_to_it(tmp_path: Path) -> None:
    told = metadata(tmp_path, BOOK_URL="https://book.example/", BOOK_REPO_URL=REPO)
    assert told.get_all("Project-URL") == [
        "Documentation, https://book.example",
        f"Source, {REPO}",
        f"Issues, {REPO}/issues",
        f"Changelog, {REPO}/blob/main/CHANGELOG.md",
    ]
    text = told.get_payload()
    assert f"{REPO}/blob/main/CONTRIBUTING.md" in targets(text)
    assert "![" not in text
    files = {t.removeprefix(f"{REPO}/blob/main/") for t in targets(text) if t.startswith(REPO)}
    assert [name for name in files if not (ROOT / name).exists()] == []


# --- a DOI ---


def test_the_record_of_a_doi_says_what_the_citation_says() -> None:
    record = json.loads((ROOT / ".zenodo.json").read_text("utf8"))
    cff = settings("CITATION.cff")
    assert record["title"] == cff["title"]
    assert record["license"] == cff["license"]
    assert record["keywords"] == cff["keywords"]
    assert [c["name"] for c in record["creators"]] == [a["name"] for a in cff["authors"]]
    # the fields and the words that the service knows; the version and the date are those of the tag
    known = {"title", "description", "upload_type", "access_right", "license", "language",
             "creators", "keywords"}  # fmt: skip
    assert set(record) <= known
    assert record["upload_type"] == cff["type"] == "software"
    assert record["access_right"] == "open"
    assert re.fullmatch("[a-z]{3}", record["language"])
    assert all(set(c) <= {"name", "affiliation", "orcid", "gnd"} for c in record["creators"])
