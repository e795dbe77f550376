"""The exercises on the whole run, solved with the library and from the record."""

import json
import re

from dsnotes.data import find
from dsnotes.data.poems import verses
from dsnotes.model.cache import LatentCache
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.novelty import Known, novelty
from dsnotes.rl.regulated import judge, split
from dsnotes.training.verses import vocabulary
from dsnotes.whole.report import MODELS
from dsnotes.whole.sizes import SIZES

from .notebook import NOTEBOOKS, answers, cells
from .page import exercise

PATH = NOTEBOOKS / "whole.ipynb"
RECORD = json.loads(find("runs/whole.json").read_text("utf8"))
RUNS = {
    size: [run for run in RECORD["runs"] if run["variant"] == size] for size in ("laptop", "gpu")
}
GIVEN = {
    "laptop": SIZES["laptop"].model,
    "judge": judge,
    "novelty": novelty,
    "split": split,
    "runs": RUNS,
}


def solved(label: str) -> dict:
    names: dict = dict(GIVEN)
    exec(answers(PATH)[label].right, names)
    return names


def test_whole_1() -> None:
    """As the cache of a model is made; the keys and values of a head as the module makes them."""
    config, found = SIZES["laptop"].model, solved("whole-1")
    assert found["latent"] == LatentCache(config, batch_size=1, capacity=1).nbytes
    attention = DeepSeek(config).model.layers[0].self_attn
    rows = attention.kv_b_proj.weight.shape[0]  # of all heads: keys without position, and values
    keys = config.num_attention_heads * config.qk_rope_head_dim
    assert found["by_head"] == 4 * config.num_hidden_layers * (rows + keys)
    assert "带位置的键" in exercise("whole-1")


def test_whole_2() -> None:
    """On every run of the record, the three parts one by one."""
    reached = solved("whole-2")["reached"]
    for run in (run for of_size in RUNS.values() for run in of_size):
        assert len(run["models"]) >= len(MODELS) // 2
        for ours in run["models"].values():
            base = run["models"]["base"]
            every = [ours["forms"][form]["rules"] >= 0.9 for form in ours["forms"]]
            every += [ours["copied"] <= base["copied"]]
            every += [10 * ours["characters"] >= 7 * base["characters"]]
            assert reached(ours, base) == (False not in every)
    assert "九成" in exercise("whole-2")


def test_whole_3() -> None:
    """Of poems of the corpus: those that are known go, and so do those that break a rule."""
    keep = solved("whole-3")["keep"]
    poems = [v for v in verses() if (v.form, v.rhyme) == ("五絕", "尤")]
    known = Known(line for v in poems[::2] for line in v.lines)
    left = keep([v.text for v in poems + poems], "五絕", "尤", known)
    assert left
    assert len(left) == len(set(left))
    for verse in poems:
        new = not any(known.has_like(line) for line in verse.lines)
        kept = judge(verse.text, form="五絕", rhyme="尤").keeps_all_rules and new
        assert (verse.text in left) == kept


def test_whole_4() -> None:
    """As it stands the program compares poems of one form with those of four."""
    given: dict = dict(GIVEN)
    exec(cells(PATH, "exercise")["whole-4"], given)
    rows = [RUNS["gpu"][0]["models"][title] for title in ("base", "RL")]
    before, after = (row["forms"]["七絕"] for row in rows)
    assert before["poems"] == after["poems"] < rows[0]["poems"]
    right = after["characters"] / before["characters"]
    assert solved("whole-4")["kept_characters"] == right
    assert given["kept_characters"] != right


def test_whole_5() -> None:
    """An open one: what it starts from stands in the notebook, and a row of a corpus is read."""
    source = PATH.read_text("utf8")
    for name in re.findall(r"`(\w+)`", exercise("whole-5")):
        assert name in source
    assert "verses.txt" in source
    assert len(vocabulary().encode(verses()[0])) > 20
    assert "whole-5" not in answers(PATH)
