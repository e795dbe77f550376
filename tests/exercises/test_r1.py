"""The exercises of the section on R1, solved from the tables of the paper and by drawing exams."""

import json
import math
import random
import re
import statistics
from itertools import pairwise

import pytest

from dsnotes.rl.reward import accuracy_reward, format_reward, language_reward

from .notebook import NOTEBOOKS, answers
from .page import exercise, page, rows, solution

QUESTIONS = 30


def aime(model: str) -> float:
    (row,) = (r for r in rows("r1_table4_main.csv") if r["benchmark"] == "AIME 2024")
    return float(row[model])


def test_r1_1() -> None:
    written = QUESTIONS * 64
    assert round(100 / QUESTIONS, 2) == 3.33
    assert round(100 / written, 3) == 0.052
    apart = aime("DeepSeek-R1") - aime("OpenAI-o1-1217")
    assert apart == pytest.approx(0.6)
    assert apart * written / 100 == pytest.approx(11.5, abs=0.1)
    assert f"$100/{QUESTIONS}$" in page("r1")
    assert f"$100/{written}$" in page("r1")
    assert f"{written:,} 份里的十一二份" in solution("r1-1")


def test_r1_2() -> None:
    """The spread of the difference of two scores, drawn: 30 questions, 16 answers each."""
    draw = random.Random(0)
    first, second = 0.710, 0.779
    written = QUESTIONS * 16

    def score(p: float) -> float:
        return 100 * sum(draw.random() < p for _ in range(written)) / written

    differences = [score(second) - score(first) for _ in range(1500)]
    spread = statistics.stdev(differences)
    assert spread == pytest.approx(2.8, abs=0.2)
    assert 2 < (second - first) * 100 / spread < 3
    assert "两倍多" in solution("r1-2")


def test_r1_3() -> None:
    assert 10_400 * 32 * 16 == 5_324_800
    assert 10_400 * 32 / 1.6 == 208_000
    assert rf"$10\,400\times{32 * 16}$" in page("r1")
    assert r"$10\,400\times32/1.6$" in page("r1")
    reasoning = {"Math", "Code", "STEM", "Logic"}
    table = [r for r in rows("r1v2_table4_rl_data.csv") if r["data_type"] in reasoning]
    assert len(table) == 4
    assert sum(int(re.fullmatch(r"(\d+)K", r["num_prompts"])[1]) for r in table) == 80


def test_r1_4() -> None:
    """Averages over different rows turn the order; and the counts that the page prints."""
    table = [r for r in rows("r1_table4_main.csv") if r["OpenAI-o1-1217"]]
    lower = [r for r in table if float(r["DeepSeek-R1"]) < float(r["OpenAI-o1-1217"])]
    assert (len(table), len(lower)) == (11, 6)
    names = sorted(r["benchmark"] for r in lower)
    assert names == ["Aider-Polyglot", "Codeforces", "Codeforces", "GPQA Diamond", "MMLU",
                     "SimpleQA"]  # fmt: skip
    percent = [r for r in rows("r1_table4_main.csv") if r["metric"] != "Rating"]
    mean = {
        (model, blank): statistics.mean(
            float(r[model]) for r in percent if blank is None or bool(r["OpenAI-o1-1217"]) is blank
        )
        for model, blank in [("DeepSeek-R1", b) for b in (None, True, False)]
        + [("OpenAI-o1-1217", True)]
    }
    naive = mean["DeepSeek-R1", None] - mean["OpenAI-o1-1217", True]
    paired = mean["DeepSeek-R1", True] - mean["OpenAI-o1-1217", True]
    assert 3.5 < naive < 4
    assert "R1 高三分多" in exercise("r1-4")
    assert -3 < paired < -2
    assert "R1 反而低两分多" in solution("r1-4")
    assert round(mean["DeepSeek-R1", False]) == 85
    assert sum(not r["OpenAI-o1-1217"] for r in percent) == 10
    assert "没有数的十行，R1 平均有八十五分" in solution("r1-4")


def test_r1_5() -> None:
    *table, total = rows("r1v2_table5_sft_data.csv")
    means = [float(r["avg_tokens"]) for r in table]
    counts = [int(r["num_samples"]) for r in table]
    weighted = sum(m * n for m, n in zip(means, counts, strict=True)) / sum(counts)
    assert round(weighted, 1) == float(total["avg_tokens"])
    assert statistics.mean(means) < weighted - 500
    assert sorted(zip(means, counts, strict=True))[1][1] < 0.25 * sum(counts)


def test_r1_6() -> None:
    """Three kinds of exam of the same mean: the more a question is all or nothing, the less the
    answers to it vary, and the more the drawing of the questions does."""
    draw, mean, samples = random.Random(0), 0.71, 16
    kinds = {
        "same": lambda: mean,
        "mixed": lambda: min(draw.betavariate(1.4, 0.6) * mean / 0.7, 1),
        "split": lambda: float(draw.random() < mean),
    }
    fixed, drawn = {}, {}
    for name, chance in kinds.items():
        exams = [[chance() for _ in range(QUESTIONS)] for _ in range(800)]
        fixed[name] = statistics.mean(
            100 * math.sqrt(sum(q * (1 - q) for q in exam) / samples) / QUESTIONS for exam in exams
        )
        scores = [
            100 * sum(draw.random() < q for q in exam for _ in range(samples)) / QUESTIONS / samples
            for exam in exams
        ]
        drawn[name] = statistics.stdev(scores)
    assert fixed["same"] > fixed["mixed"] > fixed["split"] == 0
    assert drawn["same"] < drawn["mixed"] < drawn["split"]
    assert drawn["same"] == pytest.approx(fixed["same"], rel=0.1)
    assert drawn["split"] > 3 * drawn["same"]


def test_r1_7() -> None:
    """What the planted readings mix up: two versions, blanks and zeros, one sum of three."""
    (v2,) = (r for r in rows("r1v2_table3_stages.csv") if r["benchmark"] == "AIME 2024")
    (v1,) = (r for r in rows("r1_table2_r1zero.csv") if r["model"] == "DeepSeek-R1-Zero")
    cold = float(v2["R1-Dev1"]) - float(v2["R1-Zero"])
    assert cold == pytest.approx(-18.9)
    assert float(v1["aime2024_pass1"]) != float(v2["R1-Zero"])
    main = rows("r1_table4_main.csv")
    higher = [float(r["DeepSeek-R1"]) > float(r["OpenAI-o1-1217"] or 0) for r in main]
    given = [bool(r["OpenAI-o1-1217"]) for r in main]
    assert (sum(higher), sum(h and g for h, g in zip(higher, given, strict=True))) == (15, 5)
    *parts, total = (float(r["h800_kgpu_hours"]) for r in rows("r1v2_table7_training_cost.csv"))
    assert sum(parts) == total
    assert "漏了 R1-Zero 与造数据" in solution("r1-7")


def test_r1_8() -> None:
    """The roots found by bisection, for several a: one each, as the formula says."""
    for a in (1.5, 3.0, 7.0, 20.0):

        def off(x: float, a: float = a) -> float:
            return math.sqrt(max(a - math.sqrt(a + x), 0)) - x

        grid = [i * (a / 4000) for i in range(4001)]
        inside = [x for x in grid if a - math.sqrt(a + x) >= 0]
        changes = [(low, high) for low, high in pairwise(inside) if off(low) > 0 >= off(high)]
        assert len(changes) == 1
        low, high = changes[0]
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if off(middle) > 0 else (low, middle)
        assert low == pytest.approx((-1 + math.sqrt(4 * a - 3)) / 2, abs=1e-9)
    for a, x in ((3.0, 0.7), (7.0, 2.1)):  # the equation of degree four, and its two factors
        quartic = x**4 - 2 * a * x**2 - x + a**2 - a
        assert quartic == pytest.approx((a - x**2 - x - 1) * (a - x**2 + x))
    assert r"a=x^2+x+1" in solution("r1-8")
    assert r"x=\frac{-1+\sqrt{4a-3}}2" in solution("r1-8")


def test_r1_9() -> None:
    thoughts = {"三 五 五": "5", "three 五 five 五": "5", "三 一 一": "1"}
    texts = [f"<think>{t}</think><answer>{a}</answer>" for t, a in thoughts.items()]
    each = zip(
        accuracy_reward(texts, answer=["5"] * 3),
        format_reward(texts),
        language_reward(texts, language=["zh"] * 3),
        strict=True,
    )
    assert [a + 0.1 * f + zh for a, f, zh in each] == pytest.approx([2.1, 1.6, 1.1])
    for name, text in zip("甲乙丙", thoughts, strict=True):
        assert f"| {name} | {text} | {thoughts[text]} |" in exercise("r1-9")
    assert "甲 2.1，乙 1.6，丙 1.1" in solution("r1-9")


def test_r1_10() -> None:
    """A vote of sixteen, drawn: wrong answers spread over four cups."""
    draw = random.Random(0)

    def vote(right: float, problems: int = 4000) -> float:
        wins = 0.0
        for _ in range(problems):
            found = draw.choices(range(5), [right, *[(1 - right) / 4] * 4], k=16)
            count = [found.count(cup) for cup in range(5)]
            best = [cup for cup in range(5) if count[cup] == max(count)]
            wins += (0 in best) / len(best)
        return wins / problems

    assert vote(0.76) > 0.99
    assert 0.25 < vote(0.25) < 0.45
    record = json.loads((NOTEBOOKS.parent / "book/data/runs/r1.json").read_text("utf8"))
    for stage, low, high in (("base", 0.25, 0.5), ("dev1", 0.95, 1)):
        measured = [run["stages"][stage]["majority"] for run in record["runs"]]
        assert low <= min(measured) <= max(measured) <= high


def test_r1_11() -> None:
    """An open one: what it asks to change stands in the experiment."""
    code = (NOTEBOOKS.parent / "experiments" / "r1.py").read_text("utf8")
    for start in ('stage("dev1", models["base"]', 'stage("dev3", models["base"]'):
        assert start in code
    assert 'stage("dev2", models["dev1"], three' in code
    assert "r1-11" not in answers(NOTEBOOKS / "r1.ipynb")
