"""Pretrain the verse model on several GPUs or machines: torchrun starts a process for each.

    python examples/verse_pretrain.py                                      # one process, a dry run
    torchrun --nproc_per_node 2 examples/verse_pretrain.py --size laptop   # two on this machine
    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500 \\
        examples/verse_pretrain.py --size gpu --corpus verses.txt --out shared/verse

It is the stage `pretrain` of `python -m dsnotes.whole`: the same model, the same batches in the
same order, and the same step, of which each process does its rows (`dsnotes.training.parallel`).
The numbers are those of one process, up to rounding. The same command goes on from what was saved
last; on several machines `--out` must be a folder that all of them see.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from dsnotes.data.poems import verses
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules
from dsnotes.training.loop import train
from dsnotes.training.parallel import ParallelState, parallel_step, sum_gradients
from dsnotes.training.state import Snapshot
from dsnotes.training.verses import PAD, Vocabulary, batches
from dsnotes.weights import checkpoint
from dsnotes.whole.sizes import GAMMA, MTP_WEIGHT, SIZES


def join() -> tuple[int, int, torch.device]:
    """Meet the other processes, if torchrun has started some: rank, their number, own device."""
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else "cpu"
    if on_gpu:
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")  # products in TF32
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if on_gpu else "gloo", device_id=device if on_gpu else None)
        return dist.get_rank(), dist.get_world_size(), torch.device(device)
    return 0, 1, torch.device(device)


def exchange_seconds(model: DeepSeek) -> float:
    """What a step pays for being shared: the median time of adding up all gradients."""
    times = []
    for _ in range(7):
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        sum_gradients(model)
        if model.device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="tiny", help="of dsnotes.whole.sizes")
    parser.add_argument("--corpus", type=Path, help="verses.txt of prepare_poems.py --full")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="default: as the size has it")
    parser.add_argument("--batch-size", type=int, help="poems a step, of all processes together")
    parser.add_argument("--until-step", type=int, help="stop there; the same command goes on")
    parser.add_argument("--out", type=Path, default=Path("verse_pretrain"))
    given = parser.parse_args()
    rank, ranks, device = join()

    size = SIZES[given.size]
    steps, batch_size = given.steps or size.pretrain.steps, given.batch_size
    batch_size = batch_size or size.pretrain.batch_size
    poems = verses(given.corpus)
    vocabulary = Vocabulary.of(poems + verses(given.corpus, held_out=True))
    torch.manual_seed(given.seed)  # all processes start from the same weights
    model = add_modules(DeepSeek(replace(size.model, vocab_size=len(vocabulary)))).to(device)
    state = ParallelState.create(
        model,
        steps=steps,
        learning_rate=size.pretrain.learning_rate,
        cooldown=size.pretrain.cooldown,
        seed=given.seed,
    )
    data = batches(poems, vocabulary, steps=steps, batch_size=batch_size, seed=given.seed)

    file = given.out / "pretrain.pt"
    for turn in range(ranks):  # one after the other: whoever opens it tries to write
        if turn == rank:
            Snapshot(file).load(state)
        if ranks > 1:
            dist.barrier()
    step = partial(parallel_step, gamma=GAMMA, mtp_weight=MTP_WEIGHT, padding=PAD)
    first, times = state.step, [time.perf_counter()]
    for _ in train(
        state,
        step,
        data,
        checkpoint=file if rank == 0 else None,  # all hold the same: one writes it
        save_every=size.save_every,
        description=f"{ranks} processes",
        progress=rank == 0,
    ):
        times.append(time.perf_counter())
        if state.step == given.until_step:
            break

    exchange = exchange_seconds(model)
    if rank == 0:
        if state.step < steps:
            Snapshot(file).save(state)
        else:
            checkpoint.save(model, given.out / "model")
        taken = [b - a for a, b in pairwise(times)]
        found = {
            "processes": ranks,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
            "batch_size": batch_size,
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "loss": [report["loss"] for report in state.history],
            "step_seconds": median(taken[len(taken) // 3 :]) if taken else None,
            "exchange_seconds": exchange,
        }
        (given.out / "history.json").write_text(json.dumps(found) + "\n", "utf8")
        print(f"steps {first + 1} to {state.step} of {steps} on {ranks} process(es)")
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
