"""How large an error of rounding is, and tensors to measure it on."""

import torch
from torch import Tensor


def relative_error(x: Tensor, reference: Tensor) -> float:
    return ((x - reference).norm() / reference.norm()).item()


def row_errors(x: Tensor, reference: Tensor) -> Tensor:
    return (x - reference).norm(dim=1) / reference.norm(dim=1)


def gradient_like(rows: int, cols: int) -> Tensor:
    """Tokens whose gradients differ by orders of magnitude: row scales log-normal, sigma 4."""
    return torch.randn(rows, cols) * torch.exp(4 * torch.randn(rows, 1))


def assert_product(actual: Tensor, a: Tensor, b: Tensor) -> None:
    """A B^T up to the rounding of float32 sums, entry by entry."""
    assert ((actual - a @ b.T).abs() <= 1e-6 * (a.abs() @ b.abs().T)).all()
