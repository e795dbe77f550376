"""The MoE layer: time of forward and of forward and backward, and memory, against transformers.

The peer is DeepseekV3MoE with the same weights and its default experts implementation, grouped_mm.
Forward and backward computes the gradients of the input and of every weight. Memory is how much the
largest resident size of a fresh process grows over one forward and backward, beyond weights and
input. On a Hopper GPU layers of full size, in bfloat16, meet a second peer as well: grouped
products with PyTorch's operations between them. All ways use one copy of the weights.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._measure import WIDE, medians, row
from dsnotes.config import DEEPSEEK_V3, TINY, Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import MoE
from dsnotes.weights.hf import to_transformers

TOKENS = 1024
FINE = replace(  # about a layer of a model of 16 B parameters
    DEEPSEEK_V3,
    hidden_size=2048,
    moe_intermediate_size=1408,
    n_routed_experts=64,
    num_experts_per_tok=6,
    n_group=1,
    topk_group=1,
)


def rows() -> list[dict[str, Any]]:
    """Rows for the table of `benchmarks.run`; about half a minute."""
    return [*times(TINY), *times(WIDE), memory()]


def gpu_rows() -> list[dict[str, Any]]:
    """Rows on a Hopper GPU; a minute, and 60 GB of its memory."""
    if torch.cuda.get_device_capability()[0] != 9:
        return []
    made = on_gpu(FINE, 8192, "forward + backward")
    for tokens in (1, 4096, 16384):
        made += on_gpu(DEEPSEEK_V3, tokens, "forward")
    return made


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


def on_gpu(config: Config, tokens: int, what: str) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    with torch.device("meta"):
        ours = MoE(config)
    ours.bfloat16().to_empty(device="cuda")
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.02)
        ours.gate.e_score_correction_bias.zero_()
    x, upstream = torch.randn(2, tokens, config.hidden_size, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        ours(x)  # the experts move into stacks
    stacks = stacks_of(ours)
    blocks = {
        "ours": ours,
        "plain": Plain(ours, *stacks),
        "transformers": peer(config, ours, *stacks),
    }
    for block in blocks.values():
        difference = (block(x[None]) - ours(x[None])).norm() / ours(x[None]).norm()
        assert difference < 0.02, difference.item()  # else no comparison

    @torch.no_grad()
    def forward(block: nn.Module) -> None:
        block(x[None])

    def both(block: nn.Module) -> None:
        step(block, x[None], upstream[None])

    run = forward if what == "forward" else both
    timed = medians({name: lambda b=block: run(b) for name, block in blocks.items()})
    note = (
        f"{torch.cuda.get_device_name()}, bfloat16, hidden {config.hidden_size}, "
        f"{config.n_routed_experts} experts of {config.moe_intermediate_size}, "
        f"top-{config.num_experts_per_tok}, one shared; peer: "
    )
    named = f"MoE {what}, hidden {config.hidden_size}, {tokens} tokens"
    return [
        row(named, timed["ours"], timed["transformers"], note=note + "transformers, grouped_mm"),
        row(named, timed["ours"], timed["plain"], note=note + "grouped_mm under autograd"),
    ]


def stacks_of(block: MoE) -> tuple[nn.Parameter, nn.Parameter]:
    """The stacks in which the experts of a block on a GPU lie: (E, 2N, H) and (E, H, N)."""
    gate, down = block.experts[0].gate_proj.weight, block.experts[0].down_proj.weight
    n, (inner, hidden) = len(block.experts), gate.shape
    assert (
        block.experts[-1].up_proj.weight.data_ptr() == gate.data_ptr() + (2 * n - 1) * gate.nbytes
    )
    gate_up = gate.detach().as_strided((n, 2 * inner, hidden), (2 * inner * hidden, hidden, 1))
    stacked = down.detach().as_strided((n, hidden, inner), (inner * hidden, inner, 1))
    return nn.Parameter(gate_up), nn.Parameter(stacked)


class Plain(nn.Module):
    """The layer by grouped products of PyTorch, with its operations between them and autograd."""

    def __init__(self, like: MoE, gate_up: nn.Parameter, down: nn.Parameter) -> None:
        super().__init__()
        self.gate, self.shared_experts = like.gate, like.shared_experts
        self.gate_up, self.down = gate_up, down

    def forward(self, u: Tensor) -> Tensor:
        x = u.flatten(0, -2)
        indices, g, _ = self.gate(x)
        expert, order = indices.flatten().sort()
        token = order // indices.shape[1]
        every = torch.arange(len(self.down), device=x.device)
        ends = torch.searchsorted(expert, every, right=True, out_int32=True)
        gate, up = F.grouped_mm(x[token], self.gate_up.mT, offs=ends).chunk(2, dim=1)
        out = F.grouped_mm(F.silu(gate) * up, self.down.mT, offs=ends)
        y = torch.zeros_like(x, dtype=g.dtype)
        y = y.index_add(0, token, g.flatten()[order, None] * out).to(x.dtype)
        return (y + self.shared_experts(x)).view_as(u)


def peer(config: Config, like: MoE, gate_up: nn.Parameter, down: nn.Parameter) -> nn.Module:
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE

    theirs = DeepseekV3Config(**config.to_json(), experts_implementation="grouped_mm")
    with torch.device("meta"):
        block = DeepseekV3MoE(theirs)
    block.experts.gate_up_proj, block.experts.down_proj = gate_up, down
    for name in ("gate", "shared_experts"):
        getattr(block, name).load_state_dict(getattr(like, name).state_dict(), assign=True)
    return block.requires_grad_()


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
