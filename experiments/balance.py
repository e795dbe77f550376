"""Train a small language model with nothing, a loss or a bias to balance its experts, by seeds.

The loss is taken over the batch (`aux`) or sequence by sequence (`aux_seq`, as V1, V2 and the paper
on loss-free balancing do), both on normalised sigmoid affinities: without a bias the choice that
V3's (18) counts is the one made, so that `sequence_alpha` alone is V1's loss.

Writes the loss, MaxVio, load and bias curves and the evaluation on held-out text to one JSON file,
which the section on balancing draws. For one seed all variants start from the same weights and see
the same tokens in the same order; all are evaluated on the same held-out text.

The last fifth of the steps is the end phase. As in V3 (arXiv 2412.19437 §4.2), gamma is 0 there and
the learning rate a tenth. Two more variants change one of these each: `bias_kept` keeps gamma,
`bias_hot` keeps the learning rate (so its loss is not comparable with the others).

    python experiments/balance.py                          # about 12 minutes on one free core
    python experiments/balance.py --steps 20 --seeds 0 --out /tmp/balance.json
"""

from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from _record import collect, parser, write
from torch.optim.lr_scheduler import LambdaLR

from dsnotes.config import Config
from dsnotes.model.balance import max_vio
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.loop import evaluate, language_step, moe_layers, train
from dsnotes.training.state import Report, TrainState
from dsnotes.training.texts import DOMAINS, VOCAB_SIZE, Batch, batches, held_out

CONFIG = Config(
    vocab_size=VOCAB_SIZE,
    hidden_size=96,
    num_hidden_layers=3,
    intermediate_size=192,
    first_k_dense_replace=1,
    moe_intermediate_size=48,
    n_shared_experts=1,
    n_routed_experts=16,
    num_experts_per_tok=2,
    num_attention_heads=4,
    q_lora_rank=None,
    kv_lora_rank=32,
    qk_nope_head_dim=16,
    qk_rope_head_dim=8,
    v_head_dim=16,
    max_position_embeddings=256,
    initializer_range=0.02,
)
BATCH_SIZE, SEQ_LEN, LEARNING_RATE = 12, 128, 3e-3
END_SHARE = 0.2  # of the steps are the end phase
END_LEARNING_RATE = LEARNING_RATE / 10
SNAPSHOT_EVERY = 5  # steps; the load is summed over them, the bias is that of the last
LATE_STEPS = 50
# gamma is ten times that of V3: with 0.001 the biases could not travel far enough in so few steps.
# V3, too, has a tiny sequence-wise loss beside the bias. end_*: the value in the end phase.
_BIAS = {"gamma": 0.01, "end_gamma": 0.0, "sequence_alpha": 1e-4}
VARIANTS: dict[str, dict[str, float]] = {
    "none": {},
    "aux": {"expert_alpha": 0.01},
    "aux_seq": {"sequence_alpha": 0.01},
    "bias": _BIAS,
    "bias_kept": _BIAS | {"end_gamma": 0.01},
    "bias_hot": _BIAS | {"end_learning_rate": LEARNING_RATE},
}


def run(variant: str, seed: int, *, steps: int) -> dict[str, Any]:
    """Train one model and return its curves, rounded, as plain data."""
    options: dict[str, Any] = dict(VARIANTS[variant])
    end = end_phase(steps)
    end_rate = options.pop("end_learning_rate", END_LEARNING_RATE)
    gamma, end_gamma = options.pop("gamma", 0.0), options.pop("end_gamma", 0.0)
    torch.manual_seed(seed)
    model = DeepSeek(CONFIG)
    state = TrainState.create(model, steps=steps, learning_rate=LEARNING_RATE)
    [rise] = state.scheduler.lr_lambdas
    state.scheduler = LambdaLR(
        state.optimizer, lambda n: rise(n) * (1.0 if n < end else end_rate / LEARNING_RATE)
    )

    def step(state: TrainState, batch: Batch) -> Report:
        now = gamma if state.step < end else end_gamma
        return language_step(state, batch, gamma=now, **options)

    data = batches(steps=steps, batch_size=BATCH_SIZE, seq_len=SEQ_LEN, seed=seed)
    loads, losses, biases = [], [], []
    for report in train(state, step, data, description=f"{variant}, seed {seed}"):
        losses.append(report["loss"])
        loads.append(report["load"])
        if len(losses) % SNAPSHOT_EVERY == 0:
            gates = [moe.gate for moe in moe_layers(model)]
            biases.append(torch.stack([g.get_buffer("e_score_correction_bias") for g in gates]))
    result = evaluate(model, held_out(seq_len=SEQ_LEN))
    load = torch.stack(loads)  # (steps, layers, E)
    snapshots = load[: steps // SNAPSHOT_EVERY * SNAPSHOT_EVERY].unflatten(0, (-1, SNAPSHOT_EVERY))
    curves = {
        "loss": numbers(torch.tensor(losses), digits=3),
        "max_vio": numbers(max_vio(load).T, digits=2),  # (layers, steps)
        "relative_load": numbers(relative(snapshots.sum(1)), digits=2),  # (snapshots, layers, E)
        "bias": numbers(torch.stack(biases), digits=4) if gamma else None,
    }
    before = slice(max(0, end - LATE_STEPS), end)
    evaluation = {
        "eval_loss": round(result.loss, 4),
        "max_vio_global": numbers(max_vio(result.load.sum(0)), digits=3),  # per layer
        "max_vio_batch": round(max_vio(load[-LATE_STEPS:]).mean().item(), 3),
        "max_vio_batch_before_end": round(max_vio(load[before]).mean().item(), 3),
        "relative_load_by_domain": numbers(relative(result.load), digits=2),
    }
    return {"variant": variant, "seed": seed, **evaluation, **curves}


def end_phase(steps: int) -> int:
    """The first step of the end phase."""
    return steps - round(END_SHARE * steps)


def relative(load: torch.Tensor) -> torch.Tensor:
    """Load over its mean: 1 everywhere is perfect balance."""
    return load / load.float().mean(dim=-1, keepdim=True)


def numbers(values: torch.Tensor, *, digits: int) -> Any:
    """Nested lists of rounded numbers, to keep the file small."""
    if values.ndim:
        return [numbers(value, digits=digits) for value in values]
    return round(values.item(), digits)


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(3))
    options.add_argument("--steps", type=int, default=250, help="optimizer steps of each run")
    arguments = options.parse_args()
    if arguments.steps < SNAPSHOT_EVERY:
        options.error(f"--steps must be at least {SNAPSHOT_EVERY}, got {arguments.steps}")
    jobs = [(variant, seed) for variant in VARIANTS for seed in arguments.seeds]
    settings = {
        "config": asdict(CONFIG),
        "steps": arguments.steps,
        "batch_size": BATCH_SIZE,
        "seq_len": SEQ_LEN,
        "learning_rate": LEARNING_RATE,
        "end_learning_rate": END_LEARNING_RATE,
        "end_phase_from_step": end_phase(arguments.steps),
        "snapshot_every": SNAPSHOT_EVERY,
        "late_steps": LATE_STEPS,
        "variants": VARIANTS,
        "domains": DOMAINS,
    }
    runs = list(collect(partial(run, steps=arguments.steps), jobs))
    write(arguments.out, script=__file__, settings=settings, runs=runs)


if __name__ == "__main__":
    main()
