"""Every test runs with the shape annotations of `dsnotes` checked at run time.

`@pytest.mark.gpu` is for a test that needs a CUDA GPU, `@pytest.mark.gpu(2)` for one that needs
two; where there are fewer it is skipped and says so. `make gpu` runs them alone.
"""

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


def pytest_runtest_setup(item: pytest.Item) -> None:
    if (marker := item.get_closest_marker("gpu")) is not None:
        (wanted,) = marker.args or (1,)
        if torch.cuda.device_count() < wanted:
            pytest.skip({1: "needs a GPU", 2: "needs two GPUs"}[wanted])
