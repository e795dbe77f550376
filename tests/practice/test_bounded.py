"""A process of a grading run ends, whatever it does, and with whoever started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMITED = """
import os
from dsnotes.practice import bounded
bounded.limit()
open("child.pid", "w").write(str(os.getpid()))
while True:
    pass
"""
TOO_LATE = """
import os, time
from dsnotes.practice import bounded
parent = os.getppid()
open("child.pid", "w").write(str(os.getpid()))
while os.getppid() == parent:
    time.sleep(0.01)
bounded.limit()
while True:
    pass
"""
PARENT = """
import sys
from pathlib import Path
from dsnotes.practice import bounded
bounded.run([sys.executable, "-c", {child!r}], Path.cwd(), {{}}, 300)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the number of a parent that is gone")
@pytest.mark.parametrize("child", [LIMITED, TOO_LATE], ids=["before", "while it starts"])
def test_a_child_that_loops_ends_with_a_parent_that_is_killed(child: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT.format(child=child)]
    parent = subprocess.Popen(command, cwd=tmp_path)
    written = tmp_path / "child.pid"
    _until(lambda: written.exists() and written.read_text() != "")
    started = int(written.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _until(lambda: not _lives(started))


def _lives(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        return state != "Z"  # nobody may be there to ask for its status
    except FileNotFoundError:
        pass
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return not Path("/proc/self/stat").exists()


def _until(true: object) -> None:
    for _ in range(300):
        if true():  # type: ignore[operator]
            return
        time.sleep(0.1)
    raise AssertionError("half a minute has passed")
