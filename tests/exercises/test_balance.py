"""The exercises of the section on balancing: biases moved step by step, loads counted."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dsnotes.config import DEEPSEEK_V3, TINY
from dsnotes.model.balance import (
    BiasBalancer,
    expert_balance_loss,
    expert_load,
    max_vio,
    update_bias,
)
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import record_routing
from dsnotes.training.loop import language_step, train
from dsnotes.training.state import TrainState
from dsnotes.training.texts import batches

from .notebook import NOTEBOOKS, answers, cells
from .page import exercise, solution


def test_balance_1() -> None:
    load, gamma = [10, 2, 4, 8], 0.001
    bias = torch.tensor([0, 0.001, -0.001, 0], dtype=torch.float64)
    update_bias(bias, torch.tensor(load), gamma=gamma)
    assert "$(10,2,4,8)$" in exercise("balance-1")
    assert bias.tolist() == pytest.approx([-0.001, 0.002, 0, -0.001], abs=1e-9)
    assert r"$(-0.001,\,0.002,\,0,\,-0.001)$" in solution("balance-1")
    assert f"{max_vio(torch.tensor(load)).item():.3f}" in solution("balance-1")


def test_balance_2() -> None:
    """All tokens on the same eight experts; then the time of a layer is that of its fullest one."""
    k = DEEPSEEK_V3.num_experts_per_tok
    same = torch.arange(k).expand(1000, k)
    worst = max_vio(expert_load(same, n_routed_experts=DEEPSEEK_V3.n_routed_experts))
    assert worst == 31
    assert "$256/8-1=31$" in solution("balance-2")

    def time(violation: int) -> int:
        """Of a layer whose experts got 100 tokens each on average; in hundredths of that."""
        load = torch.tensor([100 + violation, 100 - violation, 100, 100])
        assert max_vio(load).item() == pytest.approx(violation / 100)
        return int(load.max())

    assert rf"$1.72/1.04\approx{time(72) / time(4):.2f}$" in solution("balance-2")


def test_balance_3() -> None:
    """Biases moved until the token changes its mind; then as far as V3's steps may carry one."""
    for gamma, answer in ((0.001, 150), (0.01, 15)):
        scores = torch.tensor([0.3, 0.6], dtype=torch.float64)
        bias, steps = torch.zeros(2, dtype=torch.float64), 0
        while (scores + bias).diff().item() > 1e-6:
            update_bias(bias, torch.tensor([0, 1]), gamma=gamma)
            steps += 1
        assert steps == answer
        assert f"{answer} 步" in solution("balance-3")
    at_least = 14.3e12 / (15360 * 4096)
    assert 0.001 * at_least > 1  # farther than affinities can differ
    assert r"$15360\times4096$" in solution("balance-3")


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("e_score_correction_bias", torch.zeros(2))


def test_balance_4() -> None:
    each, gate = torch.zeros(2), Gate()
    balancer = BiasBalancer([gate], gamma=0.1)
    for to_0, to_1 in ((5, 1), (1, 2), (1, 2), (1, 2)):
        chosen = torch.tensor([[0]] * to_0 + [[1]] * to_1)
        update_bias(each, expert_load(chosen, n_routed_experts=2), gamma=0.1)
        balancer.observe([chosen])
    assert balancer.step().tolist() == [[8, 7]]
    assert each.tolist() == pytest.approx([0.2, -0.2])
    assert gate.e_score_correction_bias.tolist() == pytest.approx([-0.1, 0.1])
    for shown in ("$(+0.2,-0.2)$", "$(-0.1,+0.1)$"):
        assert shown in solution("balance-4")
    assert "def optimizer_step" in cells(NOTEBOOKS / "balance.ipynb", "exercise")["balance-4"]
    assert "`optimizer_step`" in exercise("balance-4")


def test_balance_5() -> None:
    """Proportional steps end smoother than signs of the same size, and swing when too long."""
    generator = torch.Generator().manual_seed(0)
    skew = torch.randn(16, generator=generator)
    batches_of_scores = (torch.randn(250, 1024, 16, generator=generator) + skew).sigmoid()

    def last(move: str, size: float) -> float:
        bias, seen = torch.zeros(16), []
        for scores in batches_of_scores:
            chosen = (scores + bias).topk(2, dim=1).indices
            load = expert_load(chosen, n_routed_experts=16)
            seen.append(max_vio(load).item())
            if move == "sign":
                update_bias(bias, load, gamma=size)
            else:
                bias += size * (1 - load / load.float().mean())
        return sum(seen[-50:]) / 50

    picks = torch.rand(50, 1024, 16, generator=generator).topk(2, dim=2).indices
    floor = max_vio(torch.stack([expert_load(p, n_routed_experts=16) for p in picks])).mean().item()
    small = last("proportional", 0.01)
    assert floor * 0.8 < small < last("sign", 0.01)
    assert last("proportional", 1.0) > 3 * small
    assert "不再摆动" in solution("balance-5")


def test_balance_6() -> None:
    """Half one: of a model and its text. Half two: the run that the exercise asks for exists."""
    torch.manual_seed(0)
    model = DeepSeek(replace(TINY, n_group=1, topk_group=1, num_nextn_predict_layers=0))
    *data, text = batches(steps=7, batch_size=8, seq_len=64, seed=0)
    state = TrainState.create(model, steps=6, learning_rate=3e-3)
    list(train(state, partial(language_step, gamma=0.01), data, progress=False))
    with torch.no_grad(), record_routing(model) as routings:
        model(text.tokens)
    routing = routings[-1]
    shape = text.tokens.shape
    scores = (routing.scores / routing.scores.sum(dim=1, keepdim=True)).unflatten(0, shape)
    chosen = routing.indices.unflatten(0, shape)
    loads = torch.stack([expert_load(row, n_routed_experts=16) for row in chosen])
    assert max_vio(loads).mean() > max_vio(loads.sum(0))
    # the library's loss of each segment for itself, against one segment at a time
    together = expert_balance_loss(scores, chosen, alpha=1.0)
    alone = [expert_balance_loss(s, c, alpha=1.0) for s, c in zip(scores, chosen, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone).mean())
    state = TrainState.create(model, steps=6, learning_rate=3e-3)
    by_losses = partial(language_step, gamma=0.0, sequence_alpha=0.01)
    assert len(list(train(state, by_losses, data, progress=False))) == len(data)

    def random_floor(n_tokens: int) -> Tensor:
        picks = torch.rand(200, n_tokens, 16).topk(2, dim=2).indices
        return max_vio(torch.stack([expert_load(p, n_routed_experts=16) for p in picks])).mean()

    assert random_floor(128).item() == pytest.approx(0.43, abs=0.03)
    assert "128 个 token 均匀随机选" in solution("balance-6")


def test_balance_7() -> None:
    """The answer of the notebook against the printed sums, token by token."""
    names: dict[str, Any] = {}
    exec(answers(NOTEBOOKS / "balance.ipynb")["balance-7"].right, names)
    scores = torch.rand(7, 5, dtype=torch.float64)
    total = 0.0
    for i in range(5):
        chosen = sum(i in sorted(range(5), key=row.__getitem__)[-2:] for row in scores.tolist())
        share = sum(row[i] / sum(row) for row in scores.tolist()) / 7
        total += 5 / (2 * 7) * chosen * share
    assert names["my_sequence_loss"](scores, 2).item() == pytest.approx(total)
    assert "python -m dsnotes.practice balance" in exercise("balance-7")


def test_balance_8() -> None:
    """The price that clears; and a dual that does not see a price raised for all."""
    lead = torch.tensor([0.5, 0.3, 0.2, -0.1], dtype=torch.float64)
    scores = torch.stack([0.4 + lead, torch.full_like(lead, 0.4)], dim=1)
    low, high = sorted(lead.tolist())[1:3]
    assert rf"$({low},\,{high})$" in solution("balance-8")
    for price, shares in ((low - 0.01, [3, 1]), (0.25, [2, 2]), (high + 0.01, [1, 3])):
        bias = torch.tensor([0.0, price], dtype=torch.float64)
        chosen = (scores + bias).argmax(dim=1, keepdim=True)
        assert expert_load(chosen, n_routed_experts=2).tolist() == shares

    def dual(bias: Tensor) -> float:
        return ((scores + bias).amax(dim=1).sum() - 2 * bias.sum()).item()

    for bias in torch.randn(20, 2, dtype=torch.float64):
        assert dual(bias + 0.7) == pytest.approx(dual(bias))
    best = min(dual(torch.tensor([0, x], dtype=torch.float64)) for x in torch.linspace(-1, 1, 401))
    balanced = scores[:2, 0].sum() + scores[2:, 1].sum()
    assert best == pytest.approx(balanced.item())
