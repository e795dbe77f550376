"""The plugin of pytest in a grading run: the reader's file stands for a module of ours.

Loaded with `-p dsnotes.practice.plugin` by `dsnotes.practice.grade`, which says in the environment
variable DSNOTES_PRACTICE what replaces what. One line of JSON a test goes to the report.
"""

import importlib.util
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from dsnotes.practice.bounded import limit

RUN: dict[str, Any] = json.loads(os.environ.get("DSNOTES_PRACTICE", "{}"))


class _Readers:
    """Finds the reader's file where a module of ours is imported."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in RUN["files"]:
            return None
        return importlib.util.spec_from_file_location(name, RUN["files"][name])


class _Anything(ModuleType):
    """Stands for hypothesis: tests of properties are skipped, they are slow where they fail."""

    def __getattr__(self, name: str) -> Any:
        if name == "given":
            return lambda *args, **kwargs: pytest.mark.skip("a property")
        if name in ("settings", "example"):
            return lambda *args, **kwargs: lambda function: function
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def __or__(self, other: Any) -> Any:
        return self


if RUN:
    sys.meta_path.insert(0, _Readers())
    nothing = _Anything("hypothesis")
    nothing.__spec__ = ModuleSpec("hypothesis", None)  # torch asks for it
    sys.modules |= {"hypothesis": nothing, "hypothesis.strategies": nothing}
    limit()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Iterator[None]:
    """Seeds that tests set are moved by the grader's."""
    from dsnotes.practice.seeds import shifted  # imports torch

    with shifted(RUN["seed"]):
        return (yield)


@pytest.fixture(autouse=True)
def _fixed_randomness() -> None:
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what cannot be graded; without a list, nothing."""
    left_out = set(RUN["leave_out"])
    items[:] = [item for item in items if getattr(item, "originalname", "") not in left_out]
    items.sort(key=lambda item: "trap" not in item.name)  # common mistakes first


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that does not end is stopped, and the run with it."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        item.session.shouldstop = "one test did not end"
        raise TimeoutError(f"{RUN['seconds']} s")

    if not hasattr(signal, "setitimer"):
        return (yield)
    signal.signal(signal.SIGPROF, stop)
    # of the processor: a busy machine makes no loop endless
    signal.setitimer(signal.ITIMER_PROF, RUN["seconds"])
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """One line of the report for every test that ran or could not be set up."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.when == "call" or not report.passed:
        _write(report.nodeid, report.outcome, call.excinfo)
    return report  # type: ignore[return-value]


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any]
) -> None:
    """A file of tests that cannot be imported, since the reader's cannot."""
    if isinstance(node, pytest.Collector):
        _write(node.nodeid, "failed", call.excinfo)


def pytest_sessionfinish() -> None:
    """The mark of a run that came to its end, which a file that ends the process does not leave."""
    Path(RUN["report"]).with_suffix(".ended").touch()


def _write(test: str, outcome: str, error: pytest.ExceptionInfo[BaseException] | None) -> None:
    line: dict[str, Any] = {"test": test, "outcome": outcome}
    if outcome == "failed" and error is not None:
        line |= {"kind": error.typename, "message": str(error.value)}
        own = [f for f in traceback.extract_tb(error.tb) if f.filename in RUN["files"].values()]
        if own:
            line |= {"file": Path(own[-1].filename).name, "line": own[-1].lineno}
    with open(RUN["report"], "a", encoding="utf8") as file:
        file.write(json.dumps(line) + "\n")
