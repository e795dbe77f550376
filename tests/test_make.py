"""The commands: make.py runs them on every machine, the Makefile and the guides name the same."""

import ast
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
posix = pytest.mark.skipif(os.name == "nt", reason="needs make, a shell, groups of processes")


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch):
    """The runner, which installs nothing and notes what it would run."""
    spec = importlib.util.spec_from_file_location("make_of_dsnotes", ROOT / "make.py")
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    made.calls = []
    monkeypatch.setattr(
        made, "call", lambda *words, **_: made.calls.append([*map(str, words)]) or 0
    )
    for name in ("LIGHT", "TORCH_INDEX", "PORT", "SECTION", "BUG", "UV"):
        monkeypatch.setenv(name, "")  # so that what a command sets is undone
        monkeypatch.delenv(name)
    return made


@pytest.fixture
def fresh(make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The runner in a folder of its own, whose name has a blank and no ASCII."""
    root = tmp_path / "书 房"
    root.mkdir()
    for name in ("pyproject.toml", "constraints.txt"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    venv = root / ".venv"
    python = make.program(venv)
    python.parent.mkdir(parents=True)
    python.touch()
    (venv / "lib/python3.13/site-packages/pip").mkdir(parents=True)
    (root / "_build").mkdir()
    for name, value in {"ROOT": root, "VENV": venv, "MARK": venv / ".installed",
                        "BUILT": root / "_build/.built"}.items():  # fmt: skip
        monkeypatch.setattr(make, name, value)
    monkeypatch.setattr(make, "torch_index", lambda: "")
    return make


# --- one definition of each command ---


def test_the_makefile_has_the_commands_of_the_runner(make) -> None:
    text = (ROOT / "Makefile").read_text("utf8").replace("\\\n", " ")
    (listed,) = re.findall(r"^COMMANDS := (.*)", text, re.M)
    assert listed.split() == list(make.COMMANDS)
    assert re.findall(r"^\t.*", text, re.M) == ["\t@$(PYTHON) make.py $@"]


def test_every_command_says_what_it_does(make, capsys: pytest.CaptureFixture) -> None:
    make.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(make.COMMANDS)
    assert all(len(line.split()) > 3 or line.split()[0] == "help" for line in lines)
    assert max(map(len, lines)) <= 110


@posix
def test_make_hands_settings_on(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@ on $PORT"\n', "utf8")
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "serve", "PORT=9000", f"PYTHON={python}"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout == "make.py serve on 9000\n"


def test_a_setting_may_stand_behind_the_command(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "ready", lambda *_: None)
    make.main(["practice", "SECTION=moe", "BUG=moe-1"])
    assert make.calls[0][1:] == ["-m", "dsnotes.practice", "moe", "--bug", "moe-1"]


def test_an_unknown_command_is_refused_with_the_list(make) -> None:
    with pytest.raises(SystemExit, match="no command 'buch'; there are: help, book, test"):
        make.main(["book", "buch"])
    assert make.calls == []


def test_a_command_that_fails_ends_the_rest(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "ready", lambda *_: None)
    monkeypatch.setattr(make, "call", lambda *words, **_: make.calls.append(words) or 7)
    with pytest.raises(SystemExit) as error:
        make.main(["test", "lint"])
    assert error.value.code == 7
    assert len(make.calls) == 1


# --- any machine ---


def test_an_old_python_is_told_so_instead_of_a_syntax_error() -> None:
    text = (ROOT / "make.py").read_text("utf8")
    ast.parse(text, feature_version=(3, 8))
    assert text.index("sys.exit(") < text.index("\nimport hashlib") < text.index("\ndef ")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.version_info = (3, 10, 9); import make"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("dsnotes needs Python 3.11 or newer")


def test_where_an_environment_has_its_python(make) -> None:
    venv = Path("C:/Users/李 雷/dsnotes/.venv")
    assert make.program(venv, windows=True).as_posix() == f"{venv.as_posix()}/Scripts/python.exe"
    assert make.program(venv, windows=False).as_posix() == f"{venv.as_posix()}/bin/python"


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_text_is_utf8_where_the_locale_knows_no_chinese(make, locale: str) -> None:
    """Python 3.11 reads the path of the installed project in the encoding of the locale."""
    assert make.environment({"LC_ALL": locale}, windows=False)["LC_ALL"] == "C.UTF-8"
    assert make.environment({"LANG": "zh_CN.UTF-8"}, windows=False).get("LC_ALL") is None
    on_windows = make.environment({}, windows=True)
    assert on_windows == {"PYTHONUTF8": "1"}


def test_no_command_needs_a_shell_or_a_script_of_the_environment(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scripts stand in bin here and in Scripts on Windows; all are called as modules."""
    for name in ("ready", "book"):
        monkeypatch.setattr(make, name, lambda *_: None)
    monkeypatch.setattr(make, "ready_for_book", lambda: False)
    monkeypatch.setattr(make.shutil, "which", lambda name: name)
    for name in set(make.COMMANDS) - {"help", "book", "clean", "distclean", "install"}:
        make.COMMANDS[name]()
        assert make.calls, name
    heads = {words[0] for words in make.calls}
    assert heads == {str(make.program()), "npx"}
    assert not any(set("*;|&$") & set("".join(w[1:3])) for w in make.calls if w[1] != "-c")


def test_torch_without_cuda_where_that_brings_gigabytes_for_nothing(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make.shutil, "which", lambda _: None)
    monkeypatch.setattr(make.Path, "exists", lambda _: False)
    assert make.torch_index("linux") == make.CPU_INDEX
    assert make.torch_index("darwin") == make.torch_index("win32") == ""
    monkeypatch.setattr(make.shutil, "which", lambda _: "/usr/bin/nvidia-smi")
    assert make.torch_index("linux") == ""
    monkeypatch.setenv("TORCH_INDEX", "https://example.org/cpu")
    assert make.torch_index("win32") == "https://example.org/cpu"


@posix
def test_ctrl_c_is_for_the_program_that_runs() -> None:
    """A build that is stopped ends its notebook and keeps what has run: that takes a moment."""
    child = (
        "import sys, time\ntry: print('up', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt: time.sleep(1); print('kept'); sys.exit(3)"
    )
    code = (  # a shell that started the tests in the background has interrupts ignored
        "import signal, sys, make\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"make.run(sys.executable, '-c', {child!r})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as runner:  # fmt: skip
        assert runner.stdout.readline() == "up\n"
        os.killpg(runner.pid, signal.SIGINT)
        assert runner.wait(20) == 3
        assert runner.stdout.read() == "kept\n"


# --- what is installed ---


def test_the_environment_is_made_once_and_again_when_a_pin_changes(fresh) -> None:
    fresh.ready()
    (install,) = fresh.calls
    assert install[1:3] == ["-m", "pip"]
    assert install[-1] == ".[book,test,lint,site]"
    fresh.ready()
    assert len(fresh.calls) == 1
    with (fresh.ROOT / "constraints.txt").open("a") as pins:
        pins.write("six==1.17.0\n")
    fresh.ready()
    assert len(fresh.calls) == 2


def test_torch_comes_first_and_pip_has_its_own_where_the_index_does_not_answer(
    fresh, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(fresh, "torch_index", lambda: fresh.CPU_INDEX)
    monkeypatch.setattr(
        fresh, "call",
        lambda *words, **_: fresh.calls.append([*map(str, words)]) or "--no-deps" in words,
    )  # fmt: skip
    fresh.ready()
    torch, rest = fresh.calls
    assert torch[-4:-1] == ["--no-deps", "--index-url", fresh.CPU_INDEX]
    assert torch[-1] in re.findall(r"^torch==.*", (ROOT / "constraints.txt").read_text(), re.M)
    assert rest[-1] == ".[book,test,lint,site]"
    assert "taking the one that pip finds" in capsys.readouterr().err


def test_an_environment_of_uv_is_filled_by_uv(fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh.VENV / "lib/python3.13/site-packages/pip").rmdir()
    monkeypatch.setattr(fresh.shutil, "which", lambda name: f"/opt/{name}")
    fresh.ready()
    (install,) = fresh.calls
    assert install[:3] == ["/opt/uv", "pip", "install"]
    assert install[install.index("--python") + 1] == str(fresh.program(fresh.VENV))
    monkeypatch.setattr(fresh.shutil, "which", lambda _: None)
    fresh.MARK.unlink()
    with pytest.raises(SystemExit, match="and no uv: remove"):
        fresh.ready()


def test_light_is_the_book_alone_until_more_is_asked_for(
    fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHT", "1")
    fresh.book()
    install, build = fresh.calls
    assert install[-1] == ".[book]"
    assert "-W" not in build  # numbers of comparisons are not there
    monkeypatch.delenv("LIGHT")
    fresh.book()
    assert len(fresh.calls) == 3
    fresh.test()
    assert fresh.calls[3][-1] == ".[book,test,lint,site]"
    fresh.book()
    assert "-W" in fresh.calls[-1]
    assert "--all" in fresh.calls[-1]


# --- when every page is written again ---


def test_only_the_text_of_pages_leaves_other_pages_as_they_are(fresh) -> None:
    root = fresh.ROOT
    for name in ("book/start/page.md", "src/dsnotes/a.py", "website/tests/t.py", "tests/t.py",
                 "src/__pycache__/a.pyc", "book/data/x.csv", "_toc.yml"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for path in root.rglob("*"):
        os.utime(path, (0, 0))
    fresh.ready()
    fresh.book()
    fresh.book()
    assert ["--all" in words for words in fresh.calls[1:]] == [True, False]
    later = fresh.BUILT.stat().st_mtime + 10
    for name, again in {
        "book/start/page.md": False, "website/tests/t.py": False, "tests/t.py": False,
        "src/__pycache__/a.pyc": False, "src/dsnotes/a.py": True, "book/data/x.csv": True,
        "_toc.yml": True,
    }.items():  # fmt: skip
        os.utime(root / name, (later, later))
        assert fresh.changed(fresh.BUILT, root) == again, name
        os.utime(root / name, (0, 0))


def test_another_address_writes_every_page_again(fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh.book()
    monkeypatch.setenv("BOOK_URL", "https://example.org/")
    fresh.book()
    assert "--all" in fresh.calls[-1]


def test_a_build_that_fails_is_built_whole_the_next_time(
    fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.book()
    with monkeypatch.context() as broken:
        broken.setattr(fresh, "call", lambda *_, **__: 1)
        with pytest.raises(SystemExit):
            fresh.book()
    fresh.book()
    assert "--all" in fresh.calls[-1]


# --- what single commands promise ---


def test_without_a_gpu_make_gpu_says_so_and_fails() -> None:
    code = "import make; make.ready = lambda *_: None; make.main(['gpu'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "make gpu: PyTorch finds no CUDA GPU on this machine, nothing ran\n"


def test_lab_starts_for_root_too(make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "ready_for_book", lambda: True)
    make.lab()
    assert {"--allow-root", "--ip=127.0.0.1"} <= set(make.calls[0])


def test_tests_take_all_cores_and_one_core_is_left_alone(
    make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the commands spread: a single test, called by hand, starts no other process."""
    assert make.spread(1) == []
    assert [make.spread(n)[1] for n in (2, 4, 64)] == ["2", "4", "4"]
    monkeypatch.setattr(make, "spread", lambda: ["-n", "3"])
    for name in ("ready", "book"):
        monkeypatch.setattr(make, name, lambda *_: None)
    make.test()
    make.check_site()
    assert [words[1:5] for words in make.calls] == [["-m", "pytest", "-n", "3"]] * 2
    options = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["tool"]["pytest"]
    assert "-n" not in options["ini_options"]["addopts"]
    ci = (ROOT / ".ci/run").read_text("utf8")
    assert ci.count("-m pytest") == ci.count('-m pytest "${spread[@]}"') > 0


# --- uv and containers ---


def test_the_lock_has_the_pinned_versions_from_the_public_index() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text("utf8"))
    pins = re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text("utf8"), re.M)
    pinned = {canonicalize_name(name): version for name, version in pins}
    locked = {canonicalize_name(p["name"]): p for p in lock["package"]}
    both = pinned.keys() & locked.keys()
    assert len(both) > 190
    assert {n: locked[n]["version"] for n in both} == {n: pinned[n] for n in both}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    extras = locked["dsnotes"]["optional-dependencies"]
    assert {
        name: {canonicalize_name(d["name"]) for d in named} for name, named in extras.items()
    } == {
        name: {canonicalize_name(re.match(r"[\w.-]+", d)[0]) for d in named}
        for name, named in project["optional-dependencies"].items()
    }
    hosts = set(re.findall(r'https?://([^/"]+)', (ROOT / "uv.lock").read_text("utf8")))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}


def test_the_image_serves_what_live_takes() -> None:
    text = (ROOT / "Dockerfile").read_text("utf8")
    (command,) = re.findall(r"^CMD (.*)", text, re.M)
    words = json.loads(command)
    done = subprocess.run(
        [sys.executable, *words[1:], "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0
    published = re.findall(r"-p 127\.0\.0\.1:(\d+):(\d+)", text)
    assert [a for a, b in published if a == b] == [words[i] for i in (5, 7)]
    assert re.search(r"^USER (?!root)", text, re.M)
    ignored = (ROOT / ".dockerignore").read_text("utf8").split()
    assert {".venv", "_build", ".git"} <= set(ignored)
