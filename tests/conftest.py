"""Every test runs with the shape annotations of `dsnotes` checked at run time."""

import jaxtyping

import dsnotes.config  # noqa: F401  (before the hook: its tests hand it wrong types on purpose)

jaxtyping.install_import_hook("dsnotes", "beartype.beartype")

import pytest  # noqa: E402  (torch and dsnotes must be imported after the hook)
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

# a busy machine is no fault of a property
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _fixed_randomness() -> None:
    """Same numbers on every run; one thread, so that sums are made in one order."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
