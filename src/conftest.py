"""What the examples in docstrings find ready: small models, some tokens, and the usual names."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

KERNELS = ("training/fp8/kernels.py", "model/moe_triton.py", "model/mla_triton.py")
collect_ignore = [] if find_spec("triton") else [f"dsnotes/{path}" for path in KERNELS]


@pytest.fixture(autouse=True)
def _names(
    doctest_namespace: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same numbers on every run, in an empty folder."""
    import torch
    import torch.nn.functional as F

    from dsnotes.after.config import TINY_V4, TINY_V32
    from dsnotes.config import DEEPSEEK_V3, TINY
    from dsnotes.model.deepseek import DeepSeek
    from dsnotes.training import poems, verses

    torch.manual_seed(0)
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    doctest_namespace.update(torch=torch, F=F, TINY=TINY, DEEPSEEK_V3=DEEPSEEK_V3)
    doctest_namespace.update(TINY_V32=TINY_V32, TINY_V4=TINY_V4)
    doctest_namespace.update(POET=replace(TINY, vocab_size=len(poems.vocabulary())))
    doctest_namespace.update(BARD=replace(TINY, vocab_size=len(verses.vocabulary())))
    doctest_namespace.update(model=DeepSeek(TINY), tokens=torch.randint(TINY.vocab_size, (2, 16)))
