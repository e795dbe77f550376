"""What a reader is told about files that were graded, in Chinese."""

import textwrap
from pathlib import Path

from dsnotes.practice.grade import SECONDS_A_TEST, SECONDS_IN_ALL, Grade, Result
from dsnotes.practice.mechanisms import Section, still_blank, traps

WIDTH = 96  # of a quoted message


def unreadable(path: Path) -> str:
    """Why a file is no Python, with its line; empty when it is."""
    try:
        text = path.read_text("utf-8-sig")
        if "\0" in text:  # UTF-16
            raise ValueError
        compile(text, str(path), "exec")
    except OSError as error:
        return f"打不开 {path}（{error.strerror}）。"
    except ValueError:
        return f"{path} 不是 UTF-8 编码的。在编辑器里另存为 UTF-8，再运行。"
    except SyntaxError as error:
        line = (error.text or "").strip()
        return f"{path} 第 {error.lineno} 行写错了，Python 读不懂：{line}\n  （{error.msg}）"
    return ""


def of_blanks(section: Section, files: dict[str, Path]) -> str:
    """What is written in each file and what is not."""
    said = []
    for module, path in files.items():
        left = still_blank(path.read_text("utf-8-sig"))
        total = sum(blank.module == module for blank in section.blanks)
        said.append(f"{path}：{total} 处空白，写了 {total - len(left)} 处")
        if left:
            said.append(f"  还没有写（写好就删去 raise 那一行）：{'、'.join(left)}")
    return "\n".join(said)


def of_section(section: Section, grade: Grade) -> str:
    """Tests that pass, common mistakes, and the first failure."""
    said = _progress(grade)
    if grade.right:
        return "\n".join([*said, "全对。"])
    titles, numbers = traps(section)
    fallen = sorted({n for t in grade.failed if (n := _trap(t, numbers))})
    if len(fallen) == 1:
        said.append(f"你踩了常见错误 {fallen[0]}：{titles[fallen[0]]}")
    elif fallen:
        said.append("没有通过的测试里有这些常见错误的，一个错可能牵连几个：")
        said += [f"  常见错误 {n}：{titles[n]}" for n in fallen]
    return "\n".join(said + _first_failure(grade))


def of_bug(answer: str, title: str, grade: Grade, *, hint: bool, command: str) -> str:
    """Whether a bug is mended; then what it was. Its common mistake would tell before."""
    said = _progress(grade)
    if grade.right:
        said += ["找对了，也改对了。", answer]
        return "\n".join([*said, *([f"这是{title}"] if title else [])])
    said.append("错误还在。")
    if hint:
        return "\n".join(said + _first_failure(grade))
    return "\n".join([*said, f"想看没有通过的测试：{command} --hint"])


def _progress(grade: Grade) -> list[str]:
    ran = len(grade.passed) + len(grade.failed)
    return [f"测试：{ran} 个里通过 {len(grade.passed)} 个"] if ran else []


def _trap(test: Result, numbers: dict[str, int]) -> int:
    """The common mistake a failure means; one that met an error or a blank means none."""
    if test.kind not in ("AssertionError", "Failed"):
        return 0
    return numbers.get(test.name) or numbers.get(test.name.partition("[")[0], 0)


def _first_failure(grade: Grade) -> list[str]:
    endless = [t for t in grade.failed if t.kind == "TimeoutError"]
    if endless:
        where = f"，停在 {endless[0].file} 第 {endless[0].line} 行" if endless[0].line else ""
        return [
            f"等了 {SECONDS_A_TEST} 秒还没有结束：{endless[0].name}{where}。你写的循环会停下来吗？"
        ]
    if grade.late:
        what = "测试还没有运行完" if grade.tests else "还没有读完你的文件"
        return [f"等了 {SECONDS_IN_ALL} 秒，{what}。你写的循环会停下来吗？"]
    wrong = [t for t in grade.failed if not t.blank]
    if not wrong:
        return [] if grade.failed else ["测试没有运行完：", *grade.noise.splitlines()[-5:]]
    test = wrong[0]
    where = f"，在 {test.file} 第 {test.line} 行" if test.line else ""
    lines = [line for line in test.message.splitlines() if line.strip()]
    if test.kind == "CollectError":  # the tests could not import what they need of the file
        lines = [line[1:].strip() for line in lines if line.startswith("E ")] or lines
    lines = [line for line in lines[:6] if "Use -v" not in line]
    quoted = [textwrap.shorten(line, WIDTH, placeholder="……") for line in lines]
    said = f"第一个没有通过的测试：{test.name}（{test.kind}{where}）"
    return [said, *textwrap.indent("\n".join(quoted), "  ").splitlines()]
