"""How much of the all-to-all a forward and a backward hide for each other, on two GPUs.

Two ranks, layers of the size of V3: attention, dispatch, expert, combine. The forward of one
micro-batch runs beside the backward of another in the order of DualPipe's pair (V3, figure 4), with
NCCL on its own stream, and once one after the other. NVLink is fast: messages are sent several
times over, so that communication takes as long as chosen. The share that is hidden is
(serial - overlapped) / communication alone.

Writes book/data/runs/overlap_gpu.json, in two minutes; without two GPUs it says so and stops.
"""

import json
import math
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from _record import parser, write
from torch import Tensor, nn

from dsnotes.training.dualpipe.launch import Ranks
from dsnotes.training.dualpipe.split import WeightQueue

RANKS, ROUNDS = 2, 5
SIZE = {"layers": 4, "tokens": 2048, "hidden": 7168, "heads": 56, "width": 2048, "copies": 8}
CHECKED = {"layers": 3, "tokens": 256, "hidden": 1024, "heads": 8, "width": 512, "copies": 4}
_HERE = {"blocks": 4, "times": 1}  # as fast as the InfiniBand of V3
CASES: dict[str, list[dict[str, Any]]] = {
    "as InfiniBand": [
        *({"blocks": 4, "times": times} for times in (3, 2)), _HERE | {"size": {"width": 1024}},
        _HERE, *(_HERE | {"size": {"width": width}} for width in (4096, 8192)),
    ],
    "as NVLink": [{"blocks": None, "times": times} for times in (18, 10, 6, 4, 2, 1)],
    "blocks": [{"blocks": b, "times": t} for b, t in ((2, 1), (3, 1), (8, 2), (16, 3), (20, 5))],
    "priority": [_HERE | {"high": False}],
    "tokens": [_HERE | {"size": {"tokens": tokens}} for tokens in (1024, 512, 256, 128)],
}  # fmt: skip
TRACED = _HERE
MESSAGES: dict[str, Callable[[int], list[str]]] = {  # in the order of sending, for so many layers
    "serial": lambda n: ["combine I", "dispatch I"] * n + ["dispatch F", "combine F"] * n,
    "overlapped": lambda n: (
        ["combine I"] + ["dispatch F", "dispatch I", "combine F", "combine I"] * n
    )[:-1],
}
marks: list[str] | None = None  # while a trace is taken: what begins on the stream that computes


class Layer(nn.Module):
    """A Transformer layer in the two pieces between which tokens travel.

    A token goes to `copies` experts, as many on each rank; one expert stands for all of a rank.
    """

    def __init__(self, *, hidden: int, heads: int, width: int, copies: int) -> None:
        super().__init__()
        self.heads, self.copies = heads, copies
        self.norms = nn.ModuleList(nn.RMSNorm(hidden) for _ in range(2))
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden, False), nn.Linear(hidden, hidden, False)
        self.up, self.down = nn.Linear(hidden, 2 * width, False), nn.Linear(width, hidden, False)

    def attention(self, a: Tensor, combined: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From the residual stream and what experts of the layer before gave: stream and rows."""
        x = a if combined is None else self.join(a, combined)
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).unbind(-3)
        heads = (t.transpose(0, 1)[None] for t in (q, k, v))
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.out(y[0].transpose(0, 1).flatten(1))
        return x, self.norms[1](x).repeat(self.copies, 1)

    def expert(self, rows: Tensor) -> Tensor:
        gate, up = self.up(rows).chunk(2, -1)
        return self.down(F.silu(gate) * up)

    def join(self, a: Tensor, combined: Tensor) -> Tensor:
        return a + combined.unflatten(0, (self.copies, -1)).mean(0)


class Piece:
    """A piece of a forward, computed, and its backward in two parts as DualPipe has them."""

    def __init__(self, function: Callable[..., Any], *inputs: Tensor) -> None:
        self.name, self.queue = function.__name__, WeightQueue()
        self.inputs = [x.detach().requires_grad_() for x in inputs]
        _mark(f"{self.name} F")
        with self.queue.record():
            outputs = function(*self.inputs)
        self._outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        self.outputs = [y.detach() for y in self._outputs]

    def backward(self, *grads: Tensor) -> list[Tensor]:
        """The gradients of the inputs."""
        _mark(f"{self.name} I")
        torch.autograd.backward(self._outputs, grads)
        self._outputs = ()
        return [x.grad for x in self.inputs]

    def weights(self) -> None:
        _mark(f"{self.name} W")
        self.queue.flush()


@dataclass
class Kept:
    """What a forward keeps for its backward."""

    attentions: list[Piece] = field(default_factory=list)
    experts: list[Piece] = field(default_factory=list)
    end: Piece | None = None


class Wire:
    """All-to-all over `group`, `times` times over; 0 times: what is sent is there."""

    def __init__(self, group: Any, times: int) -> None:
        self.group, self.times = group, times

    def send(self, x: Tensor) -> Callable[[], Tensor]:
        """Begin; the result is there, for what is computed afterwards, when called."""
        if not self.times:
            return lambda: x
        y = torch.empty_like(x)
        works = [
            dist.all_to_all_single(y, x, group=self.group, async_op=True) for _ in range(self.times)
        ]

        def arrived() -> Tensor:
            for work in works:
                work.wait()
            return y

        return arrived


def forward(layers: list[Layer], wire: Wire, x: Tensor) -> Kept:
    """A forward that waits for every message."""
    kept, inputs = Kept(), [x]
    for layer in layers:
        kept.attentions.append(Piece(layer.attention, *inputs))
        a, rows = kept.attentions[-1].outputs
        kept.experts.append(Piece(layer.expert, wire.send(rows)()))
        inputs = [a, wire.send(kept.experts[-1].outputs[0])()]
    kept.end = Piece(layers[-1].join, *inputs)
    return kept


def serial(layers: list[Layer], wire: Wire, x: Tensor, grad: Tensor, before: Kept) -> Kept:
    """The backward of `before`, whose output has the gradient `grad`, then the forward of `x`."""
    grads = before.end.backward(grad)
    for attention, expert in zip(before.attentions[::-1], before.experts[::-1], strict=True):
        (rows,) = expert.backward(wire.send(grads[1])())
        expert.weights()
        grads = attention.backward(grads[0], wire.send(rows)())
        attention.weights()
    return forward(layers, wire, x)


def overlapped(layers: list[Layer], wire: Wire, x: Tensor, grad: Tensor, before: Kept) -> Kept:
    """The same with a message of one micro-batch beside a computation of the other (figure 4)."""
    kept, last = Kept(), len(layers) - 1
    grads = before.end.backward(grad)
    combine_backward = wire.send(grads[1])
    forward = Piece(layers[0].attention, x)
    for i, layer in enumerate(layers):
        kept.attentions.append(forward)
        dispatch = wire.send(forward.outputs[1])
        expert, attention = before.experts[last - i], before.attentions[last - i]
        (rows,) = expert.backward(combine_backward())
        dispatch_backward = wire.send(rows)
        expert.weights()
        kept.experts.append(Piece(layer.expert, dispatch()))
        combine = wire.send(kept.experts[-1].outputs[0])
        grads = attention.backward(grads[0], dispatch_backward())
        if i < last:
            combine_backward = wire.send(grads[1])
        attention.weights()
        function = layers[i + 1].attention if i < last else layer.join
        forward = Piece(function, forward.outputs[0], combine())
    kept.end = forward
    return kept


def problem(size: dict[str, int], device: str) -> tuple[list[Layer], Tensor, Tensor]:
    """Layers, an input, and the gradient of an output, of each rank's own."""
    shape = {name: n for name, n in size.items() if name not in ("layers", "tokens")}
    torch.manual_seed(dist.get_rank())
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    with torch.device(device):
        layers = [Layer(**shape).to(dtype) for _ in range(size["layers"])]
        x, grad = torch.randn(2, size["tokens"], size["hidden"], dtype=dtype)
    return layers, x, grad


def results(
    way: Callable[..., Kept], times: int, size: dict[str, int], device: str
) -> dict[str, Tensor]:
    """Output of a forward and all gradients of a backward beside it, of the same micro-batch."""
    layers, x, grad = problem(size, device)
    wire = Wire(None, times)
    kept = forward(layers, wire, x)
    (end,) = way(layers, wire, x, grad, kept).end.outputs
    weights = {f"{i}.{k}": p.grad for i, m in enumerate(layers) for k, p in m.named_parameters()}
    return {"output": end, "input": kept.attentions[0].inputs[0].grad, **weights}


def far(on_wait: Any, times: int, size: dict[str, int]) -> list[float]:
    """The job of a rank: how far the overlapped results are from the serial ones, each relative."""
    torch.use_deterministic_algorithms(True, warn_only=True)  # attention adds in any order else
    ways = (results(way, times, size, "cuda") for way in (serial, overlapped))
    a, b = ({k: v.float() for k, v in found.items()} for found in ways)
    torch.use_deterministic_algorithms(False)
    return [float((a[k] - b[k]).norm() / a[k].norm()) for k in a]


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Milliseconds of the GPU, and of the program that hands out the work."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    dist.barrier()
    torch.cuda.synchronize()
    began = time.perf_counter()
    start.record()
    call()
    end.record()
    host = time.perf_counter() - began
    torch.cuda.synchronize()
    return start.elapsed_time(end), 1e3 * host


@cache
def connect(blocks: int | None, high: bool) -> Any:
    """A communicator of its own, with so many thread blocks (None: as NCCL chooses)."""
    options = dist.ProcessGroupNCCL.Options(is_high_priority_stream=high)
    if blocks:
        options.config.min_ctas = options.config.max_ctas = blocks
    return dist.new_group(list(range(RANKS)), pg_options=options)


def ways_of(case: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """What is timed, each to be called at any time."""
    layers, x, grad = problem(SIZE | case.get("size", {}), "cuda")
    wire = Wire(connect(case["blocks"], case.get("high", True)), case["times"])
    still = Wire(None, 0)
    kept = forward(layers, wire, x)
    message = kept.experts[0].outputs[0]

    def pair(way: Callable[..., Kept], wire: Wire) -> None:
        nonlocal kept
        for layer in layers:
            layer.zero_grad()
        kept = way(layers, wire, x, grad, kept)

    def communication() -> None:
        for _ in range(4 * len(layers)):
            wire.send(message)()

    return {
        "serial": partial(pair, serial, wire), "overlapped": partial(pair, overlapped, wire),
        "compute": partial(pair, overlapped, still), "communication": communication,
    }  # fmt: skip


def measure(on_wait: Any, cases: list[dict[str, Any]]) -> list[dict[str, list[Any]]]:
    """The job of a rank: the times of each way, in turn, for every case."""
    found = []
    for case in cases:
        ways = ways_of(case)
        for _ in range(2):
            for way in ways.values():
                timed(way)
        found.append({name: [] for name in ways})
        for _ in range(ROUNDS):
            for name, way in ways.items():
                found[-1][name].append(timed(way))
    return found


def table(cases: list[dict[str, Any]], each: list[Any]) -> list[dict[str, Any]]:
    """Medians over rounds, of the slower rank, in milliseconds; GB/s each way between the ranks."""
    rows = []
    for case, *of_ranks in zip(cases, *each, strict=True):
        row = dict(case)
        for name in of_ranks[0]:
            rounds = zip(*(one[name] for one in of_ranks), strict=True)
            row[name] = statistics.median(max(ms for ms, _ in one) for one in rounds)
        row["host"] = max(statistics.median(h for _, h in one["overlapped"]) for one in of_ranks)
        size = SIZE | case.get("size", {})
        sent = size["copies"] * size["tokens"] * size["hidden"] * 2 / RANKS
        messages = 4 * size["layers"] * case["times"]
        row["GB/s"] = messages * sent / row["communication"] / 1e6
        row["ratio"] = row["compute"] / row["communication"]
        row["hidden"] = (row["serial"] - row["overlapped"]) / row["communication"]
        rows.append({k: float(f"{v:.4g}") if type(v) is float else v for k, v in row.items()})
    return rows


def trace(on_wait: Any, case: dict[str, Any], way: str) -> dict[str, Any]:
    """When the pieces and messages of a pair ran, from the kernels that the profiler saw.

    Each is [what, start, end] in milliseconds; busy is the time in which its kernels ran.
    """
    global marks
    ways = ways_of(case)
    for _ in range(3):
        timed(ways[way])
    marks = []
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
        timed(ways[way])
    names, marks = marks, None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text("utf-8"))["traceEvents"]
    kernels = sorted(
        ([e["name"], e["ts"] / 1e3, (e["ts"] + e["dur"]) / 1e3, e["args"].get("grid")]
         for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")),
        key=lambda kernel: kernel[1],
    )  # fmt: skip
    first = next(start for name, start, *_ in kernels if "spin" in name)
    pieces: list[list[Any]] = []
    sent: list[list[float]] = []
    for name, start, end, grid in kernels:
        start, end = start - first, end - first
        if start < 0:
            continue
        if "spin" in name:
            pieces.append([names[len(pieces)], math.inf, 0, 0.0])
        elif "nccl" in name:
            sent.append([start, end, grid[0]])
        else:
            piece = pieces[-1]
            piece[1:] = min(piece[1], start), max(piece[2], end), piece[3] + end - start
    sent = sent[: 4 * SIZE["layers"] * case["times"]]  # what comes after is a barrier
    order = MESSAGES[way](SIZE["layers"])
    messages = [[what, *sent[i * case["times"]][:1], sent[(i + 1) * case["times"] - 1][1]]
                for i, what in enumerate(order)]  # fmt: skip
    rounded = [[what, *(round(t, 3) for t in times)] for what, *times in pieces]
    return {
        "way": way, **case, "grid": sent[0][2], "pieces": rounded,
        "messages": [[what, *(round(t, 3) for t in times)] for what, *times in messages],
    }  # fmt: skip


def _mark(what: str) -> None:
    """A kernel of no length that the trace can be cut at."""
    if marks is not None:
        marks.append(what)
        torch.cuda._sleep(1)


def clocks(on_wait: Any, case: dict[str, Any]) -> dict[str, list[float]]:
    """[MHz, W] of this rank's GPU while a way runs for a second: more power, fewer cycles."""
    ways, found = ways_of(case), {}
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(RANKS))))
    ask = ["nvidia-smi", "--query-gpu=clocks.sm,power.draw", "--format=csv,noheader,nounits",
           "-i", gpus.split(",")[dist.get_rank()]]  # fmt: skip
    for name, way in ways.items():
        torch.cuda.synchronize()
        dist.barrier()
        for _ in range(40):
            way()
        time.sleep(0.3)
        told = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        found[name] = [float(value) for value in told.split(",")]
        torch.cuda.synchronize()
    return found


def main() -> None:
    options = parser(__file__, __doc__).parse_args()
    if torch.cuda.device_count() < RANKS:
        print("experiments/overlap_gpu.py needs two GPUs; nothing was measured.")
        return
    tables: dict[str, Any] = {}
    settings = {"ranks": RANKS, "rounds": ROUNDS, "size": SIZE}

    def keep(name: str, found: Any) -> None:
        tables[name] = found
        write(
            options.out, script=__file__, settings=settings, tables=tables, seeds=[0],
            device="cuda",
        )  # fmt: skip

    with Ranks(RANKS, device="cuda") as ranks:

        def ask(function: Callable[..., Any], *job: Any) -> list[Any]:
            return ranks.call(function, [job] * RANKS, timeout=100.0)

        keep("far", max(map(max, ask(far, 2, CHECKED))))
        for name, cases in CASES.items():
            keep(name, table(cases, ask(measure, cases)))
        keep("traces", [ask(trace, TRACED, way)[0] for way in MESSAGES])
        keep("clocks", ask(clocks, TRACED))


if __name__ == "__main__":
    main()
