"""The router to play with routes as the gate of dsnotes, and its wrong ways as the traps."""

import math
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsnotes.config import TINY
from dsnotes.model.moe import Gate, Routing

NODES, EXPERTS = 4, 16


def some_state(rng: random.Random) -> dict:
    middle, spread = rng.choice([0.0, -0.6]), rng.choice([0.05, 0.3])
    return {
        "scores": [rng.uniform(0.01, 0.99) for _ in range(EXPERTS)],
        "bias": [max(-0.9, min(0.28, rng.gauss(middle, spread))) for _ in range(EXPERTS)],
        "nodes": rng.randint(1, NODES),
        "experts": rng.randint(1, 4),
        "scoring": rng.choice(["sigmoid", "softmax"]),
        "normalise": rng.random() < 0.7,
    }


def gate(state: dict) -> tuple[Gate, Routing]:
    """What the gate of dsnotes makes of a token with these affinities."""
    config = replace(
        TINY,
        hidden_size=EXPERTS,
        n_routed_experts=EXPERTS,
        num_experts_per_tok=state["experts"],
        n_group=NODES,
        topk_group=state["nodes"],
        scoring_func=state["scoring"],
        norm_topk_prob=state["normalise"],
        routed_scaling_factor=1.0,
    )
    made = Gate(config).double()
    with torch.no_grad():
        made.weight.copy_(torch.eye(EXPERTS))
        made.e_score_correction_bias.copy_(torch.tensor(state["bias"], dtype=torch.float64))
        return made, made(torch.tensor([state["scores"]], dtype=torch.float64).logit())


def route(router, state: dict, wrong: str = "none") -> dict:
    return router.call("RouterLab.route", state["scores"], state["bias"], state | {"wrong": wrong})


@pytest.fixture
def router(lab):
    return lab("router")


STATES = [some_state(random.Random(seed)) for seed in range(300)]


def test_routes_as_the_gate_does(router) -> None:
    for state in STATES:
        mine, (_, theirs) = route(router, state), gate(state)
        assert mine["indices"] == theirs.indices[0].tolist()
        assert mine["weights"] == pytest.approx(theirs.weights[0].tolist(), abs=1e-12)
        assert mine["affinity"] == pytest.approx(theirs.scores[0].tolist(), abs=1e-12)
        assert {i // 4 for i in mine["indices"]} <= set(mine["kept"])


def groups(state: dict) -> Tensor:
    """s + b of each node (nodes, experts of a node)."""
    scores = gate(state)[1].scores[0]
    biased = scores + torch.tensor(state["bias"], dtype=torch.float64)
    return biased.view(NODES, -1)


def test_nodes_count_their_two_best(router) -> None:
    for state in STATES:
        mine = route(router, state)
        best = groups(state).topk(2, dim=1)
        assert mine["nodeScores"] == pytest.approx(best.values.sum(dim=1).tolist(), abs=1e-12)
        counted = [[4 * n + i for i in row] for n, row in enumerate(best.indices.tolist())]
        assert mine["counted"] == counted


def test_trap_1_weighs_by_the_biased_scores(router) -> None:
    for state in STATES:
        mine, right = route(router, state, "trap1"), gate(state)[1]
        weights = groups(state).flatten().gather(0, right.indices[0])
        if state["normalise"]:
            weights = weights / (weights.sum() + 1e-20)
        assert mine["indices"] == right.indices[0].tolist()
        assert mine["weights"] == pytest.approx(weights.tolist(), rel=1e-9)


def chosen(state: dict, node_scores: Tensor, closed: float) -> list[int]:
    kept = node_scores.topk(state["nodes"]).indices
    mask = torch.ones(NODES, dtype=torch.bool).scatter(0, kept, False)
    masked = groups(state).masked_fill(mask[:, None], closed).flatten()
    return masked.topk(state["experts"]).indices.tolist()


def test_trap_3_counts_only_the_best(router) -> None:
    differ = 0
    for state in STATES:
        wrong = chosen(state, groups(state).amax(dim=1), -math.inf)
        assert route(router, state, "trap3")["indices"] == wrong
        differ += set(wrong) != set(gate(state)[1].indices[0].tolist())
    assert differ > 30


def test_trap_4_fills_closed_nodes_with_0(router) -> None:
    """Which of several zeros is chosen, torch leaves open; how many are, it does not."""
    strays = 0
    for state in STATES:
        two_best = groups(state).topk(2, dim=1).values.sum(dim=1)
        mine, wrong = route(router, state, "trap4"), chosen(state, two_best, 0.0)
        inside = [i for i in mine["indices"] if i // 4 in mine["kept"]]
        assert inside == [i for i in wrong if i // 4 in mine["kept"]]
        assert len(mine["indices"]) == len(wrong) == state["experts"]
        strays += len(inside) < len(wrong)
    assert strays > 30


# --- the states of the page ---


def test_it_opens_in_the_drawing_of_the_page(router) -> None:
    state = router.state()
    found = route(router, state)
    assert sorted(found["indices"]) == [5, 13, 14, 15]
    weights = dict(zip(found["indices"], found["weights"], strict=True))
    assert [round(weights[i], 2) for i in (5, 13, 14, 15)] == [0.33, 0.24, 0.15, 0.27]
    assert [round(x, 2) for x in found["nodeScores"]] == [0.97, 1.19, 0.93, 1.11]
    moved = route(router, state, "trap1")
    assert round(moved["weights"][moved["indices"].index(14)], 2) == 0.23
    assert sorted(route(router, state, "trap3")["kept"]) == [1, 2]
    closed = route(router, state | {"bias": [-0.9] * 16}, "trap4")
    assert all(i // 4 in (0, 2) for i in closed["indices"])


def presets(router) -> list[dict]:
    return [router.state(**p["state"]) for p in router.eval("RouterLab.presets")]


def test_every_preset_says_something_else(router) -> None:
    said = [router.say(state) for state in presets(router)]
    assert len(set(said)) == len(said) == 5
    assert "专家 8 的亲和度最高，却落选" in said[0]
    assert "专家 14 靠偏置入选" in said[0]
    assert "专家 14 从 0.15 变成 <b>0.23</b>" in said[1]
    assert "节点 2 凭一个专家挤掉了节点 3" in said[3]
    assert "专家 0、1、2、3 来自关掉的节点" in said[4]


def test_says_something_of_any_state(router) -> None:
    for state in STATES:
        for wrong in ("none", "trap1", "trap3", "trap4"):
            said = router.say(state | {"wrong": wrong})
            assert said.endswith("。")
            assert "undefined" not in said
            assert "NaN" not in said


def with_bias(router, expert: int, value: float, **fields) -> dict:
    bias = router.state()["bias"]
    bias[expert] = value
    return router.state(bias=bias, **fields)


GOALS = [
    ({"expert": 5, "value": -0.5}, {"expert": 5, "value": -0.1}),
    ({"expert": 10, "value": 0.25}, {"expert": 8, "value": 0.28}),
    (
        {"expert": 6, "value": -0.2, "wrong": "trap4", "nodes": 1},
        {"expert": 6, "value": -0.2, "nodes": 1},
    ),
]


@pytest.mark.parametrize("number", range(3))
def test_goals(router, number: int) -> None:
    reached, not_yet = GOALS[number]
    assert router.goal(number, with_bias(router, **reached))
    assert not router.goal(number, with_bias(router, **not_yet))
    assert not any(router.goal(number, state) for state in presets(router))
    two = with_bias(router, **reached)
    two["bias"][0] += 0.01
    assert not router.goal(number, two)  # more than one bias moved
