"""The MoE block: time of forward and of forward and backward, and memory, against transformers.

The peer is DeepseekV3MoE with the same weights and its default experts implementation, grouped_mm.
Runs of ours and of the peer alternate and their medians are compared. Forward and backward
computes the gradients of the input and of every weight. Memory is how much the largest resident
size of a fresh process grows over one forward and backward, beyond weights and input.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from dsnotes.config import TINY
from dsnotes.model.moe import MoE

CONFIG = replace(
    TINY,
    hidden_size=512,
    moe_intermediate_size=256,
    n_routed_experts=64,
    num_experts_per_tok=6,
    n_group=1,
    topk_group=1,
    initializer_range=0.02,
)
TOKENS = 2048
NOTE = "2048 tokens, hidden 512, 64 experts of 256, top-6, 1 shared, float32"


def rows() -> list[dict[str, Any]]:
    """Rows for the table of `benchmarks.run`; about half a minute on two cores."""
    torch.manual_seed(0)
    ours, peer = MoE(CONFIG), peer_block()
    copy_weights(ours, peer)
    blocks: dict[str, nn.Module] = {"ours": ours, "peer": peer}
    x, upstream = torch.randn(2, 1, TOKENS, CONFIG.hidden_size)
    torch.testing.assert_close(ours(x), peer(x))  # else the comparison would mean nothing

    times = step_times(blocks, x, upstream, rounds=17)
    memory = {name: memory_in_fresh_process(name) for name in blocks}
    return [
        row("MoE forward", forward_times(blocks, x, rounds=17), "ms"),
        row("MoE forward + backward", times, "ms"),
        row("MoE forward + backward, peak memory", memory, "MiB"),
    ]


def forward_times(blocks: dict[str, nn.Module], x: Tensor, *, rounds: int) -> dict[str, float]:
    """Median milliseconds of a call without gradients."""

    def run(block: nn.Module) -> float:
        start = time.perf_counter()
        with torch.no_grad():
            block(x)
        return time.perf_counter() - start

    return alternate(blocks, run, rounds=rounds)


def step_times(
    blocks: dict[str, nn.Module], x: Tensor, upstream: Tensor, *, rounds: int
) -> dict[str, float]:
    """Median milliseconds of a call and its backward; freeing the gradients is not counted."""

    def run(block: nn.Module) -> float:
        leaf = x.clone().requires_grad_()
        start = time.perf_counter()
        block(leaf).backward(upstream)
        seconds = time.perf_counter() - start
        block.zero_grad()
        return seconds

    return alternate(blocks, run, rounds=rounds)


def alternate(
    blocks: dict[str, nn.Module], run: Callable[[nn.Module], float], *, rounds: int
) -> dict[str, float]:
    """Median milliseconds; every second round the other block goes first, two rounds warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in blocks}
    for i in range(rounds + 2):
        for name in sorted(blocks, reverse=i % 2 == 0):
            taken = run(blocks[name])
            if i >= 2:
                seconds[name].append(taken)
    return {name: 1e3 * median(values) for name, values in seconds.items()}


def memory_in_fresh_process(name: str) -> float:
    """MiB, measured by this file run as a program."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.moe", name],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def memory_of_one_step(name: str) -> float:
    """MiB by which the high-water mark of this process grows over one forward and backward."""
    block = MoE(CONFIG) if name == "ours" else peer_block()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.02)  # touched, so that the pages count before the step
    x, upstream = torch.randn(2, 1, TOKENS, CONFIG.hidden_size)
    before = high_water_mark()
    block(x.requires_grad_()).backward(upstream)
    return (high_water_mark() - before) / 2**20


def high_water_mark() -> int:
    """Largest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux: there ru_maxrss would begin with the size of the parent process
        (line,) = [x for x in status.read_text("utf8").splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def row(what: str, values: dict[str, float], unit: str) -> dict[str, Any]:
    """One line of the table; `ratio` below 1 means ours is faster or smaller."""
    ratio = values["ours"] / values["peer"]
    return {"what": what, **values, "ratio": ratio, "unit": unit, "note": NOTE}


def peer_block() -> Any:
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    names = (
        "hidden_size",
        "moe_intermediate_size",
        "n_routed_experts",
        "n_shared_experts",
        "num_experts_per_tok",
        "n_group",
        "topk_group",
        "norm_topk_prob",
        "routed_scaling_factor",
    )
    block = DeepseekV3MoE(DeepseekV3Config(**{name: getattr(CONFIG, name) for name in names}))
    # a block built alone has none chosen; a whole model chooses this one
    block.experts.config._experts_implementation = "grouped_mm"
    return block


@torch.no_grad()
def copy_weights(ours: MoE, peer: Any) -> None:
    """Give the peer the weights of ours: it keeps gate and up of all experts in one tensor."""
    inner = CONFIG.moe_intermediate_size
    for e, expert in enumerate(ours.experts):
        peer.experts.gate_up_proj[e, :inner] = expert.gate_proj.weight
        peer.experts.gate_up_proj[e, inner:] = expert.up_proj.weight
        peer.experts.down_proj[e] = expert.down_proj.weight
    peer.gate.load_state_dict(ours.gate.state_dict())
    peer.shared_experts.load_state_dict(ours.shared_experts.state_dict())


if __name__ == "__main__":
    print(memory_of_one_step(sys.argv[1]))
