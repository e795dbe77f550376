"""Every test runs with the shape annotations of `dsnotes` checked at run time."""

import jaxtyping

import dsnotes.config  # before the hook: it checks its own values, and tests hand it wrong types

jaxtyping.install_import_hook("dsnotes", "beartype.beartype")

import pytest  # noqa: E402  (torch and dsnotes must be imported after the hook)
import torch  # noqa: E402


@pytest.fixture(autouse=True)
def _fixed_randomness() -> None:
    """Same numbers on every run; one thread, so that sums are made in one order."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
