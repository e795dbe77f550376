"""Fine-grained against coarse experts at equal compute, and the cost of group-limited routing.

Every variant of a three-layer byte-level model has the same parameters and FLOPs in its experts;
they differ in how these are cut up (V1 §3.1), in whether one expert is shared (V1 §3.2) and in
how many groups a token may use (V3 §2.1.2). The dense variant does the same work per token. A group
counts as the sum of its two best experts, as in the released code; with 2 of 8 groups the paper's
rule, K_r/M, would take four.

Writes book/data/runs/moe.json; takes about 80 minutes of processor time.

    python experiments/moe.py                                # on two cores
    python experiments/moe.py --device cuda --workers 15     # as recorded
"""

import dataclasses
from functools import partial
from itertools import product

import torch
from _record import Run, collect, parser, write

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import isolate_shared, segment
from dsnotes.training.loop import evaluate, language_step, train
from dsnotes.training.state import TrainState
from dsnotes.training.texts import batches, held_out

COARSE = dataclasses.replace(
    TINY,
    intermediate_size=128,  # of the dense layers: as wide as the active experts together
    moe_intermediate_size=64,
    n_shared_experts=0,
    n_routed_experts=8,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    routed_scaling_factor=1.0,
    num_nextn_predict_layers=0,
    initializer_range=0.04,  # the papers' 0.006 is for models 16 to 112 times as wide
)
FINE = segment(COARSE, m=4)
VARIANTS = {
    "dense": dataclasses.replace(COARSE, first_k_dense_replace=COARSE.num_hidden_layers),
    "2/8": COARSE,
    "4/16": segment(COARSE, m=2),
    "8/32": FINE,
    "1+7/31": isolate_shared(FINE, n=1),
    "8/32, 4 of 8 groups": dataclasses.replace(FINE, n_group=8, topk_group=4),
    "8/32, 2 of 8 groups": dataclasses.replace(FINE, n_group=8, topk_group=2),
}
STEPS, BATCH_SIZE, SEQ_LEN = 400, 16, 96
LEARNING_RATE, GAMMA = 5e-3, 0.01
LOSS_EVERY = 10


def run(variant: str, seed: int, *, device: str) -> Run:
    """Train one model from a seed and measure it on the held-out text."""
    torch.manual_seed(seed)
    model = DeepSeek(VARIANTS[variant]).to(device)
    data = batches(steps=STEPS, batch_size=BATCH_SIZE, seq_len=SEQ_LEN, seed=seed)
    gamma = 0.0 if variant == "dense" else GAMMA
    state = TrainState.create(model, steps=STEPS, learning_rate=LEARNING_RATE)
    reports = list(train(state, partial(language_step, gamma=gamma), data, progress=False))
    return {
        "variant": variant,
        "seed": seed,
        "held_out": round(evaluate(model, held_out(seq_len=SEQ_LEN)).loss, 4),
        "loss": [round(report["loss"], 4) for report in reports[::LOSS_EVERY]],
    }


def main() -> None:
    options = parser(__file__, __doc__, seeds=range(8))
    options.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    options.add_argument("--workers", type=int, default=2, help="runs side by side (default: 2)")
    arguments = options.parse_args()
    jobs = [(variant, seed) for seed, variant in product(arguments.seeds, VARIANTS)]
    runs = list(collect(partial(run, device=arguments.device), jobs, workers=arguments.workers))
    settings = {
        "steps": STEPS,
        "batch_size": BATCH_SIZE,
        "seq_len": SEQ_LEN,
        "learning_rate": LEARNING_RATE,
        "gamma": GAMMA,
        "loss_every": LOSS_EVERY,
        "workers": arguments.workers,
    }
    write(arguments.out, script=__file__, settings=settings, runs=runs, device=arguments.device)


if __name__ == "__main__":
    main()
