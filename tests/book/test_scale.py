"""What the page beyond one machine says of its two GPUs, in words that no notebook hands it."""

import json
import re
from pathlib import Path
from typing import Any

from dsnotes.data import find

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "book" / "whole" / "scale.md").read_text("utf8")
RECORD = json.loads(find("runs/parallel_gpu.json").read_text("utf8"))


def runs(cards: int, part: str) -> dict[tuple[int, int], dict[str, Any]]:
    return {
        (run["batch"], run["seed"]): run
        for run in RECORD["runs"]
        if (run["variant"], run["part"]) == (str(cards), part)
    }


def apart(part: str) -> dict[tuple[int, int], list[float]]:
    one, two = runs(1, part), runs(2, part)
    return {
        key: [abs(a - b) / a for a, b in zip(one[key]["loss"], run["loss"], strict=True)]
        for key, run in two.items()
    }


def test_losses_are_as_close_as_it_says() -> None:
    assert "单精度，三个种子，各走六步" in PAGE
    assert "第一步的差不到百万分之一，六步以内不到十万分之二" in PAGE
    same = apart("same")
    assert [seed for _, seed in same] == [0, 1, 2]
    for steps in same.values():
        assert len(steps) == 6
        assert steps[0] < 1e-6
        assert max(steps) < 2e-5
    assert "大的批次走到第十五步，已经差" in PAGE
    late = apart("time")[1536, 0]
    assert late.index(max(late)) + 1 == 15


def test_torchrun_and_processes_give_the_same_bits() -> None:
    assert "十六步的损失逐位相同" in PAGE
    script = RECORD["tables"]["examples"][0]
    loss = runs(2, "time")[384, 0]["loss"]
    assert len(loss) == 16
    assert script["loss"][:16] == loss


def test_the_table_has_the_batches_of_the_record() -> None:
    table = PAGE.split(":name: tab-scale-two")[1].split(":::")[0]
    batches = [int(batch) for batch in re.findall(r"^\| (\d+) 首", table, re.MULTILINE)]
    assert batches == [batch for batch, _ in runs(2, "time")]
    assert batches[0] == RECORD["settings"]["pretrain"]["batch_size"]
    assert batches[1] == 4 * batches[0]  # 批次大四倍


def test_two_gpus_pay_where_half_a_batch_does() -> None:
    def seconds(run: dict[str, Any]) -> float:
        return sum(run["seconds"][-RECORD["settings"]["timed"] :])

    one, two = runs(1, "time"), runs(2, "time")
    half, whole = seconds(one[192, 0]), seconds(one[384, 0])
    assert "反而慢了些" in PAGE
    assert "与读整批几乎一样久" in PAGE
    assert 0.9 < half / whole < 1
    assert 1 < seconds(two[384, 0]) / whole < 1.25
    assert "两张卡就快了一半" in PAGE
    assert 1.4 < seconds(one[1536, 0]) / seconds(two[1536, 0]) < 1.6
    assert "加梯度只占一小截" in PAGE
    extra = seconds(two[384, 0]) - half
    assert 8 * two[384, 0]["exchange"] < extra / 2


def test_every_script_ran_on_both() -> None:
    rows = {row["script"]: row for row in RECORD["tables"]["examples"]}
    assert list(rows) == ["verse_pretrain", "verse_sft", "verse_grpo"]
    assert not RECORD["tables"]["errors"]
    assert all("on 2 process(es)" in row["told"] or ", 2 process(es)" in row["told"]
               for row in rows.values())  # fmt: skip
    told = (ROOT / "examples" / "README.md").read_text("utf8")
    for name in ("verse_sft", "verse_grpo"):
        assert min(rows[name]["grad_norm"]) > 0
        trl, transformers = (
            ".".join(rows[name][package].split(".")[:2]) for package in ("trl", "transformers")
        )
        assert f"TRL {trl}、transformers {transformers}" in told
