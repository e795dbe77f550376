"""The package as its user meets it: the cost of an import, the wheel, the look of figures."""

import json
import os
import subprocess
import sys
import tomllib
import warnings
import zipfile
from pathlib import Path

import nbformat
import pytest

import dsnotes
from dsnotes.practice import mechanisms
from dsnotes.practice.grade import read

ROOT = Path(__file__).parent.parent


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return done.stdout.strip()


def test_import_loads_neither_torch_nor_matplotlib() -> None:
    loaded = _run("import sys, dsnotes, dsnotes.config; print('torch' in sys.modules, "
                  "'matplotlib' in sys.modules, 'numpy' in sys.modules)")  # fmt: skip
    assert loaded == "False False False"


def test_version_is_stated_once_and_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    assert project["version"] == dsnotes.__version__


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(folder), str(ROOT)],
        check=True, timeout=300,
    )  # fmt: skip
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_wheel_carries_the_font_and_the_data(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    packaged = {
        p.relative_to(ROOT / "src").as_posix()
        for p in (ROOT / "src" / "dsnotes").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert packaged <= names, f"not in the wheel: {sorted(packaged - names)}"
    data = ROOT / "book" / "data"
    files = {p.relative_to(data).as_posix() for p in data.rglob("*") if p.is_file()}
    assert {f"dsnotes/data/book/{name}" for name in files} <= names


@pytest.mark.parametrize("name", ["v3", "papers"])
def test_a_notebook_runs_from_the_wheel_alone(
    wheel: zipfile.ZipFile, tmp_path: Path, name: str
) -> None:
    """In a folder without the repository, as on a rented machine; those that read no data too."""
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    wheel.extractall(installed)
    elsewhere.mkdir()
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    script = elsewhere / "notebook.py"
    script.write_text("\n".join(c.source for c in cells if c.cell_type == "code"), "utf8")
    where = [sys.executable, "-c", "import dsnotes; print(dsnotes.__file__)"]
    settings = {"cwd": elsewhere, "env": os.environ | {"PYTHONPATH": str(installed)}}
    found = subprocess.check_output(where, text=True, **settings).strip()
    assert Path(found).is_relative_to(installed)
    settings["env"]["MPLBACKEND"] = "agg"
    subprocess.run([sys.executable, str(script)], check=True, timeout=300, **settings)


def test_practice_is_graded_from_the_wheel_alone(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """All tests it carries pass there, and the titles of common mistakes are those of the pages."""
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    wheel.extractall(installed)
    elsewhere.mkdir()
    code = """
import json, sys
from pathlib import Path
from dsnotes.practice.grade import prepare
from dsnotes.practice.mechanisms import CARRIED, SECTIONS, load, traps
assert CARRIED.is_dir()
jobs = [prepare(load(name), {}, Path(f"{name}.jsonl").resolve()) for name in SECTIONS]
Path("jobs.json").write_text(json.dumps(
    [{"arguments": arguments, "environment": environment} for arguments, environment in jobs]))
print(json.dumps({name: traps(load(name)) for name in SECTIONS}))
"""
    settings = {"cwd": elsewhere, "env": os.environ | {"PYTHONPATH": str(installed)}}
    said = subprocess.check_output([sys.executable, "-c", code], text=True, **settings)
    for name, (titles, numbers) in json.loads(said).items():
        there = mechanisms.traps(mechanisms.load(name))
        assert ({int(number): title for number, title in titles.items()}, numbers) == there
    forks = [sys.executable, str(ROOT / "tests" / "practice" / "forks.py"), "jobs.json"]
    subprocess.run(forks, check=True, timeout=900, capture_output=True, **settings)
    for name in mechanisms.SECTIONS:
        results = read(elsewhere / f"{name}.jsonl")
        assert len([r for r in results if r.outcome == "passed"]) > 20
        assert [r for r in results if r.outcome == "failed"] == []


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_no_notebook_looks_for_the_repository(path: Path) -> None:
    """But for one, which compares its figure with the repository's own bibliography."""
    text = path.read_text("utf8")
    allowed = 1 if path.stem == "papers" else 0
    assert text.count("dsnotes.__file__") == allowed


def test_data_is_found_in_a_checkout_and_nothing_else_is() -> None:
    from dsnotes.data import find

    assert find("runs/moe.json").is_file()
    with pytest.raises(FileNotFoundError, match=r"runs/none\.json"):
        find("runs/none.json")
    for name in ("../../README.md", str(ROOT / "README.md")):
        with pytest.raises(ValueError, match="leads out of the data"):
            find(name)


def test_chinese_labels_have_glyphs(tmp_path: Path) -> None:
    from dsnotes.figures import style

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a missing glyph is a warning
        style.use_style()
        from matplotlib.figure import Figure

        figure = Figure()
        axes = figure.add_subplot()
        axes.set_title("无辅助损失均衡：专家负载 $\\mathrm{MaxVio}$（越低越好）—— 128×128 ≤ ½")
        axes.set_xlabel("训练步数 $t$，偏置 $b_i$")
        axes.plot([-1, 1], [-1, 1])
        figure.savefig(tmp_path / "a.svg", metadata={"Date": None})
        figure.savefig(tmp_path / "b.svg", metadata={"Date": None})
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    svg = (tmp_path / "a.svg").read_text("utf8")
    assert "<text" not in svg, "text must be drawn as paths"


def test_the_font_has_what_is_said_of_it() -> None:
    from matplotlib.ft2font import FT2Font

    has = FT2Font(str(ROOT / "src/dsnotes/figures/fonts/NotoSansSC-subset.ttf")).get_charmap()
    cells = (bytes([row, cell]) for row in range(0xA1, 0xF8) for cell in range(0xA1, 0xFF))
    gb2312 = {cell.decode("gb2312", "ignore") for cell in cells} - {""}
    assert len(gb2312) == 7445
    assert "".join(sorted(c for c in gb2312 if ord(c) not in has)) == ""
    assert {"喆", "镕", "〇"}.isdisjoint(gb2312)
    assert all(ord(c) in has for c in "喆镕〇²³∂∇⇒✓")


@pytest.mark.parametrize("title", ["１２３ＡＢ", "⑴⒈㈠①", "喆镕〇", "ё かな ㄅ ┼"])
def test_titles_as_people_write_them_have_glyphs(title: str, tmp_path: Path) -> None:
    from dsnotes.figures import style

    style.use_style()
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_subplot().set_title(title)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / "d.svg")


def test_a_character_outside_the_font_is_noticed(tmp_path: Path) -> None:
    from dsnotes.figures import style

    style.use_style()
    from matplotlib.figure import Figure

    figure = Figure()
    figure.add_subplot().set_title("𠮷")  # the check above can fail
    with pytest.warns(UserWarning, match="missing from font"):
        figure.savefig(tmp_path / "c.svg")
