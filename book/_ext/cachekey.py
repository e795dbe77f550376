"""Run the notebooks again when the code they run on has changed.

The execution cache of Jupyter Book looks only at a notebook's own cells. Here its folder is named
after a hash of everything else a notebook reads: the library (``src/``) and the recorded data
(``book/data/``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

SKIP = {".pyc", ".pyo"}


def content_hash(root: Path) -> str:
    """Hash of the files that the results of a notebook depend on, beside itself."""
    digest = hashlib.sha256()
    for folder in ("src", "book/data"):
        for path in sorted((root / folder).rglob("*")):
            hidden = any(part.endswith(".egg-info") for part in path.parts)
            if path.is_file() and path.suffix not in SKIP and not hidden:
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def set_cache_path(app, config):
    root = Path(app.srcdir)
    config.nb_execution_cache_path = str(root / "_build" / ".jupyter_cache" / content_hash(root))


def setup(app):
    app.connect("config-inited", set_cache_path, priority=1)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
