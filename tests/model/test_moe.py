"""moe: the equations word by word, one test per trap, properties, gradients, counts, bad input."""

import copy
import inspect
import io
import itertools
import math
import weakref
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dsnotes.config import DEEPSEEK_V3, TINY, Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mlp import MLP
from dsnotes.model.moe import (
    Gate,
    MoE,
    Routing,
    expert_combinations,
    isolate_shared,
    record_routing,
    segment,
)
from dsnotes.model.mtp import add_modules, predict

SMALL = replace(TINY, hidden_size=12, moe_intermediate_size=6, n_group=1, topk_group=1)
GROUPS = replace(SMALL, n_group=4, topk_group=2)
V2 = replace(
    GROUPS, scoring_func="softmax", topk_method="group_limited_greedy", norm_topk_prob=False
)
V1 = replace(V2, topk_method="greedy", n_group=1, topk_group=1, n_shared_experts=2)
CONFIGS = {
    "v3": SMALL,
    "v3-groups": GROUPS,
    "v3-not-normalised": replace(GROUPS, norm_topk_prob=False),
    "v3-no-shared": replace(SMALL, n_shared_experts=0),
    "v3-three-shared": replace(SMALL, n_shared_experts=3),
    "v3-top-1": replace(GROUPS, num_experts_per_tok=1),
    "v3-all-experts": replace(SMALL, num_experts_per_tok=16),
    "v2": V2,
    "v1": V1,
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


def build(config: Config, *, bias: float = 0.5) -> MoE:
    """A block in float64 with weights of a size that matters and biases of both signs."""
    moe = MoE(config).double()
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_(std=0.5)
        if moe.gate.e_score_correction_bias is not None:
            moe.gate.e_score_correction_bias.normal_(std=bias)
    return moe


def route(scores: list[float], *, bias: list[float], **fields: float) -> Routing:
    """What a V3 gate makes of one token of the given affinities when it keeps two experts."""
    n = len(scores)
    config = replace(SMALL, hidden_size=n, n_routed_experts=n, num_experts_per_tok=2, **fields)
    gate = Gate(config).double()
    with torch.no_grad():
        gate.weight.copy_(torch.eye(len(scores)))
        gate.e_score_correction_bias.copy_(torch.tensor(bias))
        return gate(torch.tensor([scores], dtype=torch.float64).logit())


def ffn(mlp: MLP, u: Tensor) -> Tensor:
    gate, up, down = (p.weight for p in (mlp.gate_proj, mlp.up_proj, mlp.down_proj))
    a = gate @ u
    return down @ (a / (1 + torch.exp(-a)) * (up @ u))


def choose(biased: list[float], config: Config) -> list[int]:
    """The experts of one token, by sorting; `biased` is s + b (V3) or s (V1, V2)."""
    size = config.n_routed_experts // config.n_group
    groups = [range(g * size, (g + 1) * size) for g in range(config.n_group)]
    best = 2 if config.topk_method == "noaux_tc" and size > 1 else 1
    groups.sort(key=lambda g: -sum(sorted((biased[i] for i in g), reverse=True)[:best]))
    allowed = [i for g in groups[: config.topk_group] for i in g]
    return sorted(allowed, key=lambda i: -biased[i])[: config.num_experts_per_tok]


def naive(moe: MoE, u: Tensor) -> Tensor:
    """V3 eq. (12)-(16), V2 (20)-(22), V1 (9)-(11), for one token u (hidden,), without residual."""
    gate, config = moe.gate, moe.gate.config
    logits = [u @ e for e in gate.weight]
    if config.scoring_func == "sigmoid":
        s = [1 / (1 + torch.exp(-a)) for a in logits]  # (15)
        b = gate.e_score_correction_bias.tolist()
    else:
        s = [torch.exp(a) / sum(torch.exp(c) for c in logits) for a in logits]
        b = [0.0] * len(s)
    chosen = choose([s_i.item() + b_i for s_i, b_i in zip(s, b, strict=True)], config)  # (16)
    total = sum(s[i] for i in chosen) if config.norm_topk_prob else 1.0  # (13)
    out = sum(s[i] / total * config.routed_scaling_factor * ffn(moe.experts[i], u) for i in chosen)
    return out if moe.shared_experts is None else out + ffn(moe.shared_experts, u)  # (12)


# --- the equations ---


@every_config
def test_output_and_gradients_follow_the_equations(config: Config) -> None:
    moe, x = build(config), torch.randn(30, config.hidden_size, dtype=torch.float64)
    ours, upstream = moe(x), torch.randn_like(x)
    expected = torch.stack([naive(moe, u) for u in x])
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=1e-12)

    parameters = list(moe.parameters())
    mine = torch.autograd.grad(ours, parameters, upstream)
    theirs = torch.autograd.grad(expected, parameters, upstream, materialize_grads=True)
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("config", [GROUPS, V2, V1], ids=["v3", "v2", "v1"])
def test_gradients_agree_with_finite_differences(config: Config) -> None:
    config = replace(config, hidden_size=4, moe_intermediate_size=3, n_shared_experts=1)
    moe = build(config)
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    names = ["gate.weight", "experts.3.gate_proj.weight", "shared_experts.down_proj.weight"]
    weights = [moe.get_parameter(name) for name in names]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        return torch.func.functional_call(moe, dict(zip(names, weights, strict=True)), x)

    assert torch.autograd.gradcheck(run, (x, *weights))


def test_an_idle_expert_runs_only_where_its_gradient_is_asked_for() -> None:
    moe, u = MoE(SMALL), torch.randn(1, SMALL.hidden_size)
    ran: list[int] = []
    for i, expert in enumerate(moe.experts):
        expert.register_forward_hook(lambda *_, i=i: ran.append(i))
    y = moe(u)
    assert ran == list(range(SMALL.n_routed_experts))
    y.sum().backward()
    assert all(p.grad is not None for p in moe.experts.parameters())
    ran.clear()
    with torch.no_grad():
        assert moe(u).equal(y)
        assert sorted(ran) == moe.gate(u).indices.sort().values.flatten().tolist()
        assert moe(u[:0]).shape == (0, SMALL.hidden_size)


def test_names_are_those_of_the_released_checkpoint() -> None:
    config = replace(SMALL, n_routed_experts=2, num_experts_per_tok=1)
    shapes = {name: tuple(tensor.shape) for name, tensor in MoE(config).state_dict().items()}
    wide, tall = (6, 12), (12, 6)
    assert shapes == {
        "gate.weight": (2, 12),
        "gate.e_score_correction_bias": (2,),
        **{f"experts.{e}.{p}_proj.weight": wide for e in (0, 1) for p in ("gate", "up")},
        **{f"experts.{e}.down_proj.weight": tall for e in (0, 1)},
        **{f"shared_experts.{p}_proj.weight": wide for p in ("gate", "up")},
        "shared_experts.down_proj.weight": tall,
    }


def test_shared_experts_are_one_network_of_their_joint_width() -> None:
    moe = MoE(replace(SMALL, n_shared_experts=3))
    assert moe.shared_experts.up_proj.weight.shape == (3 * 6, 12)
    assert MoE(replace(SMALL, n_shared_experts=0)).shared_experts is None


# --- the traps of routing, in the order of the book's list ---


def test_trap_1_gate_uses_unbiased_score() -> None:
    scores, bias = [0.8, 0.6, 0.4, 0.2], [0.0, -0.5, 0.1, 0.5]
    indices, weights, _ = route(scores, bias=bias, routed_scaling_factor=1.0)
    assert indices.tolist() == [[0, 3]]  # 0.8 and 0.2 + 0.5: the bias does choose

    biased = [0.8, 0.7]
    wrong = [v / sum(biased) for v in biased]
    assert wrong == pytest.approx([0.5333, 0.4667], abs=1e-4)
    assert weights[0].tolist() == pytest.approx([0.8, 0.2])


def test_trap_2_v3_scores_by_sigmoid_and_v2_does_not_renormalise() -> None:
    x = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    config = replace(SMALL, hidden_size=4, n_routed_experts=4, num_experts_per_tok=2)
    v3 = Gate(replace(config, routed_scaling_factor=1.0))
    v2 = Gate(replace(V1, **sizes(config), routed_scaling_factor=1.0))
    with torch.no_grad():
        v3.weight.copy_(torch.eye(4))
        v2.weight.copy_(torch.eye(4))
        ours, softmax = v3(x).weights[0], v2(x).weights[0]

    wrong = x.softmax(dim=1)[0, :2] / x.softmax(dim=1)[0, :2].sum()
    assert wrong.tolist() == pytest.approx([0.7311, 0.2689], abs=1e-4)
    assert ours.tolist() == pytest.approx([0.5464, 0.4536], abs=1e-4)
    assert softmax.tolist() == pytest.approx([0.6439, 0.2369], abs=1e-4)
    assert softmax.sum() < 0.9  # V1, V2: what the others got is not handed back


def sizes(config: Config) -> dict[str, int]:
    names = ("hidden_size", "n_routed_experts", "num_experts_per_tok")
    return {name: getattr(config, name) for name in names}


def test_trap_3_group_scored_by_sum_of_two_best() -> None:
    scores = [0.9, 0.1, 0.1, 0.7, 0.6, 0.1, 0.5, 0.5, 0.5]
    groups = torch.tensor(scores).view(3, 3)
    assert groups.amax(dim=1).argmax() == 0  # one common wrong rule
    assert groups.mean(dim=1).argmax() == 2  # another one
    assert route(scores, bias=[0.0] * 9, n_group=3).indices.tolist() == [[3, 4]]

    # and the two best are those with bias: a bias moves the choice to the last group
    moved = route(scores, bias=[0.0] * 7 + [0.3, 0.2], n_group=3)
    assert moved.indices.tolist() == [[7, 8]]


def test_the_rule_of_the_paper_counts_k_over_m_experts_of_a_group() -> None:
    """Two as well for V3; with other shapes the released rule keeps other groups."""
    assert DEEPSEEK_V3.num_experts_per_tok / DEEPSEEK_V3.topk_group == 2
    config = replace(SMALL, n_routed_experts=32, num_experts_per_tok=8, n_group=8, topk_group=2)
    gate = Gate(config).double()
    with torch.no_grad():
        gate.weight.normal_()
        routing = gate(torch.randn(2048, 12).double())
    groups = routing.scores.view(-1, 8, 4)

    def kept(best: int) -> Tensor:
        return groups.topk(best, dim=2).values.sum(dim=2).topk(2, dim=1).indices.sort(dim=1).values

    for mine, row in zip(kept(2), routing.indices // 4, strict=True):
        assert row.unique().tolist() == mine.tolist()
    differ = (kept(8 // 2) != kept(2)).any(dim=1).double().mean().item()
    assert 0.4 < differ < 0.8


def test_trap_4_closed_groups_are_minus_infinity() -> None:
    scores, bias = [0.9, 0.2, 0.3, 0.4], [0.0, -0.5, -0.9, -0.8]
    biased = torch.tensor(scores) + torch.tensor(bias)
    wrong = (biased * torch.tensor([1.0, 1.0, 0.0, 0.0])).topk(2).indices.tolist()
    assert wrong[1] in (2, 3)  # 0 beats 0.2 - 0.5: an expert of the closed group
    assert route(scores, bias=bias, n_group=2).indices.tolist() == [[0, 1]]


def test_trap_5_router_gets_a_gradient() -> None:
    moe, x = build(SMALL), torch.randn(20, 12, dtype=torch.float64)
    indices = moe.gate(x).indices
    unweighted = sum(moe.experts[i](u) for u, row in zip(x, indices, strict=True) for i in row)
    (wrong,) = torch.autograd.grad(unweighted.sum(), [moe.gate.weight], allow_unused=True)
    assert wrong is None

    moe(x).sum().backward()
    assert (moe.gate.weight.grad[indices.unique()].abs().amax(dim=1) > 1e-6).all()


def test_trap_6_no_token_is_dropped() -> None:
    moe, x = build(SMALL, bias=0.0), torch.randn(40, 12, dtype=torch.float64)
    moe.gate.e_score_correction_bias[:4] = 10.0  # all tokens want the same four experts
    with record_routing(moe) as routings:
        y = moe(x)
    load = routings[0].indices.flatten().bincount(minlength=16)
    assert load.tolist() == [40] * 4 + [0] * 12

    capacity = math.ceil(1.25 * 40 * 4 / 16)  # a capacity factor of 1.25 keeps 13 of 40 tokens
    kept = moe(x[:capacity])
    torch.testing.assert_close(y[:capacity], kept)
    dropped = y - moe.shared_experts(x)  # a token over capacity would get no routed output
    assert (dropped[capacity:].abs().amax(dim=1) > 1e-3).all()


def test_trap_7_shared_experts_are_simply_added() -> None:
    moe, x = build(SMALL), torch.randn(20, 12, dtype=torch.float64)
    with record_routing(moe) as routings:
        with_shared, shared = moe(x), moe.shared_experts(x)
    n_chosen = routings[0].indices.shape[1]
    moe.shared_experts = None
    routed = moe(x)
    torch.testing.assert_close(with_shared, routed + shared)
    assert n_chosen == SMALL.num_experts_per_tok  # it takes no place among the K
    for wrong in ((routed + shared) / 2, routed + 2.5 * shared):
        assert (with_shared - wrong).abs().max() > 0.1


def test_trap_8_renormalising_makes_the_difference() -> None:
    x = torch.randn(50, 12, dtype=torch.float64)
    gate = Gate(replace(V1, norm_topk_prob=True, routed_scaling_factor=1.0)).double()
    indices, weights, scores = gate(x)
    logits = F.linear(x, gate.weight)
    torch.testing.assert_close(weights, logits.gather(1, indices).softmax(dim=1))
    assert (weights - scores.gather(1, indices)).abs().max() > 0.1


def test_trap_9_tokens_choose_experts() -> None:
    gate, x = Gate(SMALL), torch.randn(64, 12)
    indices, _, scores = gate(x)
    assert indices.shape == (64, 4)  # every token has its four experts
    expert_choice = scores.topk(64 * 4 // 16, dim=0).indices
    per_token = expert_choice.flatten().bincount(minlength=64)
    assert per_token.min() < 4 < per_token.max()  # with expert choice some get fewer, some more


# --- properties ---


@st.composite
def configs(draw: st.DrawFn) -> Config:
    n_group = draw(st.integers(1, 4))
    size = draw(st.integers(2, 6))
    topk_group = draw(st.integers(1, n_group))
    scoring, method = draw(
        st.sampled_from([("sigmoid", "noaux_tc"), ("softmax", "group_limited_greedy")])
    )
    return replace(
        SMALL,
        n_routed_experts=n_group * size,
        n_group=n_group,
        topk_group=topk_group,
        num_experts_per_tok=draw(st.integers(1, topk_group * size)),
        scoring_func=scoring,
        topk_method=method,
        norm_topk_prob=draw(st.booleans()),
        routed_scaling_factor=draw(st.sampled_from([1.0, 2.5, 16.0])),
        n_shared_experts=draw(st.integers(0, 2)),
    )


@settings(deadline=None, max_examples=60, derandomize=True, database=None)
@given(config=configs(), tokens=st.integers(0, 20), seed=st.integers(0, 999))
def test_routing_properties(config: Config, tokens: int, seed: int) -> None:
    torch.manual_seed(seed)
    moe, x = build(config), torch.randn(tokens, 12, dtype=torch.float64)
    with record_routing(moe) as routings:
        y = moe(x)
    ((indices, weights, scores),) = routings
    k, size = config.num_experts_per_tok, config.n_routed_experts // config.n_group
    assert indices.shape == weights.shape == (tokens, k)
    for row in indices.tolist():
        assert len(set(row)) == k  # distinct
        assert len({i // size for i in row}) <= config.topk_group
    assert (weights > 0).all()
    if config.norm_topk_prob:
        total = torch.full((tokens,), config.routed_scaling_factor, dtype=torch.float64)
        torch.testing.assert_close(weights.sum(dim=1), total)
    torch.testing.assert_close(weights.argsort(), scores.gather(1, indices).argsort())

    order = torch.randperm(tokens)  # the fate of a token does not depend on its neighbours
    torch.testing.assert_close(moe(x[order]), y[order])


def test_leading_dimensions_and_memory_layout_do_not_matter() -> None:
    moe, x = build(GROUPS), torch.randn(2, 3, 5, 12, dtype=torch.float64)
    with record_routing(moe) as routings:
        y = moe(x)
    assert routings[0].indices.shape == (30, 4)
    strided = x.transpose(0, 2)
    assert not strided.is_contiguous()
    torch.testing.assert_close(moe(strided), y.transpose(0, 2))
    torch.testing.assert_close(moe(x[1, 2, 4]), y[1, 2, 4])


@pytest.mark.parametrize("shape", [(0, 12), (2, 0, 12), (1, 12), (12,)])
def test_no_token_or_a_single_one(shape: tuple[int, ...]) -> None:
    moe = build(GROUPS)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = moe(x)
    assert y.shape == shape
    y.sum().backward()
    assert x.grad.shape == shape
    for parameter in moe.parameters():  # experts without tokens: zero, not None
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_a_bad_token_stays_alone() -> None:
    moe, x = build(GROUPS), torch.randn(6, 12, dtype=torch.float64)
    y = moe(x)
    x[2, 0] = math.nan
    broken = moe(x)
    assert broken[2].isnan().all()  # it shows, and it does not spread
    others = [0, 1, 3, 4, 5]
    torch.testing.assert_close(broken[others], y[others])


def test_affinities_that_underflow_give_zero() -> None:
    gate = Gate(replace(SMALL, hidden_size=16))
    with torch.no_grad():
        gate.weight.copy_(torch.eye(16))
    weights = gate(torch.full((1, 16), -1000.0)).weights
    assert weights.tolist() == [[0.0] * 4]  # 0/0 without the 1e-20


# --- precision ---


@pytest.mark.parametrize("config", [GROUPS, V2], ids=["v3", "v2"])
def test_half_precision_routes_in_float32(config: Config) -> None:
    moe = MoE(replace(config, initializer_range=0.5)).bfloat16()
    x = torch.randn(50, 12).bfloat16()
    exact = copy.deepcopy(moe).float()
    with record_routing(moe) as short, record_routing(exact) as long:
        y, expected = moe(x), exact(x.float())
    assert y.dtype == torch.bfloat16
    assert short[0].scores.dtype == short[0].weights.dtype == torch.float32
    torch.testing.assert_close(short[0].indices, long[0].indices, atol=0, rtol=0)
    torch.testing.assert_close(y.float(), expected, atol=2e-2, rtol=2e-2)


def test_autocast_routes_in_float32() -> None:
    moe, x = MoE(replace(GROUPS, initializer_range=0.5)), torch.randn(50, 12)
    with record_routing(moe) as routings:
        exact = moe(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = moe(x)
    torch.testing.assert_close(routings[1].scores, routings[0].scores, atol=0, rtol=0)
    torch.testing.assert_close(y, exact, atol=2e-2, rtol=2e-2)
    assert (y != exact).any()  # the experts do run in bfloat16


def test_bias_stays_float32_in_a_short_model() -> None:
    gate = Gate(SMALL)
    gate.e_score_correction_bias.fill_(1.001)  # 1.0 in bfloat16: a step of 0.001 would be lost
    for cast in (gate.bfloat16, gate.half, gate.float, lambda: gate.to("cpu", torch.bfloat16)):
        cast()
        assert gate.e_score_correction_bias.dtype == torch.float32
        assert gate.e_score_correction_bias[0] == torch.tensor(1.001)
    assert gate.double().e_score_correction_bias.dtype == torch.float64
    with torch.device("meta"):
        empty = MoE(SMALL).bfloat16()
    assert empty.to_empty(device="cpu").gate.e_score_correction_bias.dtype == torch.float32


@pytest.mark.parametrize(("bias", "moved"), [(0.125, 0.001), (0.3, 0.002), (0.5, 0.0), (2.0, 0.0)])
def test_what_a_step_of_the_bias_would_become_in_bfloat16(bias: float, moved: float) -> None:
    short = torch.tensor(bias, dtype=torch.bfloat16)
    assert (short + 0.001 - short).item() == pytest.approx(moved, abs=1e-4)


def test_bias_is_no_parameter_and_absent_without_noaux_tc() -> None:
    gate = Gate(SMALL)
    assert dict(gate.named_parameters()).keys() == {"weight"}
    assert dict(gate.named_buffers()).keys() == {"e_score_correction_bias"}
    assert gate.e_score_correction_bias.dtype == torch.float32
    assert not gate.e_score_correction_bias.any()
    assert Gate(V2).e_score_correction_bias is None


def test_a_replaced_projection_is_called() -> None:
    class Replaced(torch.nn.Linear):
        """Stands for a quantised projection."""

        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    moe, x = build(SMALL), torch.randn(7, 12, dtype=torch.float64)
    expert = moe.experts[int(moe.gate(x).indices[0, 0])]
    expert.up_proj.__class__ = Replaced
    found = moe(x)
    expert.up_proj.__class__ = torch.nn.Linear
    with torch.no_grad():
        expert.up_proj.weight *= 2
    torch.testing.assert_close(found, moe(x))


# --- recording ---

WHOLE = replace(TINY, num_hidden_layers=3, n_routed_experts=8, num_experts_per_tok=2)


def test_records_the_gates_of_a_pass_from_the_first_layer_to_the_last() -> None:
    """Also those of prediction modules, when they run, and none that does not."""
    model, tokens = add_modules(DeepSeek(WHOLE)), torch.randint(256, (2, 6))
    with record_routing(model) as routings:
        hidden = model.model(tokens)
        assert len(routings) == 2  # the first of three layers is dense
        predict(model, hidden, tokens)
    assert [r.indices.shape for r in routings] == [(12, 2), (12, 2), (10, 2)]
    assert [r.scores.requires_grad for r in routings] == [True] * 3

    gates = [m for m in model.modules() if isinstance(m, Gate)]
    seen: list[Tensor] = []
    hooks = [gate.register_forward_pre_hook(lambda _, args: seen.append(args[0])) for gate in gates]
    predict(model, model.model(tokens), tokens)
    for hook in hooks:
        hook.remove()
    for gate, u, recorded in zip(gates, seen, routings, strict=True):
        torch.testing.assert_close(gate(u), recorded, atol=0, rtol=0)


def test_a_second_pass_adds_its_own() -> None:
    model, (first, second) = DeepSeek(WHOLE), torch.randint(256, (2, 1, 4))
    with record_routing(model) as both:
        model(first)
        model(second)
    with record_routing(model) as alone:
        model(second)
    assert (len(both), len(alone)) == (4, 2)
    for a, b in zip(both[2:], alone, strict=True):
        torch.testing.assert_close(a, b)


def test_recordings_can_be_nested_and_of_a_part_of_the_model() -> None:
    model, tokens = DeepSeek(WHOLE), torch.randint(256, (1, 4))
    with record_routing(model) as outer:
        with record_routing(model.model.layers[2:]) as inner:
            model(tokens)
        model(tokens)
    assert (len(outer), len(inner)) == (4, 1)
    assert inner[0] is outer[1]


def test_a_copy_made_inside_is_not_recorded() -> None:
    """As a reference policy is; it would be recorded for ever, after the block as well."""
    model, tokens = DeepSeek(WHOLE), torch.randint(256, (1, 4))
    with record_routing(model) as routings:
        twin = copy.deepcopy(model)
        twin(tokens)
        assert routings == []
        model(tokens)
    twin(tokens)
    assert len(routings) == 2


def test_an_error_inside_ends_the_recording() -> None:
    moe = build(SMALL)
    with pytest.raises(KeyError), record_routing(moe) as routings:
        raise KeyError
    moe(torch.zeros(3, 12, dtype=torch.float64))
    assert routings == []
    assert not moe.gate._forward_hooks


def test_without_gradients_or_experts() -> None:
    with torch.no_grad(), record_routing(build(SMALL)) as routings:
        pass
    assert routings == []
    moe = build(SMALL)
    with torch.no_grad(), record_routing(moe) as routings:
        moe(torch.zeros(3, 12, dtype=torch.float64))
    assert not routings[0].scores.requires_grad
    with record_routing(MLP(4, 3)) as routings:
        MLP(4, 3)(torch.zeros(1, 4))
    assert routings == []


def test_nothing_is_left_on_the_model() -> None:
    """It can be copied and saved after a step, and the step's graph goes with its last name."""
    model, tokens = DeepSeek(WHOLE), torch.randint(256, (1, 4))
    with record_routing(model) as routings:
        logits = model(tokens)
    scores = weakref.ref(routings[0].scores)  # a part of the graph
    logits.sum().backward()
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    for clone in (copy.deepcopy(model), torch.load(saved, weights_only=False)):
        torch.testing.assert_close(clone(tokens), logits)
    del logits, routings
    assert scores() is None


# --- segmentation, isolation, combinatorics ---


def expert_parameters(config: Config) -> tuple[int, int]:
    """Of one block, without the gate: all, and those that work for one token."""
    with torch.device("meta"):
        moe = MoE(config)
    one = sum(p.numel() for p in moe.experts[0].parameters())
    always = sum(p.numel() for name, p in moe.named_parameters() if "shared" in name)
    return len(moe.experts) * one + always, config.num_experts_per_tok * one + always


def test_segmentation_and_isolation_keep_parameters_and_compute() -> None:
    coarse = replace(
        V1, n_routed_experts=16, num_experts_per_tok=2, n_shared_experts=0, moe_intermediate_size=8
    )
    fine = segment(coarse, m=4)
    assert (fine.n_routed_experts, fine.num_experts_per_tok) == (64, 8)
    assert fine.moe_intermediate_size == 2
    isolated = isolate_shared(fine, n=1)
    assert (isolated.n_shared_experts, isolated.n_routed_experts) == (1, 63)
    assert isolated.num_experts_per_tok == 7
    assert expert_parameters(coarse) == expert_parameters(fine) == expert_parameters(isolated)
    assert segment(isolated, m=2).n_shared_experts == 2
    assert expert_parameters(segment(isolated, m=2)) == expert_parameters(coarse)
    assert segment(coarse, m=1) == isolate_shared(coarse, n=0) == coarse


def test_the_pieces_of_a_split_expert_add_up_to_it() -> None:
    whole, u = MLP(12, 8).double(), torch.randn(3, 12, dtype=torch.float64)
    pieces = [MLP(12, 2).double() for _ in range(4)]
    with torch.no_grad():
        for i, piece in enumerate(pieces):
            part = slice(2 * i, 2 * i + 2)
            piece.gate_proj.weight.copy_(whole.gate_proj.weight[part])
            piece.up_proj.weight.copy_(whole.up_proj.weight[part])
            piece.down_proj.weight.copy_(whole.down_proj.weight[:, part])
    torch.testing.assert_close(sum(piece(u) for piece in pieces), whole(u))


def test_combinations_of_the_paper() -> None:
    coarse = replace(V1, n_routed_experts=16, num_experts_per_tok=2, moe_intermediate_size=8)
    assert expert_combinations(coarse) == 120
    assert expert_combinations(segment(coarse, m=4)) == 4_426_165_368
    assert expert_combinations(DEEPSEEK_V3) < math.comb(256, 8)  # the groups cost some


@pytest.mark.parametrize(
    ("n_group", "topk_group", "k"), [(3, 2, 3), (4, 2, 4), (4, 3, 2), (2, 1, 3)]
)
def test_combinations_with_groups_by_enumeration(n_group: int, topk_group: int, k: int) -> None:
    groups = {"n_group": n_group, "topk_group": topk_group}
    config = replace(SMALL, n_routed_experts=12, num_experts_per_tok=k, **groups)
    size = 12 // n_group
    sets = itertools.combinations(range(12), k)
    reachable = sum(len({i // size for i in chosen}) <= topk_group for chosen in sets)
    assert expert_combinations(config) == reachable


def test_one_expert_of_v3_has_its_published_size() -> None:
    with torch.device("meta"):
        expert = MoE(replace(DEEPSEEK_V3, n_routed_experts=8, n_group=1, topk_group=1)).experts[0]
    assert sum(p.numel() for p in expert.parameters()) == 44_040_192


# --- bad input ---


@pytest.mark.parametrize("block", [MoE, Gate])
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(3, 11), ValueError, r"x must have shape \(\.\.\., 12\), got \(3, 11\)"),
        (torch.tensor(1.0), ValueError, r"x must have shape \(\.\.\., 12\), got \(\)"),
        (
            torch.zeros(3, 12, dtype=torch.long),
            TypeError,
            "x must be torch.float32 .* torch.int64",
        ),
        (torch.zeros(3, 12).double(), TypeError, "x must be torch.float32 .* torch.float64"),
        (torch.zeros(3, 12).bfloat16(), TypeError, "x must be torch.float32 .* torch.bfloat16"),
    ],
)
def test_bad_input_is_named(
    block: type[MoE] | type[Gate], x: Tensor, error: type[Exception], message: str
) -> None:
    forward = inspect.unwrap(block.forward)  # as users run it, without the checks of the tests
    with pytest.raises(error, match=message):
        forward(block(SMALL), x)


def test_gate_wants_flat_tokens() -> None:
    with pytest.raises(ValueError, match=r"x must be .*\(tokens, hidden\), got .* \(2, 3, 12\)"):
        Gate(SMALL)(torch.zeros(2, 3, 12))


def test_integers_are_refused_under_autocast_too() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(TypeError, match="int64"):
        inspect.unwrap(MoE.forward)(MoE(SMALL), torch.zeros(3, 12, dtype=torch.long))


@pytest.mark.parametrize("m", [0, -1, 4, 5])
def test_segment_refuses(m: int) -> None:
    with pytest.raises(ValueError, match=rf"m must divide moe_intermediate_size \(6\), got {m}"):
        segment(SMALL, m=m)


@pytest.mark.parametrize("n", [-1, 4])
def test_isolate_shared_refuses(n: int) -> None:
    with pytest.raises(ValueError, match=f"n must be a whole number from 0 to 3, got {n}"):
        isolate_shared(SMALL, n=n)
    with pytest.raises(ValueError, match="n_group"):  # 15 experts do not fall into 4 groups
        isolate_shared(GROUPS, n=1)
