"""Every finite input: the value and the gradient that plain float64 gives, or a clear error.

The references are written from the equations, in float64 (integers and fractions where that is not
exact enough), without the library. `NUMBERS_EXAMPLES` sets how many inputs each property is tried
on.
"""

import bisect
import itertools
import math
import os
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dsnotes.checks.numeric import token_ids
from dsnotes.model.balance import expert_balance_loss, sequence_balance_loss
from dsnotes.model.deepseek import next_token_probs
from dsnotes.rl.grpo import group_advantages, grpo_loss
from dsnotes.rl.objective import Objective, k1, k2, k3, token_log_probs
from dsnotes.rl.ppo import ppo_loss
from dsnotes.training.fp8.formats import E4M3, E5M2, E5M6, INT8, Format, cast, dequantize, quantize

many = settings(
    deadline=None,
    max_examples=int(os.environ.get("NUMBERS_EXAMPLES", "100")),
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    derandomize="NUMBERS_EXAMPLES" not in os.environ,
)

TYPES = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


@st.composite
def tensors(
    draw: Any,
    dtype: torch.dtype,
    *shape: int,
    lowest: float | None = None,
    highest: float = 1e306,
) -> Tensor:
    """Finite numbers of a type: of everyday size, of any size, and the extremes. Of float64 only so
    large that sums of them fit, so small that quotients do: no wider type is there to take them."""
    largest = min(torch.finfo(dtype).max, highest)
    low = -largest if lowest is None else lowest
    usual = st.floats(max(low, -3), 3)
    some = st.floats(max(low, -200), 200)
    anything = st.floats(low, largest) | st.sampled_from(
        [0.0, largest, max(low, -largest), torch.finfo(dtype).tiny, torch.finfo(dtype).eps]
    )
    entry = draw(st.sampled_from([usual, some, anything, usual | anything]))
    values = draw(st.lists(entry, min_size=math.prod(shape), max_size=math.prod(shape)))
    x = torch.tensor(values, dtype=torch.float64).view(shape).to(dtype)
    x = x.clamp(-largest, largest)
    return x.masked_fill(x.abs() < 1e-290, 0) if dtype == torch.float64 else x


def wide(x: Any) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def tolerance(dtype: torch.dtype) -> float:
    """A few roundings to the type; in float64 both sides take all their steps, some dozens."""
    return (64 if dtype == torch.float64 else 8) * torch.finfo(dtype).eps


def same(
    found: Tensor, right: Tensor, scale: Tensor | float = 0.0, wide_scale: Tensor | float = 0.0
) -> bool:
    """Equal up to the rounding of the type of `found`; `scale`: what cancelled on the way, and
    `wide_scale`: what cancelled in float64."""
    dtype = found.dtype
    x = found.double()
    slack = tolerance(dtype) * (right.abs() + scale) + 4 * torch.finfo(dtype).smallest_normal
    slack = slack + tolerance(torch.float64) * wide_scale
    return bool(x.isfinite().all() and ((x - right).abs() <= slack).all())


def fits(right: Tensor, dtype: torch.dtype, margin: float = 4.0) -> bool:
    """Whether a result is far enough from the largest number of a type."""
    return bool((right.abs() * margin <= torch.finfo(dtype).max).all())


def attempt(call: Callable[[], Tensor]) -> Tensor | ValueError:
    try:
        return call()
    except ValueError as error:
        return error


def check(
    call: Callable[..., Tensor],
    inputs: list[Tensor],
    right: Tensor,
    gradients: list[Tensor],
    *,
    cancelled: Tensor | float = 0.0,
    wide_cancelled: Tensor | float = 0.0,
    saturates: bool = False,
) -> None:
    """`call` gives `right` and, summed, the gradients; an error only where these do not fit.

    With `saturates`, a value that does not fit is a number of its sign that does, the largest one
    unless a derivative is larger, and the gradients are scaled down by the same factor.
    """
    leaves = [x.clone().requires_grad_() for x in inputs]
    found = attempt(lambda: call(*leaves))
    narrow = min((x.dtype for x in inputs), key=lambda dtype: torch.finfo(dtype).max)
    if isinstance(found, ValueError):
        assert "does not fit" in str(found) or "nats" in str(found), found
        extremes = [right, *gradients, torch.as_tensor(cancelled)]
        assert not all(fits(x, narrow) for x in extremes), f"refused: {found}, right is {right}"
        known = all(torch.as_tensor(x).isfinite().all() for x in (right, cancelled))
        assert not saturates or not known or fits(right, inputs[0].dtype, 0.999), found
        return
    if saturates and not fits(right, found.dtype, 1.0):
        scale = found.detach().double().abs() / right.abs()
        steepest = max(1.0, *(float(g.abs().max() / right.abs()) for g in gradients))
        limit = torch.finfo(narrow).max
        assert found.isfinite()
        assert found.detach().abs() <= limit
        if (torch.as_tensor(cancelled) <= right.abs() * 1.001).all():
            assert found.detach().abs() * steepest >= limit * 0.9, (found, right)
        right, gradients = right * scale, [g * scale for g in gradients]
        cancelled, wide_cancelled = cancelled * scale, wide_cancelled * scale
    assert same(found.detach(), right, cancelled, wide_cancelled), (found, right)
    found_gradients = torch.autograd.grad(found.sum(), leaves)
    for g, expected in zip(found_gradients, gradients, strict=True):
        assert same(g, expected, cancelled, wide_cancelled), (g, expected)


# --- estimators of KL ---


@many
@given(st.data(), TYPES, TYPES)
def test_estimators_of_kl(data: st.DataObject, dtype: torch.dtype, other: torch.dtype) -> None:
    pi, ref = data.draw(tensors(dtype, 3)), data.draw(tensors(other, 3))
    log_r = ref.double() - pi.double()
    if not log_r.isfinite().all():
        return
    one = torch.ones(3).double()
    for k, right, slope in (
        (k1, -log_r, -one),
        (k2, log_r.square() / 2, log_r),
        (k3, log_r.expm1() - log_r, log_r.expm1()),  # by log r; log r falls with pi
    ):
        check(k, [pi, ref], right, [-slope, slope], cancelled=1.0)  # r - 1


# --- advantages ---


def exact_advantages(rewards: list[float], *, scale: bool, correction: int, eps: float) -> Tensor:
    """In fractions, but for one square root."""
    r = [Fraction(x) for x in rewards]
    mean = sum(r) / len(r)
    centred = [x - mean for x in r]
    if not any(centred):
        return torch.zeros(len(r)).double()
    if not scale:
        return wide([float(min(max(x, -HUGE), HUGE)) for x in centred])
    variance = sum(x * x for x in centred) / (len(r) - correction)
    unit = max(abs(x) for x in centred)
    std = math.sqrt(variance / unit**2)  # both sides of 1, whatever the rewards
    small = Fraction(eps) / unit
    return wide([float(x / unit / (Fraction(std) + small)) for x in centred])


HUGE = Fraction(sys.float_info.max)


@many
@given(st.data(), TYPES, st.booleans(), st.sampled_from([0, 1]), st.sampled_from([0.0, 1e-4]))
def test_group_advantages(
    data: st.DataObject, dtype: torch.dtype, scale: bool, correction: int, eps: float
) -> None:
    rewards = data.draw(tensors(dtype, 2, data.draw(st.integers(2, 5))))
    options: dict[str, Any] = {"scale": scale, "correction": correction, "eps": eps}
    right = torch.stack([exact_advantages(row.tolist(), **options) for row in rewards])
    found = attempt(lambda: group_advantages(rewards, **options))
    if isinstance(found, ValueError):
        assert not scale
        assert not fits(right, dtype, 1.001)
    else:
        largest = rewards.double().abs().amax(1, keepdim=True)
        wide_scale = 0.0 if scale else largest  # r - mean(r)
        assert same(found, right, right.abs().amax(1, keepdim=True), wide_scale)


@many
@given(st.data(), st.booleans(), st.sampled_from([0, 1]), st.sampled_from([0.0, 1e-4]))
def test_group_advantages_gradient(
    data: st.DataObject, scale: bool, correction: int, eps: float
) -> None:
    """By central differences of the exact ones, at rewards that are not all equal."""
    values = data.draw(st.lists(st.integers(-50, 50), min_size=3, max_size=5, unique=True))
    rewards = torch.tensor([values], dtype=torch.float64, requires_grad=True)
    options: dict[str, Any] = {"scale": scale, "correction": correction, "eps": eps}
    weights = torch.arange(1.0, len(values) + 1).double()
    found = group_advantages(rewards, **options)
    (gradient,) = torch.autograd.grad((found * weights).sum(), rewards)
    for i in range(len(values)):
        ends = [
            (
                exact_advantages([v + s * (i == j) for j, v in enumerate(values)], **options)
                * weights
            )
            for s in (-(2**-14), 2**-14)
        ]
        slope = (ends[1].sum() - ends[0].sum()) * 2**13
        assert gradient[0, i].item() == pytest.approx(slope.item(), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_gradient_of_equal_rewards_is_0(dtype: torch.dtype) -> None:
    rewards = torch.full((2, 4), 0.1, dtype=dtype, requires_grad=True)
    group_advantages(rewards).sum().backward()
    assert rewards.grad is not None
    assert rewards.grad.abs().max() == 0


# --- formats of eight bits ---


def numbers_of(fmt: Format) -> list[float]:
    """All finite numbers of a format, by its definition."""
    if not fmt.exponent_bits:
        return [float(n) for n in range(-127, 128)]
    top = 2**fmt.mantissa_bits
    least = 2.0 ** (1 - fmt.bias - fmt.mantissa_bits)
    positive = [
        fraction * least * 2 ** max(exponent - 1, 0)
        for exponent in range(2**fmt.exponent_bits)
        for fraction in (range(top) if exponent == 0 else range(top, 2 * top))
    ]
    return sorted({s * x for x in positive for s in (-1, 1) if x <= fmt.max})


TABLES = {fmt: numbers_of(fmt) for fmt in (E4M3, E5M2, E5M6, INT8)}
PEERS: dict[Format, Any] = {
    E4M3: ml_dtypes.float8_e4m3fn,
    E5M2: ml_dtypes.float8_e5m2,
}


def nearest(x: float, fmt: Format) -> float:
    """In the table; in the middle of two, the one whose place in it is even: 0 has an even one."""
    table = TABLES[fmt]
    above = min(bisect.bisect_left(table, x), len(table) - 1)
    below = max(above - 1, 0)
    up, down = Fraction(table[above]) - Fraction(x), Fraction(x) - Fraction(table[below])
    zero = len(table) // 2
    if up == down:
        return table[above if (above - zero) % 2 == 0 else below]
    return table[above if up < down or above == below else below]


@st.composite
def hard_to_round(draw: Any, fmt: Format, dtype: torch.dtype, *shape: int) -> Tensor:
    """Numbers of the format, the middles between them and their neighbours, beside any others."""
    x = draw(tensors(dtype, *shape)).double()
    table = TABLES[fmt]
    for i in range(x.numel()):
        if draw(st.booleans()):
            at = draw(st.integers(0, len(table) - 2))
            middle = table[at] + (table[at + 1] - table[at]) * draw(st.sampled_from([0, 0.5]))
            x.view(-1)[i] = middle * (1 + draw(st.sampled_from([0, 2**-52, -(2**-52), 2**-23])))
    return x.to(dtype)


@many
@given(st.data(), TYPES, st.sampled_from(list(TABLES)))
def test_cast(data: st.DataObject, dtype: torch.dtype, fmt: Format) -> None:
    x = data.draw(hard_to_round(fmt, dtype, 6))
    found = cast(x, fmt)
    assert found.double().tolist() == [nearest(v, fmt) for v in x.double().tolist()]
    if fmt in PEERS:
        inside = x.double().clamp(-fmt.max, fmt.max)
        if dtype != torch.float64:  # ml_dtypes rounds float64 to float32 first
            peer = inside.float().numpy().astype(PEERS[fmt])
            assert found.view(torch.uint8).tolist() == peer.view(np.uint8).tolist()
    spoilt = cast(x.index_fill(0, torch.tensor([2]), math.nan), fmt).double()
    assert spoilt[2].isnan() or (fmt is INT8 and spoilt[2] == 0)
    others = [0, 1, 3, 4, 5]
    assert spoilt[others].equal(found.double()[others])


@many
@given(st.data(), TYPES, st.sampled_from(list(TABLES)), st.booleans())
def test_quantize(data: st.DataObject, dtype: torch.dtype, fmt: Format, power_of_two: bool) -> None:
    """Scale, codes and numbers of each group, edge groups smaller; an error names x."""
    rows, cols = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    side = st.sampled_from([1, 2, 3, None])
    group = data.draw(side), data.draw(side)
    x = data.draw(hard_to_round(fmt, dtype, rows, cols))
    exact = x.double()
    tiny, largest = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
    r, c = group[0] or rows, group[1] or cols
    if exact.abs().max() / fmt.max * (2 if power_of_two else 1) > largest * 0.999:
        if exact.abs().max() / fmt.max > largest * 1.001:
            with pytest.raises(ValueError, match="x must have scales that fit float32"):
                quantize(x, group=group, fmt=fmt, power_of_two=power_of_two)
        return
    q = quantize(x, group=group, fmt=fmt, power_of_two=power_of_two)
    found = dequantize(q).double()
    for i, j in itertools.product(range(-(-rows // r)), range(-(-cols // c))):
        block = slice(i * r, (i + 1) * r), slice(j * c, (j + 1) * c)
        amax, scale = exact[block].abs().max().item(), q.scale_inv[i, j].double().item()
        right = max(amax / fmt.max, tiny) if amax else 1.0
        if power_of_two and amax:
            assert math.frexp(scale)[0] == 0.5
            assert right * (1 - 2**-23) <= scale <= 2 * right * (1 + 2**-23)
        else:
            assert scale == pytest.approx(right, rel=2**-23)
        # the quotient is rounded as well, in float32: a number next to a middle may go either way
        wide_type = torch.float64 if dtype == torch.float64 else torch.float32
        quotients = (exact[block] / scale).to(wide_type).double().flatten().tolist()
        right_codes = [nearest(v, fmt) for v in quotients]
        assert q.data[block].double().flatten().tolist() == right_codes
        for v, code in zip(found[block].flatten().tolist(), right_codes, strict=True):
            number = min(max(code * scale, -largest), largest)
            assert v == pytest.approx(number, rel=2**-23, abs=tiny)


# --- the objectives ---


def exponential(x: float) -> float:
    return math.exp(x) if x <= math.log(sys.float_info.max) else math.inf


def clipped(log_ratio: float, a: float, low: float, high: float) -> tuple[float, float]:
    """min(rho A, clip(rho) A) and its derivative by the log-ratio."""
    if a == 0:
        return 0.0, 0.0
    rho = exponential(log_ratio)
    inside, outside = rho * a, min(max(rho, 1 - low), 1 + high) * a
    return (inside, inside) if inside <= outside else (outside, 0.0)


def small_k3(x: float) -> float:
    """exp(x) - 1 - x near 0, by its series."""
    return sum(x**n / math.factorial(n) for n in range(2, 16))


def difference(moved: list[int], upper: list[float], lower: list[float]) -> float:
    """Of the sums of two rows, rounded once."""
    exact = sum(Fraction(upper[s]) - Fraction(lower[s]) for s in moved)
    try:
        return float(exact)
    except OverflowError:
        return math.inf if exact > 0 else -math.inf


def grpo_reference(
    pi: list[list[float]],
    old: list[list[float]],
    ref: list[list[float]],
    a: list[list[float]],
    mask: list[list[bool]],
    *,
    ratio: str,
    average: str,
    beta: float,
    max_length: int | None,
) -> tuple[float, list[list[float]], float, float]:
    """The loss, its gradient by the log-probs, the sum of all terms without their signs, and by how
    much float64 may be off: what cancels within the KL, and in sums before exp is taken."""
    loss, size, float64_size, gradient = 0.0, 0.0, 0.0, [[0.0] * len(row) for row in pi]
    for b, row in enumerate(mask):
        places = [t for t, inside in enumerate(row) if inside]
        n = len(places)
        weight = (
            1.0
            / {
                "sequence": len(mask) * max(n, 1),
                "token": sum(map(sum, mask)),
                "constant": len(mask) * (max_length or 1),
            }[average]
        )
        for t in places:
            moved = [t] if ratio == "token" else places
            share = 1 / n if ratio == "geometric" else 1.0
            log_ratio = difference(moved, pi[b], old[b]) * share
            objective, slope = clipped(log_ratio, a[b][t], 0.2, 0.28)
            before_exp = sum(abs(pi[b][s]) + abs(old[b][s]) for s in moved)
            float64_size += weight * abs(objective) * min(1 + before_exp, 1e8)
            for s in moved:
                gradient[b][s] -= weight * slope * share
            loss -= weight * objective
            size += weight * abs(objective)
            if beta:
                moved = places if ratio == "sequence" else [t]
                log_r = difference(moved, ref[b], pi[b])
                r = exponential(log_r)
                k = r - 1 - log_r if abs(log_r) > 0.1 else small_k3(log_r)
                loss += weight * beta * k
                size += weight * beta * abs(k)
                before_exp = sum(abs(pi[b][s]) + abs(ref[b][s]) for s in moved)
                float64_size += weight * beta * min((1 + r) * (1 + before_exp), 1e306)
                for s in moved:
                    gradient[b][s] += weight * beta * (-math.expm1(log_r) if r < math.inf else -r)
    return loss, gradient, size, float64_size


@many
@given(
    st.data(),
    TYPES,
    st.sampled_from(["token", "sequence", "geometric"]),
    st.sampled_from(["sequence", "token", "constant"]),
    st.sampled_from([0.0, 0.001, 0.04, 10.0]),
)
def test_grpo_loss(
    data: st.DataObject, dtype: torch.dtype, ratio: Any, average: Any, beta: float
) -> None:
    # a sum of log-ratios of 1e38 that cancel has no digit left, in whatever order it is taken
    highest = 1e306 if ratio == "token" else 1e6
    pi, old, ref = (data.draw(tensors(dtype, 2, 3, highest=highest)) for _ in range(3))
    a = data.draw(tensors(dtype, 2, 3))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=6, max_size=6))).view(2, 3)
    mask[0, 0] = True
    max_length = 5 if average == "constant" else None
    lists = [x.double().tolist() for x in (pi, old, ref, a)]
    options: dict[str, Any] = {
        "ratio": ratio,
        "average": average,
        "beta": beta,
        "max_length": max_length,
    }
    objective = Objective(clip_high=0.28, **options)
    loss, gradient, size, float64_size = grpo_reference(*lists, mask.tolist(), **options)
    right, slopes = wide(loss), wide(gradient)
    if not slopes.isfinite().all():
        right = wide(math.inf)
    check(
        lambda x: grpo_loss(x, old, a, mask, ref_log_probs=ref, objective=objective),
        [pi],
        right,
        [slopes],
        cancelled=wide(size),
        wide_cancelled=wide(float64_size),
        saturates=True,
    )


@many
@given(st.data(), TYPES, st.sampled_from([0.0, 0.5, 3.0]), st.sampled_from([0.0, 0.01]))
def test_ppo_loss(
    data: st.DataObject, dtype: torch.dtype, value_weight: float, entropy_weight: float
) -> None:
    pi, old, a, values, targets, entropy = (data.draw(tensors(dtype, 1, 3)) for _ in range(6))
    mask = torch.tensor([[True, True, False]])
    loss, size = 0.0, 0.0
    by_pi, by_value = [0.0] * 3, [0.0] * 3
    rows = [x.double()[0].tolist() for x in (pi, old, a, values, targets, entropy)]
    for t in (0, 1):
        p, o, advantage, v, target, s = (row[t] for row in rows)
        objective, slope = clipped(p - o, advantage, 0.2, 0.2)
        by_pi[t], by_value[t] = -slope / 2, value_weight * (v - target)
        square = (v - target) * (v - target)
        loss += (-objective + value_weight * square - entropy_weight * s) / 2
        size += (abs(objective) + value_weight * (square + 2 * abs(v - target))) / 2
        size += entropy_weight * (abs(s) + 1) / 2
    by_entropy = [-entropy_weight / 2] * 2 + [0.0]
    inputs = [pi, values] + ([entropy] if entropy_weight else [])
    slopes = [wide([g]) for g in (by_pi, by_value, by_entropy)][: len(inputs)]

    def call(x: Tensor, v: Tensor, s: Tensor = entropy) -> Tensor:
        return ppo_loss(
            x,
            old,
            a,
            v,
            targets,
            mask,
            value_weight=value_weight,
            entropy=s,
            entropy_weight=entropy_weight,
        )

    check(call, inputs, wide(loss), slopes, cancelled=wide(size), saturates=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_policy_loss_that_does_not_fit_is_the_largest_number(dtype: torch.dtype) -> None:
    """float64 clipped; the gradient keeps its direction, and all of it is scaled by one factor."""
    largest = torch.finfo(dtype).max
    gap = math.log(largest) + 1.5
    old = torch.zeros(1, 3, dtype=dtype)
    new = torch.tensor([[gap, gap - 1, 0.1]], dtype=dtype)
    a, mask, zero = -torch.ones_like(old), torch.ones(1, 3, dtype=torch.bool), old
    for loss in (
        lambda x: grpo_loss(x, zero.to(x), a.to(x), mask),
        lambda x: ppo_loss(x, *(y.to(x) for y in (zero, a, zero, zero)), mask, value_weight=0.5),
    ):
        narrow, wide_ = (x.requires_grad_() for x in (new.clone(), new.double()))
        found, right = loss(narrow), loss(wide_)
        (g,), (slope,) = (torch.autograd.grad(y, x) for y, x in ((found, narrow), (right, wide_)))
        assert right > largest
        assert found.double() == right.clamp(max=largest).to(dtype).double()
        assert torch.allclose(g.double(), slope * (largest / right), rtol=tolerance(dtype), atol=0)


# --- sampling ---


@many
@given(
    st.data(),
    TYPES,
    st.floats(0, 1e300, exclude_min=True) | st.floats(0.1, 3) | st.sampled_from([5e-324, 1e-39]),
)
def test_token_log_probs(data: st.DataObject, dtype: torch.dtype, temperature: float) -> None:
    logits = data.draw(tensors(dtype, 1, 3, 4))
    tokens = torch.tensor([[0, 1, 3]])
    exact = logits.double()
    top = exact.amax(-1, keepdim=True)
    x = (exact - top) / temperature if temperature < 1 else exact / temperature - top / temperature
    right = x.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    found = attempt(lambda: token_log_probs(logits, tokens, temperature=temperature))
    out = torch.promote_types(dtype, torch.float32)
    if isinstance(found, ValueError):
        assert not fits(right, out)
        return
    big = (top / max(temperature, 1)).abs().amax() if temperature > 1 else 0.0
    assert same(found, right, big + 1), (found, right)
    if 1 / temperature > torch.finfo(dtype).max / 4:
        return
    leaf = logits.clone().requires_grad_()
    log_probs = token_log_probs(leaf, tokens, temperature=temperature)
    (gradient,) = torch.autograd.grad(log_probs.sum(), leaf)
    hot = torch.nn.functional.one_hot(tokens[:, 1:], 4)
    expected = torch.zeros_like(exact)
    expected[:, :-1] = (hot - x[:, :-1].softmax(-1)) / temperature
    slack = x.clamp(min=-800).abs().amax() if temperature > 1 else 30.0
    assert same(gradient, expected, slack / temperature), (gradient, expected)


@many
@given(
    st.data(),
    TYPES,
    st.floats(0, 1e300) | st.floats(0.1, 3) | st.sampled_from([5e-324, 1e-39]),
    st.floats(0, 1, exclude_min=True) | st.just(1.0),
)
def test_next_token_probs(
    data: st.DataObject, dtype: torch.dtype, temperature: float, top_p: float
) -> None:
    logits = data.draw(tensors(dtype, 5))
    found = next_token_probs(logits, temperature=temperature, top_p=top_p)
    x = logits.double()
    if temperature == 0:
        p = torch.nn.functional.one_hot(x.argmax(), 5).double()
    else:
        p = ((x - x.max()) / temperature).softmax(-1)
    order = sorted(range(5), key=lambda i: (-p[i].item(), i))
    right, reached = torch.zeros(5).double(), 0.0
    for i in order:
        if reached < top_p:
            right[i] = p[i]
        if abs(reached - top_p) < 1e-12:
            return  # rounding decides which token is the last
        reached += p[i].item()
    assert same(found, right / right.sum(), 1.0)


# --- balance ---


@many
@given(st.data(), TYPES, st.sampled_from([0.0, 1e-4, 1.0]))
def test_sequence_balance_loss(data: st.DataObject, dtype: torch.dtype, alpha: float) -> None:
    """f by counting, s' in fractions; scores as small as they come."""
    scores = data.draw(tensors(dtype, 2, 3, 4, lowest=0.0)).abs()
    batch, seq, experts, k = 2, 3, 4, 2
    loss, gradient = Fraction(0), [[[0.0] * experts for _ in range(seq)] for _ in range(batch)]
    for b in range(batch):
        count = [0] * experts
        for t in range(seq):
            for i in scores[b, t].topk(k).indices.tolist():
                count[i] += 1
        f = [Fraction(experts * c, k * seq) for c in count]
        for t in range(seq):
            s = [Fraction(x) for x in scores[b, t].tolist()]
            if total := sum(s):
                mean = sum(x * y for x, y in zip(s, f, strict=True)) / total
                loss += mean / (seq * batch)
                for e in range(experts):
                    slope = Fraction(alpha) * (f[e] - mean) / total / (seq * batch)
                    gradient[b][t][e] = float(min(max(slope, -HUGE), HUGE))
    right, slopes = wide(float(loss) * alpha), wide(gradient)
    smallest = scores.double().sum(-1).masked_fill(scores.sum(-1) == 0, math.inf).min()
    leaf = scores.clone().requires_grad_()
    found = attempt(lambda: sequence_balance_loss(leaf, num_experts_per_tok=k, alpha=alpha))
    if isinstance(found, ValueError):
        assert not fits(wide(2 * (alpha or 1)) / smallest, dtype)  # 0 times what does not fit
        return
    assert same(found.detach(), right)
    (g,) = torch.autograd.grad(found, leaf)
    slack = 2 * alpha / scores.double().sum(-1, keepdim=True).clamp(min=1e-300)
    assert same(g, slopes, slack.clamp(max=torch.finfo(dtype).max)), (g, slopes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_counts_beyond_the_whole_numbers_of_a_narrow_type(dtype: torch.dtype) -> None:
    """bfloat16 counts to 256 and no further: uniform load over 4,096 tokens still gives alpha."""
    scores = torch.rand(1, 1, 4).expand(1, 4096, 4).to(dtype)
    found = sequence_balance_loss(scores, num_experts_per_tok=1, alpha=1.0)
    s = scores[0, 0].double()
    assert found.item() == pytest.approx((4 * s.max() / s.sum()).item(), rel=0.01)
    indices = scores[0].topk(1).indices
    found = expert_balance_loss((scores[0] / scores[0].sum(-1, keepdim=True)), indices, alpha=1.0)
    assert found.item() == pytest.approx((4 * s.max() / s.sum()).item(), rel=0.02)


# --- inside a compiled function ---


def test_tokens_are_checked_inside_of_a_graph() -> None:
    """No break: a pass over tokens stays one graph, and a wrong token is still an error."""
    compiled = torch.compile(
        lambda tokens: token_ids(tokens, vocab_size=4) + 1, backend="aot_eager", fullgraph=True
    )
    assert compiled(torch.tensor([3, 0], dtype=torch.uint8)).tolist() == [4, 1]
    for wrong in (4, -1):
        with pytest.raises(RuntimeError, match="tokens must lie in 0 to 3"):
            compiled(torch.tensor([wrong, 0]))
