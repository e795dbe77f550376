"""Serve the built book with live code: readers edit and run any cell in the page.

    python website/live.py [--port 8000]         (make live builds the book first)

Two servers on the loopback address, started and ended together: the book, and a Jupyter server
that runs the cells. The latter asks for a token, made anew at every start and handed to the page
after the ``#`` of the printed address, which browsers do not send to any server. Ctrl-C ends both.
In a container they listen on ``--host 0.0.0.0``; the reader opens 127.0.0.1 all the same, so both
ports, the other being ``--cells-port``, are published there under the same numbers.

The scripts that make cells live are Thebe's, served from the package as npm publishes it.
"""

import base64
import functools
import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.request
from http import HTTPStatus

import serve

THEBE = serve.ROOT / "website" / "vendor" / "thebe-0.9.3.tgz"
INTEGRITY = (  # of npm: npm view thebe@0.9.3 dist.integrity
    "sha512-Rb/7kVhtlffXra3kIe7OuIGE7awsm2/fGWxw21DiNfnWLnUQiDl9AWqYdshPwZPG/5DzLpsJRPix2xtCPtJmQQ=="
)
# The Jupyter server, which ends when its input does. This program holds the other end, so that it
# need not be asked, as it cannot be when it is killed.
JUPYTER = """
import os, runpy, signal, threading
def watch():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
runpy.run_module("jupyter_server", run_name="__main__", alter_sys=True)
"""


@functools.cache
def scripts() -> dict[str, bytes]:
    """Name → content of the scripts and style sheets in the archive of Thebe."""
    digest = base64.b64encode(hashlib.sha512(THEBE.read_bytes()).digest()).decode()
    if f"sha512-{digest}" != INTEGRITY:
        sys.exit(f"{THEBE} is not the published one: its hash is sha512-{digest}, not {INTEGRITY}")
    with tarfile.open(THEBE) as archive:
        return {
            member.name.removeprefix("package/lib/"): archive.extractfile(member).read()
            for member in archive
            if member.name.startswith("package/lib/") and member.name.endswith((".js", ".css"))
        }


class Handler(serve.Handler):
    """The book, and below /live/ the scripts that only live code needs."""

    def do_GET(self) -> None:
        if not self.path.startswith("/live/"):
            super().do_GET()
        elif body := scripts().get(self.path.removeprefix("/live/")):
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", self.guess_type(self.path))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        else:
            self.send_error(HTTPStatus.NOT_FOUND)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start_jupyter(
    port: int, token: str, origin: str, folder: str, host: str = "127.0.0.1"
) -> subprocess.Popen:
    """A Jupyter server that looks at no settings of the user or the machine: they could move it
    to another address (base_url) or end it at once."""
    command = [
        sys.executable, "-c", JUPYTER, "--no-browser", f"--ip={host}", f"--port={port}",
        "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--log-level=ERROR",
        f"--ServerApp.allow_origin={origin}", "--allow-root",
    ]  # fmt: skip
    environment = os.environ | {"JUPYTER_TOKEN": token, "JUPYTER_NO_CONFIG": "1"}
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)


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
    server.stdin.close()  # its kernels end with it
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()


def main() -> None:
    parser = serve.parser(__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 in a container")
    parser.add_argument(
        "--cells-port", type=serve.port_number, default=0, help="of the Jupyter server; 0: any"
    )
    given = parser.parse_args()
    for ending in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(ending, lambda *_: sys.exit(0))  # so that `finally` runs
    with (
        serve.open_server(given.port, Handler, given.host) as book,
        tempfile.TemporaryDirectory() as folder,
    ):
        scripts()  # the archive is looked at before anybody is told to open the book
        origin = f"http://127.0.0.1:{book.server_port}"
        token, port = secrets.token_urlsafe(24), given.cells_port or free_port()
        jupyter = start_jupyter(port, token, origin, folder, given.host)
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
