"""Run a command in a process that can be ended whatever it does: loop, print, start others."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

STARTED_BY = "DSNOTES_STARTED_BY"  # in the environment: the process that waits for this one
LARGEST_FILE = 50_000_000  # bytes that a process may write into one file, where a limit can be set


def run(
    command: list[str], folder: Path, environment: dict[str, str], seconds: int | float
) -> tuple[int | None, str]:
    """The exit status, None if it was ended after `seconds`, and the last of what it printed.

    Args:
        command: program and arguments.
        folder: where it runs; what it prints goes to a file there.
        environment: added to this process's own.
        seconds: of the clock.
    """
    with open(folder / "printed.txt", "w+b") as printed:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment | {STARTED_BY: str(os.getpid())},
            stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        status = None
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(seconds)
        finally:
            _end(process)
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - 20_000))
        return status, printed.read().decode("utf8", "replace")


def limit() -> None:
    """Called inside a process: it ends when its parent is gone, and no file grows beyond a size.

    Nothing of both on Windows.
    """
    try:
        import resource
    except ImportError:
        return
    # the parent may be gone before this process has come so far: it is not asked who it is
    parent = int(os.environ.pop(STARTED_BY, os.getppid()))
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    if most == resource.RLIM_INFINITY or most > LARGEST_FILE:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, most))


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The process and those it has started, which else would live on."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
