"""The directive {quiz}: every poem with a question, and who wrote it in a fold."""

import json
import re
import sys
import warnings
from io import StringIO
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[3]
CONF = f"""
import sys
sys.path.insert(0, {str(ROOT / "website" / "extensions")!r})
extensions = ["myst_nb", "dsbook.quiz"]
nb_execution_mode = "off"
"""
EIGHT = "一二三四五，一二三四六。" * 4
POEMS = [
    {"by": "model", "form": "五律", "rhyme": "尤", "title": "", "text": EIGHT, "author": ""},
    {
        "by": "poet",
        "form": "五絕",
        "rhyme": "尤",
        "title": "登鸛雀樓",
        "text": "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。",
        "author": "唐 王之渙",
    },
]


def build(root: Path, poems: list[dict] | None) -> str:
    """Build a site of one page; returns the warnings."""
    from sphinx.application import Sphinx
    from sphinx.util.docutils import docutils_namespace

    if poems is not None:
        (root / "book/data/runs").mkdir(parents=True)
        record = {"tables": {"quiz": poems}}
        (root / "book/data/runs/whole.json").write_text(json.dumps(record), "utf8")
    (root / "conf.py").write_text(CONF, "utf8")
    (root / "index.md").write_text("---\norphan: true\n---\n# 页\n\n```{quiz}\n```\n", "utf8")
    problems, path, out = StringIO(), list(sys.path), root / "build"
    with warnings.catch_warnings(), docutils_namespace():
        warnings.simplefilter("ignore")  # Sphinx's and docutils' own deprecations are not ours
        app = Sphinx(
            root, root, out / "html", out / "doctrees", "html", status=None, warning=problems
        )
        app.build(force_all=True)
    sys.path[:] = path
    said = re.sub(r"\x1b\[[\d;]*m", "", problems.getvalue())
    return "".join(x for x in said.splitlines(keepends=True) if "is already registered" not in x)


def test_a_poem_is_a_question_and_its_writer_the_answer(tmp_path: Path) -> None:
    assert build(tmp_path, POEMS) == ""
    page = BeautifulSoup((tmp_path / "build/html/index.html").read_text("utf8"), "html.parser")
    ours, theirs = page.select(".guess")
    assert [line.get_text() for line in theirs.select(".line")] == [
        "白日依山盡，黃河入海流。",
        "欲窮千里目，更上一層樓。",
    ]
    assert len(ours.select(".line")) == 4
    assert [one.form["data-answer"] for one in (ours, theirs)] == ["模型", "诗人"]
    for one in (ours, theirs):
        assert [box["value"] for box in one.select("input")] == ["模型", "诗人"]
        assert one.select_one(f"#{one.select_one('[role=radiogroup]')['aria-labelledby']}")
        assert "open" not in one.details.attrs
    assert ours.p.get_text() == "第 1 首：无题（五律，尤韵）"
    assert "王之渙" in theirs.details.get_text()
    assert "王之渙" not in theirs.get_text().replace(theirs.details.get_text(), "")


@pytest.mark.parametrize(("poems", "says"), [(None, "no file book/data"), ([], "has no poems")])
def test_what_is_not_there_is_a_warning(
    tmp_path: Path, poems: list[dict] | None, says: str
) -> None:
    assert says in build(tmp_path, poems)
