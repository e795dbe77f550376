"""Build the book and say at the end, in a few lines, what went wrong.

    python website/book.py [options of jupyter-book build]

Runs `jupyter-book build` and shows what it prints. When a notebook fails, its name, its cell and
the error come last, instead of a page of the builder's own calls. Ctrl-C ends the build and the
notebook that runs; the notebooks that have run are kept.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLOR = re.compile(r"\x1b\[[\d;]*m")
# what the builder says of its own parts, and at the end of where the pages are: make says that
ASIDE = re.compile(
    r"\s*$|=+$|\[etoc\]|(myst|myst-nb|sphinx-multitoc-numbering) v|Using jupyter-cache"
    r"|building \[mo\]|loading translations|(Config|Output) Path|Source Folder"
    r"|copying (images|static|extra|assets)|writing output\.\.\. $|.*: Cached executed notebook"
    r"|The HTML pages are in|Finished generating HTML|Your book's HTML pages|Or paste this line"
    r"|Updating \d+ file|Creating redirect|Overwriting '"
    r"|You can look at your book|    (file://)?_build/html/"
)
CRASH = re.compile(r"\s*(Exception occurred:|Traceback \(most recent call last\):)")
FAILED = re.compile(r"(\S+\.ipynb): WARNING: Executing notebook failed")
CELL = re.compile(
    r"An error occurred while executing the following cell:\n(.*?)\n+The above exception", re.S
)


def shortened(lines: Iterable[str]) -> Iterator[str]:
    """The lines as they come; of a build that crashed on a notebook, the cell and the error."""
    notebook, report = "", ""
    for line in lines:
        line = line.replace(f"{ROOT}{os.sep}", "")
        plain = COLOR.sub("", line)
        if not report and ASIDE.match(plain):
            continue
        if report or CRASH.match(plain):
            report += plain
            continue
        if found := FAILED.search(plain):
            notebook = found[1]
        yield line
    cell = CELL.search(report)
    if notebook and cell:
        error = cell[1].strip().splitlines()[-1]
        yield f"{cell[1].rstrip()}\n\n{notebook} failed, in the cell above: {error}\n"
    else:
        yield report


def main() -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    entry = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-u", "-c", entry, "build", str(ROOT)]
    build = subprocess.Popen(
        [*command, *sys.argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        encoding="utf8", errors="replace", start_new_session=True, cwd=ROOT,
    )  # fmt: skip
    try:
        for line in shortened(build.stdout):
            print(line if sys.stdout.isatty() else COLOR.sub("", line), end="", flush=True)
    except KeyboardInterrupt:
        build.terminate()  # a notebook's kernel ends when it sees that the build has gone
        build.wait()
        sys.exit("\nstopped; the notebooks that have run are kept for the next `make book`")
    sys.exit(build.wait())


if __name__ == "__main__":
    main()
