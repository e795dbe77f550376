"""The kit of the interactive figures, their directive, and what every figure must have."""

import json
import os
import re
import sys
from pathlib import Path

import pytest

from dsnotes.figures.style import COLORS

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook import lab  # noqa: E402

ASSETS = ROOT / "website" / "assets"
LABS = sorted(path.stem for path in lab.FOLDER.glob("*.js") if path.stem != "kit")


def kit(expression: str):
    return json.loads(lab.engine("size", os.getpid()).eval(f"JSON.stringify({expression})"))


def test_numbers_are_written_as_in_the_book() -> None:
    assert kit("[0, 1.5, -2, 1234.5, 0.00012, 1.2e-7, -3e9, 1/0].map((x) => Kit.num(x))") == [
        "0", "1.5", "−2", "1230", "0.00012", "1.2×10⁻⁷", "−3×10⁹", "∞"]  # fmt: skip
    assert kit("[Kit.fix(-0.001, 2), Kit.fix(2, 1), Kit.int(-12345), Kit.percent(0.256)]") == [
        "0.00", "2.0", "−12,345", "26%"]  # fmt: skip
    assert kit("[0, 1, 1536, 5 * 2 ** 30].map(Kit.bytes)") == ["0 B", "1 B", "1.5 KiB", "5 GiB"]


def test_random_numbers_are_the_same_everywhere() -> None:
    drawn = kit("(() => { const r = Kit.random(7); return [r(), r(), r()]; })()")
    assert drawn == pytest.approx([0.011704753153026104, 0.06195825757458806, 0.97690763277933])


def test_what_a_reader_types_is_text() -> None:
    assert kit("Kit.escape('<b onclick=\"x\">&')") == "&#60;b onclick=&#34;x&#34;&#62;&#38;"


def test_the_address_holds_what_differs_and_nothing_else_gets_in() -> None:
    spec = """({ name: "x", state: { n: 2, flag: false, way: "a", list: [1, 2], words: "" },
      range: { list: [0, 5] }, controls: [{ kind: "slider", name: "n", min: 0, max: 9, step: 1 },
      { kind: "choice", name: "way", options: [["a", "A"], ["b", "B"]] },
      { kind: "text", name: "words" }] })"""
    changed = {"n": 3, "flag": True, "way": "b", "list": [0, 2], "words": "a&b=c"}
    words = kit(f"Kit.write({spec}, {json.dumps(changed)})")
    assert kit(f"Kit.read({spec}, {json.dumps(words)})") == changed
    assert kit(f"Kit.write({spec}, Kit.start({spec}))") == ""
    wrong = "n=99&flag=maybe&way=c&list=1,x&other=3&__proto__=1&words=" + "y" * 401
    assert kit(f"Kit.read({spec}, {json.dumps(wrong)})") == {
        "n": 9, "flag": False, "way": "a", "list": [1, 2], "words": ""}  # fmt: skip
    assert kit(f'Kit.read({spec}, "list=-4,77")')["list"] == [0, 5]


def test_colours_are_those_of_the_other_figures() -> None:
    css = (ASSETS / "labs.css").read_text("utf8")
    for name, colour in COLORS.items():
        assert f".f-{name} {{ fill: {colour}; }}" in css


def spec(name: str, what: str):
    return json.loads(
        lab.engine(name, os.getpid()).eval(
            f"((spec) => JSON.stringify({what}))(Kit.figures[{json.dumps(name)}])"
        )
        or "null"
    )


@pytest.mark.parametrize("name", LABS)
def test_what_every_figure_has(name) -> None:
    script = (lab.FOLDER / f"{name}.js").read_text("utf8")
    assert len(re.findall(r"^(?:const|let|var|function|class) \w+", script, re.MULTILINE)) == 1
    code = re.sub(r'//.*|"[^"\n]*"', "", script)  # without what is only said
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|eval)\b", code)
    assert not re.search(r"\bhttps?:", script)
    assert spec(name, "spec.name") == name
    assert spec(name, "spec.title")
    state = spec(name, "spec.state")
    plain = (bool, int, float, str)
    for value in state.values():
        assert isinstance(value, plain) or all(isinstance(item, (int, float)) for item in value)
    for control in spec(name, "spec.controls ?? []"):
        assert control["label"]
        assert control["kind"] in (
            "tabs", "choice", "select", "slider", "toggle", "text", "number", "button",
        )  # fmt: skip
        assert control["kind"] == "button" or control["name"] in state
    given = lab.as_json(name)
    presets = spec(name, "spec.presets")
    assert 2 <= len(presets) <= 6
    for preset in presets:
        assert set(preset["state"]) <= set(state), preset["label"]
    said = spec(
        name,
        f"spec.presets.map((p) => spec.say({{ ...Kit.start(spec), ...p.state }}, {given}))",
    )
    assert len(set(said)) == len(said), "two presets say the same"
    assert 1 <= len(spec(name, "spec.goals")) <= 3
    reached = spec(name, f"spec.goals.map((g) => Boolean(g.reached(Kit.start(spec), {given})))")
    assert not any(reached), "a goal that is reached at the start"


@pytest.mark.parametrize("name", LABS)
def test_every_figure_stands_on_a_page_with_a_still(name) -> None:
    pages = [
        path
        for folder in ("book", "notebooks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".md", ".ipynb")
        and re.search(rf"{{lab}} {name}(?![\w-])", path.read_text("utf8"))
    ]
    assert len(pages) == 1
    for width in (lab.WIDE, lab.NARROW):
        drawn = lab.still(name, width)
        assert drawn.startswith("<")
        assert "tabindex" not in drawn  # nothing to stop at where nothing moves
        assert "undefined" not in drawn
        assert "NaN" not in drawn
        for wide in re.findall(r'<svg width="([\d.]+)"', drawn):
            assert float(wide) <= width
        assert re.search(r'role="img" aria-label="[^"]+"', drawn)
    assert len(lab.as_json(name)) < 100_000  # part of the page


def test_the_directive_makes_a_figure_and_only_its_page_has_scripts(tmp_path) -> None:
    from sphinx.testing.util import SphinxTestApp

    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'website' / 'extensions')!r})\n"
        'extensions = ["myst_nb", "dsbook.lab"]\nmyst_enable_extensions = ["colon_fence"]\n'
        f"html_static_path = [{str(ASSETS)!r}]\nnumfig = True\n"
    )
    text = ":::{lab} size\n:name: fig-x\n图题。\n\n图注。\n:::\n\n{numref}`fig-x`\n"
    (tmp_path / "index.md").write_text(f"# 一页\n\n{text}\n```{{toctree}}\nother\n```\n", "utf8")
    (tmp_path / "other.md").write_text("# 另一页\n", "utf8")
    app = SphinxTestApp("html", srcdir=tmp_path, warningiserror=True)
    try:
        app.build()
        page = (Path(app.outdir) / "index.html").read_text("utf8")
        other = (Path(app.outdir) / "other.html").read_text("utf8")
        assert (Path(app.outdir) / "_static" / "labs" / "kit.js").is_file()
    finally:
        app.cleanup()
    assert page.index("labs/kit.js") < page.index("labs/size.js")
    assert "labs/" not in other
    figure = re.search(r"<figure.*?</figure>", page, re.DOTALL)[0]
    assert 'id="fig-x"' in figure
    assert figure.count("<svg") == 2
    assert "图题。" in figure
    assert "图注。" in figure
    assert lab.WITHOUT in figure


def test_a_figure_that_is_not_there_is_named(tmp_path) -> None:
    from sphinx.testing.util import SphinxTestApp

    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'website' / 'extensions')!r})\n"
        'extensions = ["myst_nb", "dsbook.lab"]\nmyst_enable_extensions = ["colon_fence"]\n'
    )
    (tmp_path / "index.md").write_text("# 一页\n\n:::{lab} sise\n图题。\n:::\n", "utf8")
    app = SphinxTestApp("html", srcdir=tmp_path)
    try:
        app.build()
        warnings = app.warning.getvalue()
    finally:
        app.cleanup()
    assert "no figure 'sise'" in warnings
