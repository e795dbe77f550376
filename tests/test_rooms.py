"""Arrows between the rooms of `dsnotes` point one way, and some never exist."""

import ast
import re
from pathlib import Path

import pytest

SRC = Path(__file__).parents[1] / "src"
MODULES = sorted((SRC / "dsnotes").rglob("*.py"))
# a room leans on those further to the right, on itself, and on what serves all
FLOORS = [
    {"practice", "whole"},
    {"after"},
    {"figures", "weights", "rl"},
    {"training"},
    {"model"},
    {"config"},
]
SERVES_ALL = {"checks", "data"}
NEVER = {  # who: what it knows nothing of
    "model/{rope,cache,mlp,mla,moe,balance}": "model.deepseek",  # a part, of the whole
    "rl/{objective,grpo,ppo}": "model",  # a loss, of networks
    "rl/{answers,arithmetic,reward}": "model",  # a rule, of networks
    "training/fp8/*": "model",
    "training/dualpipe/*": "model",  # a pipeline runs any stages
}


def dotted(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of ours that one imports, wherever in the file, without the leading `dsnotes`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("dsnotes.") for name in names if name.startswith("dsnotes.")}


def room(module: str) -> str:
    name = module.removeprefix("dsnotes.").split(".")[0]
    return "config" if name == "config_file" else name  # one room of two files


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_a_module_leans_on_its_own_room_and_those_below(path: Path) -> None:
    here = room(dotted(path))
    if here == "dsnotes":
        assert imports(path) == set()
        return
    for there in {room(module) for module in imports(path)} - {here} - SERVES_ALL:
        assert here not in SERVES_ALL, f"{path} serves all rooms, and leans on {there}"
        assert floor(there) > floor(here), f"{path} leans on {there}, which stands above it"


@pytest.mark.parametrize(("who", "what"), NEVER.items())
def test_what_never_knows_of_what(who: str, what: str) -> None:
    folder, _, names = who.rpartition("/")
    names = names.strip("{}").split(",")
    paths = [p for name in names for p in (SRC / "dsnotes" / folder).glob(f"{name}.py")]
    assert len(paths) >= len(names)
    for path in paths:
        assert not [m for m in imports(path) if f"{m}.".startswith(f"{what}.")], path


def test_tests_begin_with_the_name_of_their_module() -> None:
    for path in Path(__file__).parent.rglob("test_*.py"):
        named = re.match(r'"""([a-z0-9_]+): ', path.read_text("utf8"))
        assert named is None or f"test_{named[1]}" == path.stem, path
