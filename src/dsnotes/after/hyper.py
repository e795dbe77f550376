"""Manifold-constrained hyper-connections (mHC): a residual stream of n lanes, mixed without gain.

A residual block reads one stream and adds to it. Hyper-connections keep n streams: each sub-layer
reads a weighted sum of them, writes its output back to all with weights, and mixes the streams by
a matrix. mHC makes that matrix doubly stochastic by Sinkhorn's iteration, so that a product over
any number of layers neither grows nor shrinks what passes.

Equations (in V4's letters A = H^pre, B = H^res, C = H^post)
    V4 (arXiv 2606.19348) section 2.2       X_{l+1} = B_l X_l + C_l F_l(A_l X_l)
    mHC (arXiv 2512.24880) section 3.1 (4)  the product of all B is what one stream passes on
    mHC section 4.2                         A, B, C from the streams; Sinkhorn-Knopp, 20 iterations

Departures
    - `eps` as in the released code: added to A, to the matrix once its columns have been divided (a
      softmax), and to every sum divided by from then on, never to C. The paper's iteration has
      none: `sinkhorn` takes it as an argument whose default is 0, `HyperConnection` defaults to
      the released 1e-6.
    - The released parameters give the transpose of B. It is turned here first, so that the order is
      the paper's: columns, then rows.
    - The norm divides after the product with `fn` (mHC section 4.3.1) and has no weight.
    - What the biases start from was not found in print: 0, as in transformers, which makes the
      untrained stack the plain residual one but for the small `scale` (0.01, the paper's alpha).
    - Coefficients are computed in float32 at least, whatever the type of the streams, and the new
      streams are rounded to that type once.

Legend of shapes: n (streams), hidden, and any dimensions before them, usually batch and seq.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least


class Mappings(NamedTuple):
    """How one sub-layer reads the streams (A), writes to them (C) and mixes them (B)."""

    pre: Float[Tensor, "*batch n"]  # A, H^pre
    post: Float[Tensor, "*batch n"]  # C, H^post
    res: Float[Tensor, "*batch n n"]  # B, H^res; row i says what stream i is made of


@checked
def sinkhorn(
    logits: Float[Tensor, "*batch n n"], *, iters: int = 20, eps: float = 0.0
) -> Float[Tensor, "*batch n n"]:
    """exp(logits) made doubly stochastic: `iters` times columns, then rows (mHC section 4.2).

    The rows come last, so with eps 0 they sum to 1 exactly; columns only as far as the iteration
    has come. With `eps` it is the iteration of the released code. ValueError unless iters >= 1, and
    where a row of exp(logits) is 0 in the type of the numbers and no eps fills it.

        >>> sinkhorn(torch.tensor([[0.0, 1.0], [0.0, 0.0]])).round(decimals=2)
        tensor([[0.3800, 0.6200],
                [0.6200, 0.3800]])
    """
    at_least(1, iters=iters)
    at_least(0, eps=eps)
    # The first sum of the columns is a softmax: exp(logits) would overflow where it does not.
    matrix = logits.softmax(dim=-2) + eps
    if eps == 0 and (matrix.sum(dim=-1) == 0).any():
        raise ValueError(f"logits must lie nearer together: a row of exp is 0 in {logits.dtype}")
    for step in range(iters):
        if step > 0:
            matrix = matrix / (matrix.sum(dim=-2, keepdim=True) + eps)  # T_c
        matrix = matrix / (matrix.sum(dim=-1, keepdim=True) + eps)  # T_r
    return matrix


@checked
def gains(matrices: Float[Tensor, "depth *batch n n"]) -> Float[Tensor, "depth 2 *batch"]:
    """What passes through the first l + 1 mixings: forward and backward gain (mHC section 3.1).

    Of the product B_l ... B_1 B_0, the largest sum of absolute values in a row, which bounds how
    much larger a stream gets, and in a column, which bounds how much larger a gradient gets.

        >>> gains(torch.tensor([[[0.5, 0.5], [1.0, 0.0]]] * 2))
        tensor([[1.0000, 1.5000],
                [1.0000, 1.2500]])
    """
    at_least(1, depth=len(matrices))
    product, found = torch.eye(matrices.shape[-1]).to(matrices), []
    for matrix in matrices:
        product = matrix @ product
        sizes = product.abs()
        found.append(torch.stack([sizes.sum(-1).amax(-1), sizes.sum(-2).amax(-1)]))
    return torch.stack(found)


class HyperConnection(nn.Module):
    """The residual connection around one sub-layer, over n streams instead of one.

    The names of the parameters are transformers'. `fn` has rows for A, C and the transpose of B,
    in this order; `base` is their bias, `scale` one factor for each of the three.

        >>> around = HyperConnection(16, hc_mult=4)
        >>> around(torch.randn(2, 5, 4, 16), torch.tanh).shape
        torch.Size([2, 5, 4, 16])
    """

    @checked
    def __init__(
        self,
        hidden_size: int,
        *,
        hc_mult: int = 4,
        hc_sinkhorn_iters: int = 20,
        hc_eps: float = 1e-6,
        rms_norm_eps: float = 1e-6,
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__()
        at_least(1, hidden_size=hidden_size, hc_mult=hc_mult, hc_sinkhorn_iters=hc_sinkhorn_iters)
        at_least(0, hc_eps=hc_eps, rms_norm_eps=rms_norm_eps, initializer_range=initializer_range)
        self.hidden_size, self.hc_mult = hidden_size, hc_mult
        self.hc_sinkhorn_iters, self.hc_eps = hc_sinkhorn_iters, hc_eps
        self.rms_norm_eps = rms_norm_eps
        mixes = (2 + hc_mult) * hc_mult
        self.fn = nn.Parameter(initializer_range * torch.randn(mixes, hc_mult * hidden_size))
        self.base = nn.Parameter(torch.zeros(mixes))
        self.scale = nn.Parameter(torch.full((3,), 0.01))

    @checked
    def forward(
        self,
        streams: Float[Tensor, "*batch n hidden"],
        sublayer: Callable[[Tensor], Tensor],
    ) -> Float[Tensor, "*batch n hidden"]:
        """X_{l+1} = B X + C F(A X). `sublayer` is F, its norm included; it keeps the shape.

        ValueError for another number or width of streams, or where `sublayer` changes the shape.
        """
        pre, post, res = self.mappings(streams)
        output = sublayer(collapse(pre, streams))  # F(A X)
        if output.shape != (shape := (*streams.shape[:-2], self.hidden_size)):
            raise ValueError(f"sublayer must return shape {shape}, got {tuple(output.shape)}")
        mixed = res @ streams.to(res.dtype) + post.unsqueeze(-1) * output.unsqueeze(-2)
        return mixed.to(streams.dtype)

    @checked
    def unconstrained(self, streams: Float[Tensor, "*batch n hidden"]) -> Mappings:
        """The three mappings of every token before their constraints (mHC section 4.2, tilde H)."""
        n = self.hc_mult
        mixes = _projected(streams, self.fn, n, self.hidden_size, self.rms_norm_eps)  # x' phi
        base, scale = self.base.to(mixes.dtype), self.scale.to(mixes.dtype)
        pre, post, res = mixes.split([n, n, n * n], dim=-1)
        b_pre, b_post, b_res = base.split([n, n, n * n])
        return Mappings(
            pre=scale[0] * pre + b_pre,
            post=scale[1] * post + b_post,
            res=(scale[2] * res + b_res).unflatten(-1, (n, n)).mT,  # released: transposed
        )

    @checked
    def mappings(self, streams: Float[Tensor, "*batch n hidden"]) -> Mappings:
        """A, C and B of every token, from all of its streams (mHC section 4.2)."""
        raw = self.unconstrained(streams)
        return Mappings(
            pre=torch.sigmoid(raw.pre) + self.hc_eps,
            post=2 * torch.sigmoid(raw.post),
            res=sinkhorn(raw.res, iters=self.hc_sinkhorn_iters, eps=self.hc_eps),
        )


class HyperHead(nn.Module):
    """The end of the streams: one weighted sum, before the final norm of the model.

    >>> HyperHead(16, hc_mult=4)(torch.randn(2, 5, 4, 16)).shape
    torch.Size([2, 5, 16])
    """

    @checked
    def __init__(
        self,
        hidden_size: int,
        *,
        hc_mult: int = 4,
        hc_eps: float = 1e-6,
        rms_norm_eps: float = 1e-6,
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__()
        at_least(1, hidden_size=hidden_size, hc_mult=hc_mult)
        at_least(0, hc_eps=hc_eps, rms_norm_eps=rms_norm_eps, initializer_range=initializer_range)
        self.hidden_size, self.hc_mult = hidden_size, hc_mult
        self.hc_eps, self.rms_norm_eps = hc_eps, rms_norm_eps
        self.hc_fn = nn.Parameter(initializer_range * torch.randn(hc_mult, hc_mult * hidden_size))
        self.hc_base = nn.Parameter(torch.zeros(hc_mult))
        self.hc_scale = nn.Parameter(torch.full((1,), 0.01))

    @checked
    def forward(self, streams: Float[Tensor, "*batch n hidden"]) -> Float[Tensor, "*batch hidden"]:
        """Sum over the streams, weighted as A is; ValueError for other streams than its own."""
        mixes = _projected(streams, self.hc_fn, self.hc_mult, self.hidden_size, self.rms_norm_eps)
        base, scale = self.hc_base.to(mixes.dtype), self.hc_scale.to(mixes.dtype)
        return collapse(torch.sigmoid(scale * mixes + base) + self.hc_eps, streams)


@checked
def start_streams(
    embeddings: Float[Tensor, "*batch width"], *, hc_mult: int
) -> Float[Tensor, "*batch n width"]:
    """The streams before the first layer: the embedding, n times.

    >>> start_streams(torch.ones(2, 5, 16), hc_mult=4).shape
    torch.Size([2, 5, 4, 16])
    """
    at_least(1, hc_mult=hc_mult)
    return embeddings.unsqueeze(-2).repeat_interleave(hc_mult, dim=-2)


@checked
def collapse(
    weights: Float[Tensor, "*batch n"], streams: Float[Tensor, "*batch n width"]
) -> Float[Tensor, "*batch width"]:
    """A X: the streams summed with weights, in the type of the streams.

    >>> collapse(torch.tensor([0.5, 2.0]), torch.tensor([[2.0, 4.0], [1.0, 1.0]]))
    tensor([3., 4.])
    """
    return (weights.unsqueeze(-1) * streams).sum(dim=-2).to(streams.dtype)


def _projected(streams: Tensor, fn: Tensor, n: int, hidden: int, eps: float) -> Tensor:
    """RMSNorm(vec(X)) times the rows of fn; the norm divides after the product."""
    if streams.shape[-2:] != (n, hidden):
        raise ValueError(
            f"streams must be (..., {n}, {hidden}), as the weights are, got shape "
            f"{tuple(streams.shape)}"
        )
    x = streams.flatten(-2)  # vec(X), (*batch, n * hidden)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    rms = (x.square().mean(dim=-1, keepdim=True) + eps).rsqrt()
    return F.linear(x, fn.to(x.dtype)) * rms
