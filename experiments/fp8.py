"""FP8 against BF16: the error of each kind of group, limited accumulation, and training.

Four parts. Outliers: what one large channel costs the others, for E4M3, E5M2 and INT8 in groups of
every kind. Tokens: rows of very different size, made up and taken from the backward pass of the
trained model, in tiles and in blocks. Accumulation: the model of a tensor core over K, N_C and
distributions. Training: a small DeepSeek with FP32, BF16 and FP8 linear layers from the same start
on the same batches; one FP8 variant quantises activation gradients in 128x128 blocks, as in
appendix B.2 of V3. What is not a linear layer runs in FP32 in all of them.

Writes book/data/runs/fp8.json. `python experiments/fp8.py --help` lists the options.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
from _record import collect, parser, spread, write
from torch import Tensor, nn

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.fp8.formats import (
    BLOCK,
    E4M3,
    E5M2,
    INT8,
    PER_TENSOR,
    TILE,
    Format,
    Group,
    dequantize,
    quantize,
)
from dsnotes.training.fp8.gemm import accumulation_errors
from dsnotes.training.fp8.linear import Fp8Linear, Recipe, convert, to_bf16
from dsnotes.training.loop import evaluate, language_step, next_token_loss, train
from dsnotes.training.state import TrainState
from dsnotes.training.texts import batches, held_out

SMALL = dataclasses.replace(  # wide enough that a row has more than one tile
    TINY,
    hidden_size=256,
    num_hidden_layers=2,
    intermediate_size=512,
    moe_intermediate_size=128,
    n_routed_experts=4,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    q_lora_rank=128,
    kv_lora_rank=64,
    qk_nope_head_dim=32,
    qk_rope_head_dim=16,
    v_head_dim=32,
    num_nextn_predict_layers=0,
    initializer_range=0.02,
)
BATCH_SIZE, SEQ_LEN, LEARNING_RATE, GAMMA = 4, 96, 2e-3, 0.01

VARIANTS: dict[str, Callable[[nn.Module], Any]] = {
    "fp32": lambda model: None,
    "bf16": to_bf16,
    "fp8": convert,
    "fp8, Dgrad 128x128": partial(convert, recipe=Recipe(dgrad_group=BLOCK)),
}
GROUPS: dict[str, Group] = {"tensor": PER_TENSOR, "1x128": TILE, "128x128": BLOCK}


def outliers() -> list[dict[str, object]]:
    """Relative error of all other channels when one of N(0,1) data is multiplied by `factor`."""
    rows = []
    for factor in (1.0, 1e2, 1e3, 1e4, 1e5, 1e6):
        for fmt, (name, group) in product((E4M3, E5M2, INT8), GROUPS.items()):
            errors, flushed = [], []
            for seed in range(3):
                x = torch.randn(256, 4096, generator=torch.Generator().manual_seed(seed))
                x[:, 1000] *= factor
                others = torch.arange(4096) != 1000
                y = dequantize(quantize(x, group=group, fmt=fmt))[:, others]
                x = x[:, others]
                errors.append(((y - x).norm() / x.norm()).item())
                flushed.append(y.eq(0).float().mean().item())
            rows.append(
                {
                    "factor": factor,
                    "format": fmt.name,
                    "group": name,
                    "error": spread(errors),
                    "flushed": spread(flushed),
                }
            )
    return rows


def unequal_tokens() -> list[dict[str, object]]:
    """Gradient-like data: rows of log-normal size, as a function of sigma."""
    rows = []
    for sigma in (0.0, 1.0, 2.0, 4.0, 6.0):
        for fmt, (name, group) in product((E4M3, E5M2, INT8), GROUPS.items()):
            measured = []
            for seed in range(3):
                generator = torch.Generator().manual_seed(seed)
                size = torch.exp(sigma * torch.randn(1024, 1, generator=generator))
                x = torch.randn(1024, 512, generator=generator) * size
                measured.append(token_errors(x, group, fmt))
            rows.append({"sigma": sigma, "format": fmt.name, "group": name} | summary(measured))
    return rows


def token_errors(x: Tensor, group: Group, fmt: Format = E4M3) -> dict[str, float]:
    """Median relative error of a row, and how many rows lose more than a quarter."""
    x = x[x.norm(dim=1) > 0]
    errors = (dequantize(quantize(x, group=group, fmt=fmt)) - x).norm(dim=1) / x.norm(dim=1)
    return {"median": errors.median().item(), "over_quarter": (errors > 0.25).float().mean().item()}


def summary(measured: list[dict[str, float]]) -> dict[str, list[float]]:
    return {key: spread([m[key] for m in measured]) for key in measured[0]}


def accumulation() -> list[dict[str, object]]:
    """Three seeds of the sweep over K and N_C."""
    sweep = {"ks": (512, 1024, 4096, 16384), "promote_every": (None, 512, 128, 32)}
    sweeps = [accumulation_errors(**sweep, seed=seed) for seed in range(3)]
    keys = ("distribution", "K", "N_C")
    return [
        {key: same[0][key] for key in keys}
        | {m: spread([row[m] for row in same]) for m in same[0] if m not in keys}
        for same in zip(*sweeps, strict=True)
    ]


def training(variant: str, seed: int, *, steps: int, device: str) -> dict[str, Any]:
    """One run; the start and the batches depend on the seed alone."""
    torch.manual_seed(seed)
    model = DeepSeek(SMALL).to(device)
    VARIANTS[variant](model)
    data = batches(steps=steps, batch_size=BATCH_SIZE, seq_len=SEQ_LEN, seed=seed)
    state = TrainState.create(model, steps=steps, learning_rate=LEARNING_RATE)
    reports = train(
        state, partial(language_step, gamma=GAMMA), data, description=f"{variant}, seed {seed}"
    )
    losses = [report["loss"] for report in reports]
    run: dict[str, Any] = {
        "variant": variant,
        "seed": seed,
        "held_out": round(evaluate(model, held_out(seq_len=SEQ_LEN)).loss, 5),
        "loss": [round(loss, 4) for loss in losses],
    }
    if (variant, seed) == ("fp8", 0):
        run["real_gradients"] = real_gradients(model, seed, device)
    return run


def real_gradients(model: nn.Module, seed: int, device: str) -> list[dict[str, object]]:
    """Activation gradients of every FP8 layer in tiles and in blocks, and how unequal tokens are.

    `decades` is log10 of the ratio between the 99th and the 1st percentile of the row norms.
    """
    rows: list[dict[str, object]] = []

    def record(name: str, gradient: Tensor) -> None:
        dy = gradient.flatten(0, -2).float().cpu()
        if len(dy) < 128:
            return
        norms = dy.norm(dim=1)
        low, high = norms[norms > 0].quantile(torch.tensor([0.01, 0.99])).log10().tolist()
        row: dict[str, object] = {"layer": name, "decades": round(high - low, 2)}
        for group in ("1x128", "128x128", "tensor"):
            errors = token_errors(dy, GROUPS[group])
            row[group] = [float(f"{value:.3g}") for value in errors.values()]
        rows.append(row)

    hooks = [
        module.register_full_backward_hook(
            lambda module, inputs, outputs, name=name: record(name, outputs[0])
        )
        for name, module in model.named_modules()
        if isinstance(module, Fp8Linear)
    ]
    batch = next(batches(steps=1, batch_size=BATCH_SIZE, seq_len=SEQ_LEN, seed=1000 + seed))
    tokens = batch.tokens.to(device)
    next_token_loss(model(tokens), tokens).backward()
    for hook in hooks:
        hook.remove()
    return rows


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(3))
    options.add_argument("--steps", type=int, default=120, help="optimizer steps of each run")
    options.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    arguments = options.parse_args()
    jobs = [(variant, seed) for seed, variant in product(arguments.seeds, VARIANTS)]
    run = partial(training, steps=arguments.steps, device=arguments.device)
    runs = list(collect(run, jobs))
    tables = {
        "outliers": outliers(),
        "unequal_tokens": unequal_tokens(),
        "accumulation": accumulation(),
        "real_gradients": [row for r in runs for row in r.pop("real_gradients", [])],
    }
    settings = {
        "steps": arguments.steps,
        "batch_size": BATCH_SIZE,
        "seq_len": SEQ_LEN,
        "learning_rate": LEARNING_RATE,
        "gamma": GAMMA,
        "parameters": sum(p.numel() for p in DeepSeek(SMALL).parameters()),
    }
    write(
        arguments.out,
        script=__file__,
        settings=settings,
        runs=runs,
        tables=tables,
        device=arguments.device,
    )


if __name__ == "__main__":
    main()
