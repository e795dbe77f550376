"""whole_hacks: what each run lacks, how its poems are measured, and a run of a few steps."""

import json
import os
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType

import jsonschema
import pytest
import torch

from dsnotes.data.poems import Verse
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.novelty import Known
from dsnotes.rl.regulated import WEIGHTS
from dsnotes.training.verses import vocabulary
from dsnotes.weights import checkpoint
from dsnotes.whole.sizes import SIZES

ROOT = Path(__file__).parent.parent
TEXT = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
POEM = Verse("尤", tuple(TEXT[i : i + 5] for i in range(0, 24, 6)), "登樓")
ASKED = {"form": ["五絕"], "rhyme": ["尤"]}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import whole_hacks

    return whole_hacks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run that has come as far as its cold start, with a model that has learned nothing."""
    size = SIZES["tiny"]
    out = tmp_path / "run"
    torch.manual_seed(0)
    model = DeepSeek(replace(size.model, vocab_size=len(vocabulary()), num_nextn_predict_layers=0))
    checkpoint.save(model, out / "cold_start")
    settings = {"size": "tiny", "seed": 5, "corpus": None, **asdict(size)}
    (out / "settings.json").write_text(json.dumps(settings), "utf8")
    return out


def test_every_run_lacks_what_its_name_says(script: ModuleType) -> None:
    """A poem with every rule kept, all lines known and seen before, and one of each fault."""
    known = Known(POEM.lines)
    faults = {
        "words": TEXT.replace("樓", "流"),
        "rhyme": TEXT.replace("樓", "臺"),
        "form": TEXT[:12],
    }
    for name, variant in script.VARIANTS.items():
        reward = script.reward_of(variant, known)
        (whole,) = reward([TEXT], **ASKED)
        # rules 1, all kept 0.5, diversity 0.2; nothing is new
        assert whole == pytest.approx(1.5 + 0.2 * ("diversity" not in variant.zero))
        (new,) = script.reward_of(variant, Known([]))([TEXT], **ASKED)
        assert new - whole == pytest.approx(0.2 * ("novelty" not in variant.zero))
        for rule, text in faults.items():
            (faulty,) = reward([text], **ASKED)
            assert (faulty == pytest.approx(whole)) == (rule in variant.without), (name, rule)
    assert script.VARIANTS["beta 0"].zero == ("beta",)
    assert set(script.VARIANTS["nothing holds"].zero) == {"novelty", "diversity", "beta"}


def test_a_poem_without_its_form_breaks_the_form_alone(script: ModuleType) -> None:
    texts = [TEXT, TEXT[:12], TEXT.replace("樓", "流"), "白日"]
    found = script.broken(texts, [POEM] * 4)
    assert list(found) == list(WEIGHTS)
    assert (found["form"], found["words"]) == (0.5, 0.5)
    assert sum(found.values()) == 1.0
    assert script.broken(["白"], [POEM])["rhyme"] == 0


def test_the_middle_prompt_of_two_forms_is_shown(script: ModuleType) -> None:
    seven = Verse("尤", tuple("山山" + line for line in POEM.lines))
    asked = [POEM, POEM._replace(title="中"), POEM, seven]
    assert script.shown(["a", "b", "c", "d"], asked) == [
        ["五絕", "尤", "中", "b"],
        ["七絕", "尤", "", "d"],
    ]


def test_characters_are_compared_with_the_cold_start_of_the_same_seed(script: ModuleType) -> None:
    broken = dict.fromkeys(WEIGHTS, 0.5)
    runs = [
        {"variant": v, "seed": s, "characters": c, "rules": r, "broken": broken, "seconds": 1.0}
        for v, s, c, r in (
            ("cold start", 0, 100, 0.5),
            ("all", 0, 50, 0.75),
            ("cold start", 1, 200, 0.25),
            ("all", 1, 150, 1.0),
        )
    ]
    found = script.table(runs)
    assert found["all"]["kept_characters"] == [0.5, 0.625, 0.75]
    assert found["all"]["rules"] == [0.75, 0.875, 1.0]
    assert found["cold start"]["kept_characters"] == [1, 1, 1]
    assert found["all"]["broken"]["words"] == [0.5, 0.5, 0.5]
    assert "seconds" not in found["all"]


def test_a_curve_has_few_points(script: ModuleType) -> None:
    assert script.thin([1, 2, 3]) == [1, 2, 3]
    assert script.thin(range(60))[:2] == [0.5, 2.5]
    assert len(script.thin(range(150))) == script.POINTS


def test_settings_are_those_of_the_stage_but_for_the_arguments(
    script: ModuleType, folder: Path, tmp_path: Path
) -> None:
    names = ("steps", "prompts", "group_size", "learning_rate", "beta")
    given = Namespace(run=folder, corpus=None, **dict.fromkeys(names))
    assert script.settings_of(given)[1] == SIZES["tiny"].reinforce
    given.steps, given.beta = 7, 0.0
    assert script.settings_of(given)[1] == replace(SIZES["tiny"].reinforce, steps=7, beta=0.0)
    given.corpus = Path("verses.txt")
    with pytest.raises(ValueError, match=r"--corpus must be that of the run, None, got verses\.tx"):
        script.settings_of(given)
    given.run = tmp_path
    with pytest.raises(ValueError, match=r"--run must be a folder of .* that holds a cold start"):
        script.settings_of(given)


def test_runs_side_by_side_that_are_taken_up_again(folder: Path, tmp_path: Path) -> None:
    """The command itself, at a size that learns nothing."""
    keep, out = tmp_path / "keep", tmp_path / "record.json"
    command = [sys.executable, ROOT / "experiments" / "whole_hacks.py", "--run", folder]
    command += ["--out", out, "--keep", keep, "--workers", "2", "--judged", "2", "--steps", "2"]
    command += ["--variants", "without words", "nothing holds", "--seeds"]

    def record(*seeds: str) -> dict:
        done = subprocess.run(
            [*map(str, command), *seeds],
            capture_output=True,
            text=True,
            timeout=240,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr
        return json.loads(out.read_text("utf8"))

    first = record("3")
    schema = json.loads((ROOT / "tests" / "data" / "record.schema.json").read_text("utf8"))
    jsonschema.validate(first, schema)
    names = ["cold start", "without words", "nothing holds"]
    assert [run["variant"] for run in first["runs"]] == names
    assert [len(run["curves"].get("rules", [])) for run in first["runs"]] == [0, 2, 2]
    assert list(first["tables"]["variants"]) == names
    assert (first["settings"]["steps"], first["settings"]["run_seed"]) == (2, 5)
    assert {len(run["shown"]) for run in first["runs"]} == {2}
    kept = {file: file.stat().st_mtime_ns for file in keep.iterdir()}
    second = record("3", "4")
    assert second["runs"][:3] == first["runs"]
    assert second["seeds"] == [3, 4]
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


def test_without_a_run_it_says_what_to_do_first() -> None:
    command = [sys.executable, str(ROOT / "experiments" / "whole_hacks.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0
    assert "make a run first: python -m dsnotes.whole" in done.stderr
