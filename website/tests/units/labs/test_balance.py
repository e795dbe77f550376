"""The loop of the biases: load, MaxVio and updates as in dsnotes, wrong rules as the traps."""

import random

import pytest
import torch

from dsnotes.config import Config
from dsnotes.model.balance import BiasBalancer, expert_load, max_vio, update_bias
from dsnotes.model.moe import Gate

EXPERTS, STEPS, EACH = 8, 60, 64
RULES = ("sign", "share", "trap2", "trap3")


@pytest.fixture
def balance(lab):
    return lab("balance")


@pytest.fixture
def scores(balance) -> torch.Tensor:
    return torch.tensor(balance.eval("BalanceLab.SCORES"), dtype=torch.float64)


def gate() -> Gate:
    """Its affinities are set by hand: the weight is the identity, the input their logits."""
    config = Config(
        vocab_size=8,
        hidden_size=EXPERTS,
        num_hidden_layers=1,
        intermediate_size=8,
        moe_intermediate_size=8,
        n_routed_experts=EXPERTS,
        num_experts_per_tok=2,
        num_attention_heads=1,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
    )
    made = Gate(config).double().requires_grad_(False)
    made.weight.copy_(torch.eye(EXPERTS))
    return made


def test_chooses_and_counts_as_the_gate(balance, scores) -> None:
    made = gate()
    for seed in range(100):
        rng = torch.Generator().manual_seed(seed)
        bias = (0.4 * torch.randn(EXPERTS, generator=rng)).double()
        made.e_score_correction_bias.copy_(bias)
        chosen = made(scores.logit()).indices
        counts = balance.call("BalanceLab.load", scores.tolist(), bias.tolist())
        assert counts == expert_load(chosen, n_routed_experts=EXPERTS).tolist()
        assert balance.call("BalanceLab.maxVio", counts) == pytest.approx(
            max_vio(torch.tensor(counts)).item(), abs=1e-6
        )
        one = balance.call("BalanceLab.choose", scores[seed].tolist(), bias.tolist())
        assert one == chosen[seed].tolist()


def test_updates_as_the_library(balance) -> None:
    """sign is algorithm 1; the others are the formulas of the traps' tests. γ·sign is float32."""
    rng = random.Random(0)
    for _ in range(200):
        load = torch.tensor([rng.randint(0, 12) for _ in range(EXPERTS)])
        load[0] += 1  # at least one token
        bias = torch.tensor([rng.gauss(0, 0.3) for _ in range(EXPERTS)], dtype=torch.float64)
        gamma = rng.choice([0.001, 0.02, 0.1])
        mean = load.double().mean()
        theirs = {
            "share": bias + gamma * (mean - load) / mean,
            "trap3": bias + gamma * (mean - load),
            "sign": bias.clone(),
        }
        update_bias(theirs["sign"], load, gamma=gamma)
        for rule, expected in theirs.items():
            mine = balance.call("BalanceLab.update", bias.tolist(), load.tolist(), gamma, rule)
            assert mine == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("gamma", [0.001, 0.005, 0.01, 0.0331, 0.1])
def test_sixty_steps_as_the_balancer(balance, scores, gamma: float) -> None:
    made = gate()
    balancer = BiasBalancer([made], gamma=gamma)
    for n, step in enumerate(balance.call("BalanceLab.run", gamma, "sign")):
        assert step["bias"] == pytest.approx(made.e_score_correction_bias.tolist(), abs=1e-6), n
        for micro_batch, counts in zip(scores.split(EACH), step["loads"], strict=True):
            indices = made(micro_batch.logit()).indices
            balancer.observe([indices])
            assert counts == expert_load(indices, n_routed_experts=EXPERTS).tolist()
        load = balancer.step()[0]
        assert step["total"] == load.tolist()
        assert step["vio"] == pytest.approx(max_vio(load).item(), abs=1e-6)
        assert step["next"] == pytest.approx(made.e_score_correction_bias.tolist(), abs=1e-6)


@pytest.mark.parametrize("gamma", [0.002, 0.01, 0.05])
def test_trap_2_updates_in_every_micro_batch(balance, scores, gamma: float) -> None:
    made = gate()
    for step in balance.call("BalanceLab.run", gamma, "trap2"):
        bias = made.e_score_correction_bias
        assert step["bias"] == pytest.approx(bias.tolist(), abs=1e-6)
        for micro_batch, counts in zip(scores.split(EACH), step["loads"], strict=True):
            load = expert_load(made(micro_batch.logit()).indices, n_routed_experts=EXPERTS)
            assert counts == load.tolist()
            update_bias(bias, load, gamma=gamma)
        assert step["next"] == pytest.approx(bias.tolist(), abs=1e-6)


@pytest.mark.parametrize("rule", ["share", "trap3"])
def test_steps_in_proportion(balance, scores, rule: str) -> None:
    made = gate()
    for step in balance.call("BalanceLab.run", 0.01, rule):
        bias = made.e_score_correction_bias
        assert step["bias"] == pytest.approx(bias.tolist(), abs=1e-6)
        load = expert_load(made(scores.logit()).indices, n_routed_experts=EXPERTS)
        assert step["total"] == load.tolist()
        mean = load.double().mean()
        bias += 0.01 * (mean - load) / (mean if rule == "share" else 1)


# --- what the figure is to show ---


def last(balance, gamma: float, rule: str) -> float:
    return balance.call("BalanceLab.run", gamma, rule)[-1]["vio"]


def test_the_ideas_hold(balance) -> None:
    assert last(balance, 0.01, "sign") < 0.1 < 0.25 < last(balance, 0.01, "trap2")
    tail = [step["vio"] for step in balance.call("BalanceLab.run", 0.1, "sign")[40:]]
    assert min(tail) > 0.25  # too long a step swings
    first = balance.call("BalanceLab.run", 0.01, "trap2")[0]
    wrong = [i for i in range(EXPERTS) if first["total"][i] > 64 and first["next"][i] > 0]
    assert wrong  # overloaded experts go up
    jumps = [
        abs(b - a)
        for step in balance.call("BalanceLab.run", 0.01, "trap3")
        for a, b in zip(step["bias"], step["next"], strict=True)
    ]
    assert max(jumps) > 0.5
    assert last(balance, 0.01, "trap3") > 0.5


@pytest.mark.parametrize("gamma", [0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05])
def test_the_token_goes_elsewhere_when_twice_gamma_says_so(balance, gamma: float) -> None:
    steps = balance.call("BalanceLab.run", gamma, "sign")
    biases = [step["bias"] for step in steps]
    chosen = [
        balance.call("BalanceLab.choose", balance.eval("BalanceLab.SCORES[8]"), b) for b in biases
    ]
    assert [2 in c for c in chosen].index(True) == balance.call("BalanceLab.expected", gamma)


def presets(balance) -> list[dict]:
    return [balance.state(**p["state"]) for p in balance.eval("BalanceLab.presets")]


def test_every_preset_says_something_else(balance) -> None:
    said = [balance.say(state) for state in presets(balance)]
    assert len(set(said)) == len(said)
    assert "再走 1 步改选" in said[0]
    assert "来回摆动" in said[1]
    assert "偏置反而加 2γ" in said[2]
    assert "停不下来" in said[3]


def test_says_something_of_any_state(balance) -> None:
    rng = random.Random(0)
    for _ in range(150):
        gamma = round(0.001 * 100 ** rng.random(), 4)
        fields = {
            "rule": rng.choice(RULES),
            "steps": rng.randint(0, STEPS),
            "pick": rng.randint(0, 8),
        }
        said = balance.say(balance.state(gamma=gamma, **fields))
        assert said.endswith("。")
        assert "undefined" not in said
        assert "NaN" not in said


def test_goals(balance) -> None:
    assert not any(balance.goal(i, state) for i in range(3) for state in presets(balance))
    assert balance.goal(0, balance.state(gamma=0.002, steps=22))
    assert not balance.goal(0, balance.state(gamma=0.002, steps=21))
    reached = [balance.goal(1, balance.state(rule="trap2", steps=20, pick=i)) for i in range(9)]
    assert any(reached)
    assert not all(reached)
    assert balance.goal(2, balance.state(gamma=0.0158, steps=15))
    for gamma in (0.0025, 0.01, 0.03, 0.1):
        assert not any(balance.goal(2, balance.state(gamma=gamma, steps=n)) for n in range(16))


def test_play_ends(balance) -> None:
    assert balance.eval(f"BalanceLab.play.done({{ steps: {STEPS} }})")
    assert balance.eval("BalanceLab.play.step({ steps: 3 }).steps") == 4
    assert balance.eval("BalanceLab.controls[0].act({ steps: 60 }).steps") == STEPS
