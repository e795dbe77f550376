"""Newton-Schulz: all singular values of a matrix made 1 by products of matrices alone.

A polynomial of a matrix X with odd powers, X, X X^T X and so on, acts on the singular values of X
and leaves its singular vectors. Repeated, the right polynomials carry every value to 1. Muon
(`dsnotes.after.muon`) turns its momentum into a step that way.

Equations
    V4 (arXiv 2606.19348) eq 28, section 2.4: one step; its coefficients, eight of one kind and two
    of another

Departures
    - The matrix is divided by its largest entry before its norm is taken: the momentum of an idle
      expert falls below what float32 can square. The quotient is the same.
    - Tall matrices are transposed first: the square products are then those of the small side.

Legend of shapes: a matrix is (n, m); the axes before are a stack of matrices, each on its own.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least

Coefficients = tuple[float, float, float]
STEEP: Coefficients = (3.4445, -4.7750, 2.0315)  # raises small singular values fast
SETTLE: Coefficients = (2.0, -1.5, 0.5)  # brings all of them to 1
HYBRID: tuple[Coefficients, ...] = (STEEP,) * 8 + (SETTLE,) * 2


@checked
def singular_values(
    sigma: Float[Tensor, "*values"], coefficients: tuple[Coefficients, ...] = HYBRID
) -> Float[Tensor, "*values"]:
    """What the steps make of singular values between 0 and 1: a x + b x^3 + c x^5 each.

    >>> singular_values(torch.tensor([0.01, 0.1, 1.0])).round(decimals=2)
    tensor([1., 1., 1.])
    """
    for a, b, c in coefficients:
        sigma = a * sigma + b * sigma**3 + c * sigma**5
    return sigma


@checked
def orthogonalize(
    x: Float[Tensor, "*stack n m"], coefficients: tuple[Coefficients, ...] = HYBRID
) -> Float[Tensor, "*stack n m"]:
    """U V^T, nearly, for x = U S V^T: V4 eq 28, once for each of `coefficients`.

    Each matrix of a stack goes on its own; a matrix of zeros stays 0.

    >>> q = orthogonalize(torch.randn(4, 9, dtype=torch.float64))
    >>> bool((q @ q.mT - torch.eye(4)).abs().max() < 2e-3)
    True
    """
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # the products are then of the small side
    x = x / x.abs().amax((-2, -1), keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    for a, b, c in coefficients:
        gram = x @ x.mT  # (*stack, n, n)
        x = a * x + (b * gram + c * gram @ gram) @ x  # (28)
    return x.mT if tall else x


@checked
def newton_schulz_flops(n: int, m: int, *, steps: int = len(HYBRID)) -> int:
    """Operations of `orthogonalize`, two a multiply-add; ValueError for sizes or steps below 1.

    >>> newton_schulz_flops(2, 3, steps=1) == 2 * (2 * 2 * 3) + 2 * 2**3 + 2 * (2 * 2 * 3)
    True
    """
    at_least(1, n=n, m=m, steps=steps)
    n, m = min(n, m), max(n, m)
    return steps * (2 * n * n * m + 2 * n**3 + 2 * n * n * m)
