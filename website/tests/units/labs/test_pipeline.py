"""The timelines: the page holds the schedules of dsnotes and places them in time as it does."""

import json
import random
import sys
from pathlib import Path

import pytest

from dsnotes.training.dualpipe.actions import Kind, Pair
from dsnotes.training.dualpipe.bubble import middle_waits
from dsnotes.training.dualpipe.schedule import SCHEDULES
from dsnotes.training.dualpipe.timeline import Durations, Timeline, _needs, formula, simulate

sys.path.insert(0, str(Path(__file__).parents[3] / "extensions"))

from dsbook.labs import pipeline

DATA = pipeline.data()
CHOICES = {(entry["name"], len(entry["ranks"]), entry["microBatches"]): entry for entry in DATA}
SMALL = [choice for choice in CHOICES if choice[1] <= 8]
LARGE = [choice for choice in CHOICES if choice[1] > 8]
TIMES = [Durations(1, 1, 1, 3), Durations(1.25, 1.5, 0.5, 2.5), Durations(0.75, 0.75, 1.5, 3.5)]


HELP = """
  globalThis.pipelineWords = (entry) => PipelineLab.decode(entry).map((rank) => rank.map(
    ({ parts }) => parts.map(({ kind, stage, direction, microBatch }) =>
      `${kind} ${stage} ${direction} ${microBatch}`).join("&")));
  globalThis.pipelineRun = (entry, times) => {
    const events = PipelineLab.simulate(entry, times), found = PipelineLab.measure(events);
    const idles = (rank) => PipelineLab.spans(events, rank, found.makespan)
      .filter(({ parts }) => !parts)
      .map(({ start, end, awaits }) => [start, end, awaits?.rank ?? null]);
    return { ...found, ...PipelineLab.formula(entry.name, entry.stages, times),
      spans: events.map((done) => done.map(({ start, end }) => [start, end])),
      idles: events.map((_, rank) => idles(rank)) };
  };
"""


@pytest.fixture
def drawn(lab):
    code = lab("pipeline")
    code.engine.eval(f"{HELP} globalThis.pipelineData = {json.dumps(DATA)};")
    return code


def build(choice: tuple[str, int, int]):
    name, ranks, micro_batches = choice
    return SCHEDULES[name](ranks, micro_batches)


def test_choices_are_the_same_for_all_schedules_and_have_figure_5(lab) -> None:
    sizes = {name: {c[1:] for c in CHOICES if c[0] == name} for name in SCHEDULES}
    assert len(set(map(frozenset, sizes.values()))) == 1
    assert ("DualPipe", 8, 20) in CHOICES
    assert lab("pipeline").data == DATA


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_the_page_holds_the_schedule_of_the_library(drawn, choice) -> None:
    expected = [
        ["&".join(f"{p.kind} {p.stage} {p.direction} {p.micro_batch}" for p in action.parts)
         for action in actions]
        for actions in build(choice).actions
    ]  # fmt: skip
    assert drawn.call("pipelineWords", CHOICES[choice]) == expected


ROUNDS = {1: ["F"], 2: ["FF"], 3: ["IWF"], 5: ["BP"], 7: ["WI"], 8: ["W"]}


@pytest.mark.parametrize("choice", [c for c in CHOICES if c[0].startswith("DualPipe")], ids=str)
def test_every_action_belongs_to_its_step(drawn, choice) -> None:
    """What stands in a step is what the docstring of the schedule says is in it."""
    schedule = build(choice)
    numbers = drawn.eval(
        f"PipelineLab.decode({json.dumps(CHOICES[choice])})"
        ".map((rank) => rank.map(({ step }) => step))"
    )
    for rank, (actions, steps) in enumerate(zip(schedule.actions, numbers, strict=True)):
        assert steps == sorted(steps)
        words = dict.fromkeys(range(1, 9), "")
        for action, step in zip(actions, steps, strict=True):
            words[step] += "P" if isinstance(action, Pair) else str(action.kind)
        for step, (word,) in ROUNDS.items():
            assert words[step] == word * (len(words[step]) // len(word)), (rank, step)
        assert words[4].replace("FB", "P", 1) == "P" * words[4].replace("FB", "P", 1).count("P")
        half = len(words[6]) // 2
        assert words[6] == "B" * half + "I" * half
        assert words[2]
        assert words[4]
        assert words[6]
        assert words[8]


def awaited(timeline: Timeline) -> list[list[list]]:
    """For each rank its idle times and the rank whose result comes last; None after its end."""
    schedule, ready = timeline.schedule, {}
    for rank, events in enumerate(timeline.events):
        for action, _, end in events:
            for part in action.parts:
                if part.kind is not Kind.BACKWARD_WEIGHT:
                    ready[part.kind is Kind.FORWARD, part.stage, part.micro_batch] = (end, rank)
    found = []
    for events in timeline.events:
        free, gaps = 0, []
        for action, start, end in events:
            if start > free:
                needs = [ready[need] for part in action.parts for need in _needs(part, schedule)]
                ranks = {rank for time, rank in needs if time == start}
                gaps.append([free, start, ranks])
            free = end
        if timeline.makespan > free:
            gaps.append([free, timeline.makespan, {None}])
        found.append(gaps)
    return found


def check(drawn, choice, durations: Durations) -> None:
    timeline: Timeline = simulate(build(choice), durations)
    times = {"forward": durations.forward, "input": durations.backward_input,
             "weight": durations.weight, "pair": durations.full_pair}  # fmt: skip
    found = drawn.call("pipelineRun", CHOICES[choice], times)
    stages = CHOICES[choice]["stages"]
    assert stages == timeline.schedule.num_stages
    expected = formula(choice[0], stages, durations)
    spans = [[[event.start, event.end] for event in events] for events in timeline.events]
    assert found["spans"] == spans  # times are multiples of 1/4: exact
    assert found["makespan"] == timeline.makespan
    assert tuple(found["idle"]) == timeline.idle
    assert tuple(found["peak"]) == timeline.peak_activations
    assert (found["bubble"], found["activations"]) == (expected.bubble, expected.activations)
    if found["holds"]:  # where the figure says that the formula of the table is right, it is
        middle = timeline.idle[len(timeline.idle) // 2 - (choice[0] == "DualPipe")]
        if choice[0] == "DualPipeV":
            middle = timeline.idle[-1]
        assert middle == expected.bubble
    for mine, theirs in zip(found["idles"], awaited(timeline), strict=True):
        assert [gap[:2] for gap in mine] == [gap[:2] for gap in theirs]
        for (*_, rank), (*_, ranks) in zip(mine, theirs, strict=True):
            assert rank in ranks


@pytest.mark.parametrize("choice", SMALL, ids=str)
def test_actions_are_placed_in_time_as_in_the_library(drawn, choice) -> None:
    for durations in TIMES:
        check(drawn, choice, durations)


@pytest.mark.parametrize("choice", LARGE, ids=str)
def test_a_large_pipeline_too(drawn, choice) -> None:
    check(drawn, choice, TIMES[1])


def test_a_hundred_random_states(drawn) -> None:
    rng = random.Random(0)
    for _ in range(150):
        forward, backward_input = (rng.randint(2, 12) / 4 for _ in range(2))
        weight, pair = rng.randint(0, 12) / 4, rng.randint(2, 28) / 4
        check(drawn, rng.choice(SMALL), Durations(forward, backward_input, weight, pair))


def test_dualpipev_has_stages_half_as_large(drawn) -> None:
    """On the same ranks, for the same model: half the time and half the activations of a stage."""
    state = drawn.state(name="DualPipeV", second="none")
    found = on(drawn, "PipelineLab.run(state, data, 'DualPipeV')", state)
    timeline = simulate(SCHEDULES["DualPipeV"](4, 8), Durations(0.5, 0.5, 0.5, 1.5))
    assert found["makespan"] == timeline.makespan
    assert tuple(found["idle"]) == timeline.idle
    assert found["share"] == 0.5


def on(drawn, expression: str, state: dict, before: dict | None = None):
    """A JavaScript expression of `spec`, `data`, `state` and the state `before`."""
    given = f"{drawn.spec}, pipelineData, {json.dumps(state)}, {json.dumps(before)}"
    return drawn.eval(f"((spec, data, state, before) => {expression})({given})")


def test_it_opens_in_the_wait_of_the_middle(drawn) -> None:
    """The wait F&B − B of step 6 that the page derives, there and in its own example."""
    said = drawn.say(drawn.state())
    assert "rank 1 <b>空闲</b>（21 到 22）" in said
    assert "等 rank 0" in said
    assert middle_waits(4, Durations(1, 1, 1, 3)) == (1, 0, 1, 0)
    presets = drawn.eval(f"{drawn.spec}.presets.map((preset) => preset.state)")
    said = drawn.say(drawn.state(**presets[5]))
    assert "rank 2 <b>空闲</b>（52 到 54）" in said
    assert "rank 1 先得做完一对" in said  # and then a backward; the middle has two backwards only
    assert middle_waits(6, Durations(2, 2, 1, 5)) == (4, 0, 4, 2)  # twice 2


def test_all_presets_are_what_they_seem(drawn) -> None:
    for preset in drawn.eval(f"{drawn.spec}.presets.map((preset) => preset.state)"):
        state = drawn.state(**preset)
        assert on(drawn, "spec.tidy(state, data)", state) == state


def test_walking_comes_by_every_action_and_every_wait(drawn) -> None:
    state = drawn.state(at=0, row=2)
    timeline = simulate(SCHEDULES["DualPipe"](4, 8))
    starts = sorted({e.start for e in timeline.events[2]} | {g[0] for g in awaited(timeline)[2]})
    places = []
    while state["at"] < 33:
        places.append(state["at"])
        state = on(drawn, "spec.walk(state, 'ArrowRight', data)", state)
    assert places == starts
    for place in reversed(places):
        state = on(drawn, "spec.walk(state, 'ArrowLeft', data)", state)
        assert state["at"] == place
    assert on(drawn, "spec.walk(state, 'ArrowUp', data)", state)["row"] == 1
    for _ in range(9):
        state = on(drawn, "spec.walk(state, 'ArrowDown', data)", state)
    assert state["row"] == 7  # the last rank of the schedule below
    assert on(drawn, "spec.walk(state, 'Home', data)", state) is None  # the kit's


def test_pointing_finds_the_rank_and_the_moment(drawn) -> None:
    state = drawn.state()
    for width in (340, 700):
        place = on(drawn, f"spec.layout(state, data, {width})", state)
        scale = (place["right"] - place["left"]) / 33
        for plot in (0, 1):
            for rank in range(4):
                x = place["left"] + 10.3 * scale
                y = place["tops"][plot] + (rank + 0.5) * place["row"]
                found = on(drawn, f"spec.point(state, {x}, {y}, data, {width})", state)
                assert (found["row"], found["at"]) == (4 * plot + rank, 10.25)
        assert on(drawn, f"spec.point(state, 5, 5, data, {width})", state) is None


def test_what_does_not_go_together_is_mended(drawn) -> None:
    before = drawn.state()
    moved = on(drawn, "spec.tidy(state, data, before)", {**before, "ranks": 8}, before)
    assert (moved["ranks"], moved["micro"]) == (8, 16)
    moved = on(drawn, "spec.tidy(state, data, before)", {**before, "name": "1F1B"}, before)
    assert (moved["name"], moved["second"]) == ("1F1B", "DualPipe")  # changed about
    far = {**before, "second": "none", "at": 999, "row": 31, "ranks": 5, "micro": 63}
    moved = on(drawn, "spec.tidy(state, data)", far)
    assert (moved["row"], moved["ranks"], moved["micro"]) == (3, 4, 16)
    assert moved["at"] == simulate(SCHEDULES["DualPipe"](4, 16)).makespan


def test_goals(drawn) -> None:
    reached = [
        {"micro": 16},
        {"ranks": 8, "micro": 20, "pair": 2.5},
        {"second": "ZB1P", "pair": 3.5},
    ]
    for index, fields in enumerate(reached):
        assert drawn.goal(index, drawn.state(**fields))
        assert not drawn.goal(index, drawn.state())
    assert not drawn.goal(1, drawn.state(ranks=8, micro=20, pair=3))
    assert not drawn.goal(1, drawn.state(ranks=8, micro=20, pair=3.25))
    assert not drawn.goal(2, drawn.state(second="ZB1P"))


def test_a_formula_that_does_not_hold_is_named(drawn) -> None:
    assert "公式" not in drawn.say(drawn.state())
    assert "F = I ≥ W" in drawn.say(drawn.state(input=2))
    assert "中间" in drawn.say(drawn.state(ranks=8, micro=20, pair=3.25))
    assert "W ≤ F" in drawn.say(drawn.state(name="ZB1P", weight=2))
