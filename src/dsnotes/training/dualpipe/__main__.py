"""One step of a small model under torchrun, compared with the same step in one process.

    torchrun --standalone --nproc-per-node 4 -m dsnotes.training.dualpipe --schedule DualPipe
    torchrun --standalone --nproc-per-node 4 -m dsnotes.training.dualpipe --schedule 1F1B

Every rank builds the whole model from one seed and keeps its own stages; a real run would load only
these. If there is a GPU for each rank, the ranks use them, through NCCL.
"""

import argparse
import os
import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from dsnotes.training.dualpipe.runtime import Pipeline, one_process
from dsnotes.training.dualpipe.schedule import SCHEDULES
from dsnotes.training.dualpipe.worker import use_loopback


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="dsnotes.training.dualpipe", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--schedule", choices=SCHEDULES, default="DualPipe")
    parser.add_argument("--micro-batches", type=int, help="default: twice the number of ranks")
    arguments = parser.parse_args()
    if "LOCAL_WORLD_SIZE" not in os.environ:
        parser.error("start it with torchrun, as in the first lines of this file")
    torch.set_num_threads(1)
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:  # all on this machine
        use_loopback()
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local = int(os.environ["LOCAL_RANK"])
    device = f"cuda:{local}" if torch.cuda.device_count() > local else "cpu"
    if device == "cpu":
        dist.init_process_group("gloo")
    else:
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", device_id=torch.device(device))

    schedule = SCHEDULES[arguments.schedule](world, arguments.micro_batches or 2 * world)
    torch.manual_seed(0)
    stages = [
        nn.Sequential(nn.RMSNorm(64), nn.Linear(64, 256), nn.SiLU(), nn.Linear(256, 64))
        for _ in range(schedule.num_stages)
    ]
    inputs = torch.randn(schedule.num_micro_batches, 2, 16, 64)
    targets = torch.randn_like(inputs)
    value, reference = one_process(stages, inputs, targets, loss=F.mse_loss)

    held = {stage: stages[stage] for stage in schedule.stages_of(rank)}
    pipeline = Pipeline(
        schedule, held, loss=F.mse_loss, hidden_shape=(2, 16, 64), device=device, trace=True
    )
    result = pipeline.step(inputs, targets)
    pipeline.close()
    difference = max(
        float((g.cpu() - reference[k].cpu()).abs().max()) for k, g in result.gradients.items()
    )
    idle = result.events[-1].end - sum(event.end - event.start for event in result.events)
    line = (
        f"{schedule.name} rank {rank}/{world} on {device}: stages {tuple(held)}, "
        f"{len(result.events)} actions, idle {idle:.3f} s, "
        f"largest gradient difference {difference:.1e}; loss in one process {value:.6f}"
    )
    sys.stdout.write(line + "\n")  # in one piece: the ranks share one output
    sys.stdout.flush()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
