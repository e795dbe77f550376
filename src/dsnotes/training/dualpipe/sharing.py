"""Parameters that several ranks hold, and the sum of their gradients.

Ranks share a parameter when the schedule gives them the same stage (DualPipe), or when two stages
use one parameter (a tied embedding and head). Each rank has only the gradient of its own work. At
the end of a step these gradients are added up, so that every rank has the gradient that a single
process would have.

Names are "stage.parameter", as in nn.Sequential(*stages). A parameter with several names is called
by the first one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dsnotes.training.dualpipe.actions import Schedule

Ranks = tuple[int, ...]
Ties = Sequence[tuple[str, ...]]


def tied(stages: Sequence[nn.Module]) -> list[tuple[str, ...]]:
    """The names of every parameter that has several names, in the order of the stages.

    >>> embedding, head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    >>> head.weight = embedding.weight
    >>> tied([embedding, nn.Tanh(), head])
    [('0.weight', '2.weight')]
    """
    names: dict[int, list[str]] = defaultdict(list)
    for index, stage in enumerate(stages):
        for name, parameter in stage.named_parameters(remove_duplicate=False):
            names[id(parameter)].append(f"{index}.{name}")
    return [tuple(several) for several in names.values() if len(several) > 1]


def named_parameters(stages: Mapping[int, nn.Module]) -> dict[str, nn.Parameter]:
    """Every parameter once, by its first name."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for index, stage in stages.items():
        for name, parameter in stage.named_parameters():
            found.setdefault(id(parameter), (f"{index}.{name}", parameter))
    return dict(found.values())


def holders(schedule: Schedule, ties: Ties = ()) -> dict[str, Ranks]:
    """The ranks that hold each stage (by its number, as text) and each parameter in `ties`."""
    found: dict[str, Ranks] = defaultdict(tuple)
    for rank in range(schedule.num_ranks):
        for stage in schedule.stages_of(rank):
            found[str(stage)] += (rank,)
    for names in ties:
        ranks = {rank for name in names for rank in found[name.split(".")[0]]}
        found |= dict.fromkeys(names, tuple(sorted(ranks)))
    return dict(found)


class SharedParameters:
    """The parameters of `stages` that other ranks hold too.

    Raises ValueError when `ties` lists two names as one parameter but this rank has two parameters.
    """

    def __init__(self, schedule: Schedule, stages: Mapping[int, nn.Module], ties: Ties) -> None:
        ranks_of, first = holders(schedule, ties), {n: names[0] for names in ties for n in names}
        here: dict[Ranks, dict[str, nn.Parameter]] = defaultdict(dict)
        for name, parameter in named_parameters(stages).items():
            key = first.get(name, name)
            ranks = ranks_of.get(name) or ranks_of[name.split(".")[0]]
            if key in here[ranks]:
                raise ValueError(f"tied says that {name} and {key} are one parameter, got two")
            here[ranks][key] = parameter
        # In one order on all ranks: some may share one set with a rank and another set with others.
        self._parameters = {r: dict(sorted(here[r].items())) for r in sorted(here) if len(r) > 1}

    def sum_gradients(self, add: Callable[[Tensor, Ranks], None]) -> None:
        """Add up the gradients; `add(tensor, ranks)` sums a tensor over ranks, in place.

        A parameter that is frozen or that no rank has used gets no gradient.
        """
        for ranks, parameters in self._parameters.items():
            used = [parameter.grad is not None for parameter in parameters.values()]
            device = next(iter(parameters.values())).device
            users = torch.tensor(used, dtype=torch.int32, device=device)
            add(users, ranks)
            for parameter, count in zip(parameters.values(), users.tolist(), strict=True):
                if count:
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    add(parameter.grad, ranks)


def groups(schedule: Schedule, ties: Ties) -> Iterable[Ranks]:
    """The sets of ranks that have gradients to add up."""
    return {ranks for ranks in holders(schedule, ties).values() if len(ranks) > 1}
