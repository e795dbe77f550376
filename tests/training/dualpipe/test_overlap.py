"""The overlapped pair of `experiments/overlap_gpu.py`, on gloo, and what its record says."""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from dsnotes.data import find
from dsnotes.training.dualpipe.launch import Ranks

sys.path.insert(0, str(Path(__file__).parents[3] / "experiments"))  # also in the processes
import overlap_gpu

SIZE = {"layers": 3, "tokens": 8, "hidden": 32, "heads": 4, "width": 16, "copies": 4}


@pytest.fixture(scope="module")
def found():
    """Results of both ways on both ranks."""
    ways = (overlap_gpu.serial, overlap_gpu.overlapped)
    with Ranks(2) as ranks:
        return [ranks.call(of_rank, [(way, 2, SIZE, "cpu")] * 2, timeout=300.0) for way in ways]


def of_rank(on_wait: Any, *job: Any) -> dict[str, Tensor]:
    return overlap_gpu.results(*job)


def test_overlapped_equals_serial_bit_for_bit(found) -> None:
    for serial, overlapped in zip(*found, strict=True):
        assert serial.keys() == overlapped.keys()
        for name, value in serial.items():
            assert value.norm() > 0
            assert torch.equal(value, overlapped[name]), name


def test_serial_equals_autograd_in_one_process(found, monkeypatch) -> None:
    """Both ranks here, tokens handed over by hand: rank r gets the r-th half of all rows."""
    ranks = []
    for rank in range(2):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        ranks.append(overlap_gpu.problem(SIZE, "cpu"))

    def exchange(rows: list[Tensor]) -> list[Tensor]:
        return [torch.cat([x.chunk(2)[rank] for x in rows]) for rank in range(2)]

    inputs = [x.requires_grad_() for _, x, _ in ranks]
    streams: list[list[Tensor]] = [[x] for x in inputs]
    for i in range(SIZE["layers"]):
        layers = [layers[i] for layers, _, _ in ranks]
        pairs = [m.attention(*stream) for m, stream in zip(layers, streams, strict=True)]
        rows = exchange([rows for _, rows in pairs])
        rows = exchange([m.expert(x) for m, x in zip(layers, rows, strict=True)])
        streams = [[a, combined] for (a, _), combined in zip(pairs, rows, strict=True)]
    ends = [m.join(*stream) for m, stream in zip(layers, streams, strict=True)]
    torch.autograd.backward(ends, [grad for *_, grad in ranks])
    for (layers, x, _), end, result in zip(ranks, ends, found[0], strict=True):
        near = functools.partial(torch.testing.assert_close, rtol=1e-4, atol=1e-5)
        near(result["output"], end)
        near(result["input"], x.grad)
        for i, layer in enumerate(layers):
            for name, parameter in layer.named_parameters():
                near(result[f"{i}.{name}"], parameter.grad)


# --- the record ---

TABLES = json.loads(find("runs/overlap_gpu.json").read_text("utf-8"))["tables"]
ROWS = [row for name in overlap_gpu.CASES for row in TABLES[name]]


def test_the_record_has_every_case_and_equal_results() -> None:
    assert TABLES["far"] == 0
    for name, cases in overlap_gpu.CASES.items():
        assert [row | case for row, case in zip(TABLES[name], cases, strict=True)] == TABLES[name]


def test_the_shares_of_the_record_follow_from_its_times() -> None:
    for row in ROWS:
        assert row["ratio"] == pytest.approx(row["compute"] / row["communication"], rel=2e-3)
        hidden = (row["serial"] - row["overlapped"]) / row["communication"]
        assert row["hidden"] == pytest.approx(hidden, abs=2e-3)
        assert row["hidden"] < min(1, row["ratio"])  # no more than there is to hide it behind


def test_more_thread_blocks_hide_less() -> None:
    """As the page says, at about the same ratio of compute to communication."""
    near = [row for row in TABLES["blocks"] if 1.1 < row["ratio"] < 1.3]
    assert [row["blocks"] for row in near] == [3, 8, 16, 20]
    hidden = [row["hidden"] for row in near]
    assert hidden == sorted(hidden, reverse=True)


def test_the_timelines_hold_every_piece_and_message() -> None:
    layers = overlap_gpu.SIZE["layers"]
    for trace in TABLES["traces"]:
        assert len(trace["messages"]) == 4 * layers
        assert len(trace["pieces"]) == 2 + 2 * 3 * layers  # F, I and W of two pieces, the two ends
        ends = [end for _, _, end in trace["messages"]]
        assert ends == sorted(ends)
