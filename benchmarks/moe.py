"""The MoE layer: time of forward and of forward and backward, and memory, against transformers.

The peer is DeepseekV3MoE with the same weights and its default experts implementation, grouped_mm.
Forward and backward computes the gradients of the input and of every weight. Memory is how much the
largest resident size of a fresh process grows over one forward and backward, beyond weights and
input.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._measure import WIDE, medians, row
from dsnotes.config import TINY, Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.weights.hf import to_transformers

TOKENS = 1024


def rows() -> list[dict[str, Any]]:
    """Rows for the table of `benchmarks.run`; about half a minute."""
    return [*times(TINY), *times(WIDE), memory()]


def times(config: Config) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    config = one_layer(config)
    whole = DeepSeek(config)
    blocks = {"ours": whole.model.layers[0].mlp, "peer": to_transformers(whole).model.layers[0].mlp}
    x, upstream = torch.randn(2, 1, TOKENS, config.hidden_size)
    torch.testing.assert_close(*(block(x) for block in blocks.values()))  # else no comparison

    @torch.no_grad()
    def forward(block: nn.Module) -> None:
        block(x)

    note = (
        f"{TOKENS} tokens, hidden {config.hidden_size}, {config.n_routed_experts} experts of "
        f"{config.moe_intermediate_size}, top-{config.num_experts_per_tok}, float32, one thread"
    )
    found = []
    for what, run in (
        ("forward", forward),
        ("forward + backward", lambda block: step(block, x, upstream)),
    ):
        timed = medians({name: lambda b=block, run=run: run(b) for name, block in blocks.items()})
        found.append(row(f"MoE {what}, hidden {config.hidden_size}", **timed, note=note))
    return found


def one_layer(config: Config) -> Config:
    return replace(config, num_hidden_layers=1, first_k_dense_replace=0, num_nextn_predict_layers=0)


def step(block: nn.Module, x: Tensor, upstream: Tensor) -> None:
    block.zero_grad()
    block(x.clone().requires_grad_()).backward(upstream)


def memory() -> dict[str, Any]:
    grown = {name: memory_in_fresh_process(name) for name in ("ours", "peer")}
    note = f"{TOKENS} tokens, hidden {WIDE.hidden_size}"
    return row("MoE forward + backward, peak memory", **grown, unit="MiB", note=note)


def memory_in_fresh_process(name: str) -> float:
    """MiB, measured by this file run as a program."""
    command = [sys.executable, "-m", "benchmarks.moe", name]
    return float(subprocess.check_output(command, cwd=Path(__file__).parents[1], text=True))


def memory_of_one_step(name: str) -> float:
    """MiB by which the high-water mark of this process grows over one forward and backward."""
    config = one_layer(WIDE)
    if name == "ours":
        block: nn.Module = DeepSeek(config).model.layers[0].mlp
    else:
        from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

        block = DeepseekV3ForCausalLM(DeepseekV3Config(**config.to_json())).model.layers[0].mlp
    x, upstream = torch.randn(2, 1, TOKENS, config.hidden_size)
    before = high_water_mark()
    step(block, x, upstream)
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


if __name__ == "__main__":
    print(memory_of_one_step(sys.argv[1]))
