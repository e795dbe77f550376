"""The tables behind the results pages: what must hold between their cells, recomputed."""

import math
import re
from itertools import pairwise
from pathlib import Path

import pytest

from dsnotes.figures.tables import read_table

DATA = Path(__file__).parents[1] / "book" / "data"
FILES = sorted(DATA.glob("*.csv"))
DOLLARS_PER_HOUR = 2


def table(name):
    return read_table(DATA / f"{name}.csv")


def test_every_file_is_listed_with_its_source() -> None:
    listed = set(re.findall(r"^\| `(\w+\.csv)` \|", (DATA / "README.md").read_text("utf8"), re.M))
    assert listed == {path.name for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_file_reads_cleanly(path: Path) -> None:
    """UTF-8 without mark, LF, no space around a cell, no row or column twice."""
    raw = path.read_bytes()
    assert not raw.startswith(b"\xef\xbb\xbf")
    assert b"\r" not in raw
    assert raw.endswith(b"\n")
    read = read_table(path)
    assert all(cell == cell.strip() for row in read.rows for cell in row)
    assert len(set(read.columns)) == len(read.columns)
    assert len(set(read.rows)) == len(read.rows)


PERCENT = {
    "r1_table2_r1zero": ("codeforces_rating",),
    "r1_table4_main": (),
    "r1_table5_distilled": ("codeforces_rating",),
    "r1_table6_distill_vs_rl": (),
    "r1v2_table3_stages": (),
    "r1v2_table14_lcb_by_difficulty": (),
    "r1v2_table17_qwen2math_zero": (),
    "v3_table3_base_eval": (),
    "v3_table6_chat_eval": (),
    "v3_table7_open_ended": (),
    "v3_table8_rewardbench": (),
    "v4_table1_base": (),
}


@pytest.mark.parametrize("name", PERCENT)
def test_scores_are_percentages(name: str) -> None:
    """With at most one decimal (two where the paper prints two); ratings and BPB are set apart."""
    read = table(name)
    labels = {"category", "benchmark", "metric", "shots", "model", "difficulty"}
    for row in read.rows:
        if {"Rating", "BPB"} & set(row):
            continue
        for column, cell in zip(read.columns, row, strict=True):
            if column in labels or column in PERCENT[name] or not cell:
                continue
            assert 0 < float(cell) <= 100, (row, column)
            assert re.fullmatch(r"\d+\.\d\d?", cell), (row, column)


# --- training cost ---


def test_cost_of_v3() -> None:
    cost = table("v3_table1_training_cost")
    _, hours_column, dollars_column = cost.columns
    *hours, total = cost.values(hours_column)
    assert sum(hours) == total
    million = [k * DOLLARS_PER_HOUR / 1e3 for k in (*hours, total)]
    assert million == pytest.approx(cost.values(dollars_column), abs=1e-9)
    assert hours[0] == pytest.approx(180 * 14.8, abs=1e-9)  # 180K hours a trillion tokens
    days = 180e3 / 2048 / 24  # a trillion tokens on 2048 GPUs
    assert round(days, 1) == 3.7


def test_cost_of_r1() -> None:
    cost = table("r1v2_table7_training_cost")
    *hours, total = cost.values("h800_kgpu_hours")
    assert sum(hours) == total
    assert [k * DOLLARS_PER_HOUR for k in (*hours, total)] == cost.values("usd_thousand")
    gpus = 64 * 8
    assert [round(gpus * h / 1e3) for h in (198, 80)] == [hours[0], hours[2]]


# --- R1 ---


def test_curve_lies_on_the_grid_of_its_measurement() -> None:
    """30 questions, 16 answers each: pass@1 in 480ths, the vote in 150ths."""
    curve = table("r1_fig2_aime_curve")
    for column, parts in (("pass1", 480), ("cons16", 150)):
        for value in curve.values(column):
            assert value * parts == pytest.approx(round(value * parts), abs=0.05)
    steps = curve.values("step")
    assert all(a < b for a, b in pairwise(steps))
    assert (steps[0], steps[-1]) == (200, 8400)
    end = table("r1_table2_r1zero")
    assert round(100 * curve.number("200", "pass1"), 1) == 15.6
    for column, of_the_table in (("pass1", "aime2024_pass1"), ("cons16", "aime2024_cons64")):
        assert round(100 * curve.number("8400", column), 1) == end.number(
            "DeepSeek-R1-Zero", of_the_table
        )


def test_length_grows_to_the_same_last_step() -> None:
    lengths = table("r1_fig3_length_curve")
    steps, tokens = lengths.values("step"), lengths.values("avg_response_tokens_approx")
    assert all(a < b for a, b in pairwise(steps))
    assert steps[-1] == table("r1_fig2_aime_curve").values("step")[-1]
    assert tokens[-1] > 15 * tokens[0]
    assert all(t % 10 == 0 for t in tokens)  # read to about 100 tokens, rounded to 10


def test_both_versions_agree_on_r1_itself() -> None:
    v1, v2 = table("r1_table4_main"), table("r1v2_table3_stages")
    assert v1.labels("benchmark") == v2.labels("benchmark")
    assert v1.values("DeepSeek-R1") == v2.values("R1")
    metrics = [
        (row, a, b)
        for row, a, b in zip(
            v1.labels("benchmark"), v1.labels("metric"), v2.labels("metric"), strict=True
        )
        if a != b
    ]
    assert metrics == [("MMLU", "Pass@1", "EM")]


ROWS = {  # columns of some tables, and the same benchmark where it is a row
    "aime2024_pass1": "AIME 2024",
    "math500_pass1": "MATH-500",
    "gpqa_diamond_pass1": "GPQA Diamond",
    "livecodebench_pass1": "LiveCodeBench",
    "codeforces_rating": "Codeforces & Rating",
}


def test_r1_zero_differs_between_the_versions_in_two_cells() -> None:
    v1, v2 = table("r1_table2_r1zero"), table("r1v2_table3_stages")
    differ = {
        column
        for column, row in ROWS.items()
        if v1.number("DeepSeek-R1-Zero", column) != v2.number(row, "R1-Zero")
    }
    assert differ == {"aime2024_pass1", "gpqa_diamond_pass1"}


def test_the_same_model_has_the_same_scores_in_the_tables_of_one_version() -> None:
    main, students = table("r1_table4_main"), table("r1_table5_distilled")
    zero, versus = table("r1_table2_r1zero"), table("r1_table6_distill_vs_rl")
    for column, row in ROWS.items():
        for model in ("GPT-4o-0513", "Claude-3.5-Sonnet-1022", "OpenAI-o1-mini"):
            assert students.number(model, column) == main.number(row, model), (model, column)
    for column in zero.columns[1:]:
        assert zero.number("OpenAI-o1-mini", column) == students.number("OpenAI-o1-mini", column)
    for model in ("QwQ-32B-Preview", "DeepSeek-R1-Distill-Qwen-32B"):
        for column in versus.columns[1:]:
            assert versus.number(model, column) == students.number(model, column)


def test_sft_data_add_up() -> None:
    data = table("r1v2_table5_sft_data")
    *counts, total = data.values("num_samples")
    *tokens, mean = data.values("avg_tokens")
    assert sum(counts) == total
    weighted = sum(n * t for n, t in zip(counts, tokens, strict=True)) / total
    assert round(weighted, 1) == mean
    assert sum(counts[:4]) == 626_933


def test_index_of_the_fresh_contests() -> None:
    fresh = table("r1v2_table13_fresh_math")
    for amc, aime, index in zip(*(fresh.values(c) for c in fresh.columns[1:]), strict=True):
        assert index == pytest.approx(amc + 10 * aime, abs=1e-9)


def test_students_and_their_bases() -> None:
    rates, students = table("r1v2_table6_distill_lr"), table("r1_table5_distilled")
    names = rates.labels("distilled_model")
    assert names == [m for m in students.labels("model") if "Distill" in m]
    sizes = [re.search(r"([\d.]+B)$", name)[1] for name in names]
    for size, base in zip(sizes, rates.labels("base_model"), strict=True):
        assert f"-{size}" in base
    rate = rates.values("initial_lr")
    for family in (rate[:4], rate[4:]):  # the larger the student the smaller the rate
        assert all(a > b for a, b in pairwise(family))


# --- V3 ---


def test_v3_in_both_papers() -> None:
    """Equal but for three rows, whose tests differ or for which the paper gives no reason."""
    v3, r1 = table("v3_table6_chat_eval"), table("r1_table4_main")
    renamed = {"GPQA Diamond": "GPQA-Diamond"}
    differ = set()
    shared = 0
    for row in r1.rows:
        name, metric = row[1:3]
        found = [
            other
            for other in v3.rows
            if other[1] == renamed.get(name, name)
            and (other[1] not in ("LiveCodeBench", "Codeforces") or other[2] == metric)
        ]
        if not found:
            continue
        shared += 1
        theirs = found[0][v3.columns.index("DeepSeek-V3")]
        if theirs != row[r1.columns.index("DeepSeek-V3")]:
            differ.add(name)
    assert shared == 18
    assert differ == {"LiveCodeBench", "Codeforces", "C-SimpleQA"}
    opened = table("v3_table7_open_ended")
    assert opened.number("DeepSeek-V3", "arena_hard") == r1.number("ArenaHard", "DeepSeek-V3")
    assert opened.number("DeepSeek-V3", "alpacaeval2_lc_winrate") == r1.number(
        "AlpacaEval2.0", "DeepSeek-V3"
    )


def test_rows_of_v32_and_v4() -> None:
    """Counts of the reports' tables: 14 rows of V3.2-Exp, one of them a rating; 24 of V4."""
    exp, base = table("v32_table1_exp"), table("v4_table1_base")
    assert (len(exp.rows), len(base.rows)) == (14, 24)
    assert [r[1] for r in exp.rows if float(r[2]) > 100] == ["Codeforces-Div1"]
    assert [r[0] for r in base.rows if float(r[3]) < float(r[1])] == [
        "BBH",
        "BigCodeBench",
        "CMath",
    ]


def test_average_of_rewardbench() -> None:
    bench = table("v3_table8_rewardbench")
    for *parts, average in zip(*(bench.values(c) for c in bench.columns[1:]), strict=True):
        assert average == pytest.approx(sum(parts) / 4, abs=0.05 + 1e-9)


def test_rows_that_v3_base_does_not_lead() -> None:
    """A gap of 0.3 counts as level for scores (caption of Table 3), none for bits per byte."""
    read = table("v3_table3_base_eval")
    lost = set()
    for row in read.rows:
        bits = "BPB" in row
        *others, v3 = (-float(cell) if bits else float(cell) for cell in row[4:])
        if v3 < max(others) - (0 if bits else 0.3 + 1e-9):
            lost.add(row[1])
    assert len(read.rows) == 32
    assert lost == {
        "Pile-test",
        "PIQA",
        "WinoGrande",
        "RACE-Middle",
        "RACE-High",
        "NaturalQuestions",
        "CMMLU",
        "CMRC",
        "C3",
        "CCPM",
    }


def test_cells_in_which_the_ablations_lose() -> None:
    lost = {}
    for name in ("v3_table4_mtp_ablation", "v3_table5_auxfree_ablation"):
        read = table(name)
        lost[name] = set()
        for row in read.rows:
            sign = -1 if "BPB" in row else 1
            small_without, small_with, large_without, large_with = map(float, row[-4:])
            for size, a, b in (
                ("small", small_without, small_with),
                ("large", large_without, large_with),
            ):
                if sign * b < sign * a:
                    lost[name].add((row[0], size))
    assert lost == {
        "v3_table4_mtp_ablation": {("NaturalQuestions", "small"), ("MMLU", "large")},
        "v3_table5_auxfree_ablation": {("MBPP", "small"), ("MMLU", "large")},
    }


def test_sizes_of_the_models_in_the_header_rows() -> None:
    meta = table("v3_table3_6_models_meta")
    for base_or_chat, name in (("3", "v3_table3_base_eval"), ("6", "v3_table6_chat_eval")):
        models = [row[1] for row in meta.rows if row[0] == base_or_chat]
        assert models == list(table(name).columns[-len(models) :])
    for row in meta.rows:
        activated, total = (float(c) if c else math.nan for c in row[3:])
        assert not activated > total
        assert (row[2] == "Dense") == (activated == total)
    tokens = table("v3_table4_5_ablation_models")
    assert tokens.values("training_tokens_B") == [1330, 540, 1330, 578]


def test_balance_scope() -> None:
    """Batch-wise loss and bias end at the same loss; the sequence-wise one is worse."""
    for _, sequence, bias, batch in table("v3_sec453_balance_scope_val_loss").rows:
        assert bias == batch
        assert float(sequence) - float(bias) == pytest.approx(0.005, abs=1e-9)
