"""Wide in between, narrow outside: results that are right for every finite input, or an error.

An intermediate number can overflow although the loss itself is small: exp of a log-ratio of 89
overflows float32, a square of 300 overflows float16, and a gradient of 0 * inf is NaN. Quantities
as small as a batch of tokens are therefore computed in float64 and returned in the type of the
inputs. The module also holds checks that a signature cannot express.
"""

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """x in float64, or in float32 on Apple's GPUs, which have no float64.

    >>> widened(torch.ones(2, dtype=torch.float16)).dtype
    torch.float64
    """
    return x.double() if x.device.type != "mps" else x.float()


def narrowed(
    x: Tensor, *like: Tensor, what: str, bound: Tensor | None = None, saturate: bool = False
) -> Tensor:
    """x in the type of the first tensor of `like`; ValueError when x does not fit that type.

    `bound` is at least as large as x and as its derivatives by the tensors `like`; when the bound
    fits, they all fit, each in its own type. `what` is the beginning of the error message. With
    `saturate`, a finite scalar x that does not fit is scaled down, and its derivatives with it,
    until all of them fit.

        >>> narrowed(torch.tensor(1e5).double(), torch.ones(1).half(), what="scores are too large")
        Traceback (most recent call last):
        ValueError: scores are too large: 100000 does not fit torch.float16
    """
    largest = (x if bound is None else bound).detach().abs()
    limit = min(torch.finfo(tensor.dtype).max for tensor in like)
    if saturate and not x.abs() <= torch.finfo(like[0].dtype).max and largest.isfinite():
        scale = limit / torch.maximum(largest, x.detach().abs()) * (1 - 1e-12)
        x, largest = x * scale, largest * scale
    if not (largest <= limit).all():
        narrowest = min((t.dtype for t in like), key=lambda dtype: torch.finfo(dtype).max)
        raise ValueError(f"{what}: {largest.max():.6g} does not fit {narrowest}")
    return x.to(like[0].dtype)


def at_least(minimum: int, **values: int | float | None) -> None:
    """ValueError when a value is below `minimum`. A value of None is not checked.

    >>> at_least(0, beta=0.1, gamma=-1.0)
    Traceback (most recent call last):
    ValueError: gamma must be at least 0, got -1.0
    """
    for name, value in values.items():
        if value is not None and not value >= minimum:
            raise ValueError(f"{name} must be at least {minimum}, got {value!r}")


def channels(size: int, **tensors: Tensor) -> None:
    """ValueError unless the last dimension of every tensor has the size that the weights need.

    >>> channels(64, x=torch.ones(2, 1))
    Traceback (most recent call last):
    ValueError: x must have 64 channels in its last dimension, got shape (2, 1)
    """
    for name, tensor in tensors.items():
        if tensor.shape[-1] != size:
            raise ValueError(
                f"{name} must have {size} channels in its last dimension, got shape "
                f"{tuple(tensor.shape)}"
            )


def on_device(device: torch.device, **values: Tensor | torch.Generator | None) -> None:
    """ValueError unless a tensor lies, or a generator draws, on the device of the weights.

    >>> on_device(torch.device("cuda", 0), tokens=torch.ones(2))
    Traceback (most recent call last):
    ValueError: tokens must be on cuda:0 like the weights, got cpu
    """
    for name, value in values.items():
        if value is None:
            continue
        own = value.device  # of torch.Generator("cuda") without a number
        if own.type != device.type or own.index not in (None, device.index):
            raise ValueError(f"{name} must be on {device} like the weights, got {value.device}")


def token_ids(tokens: Tensor, *, vocab_size: int, name: str = "tokens") -> Tensor:
    """Tokens of any whole-number type as int64, the index type that all of PyTorch accepts.

    ValueError for a token outside 0 .. vocab_size - 1, TypeError for other types. Inside of
    `torch.compile` the check is part of the graph, and its error is a RuntimeError.

        >>> token_ids(torch.tensor([3, 1], dtype=torch.uint8), vocab_size=4)
        tensor([3, 1])
    """
    if tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool:
        raise TypeError(f"{name} must be integers, got dtype {tokens.dtype}")
    tokens = tokens.long()
    if torch.compiler.is_compiling():  # part of the graph: Python sees no numbers there
        inside = ((tokens >= 0) & (tokens < vocab_size)).all()
        torch._assert_async(inside, f"{name} must lie in 0 to {vocab_size - 1}")
    elif tokens.numel():
        low, high = torch.stack(tokens.aminmax()).tolist()  # a GPU is waited for once
        if low < 0 or high >= vocab_size:
            raise ValueError(f"{name} must lie in 0 to {vocab_size - 1}, got {low} to {high}")
    return tokens
