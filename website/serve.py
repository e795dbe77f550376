"""Serve the built book on the loopback address.

    python website/serve.py [--port 8000]        (make serve builds the book first)

Ctrl-C ends it. `live.py` serves the same book with cells that run.
"""

import argparse
import http.server
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
HOME = "book/index.html"  # the page to which / leads, by a step that drops what follows a "#"


class Handler(http.server.SimpleHTTPRequestHandler):
    """The files of the book, without a line on the screen for each request."""

    def translate_path(self, path: str) -> str:
        self.directory = str(HTML)
        return super().translate_path(path)

    def send_head(self):
        try:
            return super().send_head()
        except ValueError:  # no file has a null character in its name
            self.send_error(http.HTTPStatus.NOT_FOUND)
            return None

    def log_message(self, *_: object) -> None:
        pass


def find_chromium() -> str:
    """The browser that prints and measures the book; the program ends with a line without one."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    return found or sys.exit(
        "this needs Chromium: install it (Debian: apt install chromium), or set CHROMIUM"
    )


def port_number(text: str) -> int:
    """The number of a port, for argparse, whose message shows the text of the error."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; expected 0 to 65535, 0: any free")
    return int(text)


def parser(description: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--port", type=port_number, default=8000, help="0: any free one")
    return made


def arguments(description: str, argv: Sequence[str] | None = None) -> argparse.Namespace:
    return parser(description).parse_args(argv)


def open_server(
    port: int,
    handler: type[http.server.BaseHTTPRequestHandler] = Handler,
    host: str = "127.0.0.1",
) -> http.server.ThreadingHTTPServer:
    """A server, bound and not yet serving; else the program ends with a line that says why."""
    if not (HTML / HOME).is_file():
        sys.exit("there is no book in _build/html: run `make book` first")
    try:
        return http.server.ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        sys.exit(f"port {port} cannot be used ({reason}); try PORT=0 or --port 0")


def main() -> None:
    given = arguments(__doc__.split("\n")[0])
    with open_server(given.port) as server:
        print(f"Open http://127.0.0.1:{server.server_port}/   Ctrl-C ends.", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
