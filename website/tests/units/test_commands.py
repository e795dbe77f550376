"""The site's commands as their user meets them: addresses, ports, interrupts, others' settings."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def running(command: str, folder: Path, *options: str, **environment: str) -> Iterator:
    """`serve.py` or `live.py` over a book of one page, ended on leaving."""
    page = folder / "html" / "book" / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("the first page", "utf8")
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # if ignored
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import serve, live\n"
        "serve.HTML = pathlib.Path(sys.argv[2]); del sys.argv[1:3]\n"
        f"{command}.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT / "website"), str(folder / "html"), *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def read(address: str) -> str:
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read().decode()


def test_the_printed_address_of_live_code_is_a_page(tmp_path: Path) -> None:
    """Not a page that leads to another and loses what stands behind the "#"."""
    with running("live", tmp_path, "--port", "0") as live:
        address = live.stdout.readline().split()[1]
        page, _, given = address.partition("#")
        assert re.fullmatch(r"live=\d+:[\w-]+", given)
        assert read(page) == "the first page"


def test_settings_of_the_user_do_not_reach_the_jupyter_server(tmp_path: Path) -> None:
    (tmp_path / "jupyter_server_config.py").write_text(
        "c.ServerApp.base_url = '/elsewhere/'\nimport sys\nsys.exit(3)\n", "utf8"
    )
    with running("live", tmp_path, "--port", "0", JUPYTER_CONFIG_DIR=str(tmp_path)) as live:
        assert live.stdout.readline().startswith("Open http://127.0.0.1:")


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_live_ends_when_it_is_interrupted_before_jupyter_answers(
    tmp_path: Path, seconds: float
) -> None:
    with running("live", tmp_path, "--port", "0") as live:
        time.sleep(seconds)
        live.send_signal(signal.SIGINT)
        live.wait(20)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_nothing_outlives_live(tmp_path: Path, ending: signal.Signals) -> None:
    """Neither the Jupyter server nor its kernels. A closed terminal sends SIGHUP; SIGKILL ends
    live.py before it can do anything."""
    with running("live", tmp_path, "--port", "0") as live:
        port, token = re.search(r"#live=(\d+):(\S+)", live.stdout.readline()).groups()
        start = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/kernels", b"{}", {"Authorization": f"token {token}"}
        )
        urllib.request.urlopen(start, timeout=20).close()
        started = psutil.Process(live.pid).children(recursive=True)
        assert len(started) > 1
        live.send_signal(ending)
        live.wait(20)
        assert psutil.wait_procs(started, timeout=10)[1] == []


def test_live_ends_with_a_line_when_jupyter_does(tmp_path: Path) -> None:
    broken = tmp_path / "jupyter_server"
    broken.mkdir()
    (broken / "__init__.py").touch()
    (broken / "__main__.py").write_text("raise SystemExit(3)", "utf8")
    with running("live", tmp_path, "--port", "0", PYTHONPATH=str(tmp_path)) as live:
        assert live.wait(20) == 1
        assert live.stderr.read() == "the Jupyter server ended at once, exit code 3\n"


def test_in_a_container_both_servers_have_the_ports_that_are_published(tmp_path: Path) -> None:
    """They listen on every address there; the page asks 127.0.0.1 all the same."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--port", "0", "--host", "0.0.0.0", "--cells-port", str(port))
    with running("live", tmp_path, *options) as live:
        page, _, given = live.stdout.readline().split()[1].partition("#")
        assert page.startswith("http://127.0.0.1:")
        assert given.startswith(f"live={port}:")
        assert read(page) == "the first page"
        with pytest.raises(urllib.error.HTTPError, match="403"):
            read(f"http://127.0.0.1:{port}/api/status")
        assert "started" in read(f"http://127.0.0.1:{port}/api/status?token={given.split(':')[1]}")


def test_scripts_that_npm_did_not_publish_are_refused(tmp_path: Path) -> None:
    changed = tmp_path / "thebe.tgz"
    changed.write_bytes(b"something else")
    code = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import live\n"
        "live.THEBE = pathlib.Path(sys.argv[2])\n"
        "live.scripts()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / "website"), str(changed)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"{changed} is not the published one: ")


@pytest.mark.parametrize("command", ["serve", "live"])
@pytest.mark.parametrize("port", ["99999", "-1", "http", "taken"])
def test_a_port_that_cannot_be_used_is_said_in_a_line(
    tmp_path: Path, command: str, port: str
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        number = str(other.getsockname()[1]) if port == "taken" else port
        with running(command, tmp_path, f"--port={number}") as process:
            assert process.wait(20) != 0
            message = process.stderr.read()
    assert number in message
    assert "Traceback" not in message


@pytest.mark.parametrize("path", ["/%00", "/live/%00", "/../pyproject.toml", "/live/../live.py"])
def test_what_is_not_in_the_book_is_not_found(tmp_path: Path, path: str) -> None:
    with running("live", tmp_path, "--port", "0") as live:
        origin = live.stdout.readline().split()[1].partition("/book")[0]
        with pytest.raises(urllib.error.HTTPError, match="404"):
            read(origin + path)
        live.terminate()
        assert "Traceback" not in live.communicate(timeout=30)[1]


def test_a_failing_notebook_is_named_last_with_its_cell_and_the_error() -> None:
    sys.path.insert(0, str(ROOT / "website"))
    import book

    printed = f"""\
\x1b[01mmyst v3.0.1:\x1b[39;49;00m MdParserConfig(commonmark_only=False)
reading sources... [ 91%] notebooks/papers
{ROOT}/notebooks/papers.ipynb: Executing notebook using temporary CWD [mystnb]
\x1b[91m{ROOT}/notebooks/papers.ipynb: WARNING: Executing notebook failed: CellExecutionError

Exception occurred:
  File "/lib/myst_nb/core/execute/cache.py", line 89, in start_client
Traceback (most recent call last):
nbclient.exceptions.CellExecutionError: An error occurred while executing the following cell:
------------------
x = 1
x/0
------------------

ZeroDivisionError: division by zero

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
RuntimeError: There was an error in building your book. Look above for the cause.
"""
    shown = list(book.shortened(printed.splitlines(keepends=True)))
    assert len(shown) == 4
    assert shown[0] == "reading sources... [ 91%] notebooks/papers\n"
    assert "x/0" in shown[-1]
    assert shown[-1].endswith(
        "\nnotebooks/papers.ipynb failed, in the cell above: ZeroDivisionError: division by zero\n"
    )
    # a crash of another kind is shown whole
    crash = ["Traceback (most recent call last):\n", "  File 'a.py'\n", "ValueError: b\n"]
    assert "".join(book.shortened(crash)) == "".join(crash)


def test_without_a_browser_printing_says_what_it_needs(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import serve\n"
        "print(serve.find_chromium())"
    )
    command = [sys.executable, "-c", code, str(ROOT / "website")]
    bare = {"PATH": str(tmp_path)}
    done = subprocess.run(command, env=bare, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("this needs Chromium")
    mine = subprocess.run(
        command, env=bare | {"CHROMIUM": "/opt/it"}, capture_output=True, text=True
    )
    assert mine.stdout == "/opt/it\n"
