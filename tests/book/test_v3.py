"""What the page on V3's results says in words, against the tables of the report."""

import csv
from pathlib import Path

BOOK = Path(__file__).parents[2] / "book"
PAGE = (BOOK / "results" / "v3.md").read_text("utf8")


def table(name: str) -> list[dict[str, str]]:
    with (BOOK / "data" / f"{name}.csv").open(encoding="utf8") as file:
        return list(csv.DictReader(file))


CHAT = table("v3_table6_chat_eval")
MODELS = list(CHAT[0])[3:]


def lead(row: dict[str, str]) -> float:
    """Of V3 over the best of the others."""
    return float(row["DeepSeek-V3"]) - max(float(row[m] or 0) for m in MODELS[:-1])


def test_it_leads_by_more_than_ten_points_in_mathematics() -> None:
    leads = [lead(row) for row in CHAT if row["category"] == "Math"]
    assert len(leads) == 3
    assert min(leads) > 10
    assert "数学的三行里它都比第二名高出十分以上" in PAGE
    (aime,) = (lead(row) for row in CHAT if row["benchmark"] == "AIME 2024")
    assert 10 < aime < 20
    assert "领先十几分" in PAGE


def test_where_it_is_not_the_best() -> None:
    behind = {row["benchmark"] for row in CHAT if lead(row) < 0}
    assert {"GPQA-Diamond", "SimpleQA", "SWE Verified", "FRAMES"} <= behind
    assert "LongBench v2" not in behind
    assert sum(lead(row) >= 0 for row in CHAT) > len(CHAT) / 2
    assert "对话的一半以上都最好" in PAGE
    assert sum(not row[m] for row in CHAT for m in MODELS) == 2
    assert "对话模型的表里有两格没有给" in PAGE


def test_another_measurement_changes_the_order() -> None:
    names = ["DeepSeek-V3", "Claude-3.5-Sonnet-1022", "GPT-4o-0513"]
    (ours,) = (r for r in CHAT if (r["benchmark"], r["metric"]) == ("LiveCodeBench", "Pass@1-COT"))
    (theirs,) = (r for r in table("r1_table4_main") if r["benchmark"] == "LiveCodeBench")
    orders = [sorted(names, key=lambda m: -float(row[m])) for row in (ours, theirs)]
    assert orders[0] == names
    assert orders[1] == [names[1], names[0], names[2]]
    assert "从第一掉到第二" in PAGE


def test_a_token_of_the_dense_model_uses_ten_times_the_parameters() -> None:
    active = {
        r["model"]: float(r["activated_params_B"])
        for r in table("v3_table3_6_models_meta")
        if r["activated_params_B"]
    }
    assert active["DeepSeek-V3-Base"] < active["LLaMA-3.1-405B-Base"] / 10
    assert "不到十分之一" in PAGE


def test_distillation_lengthens_one_answer_and_not_the_other() -> None:
    before, after = table("v3_table9_r1_distill_ablation")
    code, math = (
        float(after[f"{t}_length"]) / float(before[f"{t}_length"])
        for t in ("livecodebench_cot", "math500")
    )
    assert 1 < code < 1.1
    assert 1.9 < math < 2
    assert "只长了不到一成" in PAGE


def test_the_page_opens_with_the_finding() -> None:
    first = PAGE.split("## 要解决的问题\n\n")[1].split("\n")[0]
    assert first.startswith("同一个模型，同一项编程测试")
    assert "数据文件" not in PAGE
