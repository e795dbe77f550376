"""Peers of the optional group `peers` (`pip install -e ".[peers]"`), skipped by name without it."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ModuleType]:
    """peer("optax") imports a package; peer("fla", "ops/dsa/naive.py") one file of it by its path.

    By path where the package itself wants a GPU's compiler. `stubs` are the names of modules which
    that file imports and whose contents it does not need.
    """

    def load(package: str, path: str = "", *, stubs: tuple[str, ...] = ()) -> ModuleType:
        spec = importlib.util.find_spec(package)
        if spec is None:
            pytest.skip(f"needs {package}, of the group peers")
        if not path:
            return importlib.import_module(package)
        for name in stubs:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        (folder,) = spec.submodule_search_locations or ()
        file = importlib.util.spec_from_file_location(
            f"peer_{package}_{Path(path).stem}", Path(folder) / path
        )
        assert file is not None
        assert file.loader is not None
        module = importlib.util.module_from_spec(file)
        file.loader.exec_module(module)
        return module

    return load
