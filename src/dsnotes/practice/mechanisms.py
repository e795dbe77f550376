"""The mechanisms a reader can write or mend: what is blank, what is planted, what grades it.

Each is a file `mechanisms/<section>.toml`; blanks and bugs are places in the source of the module,
found by its text, so that they follow the code.
"""

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import dsnotes

HERE = Path(__file__).parent
PACKAGE = Path(dsnotes.__file__).parent
# what a wheel carries of the repository; in a checkout, the repository
CARRIED = HERE / "material"
REPOSITORY = PACKAGE.parents[1]
SECTIONS = tuple(sorted(path.stem for path in (HERE / "mechanisms").glob("*.toml")))
_BLANK = re.compile(r'^\s*raise NotImplementedError\("(.+)：还没有写"\)', re.MULTILINE)


class Blank(NamedTuple):
    """The body of a function, from the line that contains `start` on, or whole."""

    module: str
    function: str  # with its class, or with the function that it is defined in
    say: str  # equations, and what to return
    start: str = ""


class Bug(NamedTuple):
    """A line or several of a module, and what stands there instead."""

    module: str
    old: str
    new: str
    answer: str  # what was wrong
    caught_by: str  # one of the tests that fail
    trap: int = 0  # the number of the common mistake, if it is one


class Section(NamedTuple):
    """What a section asks for, and the tests that grade it."""

    name: str
    title: str
    pages: list[str]  # of the book, with its common mistakes
    tests: list[str]
    leave_out: list[str]  # tests that start processes, read the repository or take long
    traps: dict[str, int]  # tests of a common mistake that the page does not name alone
    blanks: list[Blank]
    bugs: list[Bug]

    @property
    def modules(self) -> list[str]:
        """Modules with blanks, in the order of the blanks."""
        return list(dict.fromkeys(blank.module for blank in self.blanks))


def load(name: str) -> Section:
    """The section of that name; one of `SECTIONS`.

    >>> load("moe").modules
    ['dsnotes.model.moe']
    """
    table = tomllib.loads((HERE / "mechanisms" / f"{name}.toml").read_text("utf8"))
    blanks = [Blank(**blank) for blank in table.pop("blanks")]
    bugs = [Bug(**bug) for bug in table.pop("bugs")]
    table = {"leave_out": [], "traps": {}} | table
    return Section(name, **table, blanks=blanks, bugs=bugs)


def source(module: str) -> str:
    """The text of a module of ours, without running it."""
    parts = module.removeprefix("dsnotes.").split(".")
    return PACKAGE.joinpath(*parts).with_suffix(".py").read_text("utf8")


def blanked(module: str, blanks: list[Blank]) -> str:
    """The text of a module with the given bodies blank; the rest is as it was."""
    text = source(module)
    lines = text.splitlines()
    places = [(*_body(text, blank), blank) for blank in blanks if blank.module == module]
    for first, last, blank in sorted(places, reverse=True):
        indent = re.match(" *", lines[first])[0]  # type: ignore[index]
        note = [f"# {line}" for line in blank.say.strip().splitlines()]
        note.append(f'raise NotImplementedError("{blank.function}：还没有写")')
        lines[first : last + 1] = [indent + line for line in note]
    return "\n".join(lines) + "\n"


def still_blank(text: str) -> list[str]:
    """The functions of a reader's file that are not written yet."""
    return _BLANK.findall(text)


def planted(bug: Bug) -> str:
    """The text of a module with the bug in it; ValueError unless its place is found once."""
    text = source(bug.module)
    if text.count(bug.old) != 1:
        raise ValueError(f"old must stand once in {bug.module}, got {text.count(bug.old)} times")
    return text.replace(bug.old, bug.new)


def traps(section: Section) -> tuple[dict[int, str], dict[str, int]]:
    """Titles of the common mistakes of a section, and the number that belongs to a test."""
    carried = CARRIED / "traps.json"
    pages = json.loads(carried.read_text("utf8")) if carried.is_file() else all_traps(REPOSITORY)
    titles: dict[int, str] = {}
    numbers: dict[str, set[int]] = {}
    for page in section.pages:
        for number, title, tests in pages.get(page, []):
            titles[number] = title
            for test in tests:
                numbers.setdefault(test, set()).add(number)
    alone = {test: min(found) for test, found in numbers.items() if len(found) == 1}
    return titles, alone | section.traps


def all_traps(repository: Path) -> dict[str, list[tuple[int, str, list[str]]]]:
    """The common mistakes on every page of the book: number, title, tests that are named."""
    found = {}
    for path in sorted((repository / "book").glob("*/*.md")):
        boxes = re.findall(
            r"^(`{3,}|:{3,})\{admonition\} (?:常见错误 )?(\d+)[.：] ?([^\n]*)\n"
            r"((?::[^\n]*\n)*)(.*?)\n\1$",
            path.read_text("utf8"),
            re.DOTALL | re.MULTILINE,
        )
        name = f"{path.parent.name}/{path.stem}"
        found[name] = [
            (int(number), _plain(title), re.findall(r"(?<![/\w])test_\w+(?!\w|\.py)", body))
            for _, number, title, options, body in boxes
            if re.search(r"^:class:.*\btrap\b", options, re.MULTILINE)
        ]
    return {name: boxes for name, boxes in found.items() if boxes}


def _plain(title: str) -> str:
    """A title of a page without the marks that only a page understands."""
    title = re.sub(r" ?\{eq\}`[^`]*` ?", "式", title)
    title = re.sub(r"\\operatorname\{(\w+)\}", r"\1", title)
    return re.sub(r"[$`]|\\vect ", "", title)


def _body(text: str, blank: Blank) -> tuple[int, int]:
    """First and last line of what becomes blank, from 0, with the comments above it."""
    node: ast.AST = ast.parse(text)
    for name in blank.function.split("."):
        node = next(n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == name)
    lines = text.splitlines()
    if blank.start:
        blocks = [n.body for n in ast.walk(node) if isinstance(n, ast.FunctionDef | ast.For)]
        found = [
            b[i:] for b in blocks for i, s in enumerate(b) if blank.start in lines[s.lineno - 1]
        ]
        if len(found) != 1:
            raise ValueError(f"start must stand once in {blank.function}, got {len(found)} lines")
        (block,) = found
    else:
        assert isinstance(node, ast.FunctionDef)
        block = node.body[1 if ast.get_docstring(node) else 0 :]
    first = block[0].lineno - 1
    while lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return first, (block[-1].end_lineno or 0) - 1
