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
        (["nothing"], 2, "没有“nothing”。\n可以写的机制"),
        (["moe-1"], 2, "没有“moe-1”"),
        (["moe", "--bug", "moe-1"], 2, "不能都写"),
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


def test_a_folder_that_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path("practice").touch()
    assert main(["reward"]) == 2
    assert "写不了 practice（" in capsys.readouterr().out


@pytest.mark.parametrize("codec", ["gbk", "utf-16"])
def test_a_file_of_another_codec_is_named(codec: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["reward"])
    Path("practice/reward.py").write_text("# 注释\n", codec)
    assert main(["reward"]) == 1
    assert "practice/reward.py 不是 UTF-8 编码的" in capsys.readouterr().out


def test_a_folder_in_the_place_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    Path("practice/reward.py").mkdir(parents=True)
    assert main(["reward"]) == 1
    assert "打不开 practice/reward.py" in capsys.readouterr().out


def test_a_file_as_editors_of_windows_save_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a mark in front, and other ends of lines: it is as it was written, so not graded."""
    main(["reward"])
    path = Path("practice/reward.py")
    path.write_text(path.read_text("utf8"), "utf-8-sig", newline="\r\n")
    monkeypatch.setattr("dsnotes.practice.__main__.grade", None)
    assert main(["reward"]) == 1
    assert "5 处空白，写了 0 处" in capsys.readouterr().out


def test_a_run_that_is_interrupted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    main(["--bug", "reward-1"])
    monkeypatch.setattr("dsnotes.practice.__main__.grade", interrupted)
    assert main(["--bug", "reward-1"]) == 130
    assert capsys.readouterr().out.endswith("停下了，没有评完。\n")


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
    assert "还没有写（写好就删去 raise 那一行）：accuracy_reward、" in said
    Path("practice/reward.py").write_text(source("dsnotes.rl.reward"), "utf8")
    assert main(["reward"]) == 0
    assert capsys.readouterr().out.endswith("全对。\n")
