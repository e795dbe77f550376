"""Blanks and bugs of every section follow the code: blank fails, planted fails, as it is passes."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsnotes.practice import grade as grading
from dsnotes.practice import report
from dsnotes.practice.grade import Grade, Result, grade, prepare, read
from dsnotes.practice.mechanisms import (
    SECTIONS,
    blanked,
    load,
    planted,
    source,
    still_blank,
    traps,
)

ROOT = Path(__file__).parents[2]
BUGS = [(name, i) for name in SECTIONS for i in range(1, len(load(name).bugs) + 1)]
Runs = dict[str, list[Result]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """One test for each section with blanks and for each bug, and one that does not end."""
    folder = tmp_path_factory.mktemp("runs")
    jobs = []

    def add(name: str, section: str, texts: dict[str, str], only: str, seconds: int = 60) -> None:
        files = {}
        for module, text in texts.items():
            files[module] = folder / f"{name}_{module.rpartition('.')[2]}.py"
            files[module].write_text(text, "utf8")
        out = folder / f"{name}.jsonl"
        arguments, environment = prepare(load(section), files, out, only=only)
        run = json.loads(environment["DSNOTES_PRACTICE"]) | {"seconds": seconds}
        environment |= {"DSNOTES_PRACTICE": json.dumps(run)}
        jobs.append({"name": name, "arguments": arguments, "environment": environment})

    for name in SECTIONS:
        section = load(name)
        blank = {module: blanked(module, section.blanks) for module in section.modules}
        add(name, name, blank, section.bugs[-1].caught_by)
        for i, bug in enumerate(section.bugs, start=1):
            add(f"{name}-{i}", name, {bug.module: planted(bug)}, bug.caught_by)
    endless = source("dsnotes.rl.reward").replace("    rewards = []\n", "    while True: pass\n")
    add("endless", "reward", {"dsnotes.rl.reward": endless}, "test_language", seconds=1)
    (folder / "jobs.json").write_text(json.dumps(jobs), "utf8")
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("forks.py")), str(folder / "jobs.json")],
        cwd=folder, env=os.environ | jobs[0]["environment"], capture_output=True, check=True,
        timeout=600,
    )  # fmt: skip
    return {job["name"]: read(folder / f"{job['name']}.jsonl") for job in jobs}


@pytest.mark.parametrize("name", SECTIONS)
def test_blanks_are_named_and_fail(name: str, runs: Runs) -> None:
    section = load(name)
    left = [f for module in section.modules for f in still_blank(blanked(module, section.blanks))]
    assert sorted(left) == sorted(blank.function for blank in section.blanks)
    failed = [test for test in runs[name] if test.outcome == "failed"]
    assert failed
    assert any(test.blank for test in failed)


@pytest.mark.parametrize("name", SECTIONS)
def test_all_but_the_bodies_is_as_it_was(name: str) -> None:
    section = load(name)

    def outline(text: str, functions: list[str]) -> list[str]:
        """All statements in the order of the file, without those inside the functions."""
        found: list[str] = []

        def walk(node: ast.AST, path: str) -> None:
            for child in ast.iter_child_nodes(node):
                inside = f"{path}.{getattr(child, 'name', '')}".strip(".")
                if isinstance(child, ast.FunctionDef | ast.ClassDef):
                    found.append(f"{inside} {ast.get_docstring(child)}")
                    if isinstance(child, ast.FunctionDef):
                        found.append(ast.dump(child.args))
                    if inside not in functions:
                        walk(child, inside)
                elif isinstance(child, ast.stmt):
                    found.append(ast.dump(child))

        walk(ast.parse(text), "")
        return found

    for module in section.modules:
        inside = [blank.function for blank in section.blanks if blank.module == module]
        text = blanked(module, section.blanks)
        assert text != source(module)
        assert outline(text, inside) == outline(source(module), inside)


@pytest.mark.parametrize(("name", "i"), BUGS)
def test_a_bug_is_planted_once_and_caught(name: str, i: int, runs: Runs) -> None:
    """The unchanged file passes all these tests: see the wheel in `tests/test_package.py`."""
    bug = load(name).bugs[i - 1]
    assert planted(bug).count(bug.new) == 1
    assert bug.old not in planted(bug)
    assert [test.name for test in runs[f"{name}-{i}"] if test.outcome == "failed"]
    titles, _ = traps(load(name))
    assert bug.trap == 0 or bug.trap in titles


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_has_two_bugs_and_most_are_common_mistakes(name: str) -> None:
    bugs = load(name).bugs
    assert len(bugs) >= 2
    assert any(bug.trap for bug in bugs)


@pytest.mark.parametrize("name", SECTIONS)
def test_what_is_left_out_exists(name: str) -> None:
    section = load(name)
    text = "\n".join((ROOT / "tests" / path).read_text("utf8") for path in section.tests)
    wanted = {*section.leave_out, *(test.partition("[")[0] for test in section.traps)}
    assert [test for test in wanted if f"def {test}(" not in text] == []


def test_a_loop_without_end_is_named_with_its_line(runs: Runs) -> None:
    (endless,) = runs["endless"]
    text = source("dsnotes.rl.reward").splitlines()
    assert (endless.kind, endless.outcome) == ("TimeoutError", "failed")
    assert text[endless.line - 1] == "    rewards = []"
    said = report.of_bug("", "", Grade([endless], True, ""), hint=True, command="")
    assert f"停在 endless_reward.py 第 {endless.line} 行" in said


def test_a_loop_while_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reward.py"
    path.write_text("while True: pass\n", "utf8")
    monkeypatch.setattr(grading, "SECONDS_IN_ALL", 4)
    done = grade(load("reward"), {"dsnotes.rl.reward": path})
    assert (done.ended, done.tests) == (False, [])
    assert "还没有读完你的文件" in report.of_section(load("reward"), done)


def test_a_file_that_ends_the_run_in_peace_is_not_right(tmp_path: Path) -> None:
    text = source("dsnotes.rl.reward").replace("    rewards = []\n", "    import os; os._exit(0)\n")
    path = tmp_path / "reward.py"
    path.write_text(text, "utf8")
    done = grade(load("reward"), {"dsnotes.rl.reward": path})
    assert done.passed  # some tests ran before
    assert not done.right
    assert "测试没有运行完" in report.of_section(load("reward"), done)


def test_a_run_that_dies_is_not_called_a_loop() -> None:
    died = Grade([Result("t.py::test_a", "passed")], False, "Fatal Python error: Aborted")
    said = report.of_section(load("reward"), died)
    assert "测试没有运行完：\nFatal Python error: Aborted" in said
    assert "循环" not in said


def test_options_of_pytest_in_the_environment_change_nothing(tmp_path: Path) -> None:
    _, environment = prepare(load("reward"), {}, tmp_path / "report")
    assert environment["PYTEST_ADDOPTS"] == ""


def test_a_commented_raise_is_no_blank() -> None:
    assert still_blank('    raise NotImplementedError("f：还没有写")\n') == ["f"]
    assert still_blank('    # raise NotImplementedError("f：还没有写")\n') == []


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (
            Result("test_moe.py::test_trap_3_group_scored_by_sum_of_two_best", "failed",
                 "AssertionError", "assert [[0, 1]] == [[3, 4]]"),
            "你踩了常见错误 3：节点取最大值或平均值",
        ),
        (
            Result("test_moe.py::test_routing", "failed", "ValueError", "bad\nx", "moe.py", 12),
            "第一个没有通过的测试：test_routing（ValueError，在 moe.py 第 12 行）\n  bad\n  x",
        ),
    ],
)  # fmt: skip
def test_what_a_failure_is_told_as(test: Result, said: str) -> None:
    passed = Result("test_moe.py::test_other", "passed")
    text = report.of_section(load("moe"), Grade([passed, test], True, ""))
    assert said in text
    assert "测试：2 个里通过 1 个" in text


def test_a_failure_of_a_common_mistake_that_is_an_error_says_nothing_of_it() -> None:
    crash = Result("t.py::test_trap_5_router_gets_a_gradient", "failed", "RuntimeError", "shape")
    assert "常见错误" not in report.of_section(load("moe"), Grade([crash], True, ""))


def test_what_a_file_lacks_is_quoted_alone() -> None:
    noise = "ImportError while importing\nHint: valid names\nE   ImportError: cannot import 'f'"
    test = Result("tests/rl/test_reward.py", "failed", "CollectError", noise)
    said = report.of_section(load("reward"), Grade([test], False, ""))
    assert said.endswith("（CollectError）\n  ImportError: cannot import 'f'")
