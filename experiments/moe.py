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

import argparse
import dataclasses
import json
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch

from dsnotes.config import TINY, Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import isolate_shared, segment
from dsnotes.training.loop import evaluate, train
from dsnotes.training.texts import batches, held_out

OUT = Path(__file__).parent.parent / "book" / "data" / "runs" / "moe.json"

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


def run(variant: str, config: Config, seed: int, device: str) -> dict[str, object]:
    """Train one model from a seed and measure it on the held-out text."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = DeepSeek(config).to(device)
    data = batches(steps=STEPS, batch_size=BATCH_SIZE, seq_len=SEQ_LEN, seed=seed)
    gamma = 0.0 if variant == "dense" else GAMMA
    steps = list(train(model, data, learning_rate=LEARNING_RATE, gamma=gamma))
    result = {
        "variant": variant,
        "seed": seed,
        "held_out": round(evaluate(model, held_out(seq_len=SEQ_LEN)).loss, 4),
        "loss": [round(step.loss, 4) for step in steps[::10]],
    }
    print({k: v for k, v in result.items() if k != "loss"}, flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--workers", type=int, default=2, help="runs side by side (default: 2)")
    args = parser.parse_args()
    start = time.time()
    with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
        futures = [
            pool.submit(run, name, config, seed, args.device)
            for seed in range(args.seeds)
            for name, config in VARIANTS.items()
        ]
        runs = [future.result() for future in futures]
    cuda = args.device.startswith("cuda")
    record = {
        "settings": {
            "steps": STEPS,
            "batch_size": BATCH_SIZE,
            "seq_len": SEQ_LEN,
            "learning_rate": LEARNING_RATE,
            "gamma": GAMMA,
            "loss_every": 10,
        },
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "workers": args.workers,
        "date": time.strftime("%Y-%m-%d"),
        "minutes": round((time.time() - start) / 60, 1),
        "runs": runs,
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n  ".join(json.dumps(r) for r in record.pop("runs"))
    head = json.dumps(record, indent=1)[:-2]
    OUT.write_text(f'{head},\n "runs": [\n  {lines}\n ]\n}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
