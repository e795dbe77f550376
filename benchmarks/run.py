"""Run every benchmark of this folder and print one table: what, ours, peer, ratio.

    python -m benchmarks.run                 # all
    python -m benchmarks.run moe --json f    # one module, result also as JSON

A module here offers `rows() -> list[dict]` with the keys what, ours, peer, ratio, unit, note.
Machines are noisy: a row compares medians of runs interleaved in one process; trust its ratio.
"""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from tqdm import tqdm

import benchmarks


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    return {
        "processor": _cpu_name(),
        "cores": os.cpu_count() or 0,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def table(rows: list[dict]) -> str:
    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.4g}"

    head = ("what", "ours", "peer", "ratio", "unit", "note")
    lines = [head] + [
        (
            r["what"],
            number(r["ours"]),
            number(r["peer"]),
            number(r["ratio"]),
            r["unit"],
            r.get("note", ""),
        )
        for r in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def main() -> int:
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name != "run")
    parser = argparse.ArgumentParser(description="measure side by side with peers")
    parser.add_argument("only", nargs="*", choices=[*names, []], help="default: all")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()

    rows = []
    for name in (progress := tqdm(arguments.only or names, file=sys.stderr)):
        progress.set_description(name)
        rows += importlib.import_module(f"benchmarks.{name}").rows()
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
