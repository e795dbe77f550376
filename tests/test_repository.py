"""The repository as its contributor meets it: checks of a forge, hooks, what guides name."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
PINS = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text("utf8"), re.M))
TARGETS = set(re.findall(r'"([\w-]+)": \w+,', (ROOT / "make.py").read_text("utf8")))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
GITLAB = ROOT / ".gitlab-ci.yml"
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]


def settings(path: Path) -> dict:
    return yaml.safe_load(path.read_text("utf8"))


def jobs() -> dict[str, dict]:
    return {
        f"{path.stem}/{name}": job
        for path in WORKFLOWS
        for name, job in settings(path)["jobs"].items()
    }


# --- a forge checks what .ci/run checks, on every Python that is promised ---


def promised() -> list[str]:
    prefix = "Programming Language :: Python :: 3."
    return ["3." + c.removeprefix(prefix) for c in PROJECT["classifiers"] if c.startswith(prefix)]


def test_the_pythons_promised_are_those_that_may_install_it() -> None:
    assert promised()
    may = SpecifierSet(PROJECT["requires-python"])
    least = int(promised()[0].removeprefix("3."))
    assert promised() == [f"3.{least + i}" for i in range(len(promised()))]
    assert may.contains(f"3.{least}.0")
    assert not may.contains(f"3.{least - 1}.99")


def test_every_promised_python_is_checked() -> None:
    check = jobs()["ci/check"]
    assert check["strategy"]["matrix"]["python"] == promised()
    assert "${{ matrix.python }}" in check["container"]["image"]
    assert ".ci/run" in [step.get("run") for step in check["steps"]]
    twin = settings(GITLAB)["check"]
    assert twin["parallel"]["matrix"] == [{"VERSION": promised()}]
    assert "${VERSION}" in twin["image"]
    assert twin["script"] == ".ci/run"


def test_the_book_is_put_out_with_its_address_after_the_checks_of_a_tag() -> None:
    pages = settings(ROOT / ".github/workflows/pages.yml")
    assert pages[True] == {"push": {"tags": ["v*"]}}  # "on" is a truth value of YAML 1.1
    assert pages["jobs"]["check"]["uses"] == "./.github/workflows/ci.yml"
    needs = {name: job.get("needs") for name, job in pages["jobs"].items()}
    assert needs == {"version": None, "check": "version", "build": "check", "deploy": "build",
                     "release": "build"}  # fmt: skip
    twin = settings(GITLAB)["pages"]
    for env in (pages["jobs"]["build"]["env"], twin["variables"]):
        assert {"BOOK_URL", "BOOK_REPO_URL", "BOOK_REPO_BRANCH"} <= set(env)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_may_only_read_but_for_the_jobs_that_put_out(path: Path) -> None:
    workflow = settings(path)
    assert workflow["permissions"] == {"contents": "read"}
    asking = {name for name, job in workflow["jobs"].items() if "permissions" in job}
    assert asking <= {"deploy", "release"}


def test_actions_are_pinned() -> None:
    used = [step["uses"] for job in jobs().values() for step in job.get("steps", [])
            if "uses" in step]  # fmt: skip
    assert used
    assert [u for u in used if not re.fullmatch(r"actions/[\w-]+@(v\d+|[0-9a-f]{40})", u)] == []


def run_ci(folder: Path, python: str) -> subprocess.CompletedProcess:
    """`.ci/run` up to its first call of make, on a machine that has all it needs."""
    for name, line in {"make": 'echo "make $* with $PYTHON"; exit 7', "apt-get": "exit 8"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n", "utf8")
        (folder / name).chmod(0o755)
    for name in ("git", "chromium"):
        (folder / name).symlink_to("/bin/true")
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        [str(ROOT / ".ci" / "run")], env=os.environ | {"PATH": path, "PYTHON": python},
        capture_output=True, text=True,
    )  # fmt: skip


def test_ci_runs_on_the_python_it_is_given(tmp_path: Path) -> None:
    done = run_ci(tmp_path, sys.executable)
    assert done.returncode == 7
    assert done.stdout.splitlines()[-1] == f"make test with {sys.executable}"


def test_ci_refuses_a_python_that_will_not_do(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text("#!/bin/sh\nexit 1\n", "utf8")
    old.chmod(0o755)
    done = run_ci(tmp_path, str(old))
    assert done.returncode == 1
    assert done.stderr == f"PYTHON={old} is not a Python from 3.11 with venv\n"
    assert done.stdout == ""


# --- hooks, editors, templates ---


def test_hooks_have_the_pinned_versions() -> None:
    given = [
        pin
        for repo in settings(ROOT / ".pre-commit-config.yaml")["repos"]
        for hook in repo["hooks"]
        for pin in hook.get("additional_dependencies", [])
    ]
    assert {pin.split("==")[0] for pin in given} >= {"ruff", "nbstripout", "autocorrect-py"}
    assert [pin for pin in given if PINS.get(pin.split("==")[0]) != pin.split("==")[-1]] == []


def test_hooks_call_files_that_exist() -> None:
    (repo,) = settings(ROOT / ".pre-commit-config.yaml")["repos"]
    for hook in repo["hooks"]:
        for word in hook["entry"].split():
            if word.endswith(".py"):
                assert (ROOT / word).is_file(), word


@pytest.mark.parametrize("room", ["src", "tests", "website", "benchmarks", "experiments"])
def test_parts_of_a_file_are_headed_in_one_style(room: str) -> None:
    """`# --- the part ---`; a comment that stands alone between empty lines is such a head."""
    alone = re.compile(r"(?<=\n\n)# .*(?=\n\n)|^ *# ?[-=*~]{2,}.*", re.M)
    heads = [
        (path.relative_to(ROOT).as_posix(), head)
        for path in (ROOT / room).rglob("*.py")
        for head in alone.findall(path.read_text("utf8"))
    ]
    assert [(path, h) for path, h in heads if not re.fullmatch(r"# --- \S.* ---", h)] == []


def test_forms_ask_for_something_and_their_questions_have_names() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[0-9]*.yml"))
    assert len(forms) == 3
    for path in forms:
        questions = [q for q in settings(path)["body"] if q["type"] != "markdown"]
        ids = [q["id"] for q in questions]
        assert len(ids) == len(set(ids)) > 1
        assert any(q.get("validations", {}).get("required") for q in questions), path.name


def test_container_for_development_makes_the_environment() -> None:
    given = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text("utf8"))
    assert given["image"].split(":")[1].split("-")[0] in promised()
    assert "chromium" in given["onCreateCommand"]
    assert "fonts-noto-cjk" in given["onCreateCommand"]
    assert given["postCreateCommand"] == "make install"


def test_the_binder_button_finds_an_environment() -> None:
    folder = ROOT / "binder"
    assert (folder / "runtime.txt").read_text("utf8").strip().removeprefix("python-") in promised()
    asked = (folder / "requirements.txt").read_text("utf8").splitlines()
    assert "--editable ." in asked
    assert "--constraint ../constraints.txt" in asked
    peers = {canonicalize_name(line) for line in asked if not line.startswith(("#", "-"))}
    assert peers <= {canonicalize_name(name) for name in PINS}


# --- what the guides name exists ---

MADE = ("_build/", ".venv/", "dist/")
SUFFIXES = (".cfg", ".cff", ".csv", ".ipynb", ".json", ".md", ".py", ".toml", ".txt", ".yml")


def code_in(path: Path) -> list[str]:
    """What a text marks as code; of a file that is no text, all of it."""
    text = path.read_text("utf8")
    if path.suffix != ".md":
        return [text]
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return fenced + re.findall(r"`([^`\n]+)`", rest)


@pytest.mark.parametrize(
    "path",
    [
        *GUIDES,
        *WORKFLOWS,
        GITLAB,
        ROOT / ".ci" / "run",
        ROOT / ".devcontainer" / "devcontainer.json",
        ROOT / ".github" / "pull_request_template.md",
    ],
    ids=lambda p: p.name,
)
def test_every_command_of_make_that_is_named_exists(path: Path) -> None:
    named = {
        target
        for code in code_in(path)
        for target in re.findall(r"(?:^|[:\s\"-])make ([a-z.][\w./-]*)", code, re.M)
    }
    assert named - TARGETS - {"make"} == set()  # `need make make` of .ci/run
    if path in GUIDES:
        assert {"book", "test"} <= named


def tree_in(text: str) -> list[str]:
    """The paths of a drawn tree: a folder at the margin, what lies in it behind a branch."""
    paths, folder = [], ""
    for block in re.findall(r"^```text\n(.*?)^```", text, re.M | re.S):
        for branch, name in re.findall(r"^([├└]── )?([\w./]+) ", block, re.M):
            folder = folder if branch else name
            paths.append(folder + name if branch else name)
    return paths


@pytest.mark.parametrize("room", ["", "book/", "src/dsnotes/"])
def test_every_folder_has_its_line_in_the_tree(room: str) -> None:
    made = re.compile(r"[._].*|build|dist|.*\.egg-info")
    stays = (".pyc", ".mo")  # what was made may stay behind where a folder was
    found = {f"{room}{p.name}/" for p in (ROOT / room).iterdir()
             if not made.fullmatch(p.name)
             and any(f.is_file() and f.suffix not in stays for f in p.rglob("*"))}  # fmt: skip
    assert found - {"src/"} <= set(tree_in(GUIDES[0].read_text("utf8")))


@pytest.mark.parametrize("path", GUIDES, ids=lambda p: p.name)
def test_every_path_that_is_named_exists(path: Path) -> None:
    """`<name>` stands for any name; what is made by a command need not be there."""
    text = path.read_text("utf8")
    named = {span for span in code_in(path) if re.fullmatch(r"[\w.<>/-]+", span)}
    named = {span for span in named if "/" in span or span.endswith(SUFFIXES)}
    named |= set(re.findall(r"\]\((?!https?:)([^)#]+)", text))
    named |= set(tree_in(text))
    assert len(named) > 10
    patterns = {span: re.sub(r"<[^>]+>", "*", span) for span in named if not span.startswith(MADE)}
    assert [span for span, glob in patterns.items() if not any(ROOT.glob(glob))] == []


def test_what_the_readme_runs_prints_what_it_says() -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", GUIDES[0].read_text("utf8"), re.M | re.S)
    said = re.findall(r"^print\(.*\)  # (.*)$", code, re.M)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == said != [], done.stderr
