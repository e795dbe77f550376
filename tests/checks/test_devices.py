"""devices: where a kernel in Triton can run."""

from collections.abc import Iterator

import pytest
import torch

from dsnotes.checks import devices
from dsnotes.checks.devices import triton_capability

HOPPER = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def hopper(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(devices, "find_spec", lambda name: name)
    triton_capability.cache_clear()
    yield
    triton_capability.cache_clear()


def test_it_is_that_of_the_gpu() -> None:
    assert triton_capability(HOPPER) == (9, 0)


@pytest.mark.parametrize("kind", ["cpu", "meta", "mps"])
def test_other_devices_have_none(kind: str) -> None:
    assert triton_capability(torch.device(kind)) == (0, 0)


def test_without_triton_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: None)
    assert triton_capability(HOPPER) == (0, 0)


def test_other_makers_number_their_gpus_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """ROCm calls its devices cuda as well; an MI300 is a (9, 4)."""
    monkeypatch.setattr(torch.version, "cuda", None)
    assert triton_capability(HOPPER) == (0, 0)
