"""Placement of experts for inference: hot experts get copies, and the copies are packed onto GPUs.

A layer is as slow as its busiest GPU. Training evens the load by moving the routing (the bias of
`model.balance`); here the routing stays as it is, and only where an expert lives changes, so that
the output of the model does not.

Source
    deepseek-ai/EPLB, eplb.py (MIT), the names of its functions and arguments
    V3 (arXiv 2412.19437) section 3.4: redundant experts, 32 for prefilling

Equations (the code has none; w: load of an expert, c: its copies, so that each copy bears w / c)
    packing      items by falling weight, each to the lightest pack that still has room
    replication  once more a copy of argmax w / c, until all slots are taken
    hierarchical groups of experts to nodes, copies inside a node, copies of a node to its GPUs

Departures
    Ties may be broken otherwise than there: the loads are equal, the numbers of experts may be
    permuted. Neither step is optimal: 3, 3, 2, 2, 2, 0 in two packs give 7 and 5, not 6 and 6.

Shapes: layers L, experts E, slots R (physical experts), copies C (the most of any expert).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least


class Placement(NamedTuple):
    """Which expert lies in which slot; the slots of GPU g are the g-th part of R."""

    physical_to_logical: Int[Tensor, "layers slots"]
    logical_to_physical: Int[Tensor, "layers experts copies"]  # -1 where there is no such copy
    expert_count: Int[Tensor, "layers experts"]


@checked
def balanced_packing(
    weight: Float[Tensor, "layers items"], num_packs: int
) -> tuple[Int[Tensor, "layers items"], Int[Tensor, "layers items"]]:
    """The pack of each item and its place in it; all packs hold the same number of items.

    ValueError when `num_packs` does not divide the number of items.

        >>> balanced_packing(torch.tensor([[3.0, 1.0, 2.0, 4.0]]), 2)[0]
        tensor([[1, 0, 1, 0]])
    """
    at_least(1, num_packs=num_packs)
    layers, items = weight.shape
    if items % num_packs:
        raise ValueError(f"num_packs ({num_packs}) must divide the number of items ({items})")
    room = items // num_packs
    pack, place = (torch.empty(layers, items, dtype=torch.long) for _ in range(2))
    for layer in range(layers):
        load, held = [0.0] * num_packs, [0] * num_packs
        for item in weight[layer].argsort(descending=True, stable=True).tolist():
            lightest = min((p for p in range(num_packs) if held[p] < room), key=load.__getitem__)
            pack[layer, item], place[layer, item] = lightest, held[lightest]
            load[lightest] += float(weight[layer, item])
            held[lightest] += 1
    return pack, place


@checked
def replicate_experts(
    weight: Float[Tensor, "layers experts"], num_phy: int
) -> tuple[Int[Tensor, "layers slots"], Int[Tensor, "layers slots"], Int[Tensor, "layers experts"]]:
    """`num_phy` slots: the expert in each, which copy it is, and how many copies each expert has.

    ValueError when there are fewer slots than experts.

        >>> replicate_experts(torch.tensor([[6.0, 1.0, 2.0]]), 5)[2]  # 6/3, 1, 2
        tensor([[3, 1, 1]])
    """
    layers, experts = weight.shape
    if num_phy < experts:
        raise ValueError(f"num_phy must be at least the {experts} experts, got {num_phy}")
    expert = torch.arange(experts).repeat(layers, 1)
    rank = torch.zeros_like(expert)
    count = torch.ones_like(expert)
    row = torch.arange(layers)
    for _ in range(num_phy - experts):
        hottest = (weight / count).argmax(dim=1)  # (layers,)
        expert = torch.cat([expert, hottest[:, None]], dim=1)
        rank = torch.cat([rank, count[row, hottest][:, None]], dim=1)
        count[row, hottest] += 1
    return expert, rank, count


@checked
def rebalance_experts(
    weight: Float[Tensor, "layers experts"],
    *,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
) -> Placement:
    """Where every expert and its copies lie, from the measured load of each expert.

    The groups of an expert stay on one node where `num_nodes` divides `num_groups`; otherwise all
    slots are one pool. ValueError names the number that does not divide another.

        >>> place = rebalance_experts(
        ...     torch.tensor([[90.0, 10.0, 20.0, 40.0]]),
        ...     num_replicas=6, num_groups=1, num_nodes=1, num_gpus=2,
        ... )
        >>> place.expert_count
        tensor([[3, 1, 1, 1]])
    """
    experts = weight.shape[1]
    if num_groups % num_nodes:
        num_groups = num_nodes = 1
    for name, part, whole, of in (
        ("num_groups", num_groups, experts, "experts"),
        ("num_nodes", num_nodes, num_gpus, "num_gpus"),
        ("num_gpus", num_gpus, num_replicas, "num_replicas"),
    ):
        at_least(1, **{name: part})
        if whole % part:
            raise ValueError(f"{name} ({part}) must divide {of} ({whole})")
    slots, gpus, size = num_replicas // num_nodes, num_gpus // num_nodes, experts // num_groups

    # 1. whole groups to nodes: `by_node` lists the experts of node 0, of node 1, ...
    node, place = balanced_packing(weight.unflatten(1, (num_groups, size)).sum(2), num_nodes)
    to = (node * (num_groups // num_nodes) + place)[:, :, None] * size + torch.arange(size)
    by_node = to.flatten(1).argsort(dim=1)  # the expert at each place
    # 2. copies, a node at a time: (layers * nodes, experts of a node)
    local = weight.gather(1, by_node).unflatten(1, (num_nodes, -1)).flatten(0, 1)
    copy_of, rank, copies = replicate_experts(local, slots)
    # 3. the copies of a node to its GPUs
    load = local.gather(1, copy_of) / copies.gather(1, copy_of)
    gpu, place = balanced_packing(load, gpus)
    order = (gpu * (slots // gpus) + place).argsort(dim=1)  # the copy in each slot
    shape = (len(weight), num_nodes, slots)
    first = (torch.arange(num_nodes) * (experts // num_nodes))[:, None]  # of a node, in `by_node`
    within = (copy_of.gather(1, order).view(shape) + first).flatten(1)
    physical = by_node.gather(1, within)
    rank = rank.gather(1, order).view(len(weight), -1)
    count = torch.zeros_like(by_node).scatter(1, by_node, copies.view(len(weight), -1))
    logical = torch.full((*weight.shape, int(count.max())), -1)
    row = torch.arange(len(weight))[:, None]
    logical[row, physical, rank] = torch.arange(num_replicas).expand_as(physical)
    return Placement(physical, logical, count)


@checked
def gpu_loads(
    weight: Float[Tensor, "layers experts"], placement: Placement, *, num_gpus: int
) -> Float[Tensor, "layers gpus"]:
    """The load of each GPU when the copies of an expert share its tokens evenly."""
    at_least(1, num_gpus=num_gpus)
    slots = placement.physical_to_logical
    share = weight.gather(1, slots) / placement.expert_count.gather(1, slots)
    loads: Tensor = share.unflatten(1, (num_gpus, -1)).sum(dim=2)
    return loads
