"""Run every benchmark of this folder and print one table: what, ours, peer, ratio.

    python -m benchmarks.run                 # all
    python -m benchmarks.run --rounds 1      # all, in a hurry: do they run?
    python -m benchmarks.run moe --json f    # one module, result also as JSON
    python -m benchmarks.run --gpu           # the rows of a GPU alone

A module here offers `rows()`, made by `_measure.row`, and may offer `gpu_rows()`, which join them
where there is a GPU. Machines are noisy: trust the ratios.
"""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from tqdm import tqdm

import benchmarks
from benchmarks import _measure


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    facts: dict[str, str | int] = {
        "processor": _cpu_name(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }
    if gpus := torch.cuda.device_count():
        facts |= {"card": torch.cuda.get_device_name(), "cards": gpus}
        facts |= {"cuda": str(torch.version.cuda), "driver": _driver()}
    return facts


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.check_output(command, text=True).strip()
    except (OSError, subprocess.CalledProcessError):  # AMD, or a container without the program
        return "unknown"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows: list[dict]) -> str:
    """Numbers to four digits; behind the ratio, how far the middle half of the rounds spreads."""

    def text(value: float | list | str | None) -> str:
        if isinstance(value, list):
            return "{:.3g}-{:.3g}".format(*value)
        return "-" if value is None else value if isinstance(value, str) else f"{value:.4g}"

    lines = [list(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def main() -> int:
    names = sorted(
        {m.name for m in pkgutil.iter_modules(benchmarks.__path__)} - {"run", "_measure"}
    )
    parser = argparse.ArgumentParser(description="measure side by side with peers")
    parser.add_argument(
        "only", nargs="*", choices=[*names, []], metavar="name",
        help=f"of {', '.join(names)}; default: all",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--gpu", action="store_true", help="only what runs on a GPU")
    parser.add_argument("--rounds", type=int, default=_measure.ROUNDS, help="of what is timed")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"argument --rounds: must be at least 1, got {arguments.rounds}")
    if arguments.gpu and not torch.cuda.is_available():
        parser.error("argument --gpu: there is no GPU that PyTorch can use, nothing ran")
    _measure.ROUNDS = arguments.rounds

    rows = []
    for name in (progress := tqdm(arguments.only or names, file=sys.stderr)):
        progress.set_description(name)
        module = importlib.import_module(f"benchmarks.{name}")
        rows += [] if arguments.gpu else module.rows()
        if torch.cuda.is_available() and hasattr(module, "gpu_rows"):
            rows += module.gpu_rows()
    facts = machine()
    print(table(rows))
    print(", ".join(f"{key} {value}" for key, value in facts.items()))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(
            json.dumps({"machine": facts, "rows": rows}, ensure_ascii=False, indent=1), "utf8"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
