"""What the pages of FP8 work out by hand, and what their drawings show."""

import json
import re
import statistics
from pathlib import Path

import pytest
import torch

from dsnotes.data import find
from dsnotes.training.fp8.formats import cast, decode, dequantize, quantize
from dsnotes.training.fp8.gemm import tensor_core_matmul

BOOK = Path(__file__).parents[2] / "book"
PAGE = (BOOK / "training" / "fp8.md").read_text("utf8")


def number(text: str) -> float:
    text = text.replace("−", "-").replace("$2^{-9}$", str(2**-9))
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def test_the_row_worked_out_by_hand() -> None:
    table = PAGE.split(":name: tab-fp8-hand")[1].split(":::")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if re.match(r"\| [−\d]", line)
    ]
    x = torch.tensor([[number(row[0]) for row in rows]])
    q = quantize(x)
    assert q.scale_inv.item() == 1 / 128
    every = decode(torch.arange(256))
    every = every[every.isfinite()].unique()
    for row, value, code, back in zip(
        rows, x[0].tolist(), q.data[0].float().tolist(), dequantize(q)[0].tolist(), strict=True
    ):
        assert number(row[1]) == pytest.approx(value * 128)
        around = [number(cell.strip("*")) for cell in row[2].split("、")]
        below, above = every[every <= value * 128].max(), every[every >= value * 128].min()
        assert around == sorted({below.item(), above.item()})
        (bold,) = re.findall(r"\*\*(.*?)\*\*", row[2])
        assert number(bold) == code
        assert number(row[3]) == pytest.approx(back, rel=2e-3)
        assert number(row[4]) == pytest.approx(abs(back / value - 1), abs=5e-4)


def test_the_number_line_follows_1_3() -> None:
    drawing = (BOOK / "figures" / "fp8-numberline.svg").read_text("utf8")
    (found,) = dequantize(quantize(torch.tensor([[3.5, 1.3]])))[0, 1:].tolist()
    assert found == 1.25
    assert cast(torch.tensor(1.3 * 128)).item() == 160
    assert "1.25，比 1.3 小 3.8%" in drawing
    assert round(1 - 1.25 / 1.3, 3) == 0.038


def test_the_register_adds_1_and_3_as_drawn() -> None:
    drawing = (BOOK / "figures" / "fp8-register.svg").read_text("utf8")
    a, b = torch.tensor([[128.0, 1, 3]]), torch.tensor([[128.0, 1, 1]])
    assert tensor_core_matmul(a, b).item() == 16386
    assert (a @ b.T).item() == 16388
    assert "16,384 + 0 + 2 = 16,386，应为 16,388" in drawing


LOSS = json.loads(find("runs/fp8_loss.json").read_text("utf-8"))
VARIANTS = ("v3", "dgrad 128x128", "fp32", "bf16", "bf16 again")


def test_the_runs_of_the_wide_model_are_pairs() -> None:
    """Every variant has every seed, trained to the end; only the linear layers differ at first."""
    assert LOSS["settings"]["parameters"] >= 40e6
    assert len(LOSS["seeds"]) >= 5
    runs = {(r["variant"], r["seed"]): r for r in LOSS["runs"]}
    assert runs.keys() == {(v, s) for v in VARIANTS for s in LOSS["seeds"]}
    for seed in LOSS["seeds"]:
        first = [runs[v, seed]["curve"][0]["held_out"] for v in VARIANTS]
        assert max(first) / min(first) - 1 < 1e-3
    steps = [point["step"] for point in LOSS["runs"][0]["curve"]]
    assert all([point["step"] for point in r["curve"]] == steps for r in LOSS["runs"])
    assert steps[-1] == LOSS["settings"]["poems"] // LOSS["settings"]["batch"]


def test_fp8_lies_within_a_quarter_of_a_percent_at_the_end() -> None:
    runs = {(r["variant"], r["seed"]): r["held_out"] for r in LOSS["runs"]}
    for variant in VARIANTS:
        gaps = [100 * (runs[variant, s] / runs["bf16", s] - 1) for s in LOSS["seeds"]]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5
        assert error < 0.15
        assert abs(statistics.mean(gaps)) + 2 * error < 0.25 or variant == "bf16 again"


def test_rounding_is_far_below_sampling_and_does_not_average_out() -> None:
    rows = {(r["variant"], r["batch"], r["seed"]): r for r in LOSS["tables"]["gradients"]}
    for kind in ("attention", "routed", "others"):
        for seed in LOSS["seeds"][:3]:
            of = {k[:2]: r[kind] for k, r in rows.items() if k[2] == seed}
            assert of["sampling", 512] > 10 * of["v3", 512]
            assert of["v3", 512] > 0.8 * of["v3", 32]
            assert of["sampling", 512] < 0.3 * of["sampling", 32]
            assert of["only fprop", 512] > of["only wgrad", 512] > of["only dgrad", 512]
