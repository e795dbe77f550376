"""Padding after the end of shorter sequences: what a loss and a balancer must not look at.

Attention looks back only, so that padding at the end changes nothing that comes before it. What is
left to do: nothing predicts it, and the experts that it is sent to are not counted. A `padding` of
None says that there is none.
"""

import torch
from jaxtyping import Int, Integer
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.model.moe import Routing


@checked
def padding_documents(
    tokens: Integer[Tensor, "batch seq"], padding: int | None
) -> Int[Tensor, "batch seq"] | None:
    """Documents for `mtp.mtp_loss`: all of a sequence is one, and each padding one of its own.

    >>> padding_documents(torch.tensor([[7, 8, 0, 0]]), 0)
    tensor([[0, 0, 3, 4]])
    """
    if padding is None:
        return None
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return torch.where(tokens == padding, places, 0)


@checked
def without_padding(
    routings: list[Routing], tokens: Integer[Tensor, "batch seq"], padding: int | None
) -> list[Routing]:
    """The routings of a pass over `tokens`, without those of padding.

    One of fewer tokens is of a prediction module, which lacks the first of every sequence.

        >>> from dsnotes.model.moe import record_routing
        >>> with record_routing(model) as routings:
        ...     hidden = model.hidden(tokens)
        >>> tokens[0, -3:] = 0
        >>> [len(r.indices) for r in without_padding(routings, tokens, 0)]
        [29, 29]
    """
    if padding is None:
        return routings
    real, found = tokens != padding, []
    for routing in routings:
        seq = len(routing.indices) // len(tokens)
        keep = real[:, real.shape[1] - seq :].flatten()
        found.append(Routing(*(part[keep] for part in routing)))
    return found
