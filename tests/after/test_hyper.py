"""Hyper-connections: the equations entry by entry, what Sinkhorn keeps, and the known traps.

`by_the_equations` computes the new streams of one token from the equations with plain loops. Each
`wrong` variant of it is a mistake seen in public ports; the trap tests hold our output against the
right one and check that the wrong one is far off, so that they would notice the mistake in ours.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dsnotes.after.hyper import (
    HyperConnection,
    HyperHead,
    Mappings,
    collapse,
    gains,
    sinkhorn,
    start_streams,
)

HIDDEN, N, EPS = 6, 4, 1e-6
SUBLAYERS = 122  # 61 layers of attention and feed-forward


def connection(
    *, n: int = N, eps: float = EPS, sharp: float = 2.0, seed: int = 0
) -> HyperConnection:
    """In float64, with weights that make the three mappings uneven."""
    torch.manual_seed(seed)
    around = HyperConnection(HIDDEN, hc_mult=n, hc_eps=eps).double()
    torch.nn.init.normal_(around.fn, std=sharp / (n * HIDDEN) ** 0.5)
    torch.nn.init.normal_(around.base)
    around.scale.data = torch.tensor([0.7, 1.3, 1.0], dtype=torch.float64)
    return around.requires_grad_(False)


def sublayer(x: Tensor) -> Tensor:
    """Something that is not linear and does not commute with a sum."""
    return torch.tanh(x.roll(1, dims=-1)) + 0.1 * x.square()


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, N, HIDDEN, dtype=torch.float64)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def divided(matrix: list[list[float]], by: str, eps: float) -> list[list[float]]:
    n = range(len(matrix))
    if by == "columns":
        sums = [sum(matrix[i][j] for i in n) + eps for j in n]
        return [[matrix[i][j] / sums[j] for j in n] for i in n]
    return [[value / (sum(row) + eps) for value in row] for row in matrix]


def by_the_equations(
    around: HyperConnection, streams: Tensor, f: Callable[[Tensor], Tensor], *, wrong: str = ""
) -> Tensor:
    """New streams of one token (n, hidden): mHC section 4.2 with the eps of the released code."""
    n, eps = around.hc_mult, around.hc_eps
    x = streams.flatten().tolist()
    size = math.sqrt(sum(v * v for v in x) / len(x) + around.rms_norm_eps)
    x = [v / size for v in x]
    phi, bias, alpha = around.fn.tolist(), around.base.tolist(), around.scale.tolist()
    which = [0] * n + [1] * n + [2] * n * n
    raw = [
        alpha[which[k]] * sum(w * v for w, v in zip(row, x, strict=True)) + bias[k]
        for k, row in enumerate(phi)
    ]
    pre = [sigmoid(v) + eps for v in raw[:n]]
    twice = 1 if wrong == "post not doubled" else 2
    post = [twice * sigmoid(v) for v in raw[n : 2 * n]]
    if wrong == "eps on post":
        post = [v + 0.1 for v in post]  # as large as to be seen; with 1e-6 see the test
    comb = [raw[2 * n + n * j : 2 * n + n * (j + 1)] for j in range(n)]
    order = ["columns", "rows"]
    if wrong == "comb not transposed":
        res = comb
    else:
        res = [[comb[j][i] for j in range(n)] for i in range(n)]
    if wrong == "rows first":
        order.reverse()
    matrix = [[math.exp(v) for v in row] for row in res]
    matrix = divided(matrix, order[0], 0)  # the softmax, before eps
    matrix = divided([[v + eps for v in row] for row in matrix], order[1], eps)
    for _ in range(around.hc_sinkhorn_iters - 1):
        matrix = divided(divided(matrix, order[0], eps), order[1], eps)
    read = sum(a * stream for a, stream in zip(pre, streams, strict=True))
    written = f(read)
    return torch.stack(
        [sum(matrix[i][j] * streams[j] for j in range(n)) + post[i] * written for i in range(n)]
    )


def check(*wrongs: str, sharp: float = 2.0) -> None:
    """Ours is the equations' output; every wrong variant differs from it by more than 1 %."""
    around, streams = connection(sharp=sharp), draw()
    expected = by_the_equations(around, streams, sublayer)
    torch.testing.assert_close(around(streams, sublayer), expected, rtol=1e-10, atol=1e-12)
    for wrong in wrongs:
        far = by_the_equations(around, streams, sublayer, wrong=wrong) - expected
        assert far.norm() > 0.01 * expected.norm(), wrong


def test_the_equations_entry_by_entry() -> None:
    check()


def test_tokens_do_not_see_each_other() -> None:
    around, streams = connection(), draw(2, 5)
    whole = around(streams, sublayer)
    assert whole.shape == streams.shape
    for b in range(2):
        for t in range(5):
            torch.testing.assert_close(around(streams[b, t], sublayer), whole[b, t])


def test_one_stream_is_the_residual_connection() -> None:
    """n = 1: B is 1 to the eps, A and C are gates around the sub-layer."""
    around, x = connection(n=1, eps=0.0), torch.randn(3, 1, HIDDEN, dtype=torch.float64)
    pre, post, res = around.mappings(x)
    assert torch.equal(res, torch.ones(3, 1, 1, dtype=torch.float64))
    read = pre * x[:, 0]
    torch.testing.assert_close(around(x, sublayer)[:, 0], x[:, 0] + post * sublayer(read))


def test_untrained_stack_is_the_plain_residual_one() -> None:
    """With the projections off: all streams stay one stream, and each sub-layer is added once."""
    torch.manual_seed(0)
    x = torch.randn(3, HIDDEN, dtype=torch.float64)
    streams, plain = start_streams(x, hc_mult=N), x
    norm = torch.nn.RMSNorm(HIDDEN, eps=0.0, dtype=torch.float64)
    head = HyperHead(HIDDEN, hc_mult=N, hc_eps=0.0).double()
    head.hc_scale.data.zero_()
    for _ in range(10):
        around = HyperConnection(HIDDEN, hc_mult=N, hc_eps=0.0).double()
        around.scale.data.zero_()
        streams = around(streams, lambda h: sublayer(norm(h)))
        plain = plain + sublayer(norm(plain))
    torch.testing.assert_close(streams, start_streams(plain, hc_mult=N))
    torch.testing.assert_close(norm(head(streams)), norm(plain))  # the head doubles: 4 times 1/2


@pytest.mark.parametrize("std", [0.1, 1.0, 3.0, 6.0, 10.0, 100.0])
def test_rows_are_exact_and_columns_only_near(std: float) -> None:
    """The rows are divided last. Sharp logits leave the columns off by more than a percent."""
    torch.manual_seed(0)
    matrix = sinkhorn(std * torch.randn(4000, N, N, dtype=torch.float64))
    assert (matrix >= 0).all()
    assert (matrix.sum(-1) - 1).abs().max() < 1e-15 * N
    columns = (matrix.sum(-2) - 1).abs().amax()
    if std <= 1:
        assert columns < 1e-3
    if std >= 3:
        assert columns > 0.03


def test_more_iterations_bring_the_columns_nearer() -> None:
    torch.manual_seed(0)
    logits = 3 * torch.randn(500, N, N, dtype=torch.float64)
    off = [
        (sinkhorn(logits, iters=iters).sum(-2) - 1).abs().mean() for iters in (1, 3, 20, 100, 1000)
    ]
    assert off == sorted(off, reverse=True)
    assert off[0] > 0.1
    assert off[-1] < 1e-4


def test_what_eps_does() -> None:
    """Nothing that matters for flat logits; for sharp ones an entry moves by half and more."""
    torch.manual_seed(0)
    logits = torch.randn(4000, N, N, dtype=torch.float64)

    def moved(std: float) -> float:
        with_eps = sinkhorn(std * logits, eps=EPS)
        assert (with_eps.sum(-1) - 1).abs().max() < 2 * EPS  # a row is short of 1 by about eps
        return (with_eps - sinkhorn(std * logits)).abs().max().item()

    assert moved(1.0) < 1e-4
    assert 0.01 < moved(3.0) < 0.1
    assert moved(6.0) > 0.4
    assert moved(10.0) > 0.8


def test_eps_forgets_how_small_an_entry_was() -> None:
    """Both columns choose row 0; row 1 is left with what e^-20 and e^-24 say, or with two eps."""
    logits = torch.tensor([[0.0, 0.0], [-20.0, -24.0]], dtype=torch.float64)
    plain, floored = sinkhorn(logits), sinkhorn(logits, eps=EPS)
    # what the iteration never changes is a d / (b c); here a = d and b = c, so a / b is its root
    share = 1 / (1 + math.exp(4 / 2))
    expected = torch.tensor([[share, 1 - share], [1 - share, share]], dtype=torch.float64)
    torch.testing.assert_close(plain, expected, rtol=0, atol=1e-4)
    assert share < 0.12
    torch.testing.assert_close(floored, torch.full_like(floored, 0.5), rtol=0, atol=1e-3)


def test_sharp_logits_neither_overflow_nor_stop_the_gradient() -> None:
    """In float32 a row can underflow: eps fills it, and without eps it is refused."""
    logits = (200 * torch.randn(50, N, N)).requires_grad_()
    matrix = sinkhorn(logits, eps=EPS)
    assert matrix.isfinite().all()
    (gradient,) = torch.autograd.grad(matrix.square().sum(), logits)
    assert gradient.isfinite().all()
    with pytest.raises(ValueError, match="nearer together: a row of exp is 0 in"):
        sinkhorn(logits)
    assert sinkhorn(torch.full((N, N), 1e4)).equal(torch.full((N, N), 0.25))


def test_a_product_stays_doubly_stochastic() -> None:
    """Closed under products, spectral norm at most 1: nothing grows over any depth."""
    torch.manual_seed(0)
    matrices = sinkhorn(torch.randn(SUBLAYERS, N, N, dtype=torch.float64), iters=200)
    forward, backward = gains(matrices).T
    torch.testing.assert_close(forward, torch.ones_like(forward), rtol=0, atol=1e-12)
    torch.testing.assert_close(backward, torch.ones_like(backward), rtol=0, atol=1e-9)
    assert torch.linalg.matrix_norm(matrices, ord=2).max() < 1 + 1e-9


def test_gain_over_depth_with_and_without_the_constraint() -> None:
    """Twenty iterations: rows exact, columns within 1e-4; near the identity but free: tenfold."""
    torch.manual_seed(0)
    noise = torch.randn(SUBLAYERS, 50, N, N, dtype=torch.float64)
    forward, backward = gains(sinkhorn(noise))[-1]
    assert (forward - 1).abs().max() < 1e-12
    assert (backward - 1).abs().max() < 1e-3
    free = gains(torch.eye(N, dtype=torch.float64) + 0.1 * noise)[-1]
    assert free.median(dim=-1).values.min() > 5
    rows_only = gains(noise.softmax(dim=-1))[-1]  # a softmax alone keeps the rows
    assert (rows_only[0] - 1).abs().max() < 1e-12
    assert rows_only[1].median() > 1.2


def test_mixing_alone_makes_the_streams_alike() -> None:
    """What a doubly stochastic matrix does over depth: towards the mean, whatever it is."""
    torch.manual_seed(0)
    streams = draw()
    for matrix in sinkhorn(torch.randn(SUBLAYERS, N, N, dtype=torch.float64)):
        streams = matrix @ streams
    assert (streams - streams.mean(0)).abs().max() < 1e-9


def test_gradients_reach_everything() -> None:
    around = connection(eps=EPS).requires_grad_()
    streams = draw(2, 5).requires_grad_()
    around(streams, sublayer).square().sum().backward()
    for tensor in (streams, *around.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.abs().max() > 0


def test_gradient_is_that_of_the_numbers() -> None:
    around = connection(sharp=1.0).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda streams, *_: around(streams, sublayer),
        (draw(2).requires_grad_(), *around.parameters()),
    )


def test_the_head_is_a_sum_with_weights_of_its_own() -> None:
    torch.manual_seed(0)
    head, streams = HyperHead(HIDDEN, hc_mult=N).double().requires_grad_(False), draw(3)
    torch.nn.init.normal_(head.hc_fn)
    torch.nn.init.normal_(head.hc_base)
    head.hc_scale.fill_(0.8)
    flat = streams.flatten(-2)
    unit = flat / (flat.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    weights = torch.sigmoid(0.8 * unit @ head.hc_fn.T + head.hc_base) + EPS
    torch.testing.assert_close(head(streams), torch.einsum("bn,bnd->bd", weights, streams))


def test_names_and_sizes_of_the_parameters() -> None:
    """(2 + n) n rows for A, C and B, as transformers and the released files have them."""
    shapes = {name: tuple(p.shape) for name, p in HyperConnection(HIDDEN).named_parameters()}
    assert shapes == {"fn": (24, 4 * HIDDEN), "base": (24,), "scale": (3,)}
    shapes = {name: tuple(p.shape) for name, p in HyperHead(HIDDEN).named_parameters()}
    assert shapes == {"hc_fn": (4, 4 * HIDDEN), "hc_base": (4,), "hc_scale": (1,)}


def test_bfloat16_streams_and_float32_coefficients() -> None:
    around, streams = connection(), draw(2, 5)
    expected = around(streams, sublayer)
    low = around.to(torch.bfloat16)
    assert low.mappings(streams.bfloat16()).res.dtype == torch.float32
    got = low(streams.bfloat16(), sublayer)
    assert got.dtype == torch.bfloat16
    assert (got.double() - expected).abs().max() < 0.05 * expected.std()


# --- traps ---


def test_trap_1_comb_is_applied_transposed() -> None:
    check("comb not transposed")


def test_trap_2_post_is_twice_a_sigmoid() -> None:
    """Without the 2, a sub-layer is added half at the start."""
    check("post not doubled")
    around = HyperConnection(HIDDEN)
    around.scale.data.zero_()
    pre, post, res = around.mappings(torch.randn(N, HIDDEN))
    torch.testing.assert_close(post, torch.ones(N))
    torch.testing.assert_close(pre, torch.full((N,), 0.5), rtol=0, atol=1e-5)
    torch.testing.assert_close(res, torch.full((N, N), 0.25), rtol=0, atol=1e-5)


def test_trap_3_columns_first_rows_last() -> None:
    """The other order leaves the columns exact and lets the forward gain drift over depth."""
    check("rows first", sharp=8.0)
    torch.manual_seed(0)
    logits = 3 * torch.randn(SUBLAYERS, 20, N, N, dtype=torch.float64)
    ours, swapped = gains(sinkhorn(logits))[-1], gains(sinkhorn(logits.mT).mT)[-1]
    assert (ours[0] - 1).abs().max() < 1e-12
    assert (swapped[0] - 1).abs().max() > 0.01
    assert (swapped[1] - 1).abs().max() < 1e-12


def test_trap_4_eps_belongs_to_pre_and_to_the_matrix_not_to_post() -> None:
    check("eps on post")
    off = connection()
    off.base.fill_(-1e4)  # all sigmoids are 0
    off.fn.zero_()
    pre, post, _ = off.mappings(draw())
    assert torch.equal(pre, torch.full((N,), EPS, dtype=torch.float64))
    assert torch.equal(post, torch.zeros(N, dtype=torch.float64))


def test_trap_5_coefficients_in_bfloat16_lose_the_sum() -> None:
    """Rounded to 8 bits a row sums to 1 within half a percent; over 122 sub-layers that adds up."""
    torch.manual_seed(0)
    logits = torch.randn(SUBLAYERS, 50, N, N)

    def drift(matrices: Tensor) -> float:
        return (gains(matrices.double())[-1, 0] - 1).abs().max().item()

    assert drift(sinkhorn(logits, eps=EPS)) < 5e-4
    assert drift(sinkhorn(logits.bfloat16().float(), eps=EPS).bfloat16()) > 0.01
    assert drift(sinkhorn(logits.bfloat16(), eps=EPS)) > 0.05


def test_trap_6_the_end_is_the_learned_sum_and_not_the_mean() -> None:
    torch.manual_seed(0)
    head, streams = HyperHead(HIDDEN, hc_mult=N).double(), draw(3)
    torch.nn.init.normal_(head.hc_base)
    right, mean = head(streams), streams.mean(-2)
    parallel = torch.nn.functional.cosine_similarity(right, mean, dim=-1)
    assert parallel.min() < 0.98  # no scale of the mean is it, so no norm mends it


# --- what is refused ---


def test_streams_of_another_number_or_width() -> None:
    around, head = HyperConnection(HIDDEN), HyperHead(HIDDEN)
    for call in (lambda x: around(x, sublayer), head):
        for shape in ((2, 3, HIDDEN), (2, N, HIDDEN + 1)):
            with pytest.raises(ValueError, match=r"streams must be \(..., 4, 6\), as the weights"):
                call(torch.randn(shape))


def test_a_sublayer_that_changes_the_shape() -> None:
    with pytest.raises(ValueError, match=r"sublayer must return shape \(2, 6\), got \(2, 5\)"):
        HyperConnection(HIDDEN)(torch.randn(2, N, HIDDEN), lambda x: x[:, :-1])


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: sinkhorn(torch.zeros(4, 4), iters=0), "iters must be at least 1, got 0"),
        (lambda: sinkhorn(torch.zeros(4, 4), eps=-1.0), "eps must be at least 0, got -1.0"),
        (lambda: sinkhorn(torch.zeros(4, 3)), "logits must be"),
        (lambda: gains(torch.zeros(0, 4, 4)), "depth must be at least 1, got 0"),
        (lambda: HyperConnection(0), "hidden_size must be at least 1, got 0"),
        (lambda: HyperConnection(8, hc_mult=0), "hc_mult must be at least 1, got 0"),
        (lambda: HyperHead(8, hc_eps=-1.0), "hc_eps must be at least 0, got -1.0"),
        (lambda: start_streams(torch.zeros(2, 8), hc_mult=0), "hc_mult must be at least 1, got 0"),
        (lambda: collapse(torch.zeros(2, 3), torch.zeros(2, 4, 8)), "streams must be"),
    ],
)
def test_bad_arguments_are_named(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()


def test_mappings_are_named() -> None:
    assert Mappings._fields == ("pre", "post", "res")
