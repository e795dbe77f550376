"""What the pages on R1 say in words, against the tables of the paper and the recorded run."""

import csv
import json
import statistics
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book"
PAGE = (BOOK / "results" / "r1.md").read_text("utf8")
MINI = (BOOK / "whole" / "r1-miniature.md").read_text("utf8")
RUNS = json.loads((BOOK / "data" / "runs" / "r1.json").read_text("utf8"))["runs"]


def table(name: str) -> list[dict[str, str]]:
    with (BOOK / "data" / f"{name}.csv").open(encoding="utf8") as file:
        return list(csv.DictReader(file))


def median(stage: str, key: str) -> float:
    return statistics.median(run["stages"][stage][key] for run in RUNS)


def test_against_o1_it_is_lower_in_one_row_more_than_higher() -> None:
    pairs = [
        (float(r["DeepSeek-R1"]), float(r["OpenAI-o1-1217"]))
        for r in table("r1_table4_main")
        if r["OpenAI-o1-1217"]
    ]
    lower, higher = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    assert lower == higher + 1
    assert "它低的比高的还多一行" in PAGE
    blank = sum(not r["OpenAI-o1-1217"] for r in table("r1_table4_main"))
    assert 0.4 < blank / 21 < 0.5
    assert "将近一半的格" in PAGE


def test_the_smallest_student_is_above_gpt_4o_in_half_of_the_columns() -> None:
    rows = {r["model"]: r for r in table("r1_table5_distilled")}
    small, large = rows["DeepSeek-R1-Distill-Qwen-1.5B"], rows["GPT-4o-0513"]
    for column in ("aime2024_pass1", "math500_pass1", "codeforces_rating"):
        assert float(small[column]) > float(large[column])
    for column in ("gpqa_diamond_pass1", "livecodebench_pass1"):
        assert float(small[column]) < float(large[column]) - 10
    assert "在 GPQA 与 LiveCodeBench 上却远不如" in PAGE


def test_costs_in_words() -> None:
    rows = {r["item"]: float(r["h800_kgpu_hours"]) for r in table("r1v2_table7_training_cost")}
    (total,) = (
        float(r["H800 千 GPU 小时"])
        for r in table("v3_table1_training_cost")
        if r["阶段"] == "合计"
    )
    assert rows["Total"] / total == pytest.approx(1 / 20, abs=0.005)
    assert "二十分之一" in PAGE


def test_a_base_older_than_o1_gains_almost_threefold() -> None:
    rows = {r["model"]: r for r in table("r1v2_table17_qwen2math_zero")}
    zero, instruct = (
        float(rows[f"Qwen2-Math-7B-{name}"]["aime_2024"]) for name in ("Zero", "Instruct")
    )
    assert 2.7 < zero / instruct < 3
    assert "近三倍" in PAGE


def test_rows_in_which_the_one_without_examples_stays_the_best() -> None:
    stages = ["R1-Zero", "R1-Dev1", "R1-Dev2", "R1-Dev3", "R1"]
    best = [
        r["benchmark"]
        for r in table("r1v2_table3_stages")
        if float(r["R1-Zero"]) == max(float(r[s]) for s in stages)
    ]
    assert best == ["GPQA Diamond", "SimpleQA", "CNMO 2024", "CLUEWSC", "C-Eval"]
    assert "在 GPQA Diamond、SimpleQA、CNMO、CLUEWSC 与 C-Eval 上始终最高" in PAGE


def test_the_limit_and_the_base_are_on_the_page() -> None:
    """What explains the two ends, and what the base had seen before."""
    for said in ("8.2k", "65,536", "附录 A.1", "附录 B.6", "附录 C.2", "aha moment"):
        assert said in PAGE
    assert "数据文件" not in PAGE + MINI


def test_the_stages_of_the_miniature_go_up_down_and_up() -> None:
    zero, dev1, dev2, r1 = (median(s, "pass_at_1") for s in ("zero", "dev1", "dev2", "r1"))
    assert zero > dev1 < dev2 <= r1
    assert median("zero", "chinese") < 0.6 < median("dev1", "chinese") < median("dev2", "chinese")
    assert "升，跌，再升" in MINI


def test_the_weak_student_learns_format_and_language_only() -> None:
    for run in RUNS:
        score = run["stages"]["student_rl"]
        assert score["pass_at_1"] < 0.25
        assert min(score["format"], score["chinese"]) > 0.85
    assert median("longer_rl", "pass_at_1") < median("distilled", "pass_at_1")
    assert "三个种子的正确率都停在瞎猜" in MINI


def test_the_page_quotes_texts_of_every_stage() -> None:
    for stage in ("base", "zero", "dev1", "dev2", "dev3", "r1", "student", "distilled"):
        assert f"text_{stage}_0_thought" in MINI
        for run in RUNS:
            assert len(run["texts"][stage]) == 4
    alike = {s: {w["text"] for w in RUNS[0]["texts"][s]} for s in RUNS[0]["texts"]}
    for stage in ("dev2", "dev3", "r1", "distilled", "longer_rl"):
        assert len(alike[stage]) == 1
        assert f"text_{stage}_1_thought" not in MINI
    for stage in ("base", "zero", "dev1", "student", "student_rl"):
        assert len(alike[stage]) > 1
        assert f"text_{stage}_2_thought" in MINI
    problems = {w["problem"] for run in RUNS for texts in run["texts"].values() for w in texts}
    assert len(problems) == 1


def test_the_ball_is_followed_for_the_reader() -> None:
    """The example's first exchanges, in words, and what the two sets of answers cost."""
    start, *swaps = RUNS[0]["texts"]["zero"][0]["problem"].removesuffix(" =").split()
    assert start == "1"
    assert all("1" not in swap for swap in swaps[:3])
    assert swaps[3] == "1-5"
    assert "前三次换的都不是它" in MINI
    assert "第四次一与五对换" in MINI
    assert all(100 < run["samples"]["zero"]["kept"] < 200 for run in RUNS)
    assert "一百多份正确回答微调三十步" in MINI
    assert all(run["samples"]["dev2"]["drawn"] == 4 * 1000 for run in RUNS)
    assert "一千道题，每题四份" in MINI


def test_the_third_stage_is_as_good_as_the_second() -> None:
    for run in RUNS:
        dev2, dev3 = (run["stages"][s]["pass_at_1"] for s in ("dev2", "dev3"))
        assert dev3 == pytest.approx(dev2, abs=0.01)
    assert ":answer: 差不多" in MINI
