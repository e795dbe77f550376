"""The exercises of the section on mixtures of experts: counted, routed, drawn and split."""

import itertools
import math
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.config import DEEPSEEK_V3, TINY, Config
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mlp import MLP
from dsnotes.model.moe import Gate, MoE, record_routing, segment
from dsnotes.training.loop import evaluate, language_step, moe_layers, train
from dsnotes.training.state import TrainState
from dsnotes.training.texts import batches

from .notebook import NOTEBOOKS, answers, cells
from .page import exercise, page, solution


def test_moe_1() -> None:
    """Counted on the weights of an expert; what the count needs stands in the table of symbols."""
    with torch.device("meta"):
        weights = MLP(DEEPSEEK_V3.hidden_size, DEEPSEEK_V3.moe_intermediate_size).parameters()
    expert = sum(weight.numel() for weight in weights)
    layers = DEEPSEEK_V3.num_hidden_layers - DEEPSEEK_V3.first_k_dense_replace
    text = page("moe")
    table = text[text.index(":name: tab-moe-symbols") : text.index("### 路由：")]
    for given in ("$d=7168$", "2,048", f"| {layers} |"):
        assert given in table
    activated = 36_625_618_432 + layers * 8 * expert
    assert f"={activated / 1e9:.2f}$B" in solution("moe-1")
    assert f"={expert:,}$".replace(",", "{,}") in solution("moe-1")
    assert f"仍是 {671_026_419_200 / 1e9:.2f}B" in solution(
        "moe-1"
    )  # nothing is stored in addition


def test_moe_2() -> None:
    s = [0.62, 0.18, 0.35, 0.27, 0.48, 0.71, 0.12, 0.30]
    s += [0.81, 0.09, 0.22, 0.15, 0.41, 0.52, 0.33, 0.58]
    gate = Gate(replace(TINY, hidden_size=16, routed_scaling_factor=1.0)).double()
    with torch.no_grad():
        gate.weight.copy_(torch.eye(16))
        gate.e_score_correction_bias[8] = -0.10  # and 0 for expert 14
        indices, weights, _ = gate(torch.tensor([s], dtype=torch.float64).logit())
    assert indices.tolist() == [[5, 15, 13, 4]]
    found = "、".join(f"{w:.3f}" for w in weights[0].tolist())
    assert "选中 5、15、13、4" in solution("moe-2")
    assert found in solution("moe-2")


def test_moe_3() -> None:
    """Equal on random logits for softmax; for sigmoid not, as the example of the page shows."""
    logits = torch.randn(200, 32, dtype=torch.float64)
    top, chosen = logits.topk(5, dim=1)
    before = top.softmax(dim=1)
    after = logits.softmax(dim=1).gather(1, chosen)
    torch.testing.assert_close(before, after / after.sum(dim=1, keepdim=True))
    z = torch.tensor([0.0, math.log(3)], dtype=torch.float64)
    by_sigmoid = z.sigmoid() / z.sigmoid().sum()
    assert z.softmax(dim=0).tolist() == pytest.approx([1 / 4, 3 / 4])
    assert by_sigmoid.tolist() == pytest.approx([0.4, 0.6])
    assert r"softmax 给出 $(1/4,3/4)$" in solution("moe-3")
    assert "归一得 $(0.4,0.6)$" in solution("moe-3")


def test_moe_4() -> None:
    """All choices of a small case enumerated, then V3 drawn at random."""

    def formula(experts: int, nodes: int, k: int) -> float:
        missed = math.comb(experts - experts // nodes, k) / math.comb(experts, k)
        return nodes * (1 - missed)

    touched = [len({e // 3 for e in chosen}) for chosen in itertools.combinations(range(12), 4)]
    assert formula(12, 4, 4) == pytest.approx(sum(touched) / len(touched))
    chosen = torch.rand(20_000, 256).topk(8).indices // 32
    seen = torch.zeros(20_000, 8).scatter(1, chosen, 1.0).sum(dim=1)
    assert seen.mean().item() == pytest.approx(formula(256, 8, 8), abs=4 * 0.8 / 20_000**0.5)
    assert "nodes_expected" in solution("moe-4")


def split(whole: MoE, m: int, scale: float) -> MoE:
    """Every expert cut into m pieces; rows and biases copied, m times as many chosen."""
    config = segment(whole.gate.config, m=m)
    pieces = MoE(replace(config, routed_scaling_factor=scale)).double()
    state = {}
    for name, tensor in whole.state_dict().items():
        if name.startswith("gate."):
            state[name] = tensor.repeat_interleave(m, dim=0)
        elif name.startswith("experts."):
            _, expert, rest = name.split(".", 2)
            parts = tensor.chunk(m, dim=1 if rest.startswith("down") else 0)
            state |= {f"experts.{m * int(expert) + i}.{rest}": p for i, p in enumerate(parts)}
        else:
            state[name] = tensor
    pieces.load_state_dict(state)
    return pieces


def by_the_rule_of_the_paper(gate: Gate) -> None:
    """Score a node by its K_r/M best experts, written as a loop over tokens."""
    config = gate.config
    size = config.n_routed_experts // config.n_group
    best = config.num_experts_per_tok // config.topk_group

    def choose(scores: Tensor) -> Tensor:
        rows = []
        for row in (scores + gate.e_score_correction_bias).tolist():
            nodes = [row[i : i + size] for i in range(0, len(row), size)]
            worth = [sum(sorted(node)[-best:]) for node in nodes]
            kept = sorted(range(len(nodes)), key=worth.__getitem__)[-config.topk_group :]
            open_to = [e for e in range(len(row)) if e // size in kept]
            rows.append(sorted(open_to, key=row.__getitem__)[-config.num_experts_per_tok :])
        return torch.tensor(rows)

    gate._choose = choose


@pytest.mark.parametrize("m", [2, 4])
def test_moe_5(m: int) -> None:
    """Without a limit nothing changes; with it the released rule fails and the paper's holds."""

    def block(config: Config) -> MoE:
        moe = MoE(config).double()
        with torch.no_grad():
            moe.gate.weight.normal_(std=0.2)
            moe.gate.e_score_correction_bias.normal_(std=0.1)
            for expert in moe.experts:
                for weight in expert.parameters():
                    weight.normal_(std=0.2)
        return moe

    def changed(whole: MoE, pieces: MoE) -> float:
        x = torch.randn(300, TINY.hidden_size, dtype=torch.float64)
        with torch.no_grad():
            return ((pieces(x) - whole(x)).abs().amax(dim=1) > 1e-9).double().mean().item()

    free = block(replace(TINY, n_group=1, topk_group=1))
    scale = TINY.routed_scaling_factor
    assert changed(free, split(free, m, m * scale)) == 0
    assert changed(free, split(free, m, scale)) == 1  # the factor m is needed
    limited = block(TINY)
    pieces = split(limited, m, m * scale)
    assert changed(limited, pieces) > 0.2
    by_the_rule_of_the_paper(pieces.gate)
    assert changed(limited, pieces) == 0
    text = solution("moe-5")
    assert "系数要乘 $m$" in text
    assert "前 $mK_r/M$ 个之和" in text


def test_moe_6() -> None:
    """Trained briefly: no shared expert and one more routed one, against one more routed alone."""
    torch.manual_seed(0)
    config = replace(TINY, initializer_range=0.04, num_nextn_predict_layers=0)
    model = DeepSeek(config)
    *data, text = batches(steps=13, batch_size=8, seq_len=64, seed=0)
    state = TrainState.create(model, steps=12, learning_rate=5e-3)
    list(train(state, partial(language_step, gamma=0.01), data, progress=False))
    for moe in moe_layers(model):
        moe.gate.config = replace(config, num_experts_per_tok=5)
    with record_routing(model) as routings:
        one_more = evaluate(model, text).loss
    assert all(routing.indices.shape[1] == 5 for routing in routings)
    for moe in moe_layers(model):
        moe.shared_experts = None
    without_shared = evaluate(model, text).loss
    for moe in moe_layers(model):
        moe.register_forward_hook(lambda module, args, y: torch.zeros_like(y))
    without_experts = evaluate(model, text).loss
    assert abs(without_shared - one_more) < 0.3  # V1 saw +0.6 in a model that leans on its experts
    assert abs(without_experts - one_more) < 0.3


def test_moe_7() -> None:
    """The answer for one token, against the gate of the library on random tokens."""
    names: dict[str, Any] = {}
    exec(answers(NOTEBOOKS / "moe.ipynb")["moe-7"].right, names)
    gate = Gate(replace(TINY, hidden_size=16, routed_scaling_factor=1.0)).double()
    with torch.no_grad():
        gate.weight.copy_(torch.eye(16))
        for s, b in zip(torch.rand(50, 16).double(), torch.rand(50, 16) - 0.7, strict=True):
            gate.e_score_correction_bias.copy_(b)
            indices, weights, _ = gate(s.logit()[None])
            chosen, shares = names["route_one"](s.tolist(), b.tolist(), 2, 4)
            assert chosen == indices[0].tolist()
            assert shares == pytest.approx(weights[0].tolist())
    assert "python -m dsnotes.practice moe" in exercise("moe-7")


def test_moe_8() -> None:
    """The function on the page is that of the notebook; mended it is the gate without groups."""
    given = cells(NOTEBOOKS / "moe.ipynb", "exercise")["moe-8"]
    assert given in exercise("moe-8")
    names: dict[str, Any] = {}
    exec(answers(NOTEBOOKS / "moe.ipynb")["moe-8"].right, names)
    gate = Gate(replace(TINY, n_group=1, topk_group=1, routed_scaling_factor=1.0))
    with torch.no_grad():
        gate.weight.normal_()
        gate.e_score_correction_bias.normal_()
    routing = gate(torch.randn(9, TINY.hidden_size))
    _, weights = names["gate_to_mend"](routing.scores, gate.e_score_correction_bias, 4)
    torch.testing.assert_close(weights, routing.weights)
    for mended in (weights, routing.weights):
        (grad,) = torch.autograd.grad(mended.square().sum(), gate.weight, retain_graph=True)
        assert grad.norm() > 0
    assert "`weights = scores.gather(1, indices)`" in solution("moe-8")
