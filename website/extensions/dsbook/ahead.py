"""Run the notebooks of a build at once, as many as there are cores.

MyST-NB runs a notebook when it comes to its page, so one after another, and ours keep to one core.
Here those that the execution cache does not hold run before any page is read, and what they put out
goes into the cache, where MyST-NB finds it. One that fails is left to MyST-NB, which runs it again
and says what is wrong.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from sphinx.util.display import status_iterator

from . import cachekey

MOST = 4  # each takes up to a gigabyte


def at_once() -> int:
    """How many notebooks run at the same time."""
    may = getattr(os, "sched_getaffinity", None)
    return min(len(may(0)) if may else os.cpu_count() or 1, MOST)


def run(notebook: nbformat.NotebookNode, timeout: int) -> ExecutionResult:
    with TemporaryDirectory() as folder:
        return single_nb_execution(notebook, cwd=folder, timeout=timeout, allow_errors=False)


def run_ahead(app, env, docnames: list[str]) -> None:
    """Fill the cache with the notebooks among the pages that are about to be read."""
    settings = env.mystnb_config
    if settings.execution_mode != "cache" or not settings.execution_in_temp or at_once() < 2:
        return
    cache = get_cache(settings.execution_cache_path)
    waiting: dict[str, nbformat.NotebookNode] = {}
    for name in docnames:
        path = Path(env.doc2path(name))
        if path.suffix == ".ipynb":
            text, _ = cachekey.marked(Path(app.srcdir), path.read_text("utf8"))
            waiting[name] = nbformat.reads(text, as_version=4)
            with suppress(KeyError):
                cache.match_cache_notebook(waiting[name])
                del waiting[name]
    if not waiting:
        return
    with ThreadPoolExecutor(at_once()) as pool:
        runs: dict[Future[ExecutionResult], str] = {
            pool.submit(run, notebook, settings.execution_timeout): name
            for name, notebook in waiting.items()
        }
        ended = status_iterator(
            as_completed(runs), "running notebooks... ", "purple", len(runs), app.verbosity,
            stringify_func=runs.__getitem__,
        )  # fmt: skip
        for done in ended:
            if done.exception() is None and done.result().err is None:
                cache.cache_notebook_bundle(
                    CacheBundleIn(
                        done.result().nb,
                        str(env.doc2path(runs[done])),
                        data={"execution_seconds": done.result().time},
                    ),
                    check_validity=False,
                    overwrite=True,
                )


def setup(app):
    app.connect("env-before-read-docs", run_ahead)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
