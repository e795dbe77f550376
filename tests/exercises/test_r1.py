"""The exercises of the section on R1, solved from the tables of the paper and by drawing exams."""

import math
import random
import re
import statistics

import pytest

from .page import page, rows

QUESTIONS = 30


def aime(model: str) -> float:
    (row,) = (r for r in rows("r1_table4_main.csv") if r["benchmark"] == "AIME 2024")
    return float(row[model])


def test_r1_1() -> None:
    answers = QUESTIONS * 64
    assert round(100 / QUESTIONS, 2) == 3.33
    assert round(100 / answers, 3) == 0.052
    apart = aime("DeepSeek-R1") - aime("OpenAI-o1-1217")
    assert apart == pytest.approx(0.6)
    assert apart * answers / 100 == pytest.approx(11.5, abs=0.1)
    assert f"$100/{QUESTIONS}$" in page("r1")
    assert f"$100/{answers}$" in page("r1")
    assert f"{answers:,} 份里" in page("r1")


def test_r1_2() -> None:
    """The spread of the difference of two scores, drawn: 30 questions, 16 answers each."""
    draw = random.Random(0)
    first, second = 0.710, 0.779
    answers = QUESTIONS * 16

    def score(p: float) -> float:
        return 100 * sum(draw.random() < p for _ in range(answers)) / answers

    differences = [score(second) - score(first) for _ in range(1500)]
    spread = statistics.stdev(differences)
    assert spread == pytest.approx(2.8, abs=0.2)
    assert (second - first) * 100 / spread > 2


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
    table = [r for r in rows("r1_table4_main.csv") if r["OpenAI-o1-1217"]]
    lower = [r for r in table if float(r["DeepSeek-R1"]) < float(r["OpenAI-o1-1217"])]
    assert (len(table), len(lower)) == (11, 6)
    names = sorted(r["benchmark"] for r in lower)
    assert names == ["Aider-Polyglot", "Codeforces", "Codeforces", "GPQA Diamond", "MMLU",
                     "SimpleQA"]  # fmt: skip


def test_r1_5() -> None:
    *table, total = rows("r1v2_table5_sft_data.csv")
    means = [float(r["avg_tokens"]) for r in table]
    counts = [int(r["num_samples"]) for r in table]
    weighted = sum(m * n for m, n in zip(means, counts, strict=True)) / sum(counts)
    assert round(weighted, 1) == float(total["avg_tokens"])
    assert statistics.mean(means) < weighted - 500


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
