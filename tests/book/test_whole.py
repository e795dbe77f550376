"""What the pages on the whole run say of its stages, its record and the quiz."""

import json
import re
from pathlib import Path

import pytest

from dsnotes.data.poems import VERSE_FORMS, Verse, verses
from dsnotes.rl.novelty import Known, novelty
from dsnotes.rl.regulated import judge, split
from dsnotes.whole.__main__ import STAGES
from dsnotes.whole.experts import WORDS
from dsnotes.whole.report import MODELS
from dsnotes.whole.sizes import SIZES

ROOT = Path(__file__).parents[2]
WHOLE, RESULTS, QUIZ, POET = (
    (ROOT / "book" / "whole" / f"{name}.md").read_text("utf8")
    for name in ("whole", "results", "quiz", "poet")
)
RECORD = json.loads((ROOT / "book" / "data" / "runs" / "whole.json").read_text("utf8"))
DRAWING = (ROOT / "book" / "figures" / "whole-stages.svg").read_text("utf8")


def test_the_table_has_the_stages_of_the_command_in_their_order() -> None:
    assert re.findall(r"^\| [①-⑪] \| `(\w+)` \|", WHOLE, re.MULTILINE) == list(STAGES)
    number = {name: "①②③④⑤⑥⑦⑧⑨⑩⑪"[i] for i, name in enumerate(STAGES)}
    for name, sign in number.items():
        assert f"| {sign} | `{name}` |" in WHOLE
        assert sign in DRAWING or name == "report"


def test_every_model_has_a_row_in_every_table() -> None:
    for size in ("laptop", "gpu"):
        for title in MODELS.values():
            key = f"{size}_{title.replace(' ', '_')}"
            for column in ("wj", "ql", "copied", "characters_of_base", "loss", "max_vio"):
                assert f"whole.ipynb::{key}_{column}:s" in RESULTS
        assert f"whole.ipynb::{size}_corpus_wj:s" in RESULTS


def test_the_record_is_of_both_sizes_on_three_seeds() -> None:
    assert list(RECORD["tables"]["models"]) == ["laptop", "gpu"]
    for size in ("laptop", "gpu"):
        runs = [run for run in RECORD["runs"] if run["variant"] == size]
        assert sorted(run["seed"] for run in runs) == [0, 1, 2]
        far = list(MODELS.values())[: 6 if size == "laptop" else 3]  # as the pages say
        assert all(list(run["models"])[: len(far)] == far for run in runs)


@pytest.mark.parametrize("size", ["laptop", "gpu"])
def test_dimensions_are_multiples_of_a_block_or_fit_in_one(size: str) -> None:
    """As trap 4 says, of the model that is released."""
    for name in ("hidden_size", "intermediate_size", "moe_intermediate_size", "kv_lora_rank"):
        width = getattr(SIZES[size].model, name)
        assert width <= 128 or width % 128 == 0, name


def test_the_quiz_is_as_the_page_says() -> None:
    poems = RECORD["tables"]["quiz"]
    assert "```{quiz}\n```" in QUIZ
    assert RECORD["settings"]["quiz_of"] == "gpu"
    held_out = {verse.text for verse in verses(held_out=True)}
    known = Known(line for verse in verses() for line in verse.lines)
    for form in VERSE_FORMS:
        by = [poem["by"] for poem in poems if poem["form"] == form]
        assert by.count("model") == by.count("poet") <= 5
    for poem in poems:
        verdict = judge(poem["text"], form=poem["form"], rhyme=poem["rhyme"])
        assert verdict.keeps_all_rules
        assert (poem["text"] in held_out) == (poem["by"] == "poet")
        if poem["by"] == "model":
            assert novelty(poem["text"], known) == 1
            assert poem["author"] == ""
        else:
            assert re.fullmatch("[唐宋] .+", poem["author"])
        assert Verse(poem["rhyme"], tuple(split(poem["text"]))).form == poem["form"]


def test_the_project_has_a_rubric_of_a_hundred_points() -> None:
    table = WHOLE[WHOLE.index(":name: tab-whole-rubric") : WHOLE.index("## 小结")]
    points = [int(n) for n in re.findall(r"\| (\d+) \|$", table, re.MULTILINE)]
    assert sum(points) == 100


def models_of(size: str) -> list[dict]:
    return [run["models"] for run in RECORD["runs"] if run["variant"] == size]


def test_what_the_results_say_of_every_seed() -> None:
    """Sentences of the page that are typed, not glued."""
    for size in ("laptop", "gpu"):
        for models in models_of(size):
            assert models["RL"]["max_vio"] > models["base"]["max_vio"]
    assert "两种大小都升了" in RESULTS
    for models in models_of("gpu"):
        assert models["RL"]["characters"] >= models["base"]["characters"]
        broken = models["RL"]["broken"]
        assert max(broken, key=broken.get) == "words"
        for form in ("五律", "七律"):
            assert models["RL"]["forms"][form]["rules"] < 0.9
        for form in ("五絕", "七絕"):
            assert models["RL"]["forms"][form]["rules"] >= 0.9
    for models in models_of("laptop"):
        assert models["RL"]["characters"] < 0.9 * models["base"]["characters"]
        assert models["small base"]["broken"]["rhyme"] > 0.99
        for title in ("student", "RL on the small model"):
            assert models[title]["rules"] < 0.01
        assert models["student"]["loss"] > models["small base"]["loss"]


def test_the_curve_of_reinforcement_is_flat_in_its_second_half() -> None:
    for run in RECORD["runs"]:
        if run["variant"] == "gpu":
            shares = run["curves"]["RL"]["rules"]
            quarter = len(shares) // 4
            third, last = sum(shares[2 * quarter : 3 * quarter]), sum(shares[3 * quarter :])
            assert abs(last - third) / quarter < 0.03
    assert "后半段是平的" in RESULTS


def test_the_exercise_by_hand_gives_the_dimensions_of_the_laptop() -> None:
    config = SIZES["laptop"].model
    assert (config.num_hidden_layers, config.num_attention_heads) == (4, 4)
    assert config.kv_lora_rank == 64
    assert {config.qk_rope_head_dim, config.qk_nope_head_dim, config.v_head_dim} == {32}
    assert "`laptop` 有 4 层，每层 4 个头；潜在向量（`kv_lora_rank`）是 64 维" in WHOLE


def test_the_characters_of_each_kind_are_those_that_are_counted() -> None:
    table = RESULTS[RESULTS.index(":name: tab-results-experts") :]
    for title, kind in {"季节": "season", "边塞": "frontier", "送别": "parting"}.items():
        assert f"| {title}：{WORDS[kind]} |" in table
    for size in SIZES:
        if size != "tiny":
            experts = SIZES[size].model
            assert experts.num_experts_per_tok / experts.n_routed_experts == 1 / 4
    assert "每层有八个专家，一个字选两个" in RESULTS


def test_the_warmer_the_more_drafts_are_accepted_as_two_pages_say() -> None:
    runs = [run for run in RECORD["runs"] if "decode" in run]
    assert len(runs) >= 3
    for run in runs:
        accepted = run["decode"]["accepted"]
        assert accepted["0.0"] < accepted["0.5"] < accepted["1.0"]
    assert "温度高，反而接受得多" in RESULTS
    assert "把温度调低再写一首，绿底多半会变少" in POET
