"""Small, exact PyTorch implementations of the techniques behind DeepSeek-V3 and R1.

Each module is one mechanism and one section of the book. Importing `dsnotes` loads neither torch
nor matplotlib; a submodule is imported on first use, so both of these work:

    from dsnotes.moe import MoE
    import dsnotes; dsnotes.moe.MoE
"""

import importlib
import pkgutil
from types import ModuleType

__version__ = "0.1.0"
_SUBMODULES = sorted(m.name for m in pkgutil.iter_modules(__path__))
__all__ = list(_SUBMODULES)


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'dsnotes' has no attribute {name!r}; it has {_SUBMODULES}")


def __dir__() -> list[str]:
    return [*globals(), *_SUBMODULES]
