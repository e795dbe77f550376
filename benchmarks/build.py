"""How long a reader waits for `make book`: cold, warm, and after one page was changed.

The build runs in a copy of the tracked files, so that it neither uses nor touches the cache of the
working tree. The peer of a warm build is the cold one. The installation is not counted.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._measure import row

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [str(Path(sys.executable).parent / "jupyter-book"), "build", ".", "-W", "-n",
           "--keep-going", "--all"]  # fmt: skip


def _seconds(folder: Path) -> float:
    start = time.perf_counter()
    done = subprocess.run(COMMAND, cwd=folder, capture_output=True, text=True, timeout=1800)
    if done.returncode:
        raise RuntimeError(f"the build failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return time.perf_counter() - start


def rows() -> list[dict[str, Any]]:
    files = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name)
        for file in files.stdout.splitlines():
            if (ROOT / file).is_file():
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, copy / file)
        cold = _seconds(copy)
        warm = sorted(_seconds(copy) for _ in range(3))[1]
        page = copy / "book" / "papers.md"
        page.write_text(page.read_text("utf8") + "\n再读一遍。\n", "utf8")
        changed = _seconds(copy)
    note = "peer: the cold build"
    return [
        row("build, cold", cold, unit="s", note="all notebooks executed"),
        row("build, warm (median of 3)", warm, cold, unit="s", note=note),
        row("build, one page changed", changed, cold, unit="s", note=note),
    ]
