"""Balancing: the equations against loops, the traps of the book, several processes, convergence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dsnotes.config import TINY
from dsnotes.model import balance
from dsnotes.model.moe import Gate, MoE


class FakeGate(nn.Module):
    """All that BiasBalancer needs of a gate."""

    def __init__(self, n_routed_experts: int) -> None:
        super().__init__()
        self.register_buffer("e_score_correction_bias", torch.zeros(n_routed_experts))


def random_scores(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64).sigmoid()


loads = st.lists(st.integers(0, 1000), min_size=2, max_size=8).filter(any).map(torch.tensor)


# --- equations, against loops written from the paper ---


def test_expert_load_counts_every_slot() -> None:
    indices = torch.randint(6, (3, 5, 2))
    expected = [sum(int(i) == e for i in indices.flatten()) for e in range(6)]
    assert balance.expert_load(indices, n_routed_experts=6).tolist() == expected


def test_sequence_balance_loss_is_v3_eq_17_to_20() -> None:
    B, T, E, K, alpha = 3, 7, 6, 2, 0.01
    s = random_scores(B, T, E)
    losses = []
    for b in range(B):
        loss = 0.0
        for i in range(E):
            f = P = 0.0
            for t in range(T):
                top = sorted(s[b, t].tolist(), reverse=True)[:K]
                f += float(s[b, t, i].item() in top) * E / (K * T)
                P += s[b, t, i].item() / s[b, t].sum().item() / T
            loss += alpha * f * P
        losses.append(loss)
    ours = balance.sequence_balance_loss(s, num_experts_per_tok=K, alpha=alpha)
    assert ours.item() == pytest.approx(sum(losses) / B, rel=1e-12)


def test_expert_balance_loss_is_v1_eq_12_to_14() -> None:
    T, E, K, alpha = 9, 6, 2, 0.003
    s = random_scores(T, E).softmax(dim=-1)
    indices = torch.stack([torch.randperm(E)[:K] for _ in range(T)])  # any choice, not the top-K
    loss = 0.0
    for i in range(E):
        f = sum(E / (K * T) for t in range(T) if i in indices[t].tolist())
        P = sum(s[t, i].item() for t in range(T)) / T
        loss += alpha * f * P
    ours = balance.expert_balance_loss(s, indices, alpha=alpha)
    assert ours.item() == pytest.approx(loss, rel=1e-12)


def v2_gate_loss(logits: Tensor, *, k: int, alpha: float, seq_aux: bool) -> Tensor:
    """The auxiliary loss of V2's released gate, from its semantics: softmax over the experts, the
    greedy choice, counts over the mean count; per sequence and then averaged, or over the batch."""
    probabilities = logits.softmax(dim=-1)
    chosen = F.one_hot(probabilities.topk(k, dim=-1).indices, logits.shape[-1]).sum(dim=-2)
    tokens = (1,) if seq_aux else (0, 1)
    share = chosen.double().mean(tokens) * logits.shape[-1] / k
    return alpha * torch.einsum("...e,...e->...", share, probabilities.mean(tokens)).mean()


@pytest.mark.parametrize("seq_aux", [True, False])
def test_expert_balance_loss_is_that_of_the_gate_of_v2(seq_aux: bool) -> None:
    logits = torch.randn(3, 17, 8, dtype=torch.float64).mul(2).requires_grad_()
    scores = logits.softmax(dim=-1)
    indices = scores.topk(3, dim=-1).indices
    if not seq_aux:
        scores, indices = scores.flatten(0, 1), indices.flatten(0, 1)
    ours = balance.expert_balance_loss(scores, indices, alpha=0.003)
    theirs = v2_gate_loss(logits, k=3, alpha=0.003, seq_aux=seq_aux)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)
    of_ours, of_theirs = (torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs))
    torch.testing.assert_close(of_ours, of_theirs, rtol=1e-10, atol=1e-15)


def test_t_of_v1_is_one_sequence() -> None:
    """V1 eq. 13-14 sequence by sequence; over the batch the same tokens may look balanced."""
    s = random_scores(4, 9, 6).softmax(dim=-1)
    indices = s.topk(2, dim=-1).indices
    alone = [balance.expert_balance_loss(a, b, alpha=1.0) for a, b in zip(s, indices, strict=True)]
    together = balance.expert_balance_loss(s, indices, alpha=1.0)
    torch.testing.assert_close(together, torch.stack(alone).mean(), rtol=1e-12, atol=0)

    opposite = torch.tensor([[[0.8, 0.2]] * 6, [[0.2, 0.8]] * 6])  # each sequence uses one expert
    chosen = opposite.topk(1, dim=-1).indices
    by_sequence = balance.expert_balance_loss(opposite, chosen, alpha=1.0)
    by_batch = balance.expert_balance_loss(opposite.flatten(0, 1), chosen.flatten(0, 1), alpha=1.0)
    assert by_sequence.item() == pytest.approx(1.6)  # f = (2, 0), P = (0.8, 0.2), twice
    assert by_batch.item() == pytest.approx(1.0)  # f = (1, 1): nothing to see


def test_the_sequence_loss_of_v3_is_that_of_v1_on_normalised_affinities_without_bias() -> None:
    s = random_scores(3, 11, 8)
    s_prime, chosen = s / s.sum(dim=-1, keepdim=True), s.topk(3, dim=-1).indices
    by_v1 = balance.expert_balance_loss(s_prime, chosen, alpha=0.5)
    by_v3 = balance.sequence_balance_loss(s, num_experts_per_tok=3, alpha=0.5)
    torch.testing.assert_close(by_v3, by_v1, rtol=1e-12, atol=0)


def test_max_vio_is_eq_4_per_layer() -> None:
    load = torch.tensor([[6, 2, 2, 2], [3, 3, 3, 3], [12, 0, 0, 0]])
    assert balance.max_vio(load).tolist() == [1.0, 0.0, 3.0]  # 3 = E/K - 1 is the worst for K = 1


@pytest.mark.parametrize("k", [1, 2, 4])
def test_uniform_load_makes_the_sum_of_f_times_p_one(k: int) -> None:
    n_experts = 8
    indices = torch.arange(n_experts * k).remainder(n_experts).view(-1, k)
    scores = random_scores(len(indices), n_experts).softmax(dim=-1)
    assert balance.expert_balance_loss(scores, indices, alpha=1.0).item() == pytest.approx(1.0)


def test_gradient_flows_through_p_alone() -> None:
    s = random_scores(5, 4).requires_grad_()
    indices = torch.tensor([[0], [0], [0], [1], [2]])
    balance.expert_balance_loss(s, indices, alpha=2.0).backward()
    f = torch.tensor([3, 1, 1, 0]) * 4 / 5
    torch.testing.assert_close(s.grad, (2.0 * f / 5).double().expand(5, 4), rtol=1e-6, atol=0)


def test_a_step_against_the_loss_lowers_the_overloaded_expert() -> None:
    logits = (0.1 * torch.randn(2, 16, 4) + torch.tensor([1.0, 0, 0, 0])).requires_grad_()
    loss = balance.sequence_balance_loss(logits.sigmoid(), num_experts_per_tok=1, alpha=1.0)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[..., 0] > 0).all()
    assert (gradient[..., 1:] < 0).all()


# --- the bias ---


def test_overloaded_goes_down_underloaded_up_average_stays() -> None:
    bias = torch.zeros(3)
    balance.update_bias(bias, torch.tensor([5, 1, 3]), gamma=0.001)
    torch.testing.assert_close(bias, torch.tensor([-0.001, 0.001, 0.0]))


@given(load=loads, gamma=st.floats(1e-4, 1.0))
def test_every_bias_moves_against_its_violation_by_gamma_or_not_at_all(
    load: Tensor, gamma: float
) -> None:
    bias = torch.zeros(len(load), dtype=torch.float64)
    balance.update_bias(bias, load, gamma=gamma)
    mean = sum(load.tolist()) / len(load)
    expected = [gamma * ((mean > c) - (mean < c)) for c in load.tolist()]
    assert bias.tolist() == pytest.approx(expected)


@given(load=loads, factor=st.integers(1, 100))
def test_only_the_direction_of_the_violation_counts(load: Tensor, factor: int) -> None:
    small, large = torch.zeros(2, len(load))
    balance.update_bias(small, load, gamma=0.1)
    balance.update_bias(large, factor * load, gamma=0.1)
    assert small.equal(large)
    assert balance.max_vio(factor * load).item() == pytest.approx(
        balance.max_vio(load).item(), rel=1e-5
    )


def test_a_load_equal_to_the_mean_is_recognised_at_any_size() -> None:
    bias = torch.zeros(3)  # in float32 the mean of these would be off by one
    balance.update_bias(bias, torch.tensor([2**24, 2**24 + 1, 2**24 + 2]), gamma=1.0)
    assert bias.tolist() == [1.0, 0.0, -1.0]


def test_gamma_zero_freezes_the_bias() -> None:
    gate = FakeGate(4)
    balancer = balance.BiasBalancer([gate], gamma=0.1)
    balancer.observe([torch.tensor([[0]])])
    balancer.step()
    before = gate.e_score_correction_bias.clone()
    balancer.gamma = 0.0
    for _ in range(3):
        balancer.observe([torch.tensor([[0]])])
        balancer.step()
    assert before.any()
    assert gate.e_score_correction_bias.equal(before)


def test_step_returns_the_load_of_all_micro_batches_and_starts_anew() -> None:
    balancer = balance.BiasBalancer([FakeGate(3), FakeGate(3)], gamma=0.1)
    balancer.observe([torch.tensor([[0, 1]]), torch.tensor([[2, 1]])])
    balancer.observe([torch.tensor([[0, 2]]), torch.tensor([[2, 0]])])
    assert balancer.step().tolist() == [[2, 1, 1], [1, 1, 2]]
    balancer.observe([torch.tensor([[1, 2]]), torch.tensor([[1, 2]])])
    assert balancer.step().tolist() == [[0, 1, 1], [0, 1, 1]]


def test_the_bias_of_a_gate_moved_to_another_dtype_is_still_the_one_moved() -> None:
    gate = FakeGate(2)
    balancer = balance.BiasBalancer([gate], gamma=0.5)
    gate.double()  # replaces the buffer by a new tensor
    balancer.observe([torch.tensor([[0]])])
    balancer.step()
    assert gate.e_score_correction_bias.tolist() == [-0.5, 0.5]


def expert_bias_of_megatron(tokens_per_expert: Tensor, expert_bias: Tensor, rate: float) -> Tensor:
    """Megatron-Core's update (`get_updated_expert_bias`), written from its formula."""
    average = tokens_per_expert.sum(dim=-1, keepdim=True) / tokens_per_expert.shape[-1]
    return expert_bias + (average - tokens_per_expert).sign() * rate


@given(
    steps=st.lists(
        st.lists(st.integers(0, 10_000), min_size=16, max_size=16).filter(any),
        min_size=1,
        max_size=20,
    ),
    gamma=st.floats(1e-4, 0.1),
)
def test_the_bias_walks_as_in_megatron_core(steps: list[list[int]], gamma: float) -> None:
    """Step by step and bit by bit, in float32."""
    ours, theirs = torch.zeros(2, 16)
    for load in map(torch.tensor, steps):
        balance.update_bias(ours, load, gamma=gamma)
        theirs = expert_bias_of_megatron(load, theirs, gamma)
        assert ours.equal(theirs)


# Each rank sees its own micro-batches. By its own load neither rank would move its bias as
# the sum of both loads does.
CHOICES = [
    [[[0, 1], [0, 1], [0, 2]], [[0, 3], [0, 3]]],  # rank 0: two micro-batches
    [[[1, 2], [2, 3], [1, 2]], [[3, 2], [2, 1]]],  # rank 1
]
WORKER = """
import sys, torch
import torch.distributed as dist
from datetime import timedelta
from dsnotes.model.balance import BiasBalancer
rank, store, choices = int(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group(
    "gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=timedelta(seconds=30)
)
gate = torch.nn.Module()
gate.register_buffer("e_score_correction_bias", torch.zeros(4))
balancer = BiasBalancer([gate], gamma=0.25)
for indices in choices[rank]:
    balancer.observe([torch.tensor(indices)])
print(balancer.step().tolist(), gate.e_score_correction_bias.tolist())
dist.destroy_process_group()
"""


def test_two_processes_move_the_bias_as_one_process_does(tmp_path: Path) -> None:
    one = FakeGate(4)
    balancer = balance.BiasBalancer([one], gamma=0.25)
    for indices in CHOICES[0] + CHOICES[1]:
        balancer.observe([torch.tensor(indices)])
    expected = f"{balancer.step().tolist()} {one.e_score_correction_bias.tolist()}"
    assert one.e_score_correction_bias.any()

    command = [sys.executable, "-c", WORKER]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), str(CHOICES)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        results = [process.communicate(timeout=60) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    for process, (stdout, stderr) in zip(ranks, results, strict=True):
        assert process.returncode == 0, stderr
        assert stdout.strip() == expected


def choose(scores: Tensor, bias: Tensor, k: int) -> Tensor:
    return (scores + bias).topk(k, dim=-1).indices


def run_with_bias(*, gamma: float, steps: int) -> list[float]:
    """MaxVio of each step: fixed affinities, skewed to the last experts; 512 tokens, 2 of 16."""
    generator = torch.Generator().manual_seed(1)
    skew = torch.linspace(-1.5, 1.5, 16)
    scores = (torch.randn(512, 16, generator=generator) + skew).sigmoid()
    bias, history = torch.zeros(16), []
    for _ in range(steps):
        load = balance.expert_load(choose(scores, bias, 2), n_routed_experts=16)
        history.append(balance.max_vio(load).item())
        balance.update_bias(bias, load, gamma=gamma)
    return history


def test_the_bias_update_balances_fixed_skewed_scores() -> None:
    history = run_with_bias(gamma=0.01, steps=150)
    assert history[0] > 2
    assert max(history[-20:]) < 0.25
    frozen = run_with_bias(gamma=0.0, steps=5)
    assert frozen == history[:1] * 5


def test_a_larger_gamma_is_faster_and_ends_rougher() -> None:
    slow, fast = run_with_bias(gamma=0.002, steps=300), run_with_bias(gamma=0.02, steps=300)
    assert next(step for step, vio in enumerate(fast) if vio < 0.5) < 20
    assert next(step for step, vio in enumerate(slow) if vio < 0.5) > 100
    assert sum(slow[-50:]) < 0.5 * sum(fast[-50:])


def test_a_moe_layer_is_balanced_by_its_bias() -> None:
    moe = MoE(TINY)
    with torch.no_grad():
        moe.gate.weight.normal_()
    balancer = balance.BiasBalancer([moe.gate], gamma=0.02)
    x = torch.randn(512, TINY.hidden_size) / 8 + 0.1
    history = []
    for _ in range(100):
        moe.gate(x)
        balancer.observe([moe.gate(x).indices])
        history.append(balance.max_vio(balancer.step()).item())
    assert history[0] > 1
    assert max(history[-10:]) < 0.3


# --- traps: the wrong variant on concrete numbers, and what ours does ---


def test_trap_1_a_bias_trained_by_the_loss_never_moves() -> None:
    gate = Gate(TINY)
    assert "e_score_correction_bias" not in dict(gate.named_parameters())
    assert "e_score_correction_bias" in gate.state_dict()

    scores = torch.tensor([[0.9, 0.2], [0.8, 0.1], [0.7, 0.3]])  # all tokens go to expert 0
    wrong = nn.Parameter(torch.zeros(2))
    weight = nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([wrong, weight], lr=1.0)
    for _ in range(5):
        chosen = choose(scores, wrong, 1)
        (weight * scores.gather(1, chosen)).sum().backward()  # values are unbiased: only a choice
        optimizer.step()
    assert wrong.grad is None
    assert wrong.tolist() == [0.0, 0.0]

    ours = torch.zeros(2)
    balance.update_bias(ours, balance.expert_load(chosen, n_routed_experts=2), gamma=0.3)
    assert balance.expert_load(choose(scores, ours, 1), n_routed_experts=2).tolist() == [2, 1]
    with pytest.raises(TypeError, match="bias must be a buffer"):
        balance.update_bias(wrong, torch.tensor([3, 0]), gamma=0.1)


def test_trap_2_one_update_per_micro_batch_moves_the_wrong_way() -> None:
    micro_batches = [[[0]] * 5 + [[1]], *[[[0], [1], [1]]] * 3]  # loads (5,1), (1,2), (1,2), (1,2)
    wrong = torch.zeros(2)
    gate = FakeGate(2)
    balancer = balance.BiasBalancer([gate], gamma=0.1)
    for indices in map(torch.tensor, micro_batches):
        load = balance.expert_load(indices, n_routed_experts=2)
        balance.update_bias(wrong, load, gamma=0.1)
        balancer.observe([indices])
        assert not gate.e_score_correction_bias.any()  # nothing moves before the step
    assert balancer.step().tolist() == [[8, 7]]
    torch.testing.assert_close(gate.e_score_correction_bias, torch.tensor([-0.1, 0.1]))
    torch.testing.assert_close(wrong, torch.tensor([0.2, -0.2]))  # overloaded expert 0 goes UP


def test_trap_3_a_proportional_step_lets_one_outlier_jump() -> None:
    load, gamma = torch.tensor([700, 100, 100, 100]), 0.001
    error = load.float().mean() - load
    bias = torch.zeros(4)
    balance.update_bias(bias, load, gamma=gamma)
    torch.testing.assert_close(bias, gamma * torch.tensor([-1.0, 1, 1, 1]))
    proportional, soft = gamma * error, gamma * torch.tanh(error / load.float().mean())
    assert proportional[0].item() == pytest.approx(-0.45)  # 450 times gamma, half the sigmoid range
    assert soft[1].item() == pytest.approx(0.537 * gamma, rel=1e-3)  # underloaded: half a step
    assert not torch.allclose(bias, proportional)
    assert not torch.allclose(bias, soft)


def test_trap_4_the_bias_alone_does_not_see_a_sequence_out_of_balance() -> None:
    scores = torch.tensor([[[0.8, 0.2]] * 6, [[0.2, 0.8]] * 6])  # each sequence uses one expert
    load = balance.expert_load(scores.topk(1).indices, n_routed_experts=2)
    bias = torch.zeros(2)
    balance.update_bias(bias, load, gamma=0.001)
    assert balance.max_vio(load).item() == 0  # over the batch nothing is wrong
    assert bias.tolist() == [0, 0]
    loss = balance.sequence_balance_loss(scores, num_experts_per_tok=1, alpha=1e-4)
    assert loss.item() == pytest.approx(1.6e-4)  # f = (2, 0), P = (0.8, 0.2); balance gives 1e-4


def test_trap_5_a_loss_of_detached_affinities_has_no_gradient() -> None:
    logits = torch.tensor([[2.0, 0, 0], [1.0, 0, 0]]).requires_grad_()
    scores, indices = logits.softmax(dim=-1), torch.tensor([[0], [0]])
    wrong = balance.expert_balance_loss(scores.detach(), indices, alpha=1.0)
    ours = balance.expert_balance_loss(scores, indices, alpha=1.0)
    assert wrong.item() == ours.item() > 2  # the value looks right
    assert not wrong.requires_grad
    ours.backward()
    assert (logits.grad[:, 0] > 0.25).all()  # gradient descent lowers the overloaded expert


@pytest.mark.parametrize("k", [1, 2, 4])
def test_trap_6_a_kept_k_axis_makes_the_loss_scale_with_k(k: int) -> None:
    n_experts = 8
    indices = torch.arange(n_experts * k).remainder(n_experts).view(-1, k)  # uniform load
    scores = random_scores(len(indices), n_experts).softmax(dim=-1)
    share = F.one_hot(indices, n_experts).double().mean(dim=0)  # (K, E): K was never averaged
    wrong = n_experts * (share * scores.mean(dim=0)).sum()
    assert wrong.item() == pytest.approx(k)
    assert balance.expert_balance_loss(scores, indices, alpha=1.0).item() == pytest.approx(1.0)


def test_trap_7_eq_18_counts_the_choice_without_bias() -> None:
    scores = torch.tensor([[[0.6, 0.4]] * 5])
    routed = choose(scores[0], torch.tensor([-0.3, 0.0]), 1)  # the bias sends all to expert 1
    assert routed.flatten().tolist() == [1] * 5
    ours = balance.sequence_balance_loss(scores, num_experts_per_tok=1, alpha=1.0)
    counted_with_bias = balance.expert_balance_loss(scores[0], routed, alpha=1.0)
    assert ours.item() == pytest.approx(1.2)  # f = (2, 0) as printed: lowers expert 0
    assert counted_with_bias.item() == pytest.approx(0.8)  # f = (0, 2): would lower expert 1


# --- bad input ---


def test_bad_input_is_named() -> None:
    s = torch.full((1, 2, 4), 0.5)
    one_token = torch.tensor([[0]])
    with pytest.raises(ValueError, match="indices must lie in 0 to 3, got 1 to 4"):
        balance.expert_load(torch.tensor([[1, 4]]), n_routed_experts=4)
    with pytest.raises(ValueError, match="got -1 to 0"):
        balance.expert_load(torch.tensor([[-1, 0]]), n_routed_experts=4)
    with pytest.raises(TypeError, match="indices"):
        balance.expert_load(torch.tensor([[1.0]]), n_routed_experts=4)
    with pytest.raises(ValueError, match="load must count at least one token"):
        balance.max_vio(torch.tensor([[1, 2], [0, 0]]))
    with pytest.raises(ValueError, match=r"gamma must be .*got -0\.1"):
        balance.update_bias(torch.zeros(2), torch.tensor([1, 0]), gamma=-0.1)
    with pytest.raises(ValueError, match="alpha must be a finite number, got nan"):
        balance.expert_balance_loss(s[0], one_token.expand(2, 1), alpha=float("nan"))
    with pytest.raises(ValueError, match=r"num_experts_per_tok must lie in 1 .. 4 experts, got 5"):
        balance.sequence_balance_loss(s, num_experts_per_tok=5, alpha=1.0)
    with pytest.raises(ValueError, match=r"scores must be .* not empty, got shape \(1, 0, 4\)"):
        balance.sequence_balance_loss(s[:, :0], num_experts_per_tok=1, alpha=1.0)
    with pytest.raises(ValueError, match="gates must hold at least one gate"):
        balance.BiasBalancer([], gamma=0.1)
    with pytest.raises(ValueError, match=r"the same number of experts, got \[2, 3\]"):
        balance.BiasBalancer([FakeGate(2), FakeGate(3)], gamma=0.1)
    with pytest.raises(TypeError, match=r"e_score_correction_bias .*got Linear without one"):
        balance.BiasBalancer([nn.Linear(2, 2)], gamma=0.1)
    balancer = balance.BiasBalancer([FakeGate(4)], gamma=0.1)
    with pytest.raises(ValueError, match=r"one tensor per gate \(1\), got 2"):
        balancer.observe([one_token, one_token])
    with pytest.raises(RuntimeError, match="call observe"):
        balancer.step()


def test_mismatched_shapes_are_named_without_run_time_annotations() -> None:
    """The annotations that tests switch on refuse these first; a reader runs without them."""
    code = (
        "import torch; from dsnotes.model import balance; one = torch.tensor([[0]])\n"
        "for call in (\n"
        "    lambda: balance.update_bias(torch.zeros(2), torch.tensor([1]), gamma=0.1),\n"
        "    lambda: balance.sequence_balance_loss(torch.ones(2, 3), num_experts_per_tok=1,\n"
        "                                          alpha=1.0),\n"
        "    lambda: balance.expert_balance_loss(torch.ones(2, 3), one, alpha=1.0),\n"
        "    lambda: balance.expert_load(one.float(), n_routed_experts=4),\n"
        "):\n"
        "    try: call()\n"
        "    except (ValueError, TypeError) as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.splitlines() == [
        "load must be a signed whole-number tensor of shape (experts) = (2) (sizes as in bias), "
        "got torch.int64 of shape (1,)",
        "scores must be a floating-point tensor of shape (batch, seq, experts), "
        "got torch.float32 of shape (2, 3)",
        "indices must be a whole-number tensor of shape (*batch, tokens, k) = ([], 2, k) "
        "(sizes as in scores), got torch.int64 of shape (1, 1)",
        "indices must be a whole-number tensor of shape (*tokens, k), "
        "got torch.float32 of shape (1, 1)",
    ], run.stderr
