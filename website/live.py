"""Serve the built book with live code: readers edit and run any cell in the page.

    python website/live.py [--port 8000]         (make live builds the book first)

Two servers on the loopback address, started and ended together: the book, and a Jupyter server
that runs the cells. The latter asks for a token, made anew at every start and handed to the page
after the ``#`` of the printed address, which browsers do not send to any server. Ctrl-C ends both.
"""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import SimpleHTTPRequestHandler

import serve


class Handler(serve.Handler):
    """The book, and below /live/ the scripts that only live code needs."""

    def translate_path(self, path: str) -> str:
        if not path.startswith("/live/"):
            return super().translate_path(path)
        self.directory = str(serve.ROOT / "website" / "vendor" / "thebe")
        return SimpleHTTPRequestHandler.translate_path(self, path.removeprefix("/live"))


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_jupyter(port: int, token: str, origin: str, folder: str) -> subprocess.Popen:
    """A Jupyter server that looks at no settings of the user or the machine: they could move it
    to another address (base_url) or end it at once."""
    command = [
        sys.executable, "-m", "jupyter_server", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--log-level=ERROR",
        f"--ServerApp.allow_origin={origin}", "--allow-root",
    ]  # fmt: skip
    environment = os.environ | {"JUPYTER_TOKEN": token, "JUPYTER_NO_CONFIG": "1"}
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)


def wait_until_ready(server: subprocess.Popen, port: int, token: str, seconds: float = 60) -> None:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/status", headers={"Authorization": f"token {token}"}
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.poll() is not None:
            sys.exit(f"the Jupyter server ended at once, exit code {server.returncode}")
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    sys.exit(f"the Jupyter server did not answer within {seconds:.0f} s")


def end(server: subprocess.Popen) -> None:
    server.terminate()  # its kernels with it
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()


def main() -> None:
    given = serve.arguments(__doc__.split("\n")[0])
    for ending in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(ending, lambda *_: sys.exit(0))  # so that `finally` runs
    with serve.open_server(given.port, Handler) as book, tempfile.TemporaryDirectory() as folder:
        origin = f"http://127.0.0.1:{book.server_port}"
        token, port = secrets.token_urlsafe(24), free_port()
        jupyter = start_jupyter(port, token, origin, folder)
        try:
            wait_until_ready(jupyter, port, token)
            # a daemon, which needs no end: one that was never started could not be ended
            threading.Thread(target=book.serve_forever, daemon=True).start()
            print(f"Open {origin}/{serve.HOME}#live={port}:{token}", flush=True)
            print("Every notebook page then has a button that makes its cells live. Ctrl-C ends.")
            jupyter.wait()
            sys.exit(f"the Jupyter server ended, exit code {jupyter.returncode}")
        except KeyboardInterrupt:
            print()
        finally:
            end(jupyter)


if __name__ == "__main__":
    main()
