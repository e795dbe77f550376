"""The overlapped pair of `experiments/overlap_gpu.py`, on gloo, and what its record says."""

import functools
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

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
