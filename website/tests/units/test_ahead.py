"""Notebooks of a build run at once, each once, and what fails is still reported by MyST-NB."""

import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[3]
EXT = ROOT / "website" / "extensions"
sys.path.insert(0, str(EXT))

from dsbook import ahead  # noqa: E402

CONF = """
import sys
sys.path.insert(0, {ext!r})
extensions = ["myst_nb", "dsbook.ahead", "dsbook.cachekey", "dsbook.kernels"]
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 60
"""
MEET = """
import time
from pathlib import Path
with Path({log!r}).open("a") as log:
    log.write({me!r})
end = time.monotonic() + 30
while {other!r} not in Path({log!r}).read_text():
    assert time.monotonic() < end, "the other one does not run"
    time.sleep(0.05)
print("met")
"""


def build(root: Path, codes: dict[str, str]) -> tuple[str, str]:
    """Build a site of notebooks with one cell each; returns what is said, and the warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    (root / "src").mkdir(exist_ok=True)
    (root / "conf.py").write_text(CONF.format(ext=str(EXT)), "utf8")
    (root / "index.md").write_text("# A\n\n```{toctree}\n" + "\n".join(codes) + "\n```\n", "utf8")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    for name, code in codes.items():
        title = nbformat.v4.new_markdown_cell(f"# {name}", id="title")
        cell = nbformat.v4.new_code_cell(code, id="code")
        made = nbformat.v4.new_notebook(cells=[title, cell], metadata=kernel)
        nbformat.write(made, root / f"{name}.ipynb")
    said, problems = StringIO(), StringIO()
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")  # Sphinx's and docutils' own deprecations are not ours
        out = root / "_build"
        app = Sphinx(root, root, out / "html", out / "doctrees", "html", status=said,
                     warning=problems)  # fmt: skip
        app.build(force_all=True)
    plain = [re.sub(r"\x1b\[[\d;]*m", "", text.getvalue()) for text in (said, problems)]
    return plain[0], plain[1]


@pytest.mark.parametrize("cores", [1, 2])
def test_two_run_at_once_and_each_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    monkeypatch.setattr(ahead, "at_once", lambda: cores)
    log = str(tmp_path / "log")
    codes = {"a": MEET.format(log=log, me="A", other="B" if cores == 2 else "A"),
             "b": MEET.format(log=log, me="B", other="A")}  # fmt: skip
    said, problems = build(tmp_path, codes)
    assert problems == ""
    assert ("running notebooks... [100%]" in said) == (cores == 2)
    assert sorted(Path(log).read_text()) == ["A", "B"]
    assert all("met" in (tmp_path / f"_build/html/{n}.html").read_text("utf8") for n in codes)
    said, problems = build(tmp_path, codes)  # all is in the cache
    assert "running notebooks" not in said
    assert sorted(Path(log).read_text()) == ["A", "B"]


def test_one_that_fails_is_reported_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "at_once", lambda: 2)
    log = tmp_path / "log"
    right = f"print('right'); open({str(log)!r}, 'a').write('A')"
    wrong = f"open({str(log)!r}, 'a').write('B'); raise ValueError('no')"
    _, problems = build(tmp_path, {"a": right, "b": wrong})
    assert "b.ipynb: WARNING: Executing notebook failed: CellExecutionError" in problems
    assert "a.ipynb" not in problems
    assert sorted(log.read_text()) == ["A", "B", "B"]
    assert "right" in (tmp_path / "_build/html/a.html").read_text("utf8")
