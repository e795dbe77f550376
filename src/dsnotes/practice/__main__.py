"""Write a mechanism yourself, or find the bug in one; graded by the tests of its section.

    python -m dsnotes.practice moe            writes practice/moe.py with blanks; again: grades it
    python -m dsnotes.practice --bug moe-1    writes practice/moe_bug_1.py; again: grades it

    python -m dsnotes.practice grade FOLDER --seed N    grades a class, see `classroom`

`--force` writes the file anew, and what was written in it is lost.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

from dsnotes.practice import classroom, mechanisms, report
from dsnotes.practice.grade import grade

FOLDER = Path("practice")
BUG = "# 这里有一处与书上不同，是错的。找到它，改回来，再运行：{command}\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when something was written or all is right, 1 when it is not yet."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["grade"]:
        return classroom.main(arguments[1:])
    parser = argparse.ArgumentParser(
        prog="python -m dsnotes.practice",
        description="自己写一遍一节的机制，或者找出里面的错误；由这一节的测试评分。",
        epilog="第一次运行写出文件，再运行就评分。批改全班：grade --help。",
    )
    parser.add_argument("section", nargs="?", help="、".join(mechanisms.SECTIONS))
    parser.add_argument("--bug", metavar="SECTION-N", help="找错，例如 moe-1")
    parser.add_argument("--hint", action="store_true", help="找错时，显示第一个没有通过的测试")
    parser.add_argument("--force", action="store_true", help="重新写出文件，原来写的就没有了")
    asked = parser.parse_args(arguments)
    name, _, number = (asked.bug or f"{asked.section}-").rpartition("-")
    if name not in mechanisms.SECTIONS or bool(asked.bug) == bool(asked.section):
        if asked.bug and asked.section:
            print("写一节的名字，或者写 --bug，不能都写。")
        elif asked.bug or asked.section:
            print(f"没有“{asked.bug or asked.section}”。")
        print(_contents())
        return 2 if asked.bug or asked.section else 0
    section = mechanisms.load(name)
    bugs = {str(i): bug for i, bug in enumerate(section.bugs, start=1)}
    if asked.bug and number not in bugs:
        print(f"{section.title}的错误有 {len(bugs)} 个：{name}-1 到 {name}-{len(bugs)}。")
        return 2
    bug = bugs.get(number)
    command = f"python -m dsnotes.practice {f'--bug {name}-{number}' if bug else name}"
    if bug:
        files = {bug.module: FOLDER / f"{name}_bug_{number}.py"}
        texts = {bug.module: BUG.format(command=command) + mechanisms.planted(bug)}
    else:
        files = {m: FOLDER / f"{m.rpartition('.')[2]}.py" for m in section.modules}
        texts = {m: mechanisms.blanked(m, section.blanks) for m in files}
    missing = [m for m, path in files.items() if asked.force or not path.exists()]
    if missing:
        try:
            FOLDER.mkdir(exist_ok=True)
            for module in missing:
                files[module].write_text(texts[module], "utf8")
                print(f"写好了 {files[module]}")
        except OSError as error:
            print(f"写不了 {error.filename}（{error.strerror}）。换一个文件夹，再运行。")
            return 2
        for blank in [] if bug else section.blanks:
            print(f"  空白：{blank.function}（{files[blank.module]}）")
        print(f"{'找到错误，改好' if bug else '填好空白'}，再运行：{command}")
        return 0
    if importlib.util.find_spec("pytest") is None:
        print("评分要用 pytest：pip install pytest")
        return 2
    broken = "\n".join(filter(None, map(report.unreadable, files.values())))
    if broken:
        print(broken)
        return 1
    if not bug:
        print(report.of_blanks(section, files))
        if all(path.read_text("utf-8-sig") == texts[m] for m, path in files.items()):
            return 1
    print("正在运行这一节的测试……", flush=True)
    try:
        done = grade(section, files)
    except KeyboardInterrupt:
        print("停下了，没有评完。")
        return 130
    if bug:
        titles, _ = mechanisms.traps(section)
        title = f"常见错误 {bug.trap}：{titles[bug.trap]}" if bug.trap else ""
        print(report.of_bug(bug.answer, title, done, hint=asked.hint, command=command))
    else:
        print(report.of_section(section, done))
    return 0 if done.right else 1


def _contents() -> str:
    lines = ["可以写的机制，可以找的错误："]
    for name in mechanisms.SECTIONS:
        section = mechanisms.load(name)
        bugs = f"--bug {name}-1 … {name}-{len(section.bugs)}"
        lines.append(f"  {name:10} {len(section.blanks)} 处空白   {bugs:28} {section.title}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a pipe on Windows
    sys.exit(main())
