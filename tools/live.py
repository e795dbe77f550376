"""Serve the built book with live code: readers edit and run any cell in the page.

    python tools/live.py [--port 8000]         (make live builds the book first)

Two servers on the loopback address, started and ended together: the book, and a Jupyter server
that runs the cells. The latter asks for a token, made anew at every start and handed to the page
after the ``#`` of the printed address, which browsers do not send to any server. Ctrl-C ends both.
"""

import argparse
import http.server
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
THEBE = ROOT / "tools" / "thebe"


class Handler(http.server.SimpleHTTPRequestHandler):
    """The book, and below /live/ the scripts that only live code needs."""

    def translate_path(self, path: str) -> str:
        if path.startswith("/live/"):
            self.directory, path = str(THEBE), path.removeprefix("/live")
        else:
            self.directory = str(HTML)
        return super().translate_path(path)

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_jupyter(port: int, token: str, origin: str, folder: str) -> subprocess.Popen:
    command = [
        sys.executable, "-m", "jupyter_server", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--log-level=ERROR",
        f"--ServerApp.allow_origin={origin}", "--allow-root",
    ]  # fmt: skip
    environment = os.environ | {"JUPYTER_TOKEN": token}
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--port", type=int, default=8000, help="of the book; 0: any free one")
    arguments = parser.parse_args()
    if not (HTML / "index.html").is_file():
        sys.exit("there is no book in _build/html: run `make book` first")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that `finally` runs

    try:
        book = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), Handler)
    except OSError as error:
        sys.exit(f"port {arguments.port} cannot be used ({error.strerror}); try --port 0")
    origin = f"http://127.0.0.1:{book.server_port}"
    token, port = secrets.token_urlsafe(24), free_port()
    with book, tempfile.TemporaryDirectory() as folder:
        jupyter = start_jupyter(port, token, origin, folder)
        try:
            wait_until_ready(jupyter, port, token)
            threading.Thread(target=book.serve_forever, daemon=True).start()
            print(f"Open {origin}/#live={port}:{token}", flush=True)
            print("Every notebook page then has a button that makes its cells live. Ctrl-C ends.")
            jupyter.wait()
            sys.exit(f"the Jupyter server ended, exit code {jupyter.returncode}")
        except KeyboardInterrupt:
            print()
        finally:
            jupyter.terminate()  # its kernels with it
            try:
                jupyter.wait(10)
            except subprocess.TimeoutExpired:
                jupyter.kill()
            book.shutdown()


if __name__ == "__main__":
    main()
