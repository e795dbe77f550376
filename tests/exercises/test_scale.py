"""The exercises on what a thousand GPUs change: answers found another way."""

import pytest
import torch

from .notebook import NOTEBOOKS, answers
from .page import exercise

RIGHT = {label: answer.right for label, answer in answers(NOTEBOOKS / "scale.ipynb").items()}


def run(label: str) -> dict:
    names: dict = {"torch": torch}
    exec(RIGHT[label], names)
    return names


def test_scale_1() -> None:
    """Forty targets with their losses; torch's mean, and that of DDP over weighted losses."""
    told = exercise("scale-1")
    assert all(number in told for number in ("30", "10", "4.0", "6.0"))
    targets = torch.tensor([4.0] * 30 + [6.0] * 10)
    found = run("scale-1")
    assert found["loss"] == targets.mean().item()
    losses = torch.stack([targets[:30].mean(), targets[30:].mean()])
    assert (torch.tensor(found["factors"]) * losses).mean().item() == targets.mean().item()


def test_scale_2() -> None:
    """Byte by byte: which cards hold a weight, and who keeps what of it."""
    told = exercise("scale-2")
    assert all(number in told for number in ("0.64", "1.07", "128"))
    every, cut = 0.0, 0.0
    for billions, cards in ((0.64, 2), (1.07, 128)):
        for size, is_optimizer in ((4, False), (4, True), (2, True), (2, True)):
            every += billions * size
            cut += billions * size / (cards if is_optimizer else 1)
    found = run("scale-2")
    assert found["held"] == pytest.approx(every)
    assert found["cut"] == pytest.approx(cut)


def test_scale_3() -> None:
    """Against torch's SGD with momentum, on the sum of the gradients."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8))
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    found, momenta = weight.detach().clone(), [torch.zeros(4), torch.zeros(4)]
    for _ in range(4):
        gradients = [torch.randn(8), torch.randn(8)]
        weight.grad = gradients[0] + gradients[1]
        optimizer.step()
        found = run("scale-3")["zero_step"](found, gradients, momenta)
    torch.testing.assert_close(found, weight.detach())
