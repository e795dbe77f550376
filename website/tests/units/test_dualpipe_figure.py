"""The interactive figure: its data, and that the browser places actions in time as dsnotes does."""

import json
import sys
from pathlib import Path

import pytest

from dsnotes.figures.style import COLORS
from dsnotes.training.dualpipe.schedule import SCHEDULES
from dsnotes.training.dualpipe.timeline import Durations, Timeline, formula, simulate

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook import pipelinelab  # noqa: E402

ASSETS = ROOT / "website" / "assets"
CHOICES = {
    (entry["name"], len(entry["ranks"]), entry["microBatches"]): entry
    for entry in json.loads(pipelinelab.data())
}
SMALL = [choice for choice in CHOICES if choice[1] <= 8]
TIMES = [Durations(1, 1, 1, 3), Durations(1.25, 1.5, 0.5, 2.5), Durations(0.75, 0.75, 1.5, 3.5)]


@pytest.fixture(scope="module")
def browser():
    from py_mini_racer import MiniRacer

    racer = MiniRacer()
    racer.eval((ASSETS / "pipeline.js").read_text("utf8"))
    racer.eval("""
        const word = ({ kind, stage, direction, microBatch }) =>
          `${kind} ${stage} ${direction} ${microBatch}`;
        function words(entry) {
          return JSON.stringify(decode(JSON.parse(entry)).map((rank) =>
            rank.map((parts) => parts.map(word).join("&"))));
        }
        function run(entry, times) {
          entry = JSON.parse(entry); times = JSON.parse(times);
          const events = simulate(entry, times);
          return JSON.stringify({
            ...measure(events), ...formula(entry.name, entry.stages, times),
            spans: events.map((done) => done.map(({ start, end }) => [start, end])),
          });
        }
    """)
    return racer


def build(choice: tuple[str, int, int]):
    name, ranks, micro_batches = choice
    return SCHEDULES[name](ranks, micro_batches)


def test_choices_are_the_same_for_all_schedules_and_have_figure_5() -> None:
    sizes = {name: {c[1:] for c in CHOICES if c[0] == name} for name in SCHEDULES}
    assert len(set(map(frozenset, sizes.values()))) == 1
    assert ("DualPipe", 8, 20) in CHOICES
    assert len(pipelinelab.data()) < 100_000  # it is part of the page


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_page_holds_the_schedule_of_the_library(browser, choice) -> None:
    expected = [
        ["&".join(f"{p.kind} {p.stage} {p.direction} {p.micro_batch}" for p in action.parts)
         for action in actions]
        for actions in build(choice).actions
    ]  # fmt: skip
    assert json.loads(browser.call("words", json.dumps(CHOICES[choice]))) == expected


def check(browser, choice, durations: Durations) -> None:
    timeline: Timeline = simulate(build(choice), durations)
    times = {"forward": durations.forward, "backward": durations.backward,
             "weight": durations.weight, "pair": durations.full_pair}  # fmt: skip
    found = json.loads(browser.call("run", json.dumps(CHOICES[choice]), json.dumps(times)))
    stages = CHOICES[choice]["stages"]
    assert stages == timeline.schedule.num_stages
    expected = formula(choice[0], stages, durations)
    spans = [[[event.start, event.end] for event in events] for events in timeline.events]
    assert found["spans"] == spans  # times are multiples of 1/4: exact
    assert found["makespan"] == timeline.makespan
    assert tuple(found["idle"]) == timeline.idle
    assert tuple(found["peak"]) == timeline.peak_activations
    assert (found["bubble"], found["activations"]) == (expected.bubble, expected.activations)


@pytest.mark.parametrize("choice", SMALL, ids=str)
def test_the_browser_times_actions_as_the_library(browser, choice) -> None:
    for durations in TIMES:
        check(browser, choice, durations)


def test_the_browser_times_a_large_pipeline_as_the_library(browser) -> None:
    for name in SCHEDULES:
        check(browser, (name, 16, 32), TIMES[1])


def test_colours_are_those_of_the_other_figures() -> None:
    css = (ASSETS / "pipeline.css").read_text("utf8")
    for kind, colour in (("F", "orange"), ("B", "blue"), ("I", "sky"), ("W", "green")):
        assert f".pipeline-plot .{kind} {{ fill: {COLORS[colour]}; }}" in css


def test_the_figure_stands_alone_and_only_its_page_has_the_script(tmp_path) -> None:
    from sphinx.testing.util import SphinxTestApp

    (tmp_path / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT / 'website' / 'extensions')!r})\n"
        'extensions = ["myst_nb", "dsbook.pipelinelab"]\nmyst_enable_extensions = ["colon_fence"]\n'
        f"html_static_path = [{str(ASSETS)!r}]\n"
    )
    (tmp_path / "a.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    lab = ":::{pipeline-lab}\n```{figure} a.svg\n:alt: 图\n图题。\n```\n:::\n"
    (tmp_path / "index.md").write_text(f"# 一页\n\n{lab}\n```{{toctree}}\nother\n```\n", "utf8")
    (tmp_path / "other.md").write_text("# 另一页\n", "utf8")
    app = SphinxTestApp("html", srcdir=tmp_path, warningiserror=True)
    try:
        app.build()
        page = (Path(app.outdir) / "index.html").read_text("utf8")
        other = (Path(app.outdir) / "other.html").read_text("utf8")
        assert (Path(app.outdir) / "_static" / "pipeline.js").is_file()
    finally:
        app.cleanup()
    assert page.count("pipeline.js") == page.count("pipeline.css") == 1
    assert "pipeline." not in other
    inside = page.split('<div class="pipeline-lab')[1].split("</div>")[0]
    assert '<img alt="图"' in inside  # what shows without a script
    assert "图题。" in inside
    held = inside.split('<script type="application/json">')[1].split("</script>")[0]
    assert held == pipelinelab.data()
