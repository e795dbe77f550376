"""Placement: the published example, the properties, and what a greedy step misses."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dsnotes.after.eplb import balanced_packing, gpu_loads, rebalance_experts, replicate_experts
from dsnotes.config import TINY
from dsnotes.model.moe import MoE

# the loads of the example in the README of deepseek-ai/EPLB: two layers, twelve experts
WEIGHT = torch.tensor(
    [
        [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
        [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27],
    ],
    dtype=torch.float32,
)


def test_the_published_example_gives_its_loads() -> None:
    """facts: 16 replicas, 4 groups, 2 nodes, 8 GPUs: 86.5 to 156 and 117.5 to 179.5."""
    placement = rebalance_experts(WEIGHT, num_replicas=16, num_groups=4, num_nodes=2, num_gpus=8)
    loads = gpu_loads(WEIGHT, placement, num_gpus=8)
    assert [[row.min().item(), row.max().item()] for row in loads] == [[86.5, 156], [117.5, 179.5]]
    assert [round(m, 1) for m in loads.mean(1).tolist()] == [129.1, 144.5]


@given(
    seed=st.integers(0, 1000),
    nodes=st.sampled_from([1, 2, 3]),
    groups=st.sampled_from([1, 2, 4]),
    extra=st.integers(0, 2),
)
def test_every_expert_is_somewhere_and_every_slot_is_used_once(
    seed: int, nodes: int, groups: int, extra: int
) -> None:
    weight = torch.rand(2, 8 * 3, generator=torch.Generator().manual_seed(seed))
    gpus, replicas = 2 * nodes, 24 + extra * 2 * nodes * (1 if 24 % (2 * nodes) == 0 else 0)
    placement = rebalance_experts(
        weight, num_replicas=replicas, num_groups=groups, num_nodes=nodes, num_gpus=gpus
    )
    slots = placement.physical_to_logical
    for layer in range(2):
        found = slots[layer].bincount(minlength=24)
        assert torch.equal(found, placement.expert_count[layer])
        assert found.min() >= 1
        listed = placement.logical_to_physical[layer]
        assert torch.equal(listed[listed >= 0].sort().values, torch.arange(replicas))
        for expert in range(24):
            there = listed[expert][listed[expert] >= 0]
            assert (slots[layer][there] == expert).all()
    total = gpu_loads(weight, placement, num_gpus=gpus).sum(1)
    torch.testing.assert_close(total, weight.sum(1))


def test_groups_stay_together_where_nodes_divide_them() -> None:
    placement = rebalance_experts(WEIGHT, num_replicas=16, num_groups=4, num_nodes=2, num_gpus=8)
    for row in placement.physical_to_logical:
        nodes = [set((half // 3).tolist()) for half in row.view(2, 8)]
        assert not nodes[0] & nodes[1]


def test_a_greedy_packing_is_not_the_best() -> None:
    """Two packs of three: 3 + 3 + 0 and 2 + 2 + 2 are even, the greedy packs hold 7 and 5."""
    weight = torch.tensor([[3.0, 3, 2, 2, 2, 0]])
    pack, _ = balanced_packing(weight, 2)
    loads = torch.zeros(2).index_add(0, pack[0], weight[0])
    assert sorted(loads.tolist()) == [5, 7]


def test_one_slot_a_gpu_leaves_nothing_to_pack() -> None:
    """Redundant experts need at least two slots a GPU to even out: facts, Pareto loads."""
    generator = torch.Generator().manual_seed(0)
    weight = (1 - torch.rand(8, 256, generator=generator)).pow(-1 / 1.5)

    def worst(replicas: int, gpus: int) -> float:
        placement = rebalance_experts(
            weight, num_replicas=replicas, num_groups=1, num_nodes=1, num_gpus=gpus
        )
        loads = gpu_loads(weight, placement, num_gpus=gpus)
        return (loads.max(1).values / loads.mean(1)).mean().item()

    plain, nine, one = worst(256, 32), worst(288, 32), worst(320, 320)
    assert nine < one < plain


def test_copies_do_not_change_the_output() -> None:
    """A token goes to one copy of each chosen expert, whichever: the sum is the same."""
    torch.manual_seed(0)
    moe = MoE(TINY)
    x = torch.randn(40, TINY.hidden_size)
    routing = moe.gate(x)
    load = routing.indices.flatten().bincount(minlength=16).float()[None]
    placement = rebalance_experts(load, num_replicas=24, num_groups=4, num_nodes=2, num_gpus=4)
    copies = placement.expert_count[0][routing.indices]  # (tokens, k)
    chosen = torch.arange(len(x))[:, None] % copies  # tokens take the copies in turn
    slots = placement.logical_to_physical[0][routing.indices, chosen]
    y = torch.zeros_like(x)
    for slot, expert in enumerate(placement.physical_to_logical[0].tolist()):
        token, k = (slots == slot).nonzero(as_tuple=True)
        y.index_add_(0, token, routing.weights[token, k, None] * moe.experts[expert](x[token]))
    torch.testing.assert_close(y, moe._routed(x, routing))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_groups": 5, "num_nodes": 5}, r"num_groups \(5\) must divide experts"),
        ({"num_gpus": 3}, r"num_nodes \(2\) must divide num_gpus"),
        ({"num_replicas": 15}, r"num_gpus \(8\) must divide num_replicas"),
        ({"num_gpus": 0}, "num_gpus"),
    ],
)
def test_numbers_that_do_not_divide_are_named(change: dict[str, int], named: str) -> None:
    sizes = {"num_replicas": 16, "num_groups": 4, "num_nodes": 2, "num_gpus": 8} | change
    with pytest.raises(ValueError, match=named):
        rebalance_experts(WEIGHT, **sizes)


def test_fewer_slots_than_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="num_phy must be at least the 12 experts, got 11"):
        replicate_experts(WEIGHT, 11)
