"""`python -m dsnotes.practice`: what it writes, and what it says before anything is graded."""

from pathlib import Path

import pytest

from dsnotes.practice.__main__ import main
from dsnotes.practice.mechanisms import SECTIONS, load, source


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", SECTIONS)
def test_files_are_written_and_blanks_listed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 0
    said = capsys.readouterr().out
    for blank in load(name).blanks:
        path = Path("practice", blank.module.rpartition(".")[2] + ".py")
        assert f"空白：{blank.function}（{path}）" in said
        assert path.is_file()
    assert f"python -m dsnotes.practice {name}" in said


def test_what_the_reader_wrote_stays_unless_forced(capsys: pytest.CaptureFixture[str]) -> None:
    main(["moe"])
    path = Path("practice/moe.py")
    path.write_text("def half(:\n", "utf8")
    capsys.readouterr()
    assert main(["moe"]) == 1  # graded, not written
    assert "practice/moe.py 第 1 行写错了" in capsys.readouterr().out
    assert path.read_text("utf8") == "def half(:\n"
    assert main(["moe", "--force"]) == 0
    assert "还没有写" in path.read_text("utf8")


def test_a_bug_is_written_as_a_whole_module() -> None:
    assert main(["--bug", "moe-1"]) == 0
    text = Path("practice/moe_bug_1.py").read_text("utf8")
    assert text.startswith("# 这里有一处与书上不同")
    assert len(text.splitlines()) > 200
    assert "the value is s, without the bias" not in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 0, "可以写的机制"),
        (["nothing"], 2, "可以写的机制"),
        (["--bug", "moe-99"], 2, "moe-1 到 moe-4"),
        (["--bug", "moe"], 2, "可以写的机制"),
    ],
)
def test_other_arguments(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert said in capsys.readouterr().out
    assert not Path("practice").exists()


def test_without_pytest_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["reward"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["reward"]) == 2
    assert "pip install pytest" in capsys.readouterr().out


def test_a_solution_is_all_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Through a process of its own, as a reader runs it."""
    main(["reward"])
    assert main(["reward"]) == 1
    said = capsys.readouterr().out
    assert "practice/reward.py：5 处空白，写了 0 处" in said
    assert "还没有写：accuracy_reward、" in said
    Path("practice/reward.py").write_text(source("dsnotes.rl.reward"), "utf8")
    assert main(["reward"]) == 0
    assert capsys.readouterr().out.endswith("全对。\n")
