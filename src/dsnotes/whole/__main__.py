"""Train one small DeepSeek from a corpus of poems to a model that writes by the rules of verse.

    python -m dsnotes.whole --size laptop --seed 0 --out runs/laptop-0
    python -m dsnotes.whole --size laptop --seed 0 --out runs/laptop-0 --processes 4
    python -m dsnotes.whole --size gpu --out runs/gpu-0 --device cuda --corpus verses.txt

Stages that are done are passed over, and one that was interrupted goes on: give the same command
again. Ctrl-C stops after the step at hand, a second one at once. The exit status is 0 when all is
done, 3 when the run has stopped before (`--until`, Ctrl-C).
"""

import argparse
import signal
import sys

import torch

from dsnotes.whole import report, serving, stages
from dsnotes.whole.run import Run, Stopped
from dsnotes.whole.sizes import SIZES

STAGES = {
    "corpus": stages.corpus,
    "pretrain": stages.pretrain,
    "cold_start": stages.cold_start,
    "reinforce": stages.reinforce,
    "reject": stages.reject,
    "pretrain_small": stages.pretrain_small,
    "distill": stages.distill,
    "reinforce_small": stages.reinforce_small,
    "decode": serving.decode,
    "release": serving.release,
    "report": report.report,
}
UNFINISHED = 3


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dsnotes.whole", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="the folder of the run")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--corpus", help="verses.txt of experiments/prepare_poems.py --full")
    parser.add_argument("--fp8", action="store_true", help="pretrain with FP8 inputs")
    parser.add_argument(
        "--processes", type=int, default=1, help="pretrain on so many, with a core or a GPU each"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU cores to use")
    parser.add_argument("--until", type=float, metavar="SECONDS", help="stop in good order then")
    given = parser.parse_args(arguments)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no CUDA GPU on this machine")
    if given.device.startswith("cuda") and given.processes > (gpus := torch.cuda.device_count()):
        parser.error(f"--processes: there are GPUs for {gpus}, got {given.processes}")
    if given.threads < 1:
        parser.error(f"--threads must be at least 1, got {given.threads}")
    torch.set_num_threads(given.threads)
    if given.device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # products in TF32
    try:
        run = Run(
            given.out,
            size=given.size,
            seed=given.seed,
            corpus=given.corpus,
            device=given.device,
            fp8=given.fp8,
            processes=given.processes,
            until=given.until,
            progress=True,
        )
    except (ValueError, OSError, RuntimeError) as error:
        parser.error(str(error))

    def ask_to_stop(number: int, frame: object) -> None:
        run.stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the second one stops at once
        run.say("stopping after this step")

    before = signal.signal(signal.SIGINT, ask_to_stop)
    try:
        for number, (name, work) in enumerate(STAGES.items(), start=1):
            run.say(f"{number}/{len(STAGES)} {name}")
            run.stage(name, work)
    except Stopped as stopped:
        run.say(f"{stopped}; the same command goes on")
        return UNFINISHED
    except KeyboardInterrupt:
        run.say("stopped at once; the same command goes on from what was saved last")
        return UNFINISHED
    finally:
        signal.signal(signal.SIGINT, before)
    print((run.folder / "report.md").read_text("utf8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
