"""The commands of this project, for every machine that has Python: no make, no shell is needed.

    python make.py COMMAND [NAME=value ...]     (the Makefile calls the same: make COMMAND)

All that is installed lies in .venv; every command can be called again at any time. Settings, from
the command line or the environment: PORT (8000), SECTION and BUG of practice, LIGHT=1 (the book
alone, without what tests and comparisons need) and TORCH_INDEX (where PyTorch comes from; empty:
pip's own choice).
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - those who have an older one shall read why
    sys.exit(
        "dsnotes needs Python 3.11 or newer: python3.11 make.py ..., or make PYTHON=python3.11"
    )

import hashlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
MARK = VENV / ".installed"  # of which files, and which extras
BUILT = ROOT / "_build" / ".built"
EXTRAS = ("book", "test", "lint", "site")
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CHECKED = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("notebooks/*.ipynb"))


# --- calling programs ---


def program(venv: Path | None = None, windows: bool = os.name == "nt") -> Path:
    """The Python of an environment, .venv unless said."""
    venv = venv or VENV
    return venv / "Scripts" / "python.exe" if windows else venv / "bin" / "python"


def environment(given: dict[str, str], windows: bool = os.name == "nt") -> dict[str, str]:
    """Text is UTF-8: the path of this folder, which Python 3.11 reads in the encoding of the
    locale ("C" knows only ASCII), and what a program prints into a pipe on Windows."""
    locale = given.get("LC_ALL") or given.get("LC_CTYPE") or given.get("LANG") or "C"
    more = {"PYTHONUTF8": "1"}
    if not windows and locale in ("C", "POSIX"):
        more["LC_ALL"] = "C.UTF-8"
    return given | more


def call(*command: str | Path, folder: Path = ROOT) -> int:
    """Run a program; Ctrl-C is its own to answer, and its end is waited for."""
    words = [str(word) for word in command]
    with subprocess.Popen(words, cwd=folder, env=environment(dict(os.environ))) as child:
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue


def run(*command: str | Path, folder: Path = ROOT) -> None:
    """`call`, and end with its code where that is not 0."""
    sys.stdout.flush()
    if code := call(*command, folder=folder):
        sys.exit(code if code > 0 else 128 - code)


def python(*words: str | Path) -> None:
    run(program(), *words)


# --- the environment ---


def torch_index(platform: str = sys.platform) -> str:
    """Where PyTorch comes from; "" for pip's own choice.

    On Linux that is the one with CUDA: gigabytes that serve nobody without such a GPU.
    """
    given = os.environ.get("TORCH_INDEX")
    if given is not None:
        return given
    gpu = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
    return CPU_INDEX if platform == "linux" and not gpu else ""


def state() -> tuple[str, list[str]]:
    """What the environment should be made of, and the extras that it has of that."""
    files = [(ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt")]
    digest = hashlib.sha256(b"\0".join(files)).hexdigest()
    mark = MARK.read_text("utf8").split() if MARK.is_file() else []
    return digest, mark[1:] if mark[:1] == [digest] else []


def ready(extras: Iterable[str] = EXTRAS) -> None:
    """Install what is lacking, by pip, or by uv where that made the environment."""
    digest, have = state()
    if set(extras) <= set(have):
        return
    if not program().exists():
        run(sys.executable, "-m", "venv", VENV)
    pip = [program(), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries=2"]
    if not [*VENV.glob("lib/python*/site-packages/pip"), *VENV.glob("Lib/site-packages/pip")]:
        uv = os.environ.get("UV") or shutil.which("uv")
        if not uv:
            sys.exit("there is no pip in .venv, and no uv: remove .venv, or install uv")
        pip = [uv, "pip", "install", "-q", "--python", program()]
    if index := torch_index():
        version = re.search(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text("utf8"), re.M)[1]
        if call(*pip, "--no-deps", "--index-url", index, f"torch=={version}"):
            print(f"no PyTorch from {index}; taking the one that pip finds: on Linux it may "
                  "bring CUDA, gigabytes", file=sys.stderr)  # fmt: skip
    wanted = [extra for extra in EXTRAS if extra in {*extras, *have}]
    run(*pip, "--constraint", "constraints.txt", "--editable", f".[{','.join(wanted)}]")
    MARK.write_text(" ".join([digest, *wanted]) + "\n", "utf8")


def ready_for_book() -> bool:
    """Install what the book needs; whether that is all there is. Light it stays until more is
    asked for."""
    light = os.environ.get("LIGHT", "0") not in ("", "0")
    _, have = state()
    ready(["book"] if light or have == ["book"] else EXTRAS)
    return state()[1] == ["book"]


# --- the book ---


def changed(since: Path, root: Path = ROOT) -> bool:
    """Whether anything but the text of pages has changed: a page does not know on which notebooks,
    modules and settings it depends, so all are written again then."""
    then = since.stat().st_mtime
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        if here == root:
            folders[:] = {"book", "notebooks", "src", "website"}.intersection(folders)
        aside = {"__pycache__", "tests"} if here == root / "website" else {"__pycache__"}
        folders[:] = set(folders) - aside
        for name in names:
            if not name.endswith(".md") and (here / name).stat().st_mtime > then:
                return True
    return False


def book() -> None:
    """run all notebooks and build the book into _build/html"""
    light = ready_for_book()
    names = ("BOOK_URL", "BOOK_REPO_URL", "BOOK_REPO_BRANCH", "BOOK_COMMENTS")
    address = " ".join([*(os.environ.get(name, "") for name in names), "light" * light])
    same = BUILT.is_file() and BUILT.read_text("utf8") == address and not changed(BUILT)
    BUILT.unlink(missing_ok=True)
    if light:
        print("the book alone: what is compared with transformers and TRL is left out")
    strict = [] if light else ["-W", "-n"]
    python("website/book.py", *strict, "--keep-going", *([] if same else ["--all"]))
    BUILT.write_text(address, "utf8")
    print(f"\nOpen it: {(ROOT / '_build/html/index.html').as_uri()}   (or: make serve)")


def port() -> list[str]:
    return ["--port", os.environ.get("PORT", "8000")]


def serve() -> None:
    """serve the built book on http://127.0.0.1:PORT (default 8000)"""
    book()
    python("website/serve.py", *port())


def live() -> None:
    """serve the book with live code: edit and run the cells in the page"""
    book()
    python("website/live.py", *port())


def lab() -> None:
    """open the notebooks in JupyterLab"""
    ready_for_book()
    python("-m", "jupyter", "lab", "--ip=127.0.0.1", "--allow-root", "notebooks")


def pdf() -> None:
    """print the book to dist/dsnotes.pdf (needs Chromium)"""
    ready()
    book()
    python("website/pdf.py")


def slides() -> None:
    """print the slides, sheets and quiz answers into dist/slides/ (needs Chromium)"""
    ready()
    book()
    python("website/slides.py")


def zip_archive() -> None:
    """pack the built book for reading offline into dist/dsnotes-html.zip"""
    book()
    python("website/zip.py")


# --- tests and measurements ---


def spread(cores: int | None = None) -> list[str]:
    """What pytest is told so that all cores have tests to run, four at most, for each process
    takes up to two gigabytes; one that has nothing left takes half of what another still has."""
    if cores is None:
        may = getattr(os, "sched_getaffinity", None)
        cores = len(may(0)) if may else os.cpu_count() or 1
    return ["-n", str(min(cores, 4)), "--dist", "worksteal"] if cores > 1 else []


def test() -> None:
    """run all tests of the library and the repository"""
    ready()
    python("-m", "pytest", *spread())


def gpu() -> None:
    """run the tests and benchmarks that need a GPU (CUDA)"""
    ready()
    python("-c", "import sys, torch; sys.exit(None if torch.cuda.is_available() else "
           "'make gpu: PyTorch finds no CUDA GPU on this machine, nothing ran')")  # fmt: skip
    python("-m", "pytest", "-m", "gpu", "tests")
    python("-m", "benchmarks.run", "--gpu", "--json", "_build/bench-gpu.json")


def practice() -> None:
    """write a mechanism yourself, or grade it: SECTION=moe (or BUG=moe-1)"""
    ready()
    words = [os.environ["SECTION"]] if os.environ.get("SECTION") else []
    words += ["--bug", os.environ["BUG"]] if os.environ.get("BUG") else []
    python("-m", "dsnotes.practice", *words)


def check_site() -> None:
    """test the built book in a browser (needs Chromium)"""
    ready()
    book()
    python("-m", "pytest", *spread(), "website/tests/browser")


def lighthouse() -> None:
    """score every kind of page with Lighthouse into _build/lighthouse (needs Chromium and Node)"""
    npx = shutil.which("npx")
    if not npx:
        sys.exit("this needs npx of Node: install it (Debian: apt install npm)")
    book()
    os.environ["CHROME_PATH"] = os.environ.get("CHROMIUM", "")
    config = "--config=../website/lighthouserc.json"
    run(npx, "--yes", "@lhci/cli@0.15.1", "autorun", config, folder=ROOT / "_build")


def links() -> None:
    """ask every address outside the book that it links to (needs the internet)"""
    book()
    python("website/book.py", "--builder", "custom", "--custom-builder", "linkcheck")


def lint() -> None:
    """check code, types, notebooks and Chinese copy"""
    ready()
    python("-m", "ruff", "check", ".")
    python("-m", "ruff", "format", "--check", ".")
    python("-m", "mypy")
    python("-m", "nbstripout", "--keep-id", "--verify", *CHECKED)
    python("website/lint_zh.py")


def format_all() -> None:
    """rewrite code, notebooks and Chinese copy in the house style"""
    ready()
    python("-m", "ruff", "check", "--fix", ".")
    python("-m", "ruff", "format", ".")
    python("-m", "nbstripout", "--keep-id", *CHECKED)
    python("website/lint_zh.py", "--fix")


def bench() -> None:
    """measure side by side with peers; table on screen, JSON in _build/bench.json"""
    ready()
    python("-m", "benchmarks.run", "--json", "_build/bench.json")


def experiments() -> None:
    """run the long experiments again (writes book/data/runs/)"""
    ready()
    for script in sorted(ROOT.glob("experiments/[a-z]*.py")):
        python(script)


# --- the rest ---


def install() -> None:
    """make the environment .venv, and nothing more (LIGHT=1: for the book alone)"""
    ready_for_book() if os.environ.get("LIGHT") else ready()


def wheel() -> None:
    """build the wheel and the sdist of the library into dist/"""
    ready()
    python("-m", "build")


def clean() -> None:
    """remove what was built (keeps the environment and the execution cache)"""
    for name in ("_build/html", "_build/.doctrees", "dist", "build",
                 ".pytest_cache", ".mypy_cache", ".ruff_cache"):  # fmt: skip
        shutil.rmtree(ROOT / name, ignore_errors=True)
    BUILT.unlink(missing_ok=True)


def distclean() -> None:
    """remove the environment and the execution cache as well"""
    clean()
    shutil.rmtree(ROOT / "_build", ignore_errors=True)
    shutil.rmtree(VENV, ignore_errors=True)


def list_commands() -> None:
    """list the commands"""
    for name, command in COMMANDS.items():
        print(f"  {name:<12} {command.__doc__}")


COMMANDS = {
    "help": list_commands, "book": book, "test": test, "gpu": gpu, "practice": practice,
    "check-site": check_site, "lighthouse": lighthouse, "links": links, "lint": lint,
    "format": format_all, "bench": bench, "experiments": experiments, "serve": serve, "live": live,
    "lab": lab, "pdf": pdf, "slides": slides, "zip": zip_archive, "wheel": wheel,
    "install": install, "clean": clean, "distclean": distclean,
}  # fmt: skip


def main(words: list[str]) -> None:
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    names = [word for word in words if "=" not in word] or ["help"]
    if unknown := [name for name in names if name not in COMMANDS]:
        sys.exit(f"no command {unknown[0]!r}; there are: {', '.join(COMMANDS)}")
    os.environ.update(settings)
    os.chdir(ROOT)
    for name in names:
        COMMANDS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
