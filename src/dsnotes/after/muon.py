"""Muon: momentum whose singular values are all made 1 before a weight matrix takes the step.

A gradient of a matrix is dominated by a few directions, and a step along it leaves the others where
they were. Muon replaces the momentum by the nearest matrix that moves all directions alike, found
by matrix products alone (Newton-Schulz). What is no matrix of a linear map stays with AdamW.

Equations
    V4 (arXiv 2606.19348) section 2.4, Algorithm 1; (28) is in `dsnotes.after.newton_schulz`
    V4 section 4.2.2: momentum 0.95, weight decay 0.1, gamma 0.18, AdamW for the rest

Departures
    - Both rules live in one optimizer, one group of parameters each, so that a schedule and a
      checkpoint see one. The decay and the step of a weight are two operations in place.
    - The paper does not say whether the matrix of a router, or W^UK and W^UV, which are stored as
      one, count as one: here a stored 2-D weight is a matrix unless `rows` cuts it.

Legend of shapes: a matrix is (n, m); weights with more axes are stacks of matrices.
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from dsnotes.after.newton_schulz import HYBRID, Coefficients, orthogonalize
from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.training.state import TrainState

# by released names; norms and biases have one axis anyway
ADAMW = r"(embed_tokens|lm_head|shared_head\.head)\.weight$"


@checked
def matrices(
    weight: Float[Tensor, "*stack n m"], rows: Sequence[int] | None = None
) -> Iterator[Tensor]:
    """The independent matrices of a weight, as views: of a stack each, cut into blocks of `rows`.

    `rows` are numbers of rows that repeat to the end: (16,) cuts 64 rows into four heads.

        >>> [tuple(one.shape) for one in matrices(torch.zeros(2, 6, 5), rows=(2, 4))]
        [(2, 5), (4, 5), (2, 5), (4, 5)]
    """
    if weight.ndim > 2:
        for part in weight.unbind():
            yield from matrices(part, rows)
    elif rows is None:
        yield weight
    else:
        sizes, left = [], len(weight)
        for size in cycle(rows):
            if left <= 0:
                break
            sizes.append(size)
            left -= size
        yield from weight.split(sizes)


class Muon(torch.optim.Optimizer):
    """Algorithm 1 for groups whose `rule` is "muon", AdamW for those whose rule is "adamw".

    `params` is what `groups_of` returns, or groups of one's own. A weight whose gradient is None is
    left alone, decay included. ValueError for a weight without two axes under "muon", for `rows`
    that do not fill it, and for numbers out of range.

        >>> model = nn.Linear(4, 3)
        >>> optimizer = Muon(groups_of(model), lr=1e-3)
        >>> [(group["rule"], len(group["params"])) for group in optimizer.param_groups]
        [('muon', 1), ('adamw', 1)]
    """

    @checked
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        gamma: float = 0.18,
        coefficients: tuple[Coefficients, ...] = HYBRID,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-20,
    ) -> None:
        defaults = {
            "rule": "muon", "rows": None, "lr": lr, "momentum": momentum, "gamma": gamma,
            "weight_decay": weight_decay, "coefficients": coefficients, "betas": betas, "eps": eps,
        }  # fmt: skip
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As of any optimizer; the settings of the group are checked here."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        at_least(0, **{name: group[name] for name in ("lr", "weight_decay", "gamma", "eps")})
        for name, values in {"momentum": (group["momentum"],), "betas": group["betas"]}.items():
            if not all(0 <= value < 1 for value in values):
                raise ValueError(f"{name} must be at least 0 and below 1, got {group[name]}")
        if group["rule"] not in ("muon", "adamw"):
            raise ValueError(f"rule must be 'muon' or 'adamw', got {group['rule']!r}")
        for weight in group["params"] if group["rule"] == "muon" else ():
            if weight.ndim < 2:
                raise ValueError(
                    f"params must be matrices or stacks of them under 'muon', got shape "
                    f"{tuple(weight.shape)}: give it rule 'adamw'"
                )
            rows = group["rows"]
            if rows is not None and (min(rows, default=0) < 1 or weight.shape[-2] % sum(rows)):
                raise ValueError(
                    f"rows must be positive and fill the {weight.shape[-2]} rows of "
                    f"{tuple(weight.shape)}, got {rows}"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every weight that has a gradient; what `closure` returns, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rule = self._muon if group["rule"] == "muon" else self._adamw
            rule([weight for weight in group["params"] if weight.grad is not None], group)
        return loss

    def _muon(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """Algorithm 1. Matrices of one shape go through Newton-Schulz together (section 3.4.1)."""
        lr, mu = group["lr"], group["momentum"]
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for weight in weights:
            momentum = self.state[weight].setdefault("momentum_buffer", torch.zeros_like(weight))
            momentum.mul_(mu).add_(weight.grad)  # M_t = mu M_{t-1} + G_t
            ahead = mu * momentum + weight.grad
            weight.mul_(1 - lr * group["weight_decay"])
            parts = (matrices(one, group["rows"]) for one in (weight, ahead))
            for matrix, direction in zip(*parts, strict=True):
                alike[matrix.shape].append((matrix, direction))
        for (n, m), found in alike.items():
            stack = torch.stack([direction for _, direction in found])
            update = orthogonalize(stack, group["coefficients"])  # O'_t
            update *= math.sqrt(max(n, m)) * group["gamma"]  # O_t
            for (matrix, _), one in zip(found, update, strict=True):
                matrix.sub_(one, alpha=lr)  # W_t = W_{t-1} (1 - eta lambda) - eta O_t

    def _adamw(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        """AdamW (arXiv 1711.05101), with the bias corrections of Adam."""
        lr, (beta1, beta2) = group["lr"], group["betas"]
        for weight in weights:
            state, grad = self.state[weight], weight.grad
            if not state:
                state |= {"step": 0, "exp_avg": torch.zeros_like(weight)}
                state["exp_avg_sq"] = torch.zeros_like(weight)
            state["step"] += 1
            mean, square = state["exp_avg"], state["exp_avg_sq"]
            mean.lerp_(grad, 1 - beta1)
            square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
            root = (square.sqrt() / math.sqrt(1 - beta2 ** state["step"])).add_(group["eps"])
            weight.mul_(1 - lr * group["weight_decay"])
            weight.addcdiv_(mean, root, value=-lr / (1 - beta1 ** state["step"]))


@checked
def groups_of(
    model: nn.Module, *, adamw: str = ADAMW, rows: dict[str, tuple[int, ...]] | None = None
) -> list[dict[str, Any]]:
    """The weights of a model in groups for `Muon`, one for AdamW the last.

    AdamW gets what has less than two axes (norms, biases, gates) and the names in which the
    pattern `adamw` is found. `rows` cuts the weights whose name a pattern is found in, as
    `matrices` does; each pattern makes a group. ValueError for a pattern that fits none.

        >>> [group["rule"] for group in groups_of(model, rows={r"q_b_proj": (24,)})]
        ['muon', 'muon', 'adamw']
    """
    cuts = {"": None, **(rows or {})}
    chosen: dict[str, list[nn.Parameter]] = {pattern: [] for pattern in cuts}
    others = []
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or re.search(adamw, name):
            others.append(weight)
        else:
            fits = (pattern for pattern in cuts if pattern and re.search(pattern, name))
            chosen[next(fits, "")].append(weight)
    for pattern, weights in chosen.items():
        if pattern and not weights:
            raise ValueError(f"rows must name weights of the model, got {pattern!r}, in no name")
    groups = [
        {"params": weights, "rule": "muon", "rows": cuts[pattern]}
        for pattern, weights in chosen.items()
        if weights
    ]
    return [*groups, {"params": others, "rule": "adamw"}] if others else groups


@checked
def use_muon(
    state: TrainState,
    *,
    learning_rate: float,
    adamw: str = ADAMW,
    rows: dict[str, tuple[int, ...]] | None = None,
    **options: Any,
) -> None:
    """Give a run that has not begun Muon in the place of AdamW, under the same schedule.

    `adamw` and `rows` are those of `groups_of`, `options` those of `Muon`. ValueError for a run
    that has taken steps, TypeError for one whose schedule is no LambdaLR.

        >>> state = TrainState.create(model, steps=10, learning_rate=1e-3, cooldown=0.4)
        >>> use_muon(state, learning_rate=1e-3)
    """
    if state.step:
        raise ValueError(f"state must be at step 0, got one at {state.step}")
    if not isinstance(state.scheduler, LambdaLR):
        raise TypeError(f"state must have a LambdaLR, got {type(state.scheduler).__name__}")
    share = state.scheduler.lr_lambdas[0]
    groups = groups_of(state.model, adamw=adamw, rows=rows)
    state.optimizer = Muon(groups, lr=learning_rate, **options)
    state.scheduler = LambdaLR(state.optimizer, share)
