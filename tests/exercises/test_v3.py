"""The exercises of the section on V3's results, solved from the tables of the report."""

import math

import pytest

from .notebook import NOTEBOOKS, answers, cells
from .page import exercise, page, rows, solution

BASES = ["DeepSeek-V2-Base", "Qwen2.5-72B-Base", "LLaMA-3.1-405B-Base", "DeepSeek-V3-Base"]


def behind(row: dict[str, str], model: str, tie: float) -> bool:
    sign = -1 if row["metric"] == "BPB" else 1
    scores = {m: sign * float(row[m]) for m in BASES}
    return scores[model] < max(scores.values()) - (0 if sign < 0 else tie) - 1e-9


def in_front(model: str, tie: float, table: list[dict[str, str]]) -> int:
    return sum(not behind(row, model, tie) for row in table)


def test_v3_1() -> None:
    table = rows("v3_table3_base_eval.csv")
    strict, tied = (in_front("DeepSeek-V3-Base", tie, table) for tie in (0, 0.3))
    assert (strict, tied) == (20, 22)
    lost = [r for r in table if behind(r, BASES[3], 0) and not behind(r, BASES[3], 0.3)]
    names = [row["benchmark"] for row in lost]
    assert names == ["HellaSwag", "CLUEWSC"]
    answer = answers(NOTEBOOKS / "v3.ipynb")["v3-1"].right
    assert answer.strip() == f"strict = {strict}\nlost = {names}".replace("'", '"')


def test_v3_2() -> None:
    changes = []
    for row in rows("v3_table4_mtp_ablation.csv"):
        sign = -1 if "BPB" in row.values() else 1
        for size in ("小", "大"):
            before, after = (float(row[f"{size}，{which}"]) for which in ("无", "有"))
            changes.append(sign * round(after - before, 3))
    ups, downs = sum(c > 0 for c in changes), sum(c < 0 for c in changes)
    assert len(changes) == 20
    assert (ups, downs) == (17, 2)
    # by counting outcomes: at most 2 of 19 fall
    outcomes = 1 + 19 + 19 * 18 // 2
    assert outcomes == 191
    assert "(171+19+1)/2^{19}" in page("v3")
    assert f"{ups + downs} 格里升" in page("v3")
    assert outcomes / 2**19 == pytest.approx(3.6e-4, rel=0.02)
    assert "万分之三点六" in solution("v3-2")


def test_v3_3() -> None:
    first, second = rows("v3_table9_r1_distill_ablation.csv")
    per_doubling = {}
    for task in ("livecodebench_cot", "math500"):
        gain = float(second[f"{task}_pass1"]) - float(first[f"{task}_pass1"])
        longer = float(second[f"{task}_length"]) / float(first[f"{task}_length"])
        per_doubling[task] = gain / math.log2(longer)
    assert per_doubling["math500"] == pytest.approx(8.8, abs=0.1)
    assert per_doubling["livecodebench_cot"] > 5 * per_doubling["math500"]


def test_v3_4() -> None:
    table = {row["model"]: row for row in rows("v3_table8_rewardbench.csv")}
    parts = ("chat", "chat_hard", "safety", "reasoning")
    for row in table.values():
        mean = sum(float(row[p]) for p in parts) / 4
        assert mean == pytest.approx(float(row["average"]), abs=0.05 + 1e-9)
    one, six = table["DeepSeek-V3"], table["DeepSeek-V3 (maj@6)"]
    gain = {p: float(six[p]) - float(one[p]) for p in parts}
    share = {p: gain[p] / sum(gain.values()) for p in parts}
    assert share["chat"] == 0
    assert share["reasoning"] == pytest.approx(0.48, abs=0.03)
    for part in ("chat_hard", "safety"):
        assert share[part] == pytest.approx(0.25, abs=0.05)


def test_v3_5() -> None:
    table = rows("v3_table1_training_cost.csv")
    hours = {row["阶段"]: float(row["H800 千 GPU 小时"]) for row in table}
    assert 100 * hours["后训练"] / hours["合计"] == pytest.approx(0.18, abs=0.005)
    assert "千分之二" in solution("v3-5")
    of_r1 = {r["item"]: float(r["h800_kgpu_hours"]) for r in rows("r1v2_table7_training_cost.csv")}
    assert of_r1["DeepSeek-R1-Zero"] / hours["后训练"] == pytest.approx(20, abs=0.5)
    assert "二十倍" in solution("v3-5")


def test_v3_6() -> None:
    table = [row for row in rows("v3_table3_base_eval.csv") if row["metric"] != "BPB"]
    for tie in (0, 0.3, 1, 2, 3, 5):
        counts = {m: in_front(m, tie, table) for m in BASES}
        assert max(counts, key=counts.get) == "DeepSeek-V3-Base"
    pairs = [
        (in_front(BASES[3], tie, table), in_front("LLaMA-3.1-405B-Base", tie, table))
        for tie in (0, 0.3, 1, 2, 3, 5)
    ]
    assert [v3 - llama for v3, llama in pairs] == [12, 13, 14, 17, 15, 12]
    assert pairs[0][0] / pairs[0][1] == 2.5
    assert pairs[-1][0] / pairs[-1][1] == pytest.approx(1.7, abs=0.01)


def test_v3_7() -> None:
    """What the planted readings hide: two tables, blanks taken for zeros, two models."""
    one, other = (
        {r["基准"]: r for r in rows(f"v3_table{name}_ablation.csv")}
        for name in ("4_mtp", "5_auxfree")
    )
    plain = float(one["HumanEval"]["小，无"])
    assert float(one["HumanEval"]["小，有"]) - plain == pytest.approx(6.1)
    assert plain != float(other["HumanEval"]["小，无"])
    code = [r for r in rows("v3_table6_chat_eval.csv") if r["category"] == "Code"]
    assert (len(code), sum(not r["DeepSeek-V2-0506"] for r in code)) == (7, 2)
    assert "代码的七行" in cells(NOTEBOOKS / "v3.ipynb", "exercise")["v3-7"]
    assert "`None`" in exercise("v3-7")


def test_v3_8() -> None:
    """An open one: nothing to grade, and nothing that looks like an answer."""
    assert "open" in exercise("v3-8")
    assert "v3-8" not in answers(NOTEBOOKS / "v3.ipynb")
