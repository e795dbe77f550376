"""offpolicy: the KL enumerated, the mask by hand, support and experts replayed, the mistakes."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsnotes.after.offpolicy import (
    keep_routing,
    kept_log_probs,
    off_policy_mask,
    sampling_support,
    unbiased_kl,
    v32_loss,
)
from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import Gate, MoE, record_routing
from dsnotes.rl.grpo import group_advantages, grpo_loss
from dsnotes.rl.objective import k3, token_log_probs

Estimator = Callable[[Tensor, Tensor, Tensor], Tensor]
VOCAB = 7


def policies(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of pi, pi_old and pi_ref over seven outcomes, float64."""
    return torch.randn(3, VOCAB, generator=torch.Generator().manual_seed(seed)).double().unbind()


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum()


def enumerated(
    estimator: Estimator, logits: Tensor, old: Tensor, ref: Tensor
) -> tuple[float, Tensor]:
    """Mean over samples from pi_old of value and gradient; the samples are already drawn."""
    leaf = logits.clone().requires_grad_()
    log_old = old.log_softmax(-1)
    each = estimator(leaf.log_softmax(-1), log_old, ref.log_softmax(-1))
    mean = (log_old.exp() * each).sum()
    return mean.item(), torch.autograd.grad(mean, leaf)[0]


def true_kl(logits: Tensor, ref: Tensor) -> tuple[float, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = kl(leaf.log_softmax(-1), ref.log_softmax(-1))
    return value.item(), torch.autograd.grad(value, leaf)[0]


def plain(pi: Tensor, old: Tensor, ref: Tensor) -> Tensor:
    return k3(pi, ref)


def detached(pi: Tensor, old: Tensor, ref: Tensor) -> Tensor:
    return (pi - old).exp().detach() * k3(pi, ref)


# --- unbiased KL ---


@pytest.mark.parametrize("seed", range(5))
def test_value_and_gradient_are_exact_off_policy(seed: int) -> None:
    pi, old, ref = policies(seed)
    value, gradient = true_kl(pi, ref)
    found, slope = enumerated(unbiased_kl, pi, old, ref)
    assert found == pytest.approx(value, abs=1e-14)
    assert (slope - gradient).abs().max() < 1e-14
    biased, wrong = enumerated(plain, pi, old, ref)
    assert abs(biased - value) > 0.01
    assert (wrong - gradient).abs().max() > 0.02


@pytest.mark.parametrize("seed", range(5))
def test_on_policy_the_value_was_right_and_the_gradient_was_not(seed: int) -> None:
    """k3 has the gradient of KL(ref || pi) there; the ratio is 1, and its gradient is not 0."""
    pi, _, ref = policies(seed)
    value, gradient = true_kl(pi, ref)
    biased, wrong = enumerated(plain, pi, pi, ref)
    assert biased == pytest.approx(value, abs=1e-14)
    assert (wrong - gradient).abs().max() > 0.02
    found, slope = enumerated(unbiased_kl, pi, pi, ref)
    assert found == pytest.approx(value, abs=1e-14)
    assert (slope - gradient).abs().max() < 1e-14


@pytest.mark.parametrize("seed", range(5))
def test_trap_1_a_detached_ratio_mends_the_value_alone(seed: int) -> None:
    """Its gradient is rho (1 - x): that of the other direction, whatever the samples."""
    pi, old, ref = policies(seed)
    value, gradient = true_kl(pi, ref)
    found, slope = enumerated(detached, pi, old, ref)
    assert found == pytest.approx(value, abs=1e-14)
    assert (slope - gradient).abs().max() > 0.02
    on_policy = enumerated(plain, pi, pi, ref)[1]
    assert torch.allclose(slope, on_policy, atol=1e-14)


def test_the_weight_of_a_token_is_the_log_ratio() -> None:
    """d(rho k3)/d log pi = rho log(pi / ref). At a log-ratio of 10 k3 alone pushes by 1 - e^10."""
    log_x = torch.tensor([10.0, 1.0, 0.0, -10.0], dtype=torch.float64)
    pi = torch.full((4,), -20.0, dtype=torch.float64, requires_grad=True)
    (weight,) = torch.autograd.grad(unbiased_kl(pi, pi.detach(), pi.detach() + log_x).sum(), pi)
    assert torch.allclose(weight, -log_x, atol=1e-10)
    (weight,) = torch.autograd.grad(k3(pi, pi.detach() + log_x).sum(), pi)
    assert torch.allclose(weight, 1 - log_x.exp())
    assert round(weight[0].item()) == -22025


def test_half_precision_keeps_small_differences() -> None:
    pi, old = torch.full((2, 1), -1.0).half()
    found = unbiased_kl(pi, old, torch.tensor([-1.01]).half())
    assert found.item() == pytest.approx(5e-5, rel=0.05)


# --- off-policy sequence mask ---


def test_mask_by_hand() -> None:
    """Drift 0.6, 0.6, 0.2, and 0.4 where a padding place of 9 would make it more."""
    sampled = torch.full((4, 3), -1.0)
    mask = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]]).bool()
    now = sampled - torch.tensor([[1.2, 0.3, 0.3], [1.2, 0.3, 0.3], [0.2, 0.2, 0.2], [0.3, 0.5, 9]])
    a = torch.tensor([0.5, -0.5, -0.5, -0.5])
    assert off_policy_mask(now, sampled, a, mask, delta=0.5).tolist() == [True, False, True, True]
    assert off_policy_mask(now, sampled, a, mask, delta=0.1).tolist() == [True, False, False, False]
    assert off_policy_mask(now, sampled, 0 * a, mask, delta=0.0).all()  # A = 0 is not below 0


def test_mask_is_one_sided() -> None:
    """An answer that has become more probable has a negative drift and stays."""
    sampled = torch.full((1, 3), -3.0)
    args = sampled, torch.tensor([-1.0]), torch.ones(1, 3, dtype=torch.bool)
    assert off_policy_mask(sampled + 2, *args, delta=0.1).tolist() == [True]
    assert off_policy_mask(sampled - 2, *args, delta=0.1).tolist() == [False]


Batch = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def batch() -> Batch:
    """log pi, log pi_old, log pi_ref, A, mask: four outputs; the second is bad and far away."""
    g = torch.Generator().manual_seed(0)
    pi, old, ref = -torch.rand(3, 4, 5, generator=g).double() - 0.5
    old[1] = pi[1] + 1.0
    mask = torch.arange(5) < torch.tensor([[5], [4], [3], [5]])
    return pi, old, ref, torch.tensor([0.5, -0.5, 0.25, -0.25]).double(), mask


def gradient(loss: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    leaf = at.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def test_objective_by_its_definition(batch: Batch) -> None:
    """Token by token, as eq 8 stands."""
    pi, old, ref, a, mask = batch
    total = 0.0
    for i in range(4):
        tokens = [t for t in range(5) if mask[i, t]]
        drift = sum(float(old[i, t] - pi[i, t]) for t in tokens) / len(tokens)
        m = 0.0 if a[i] < 0 and drift > 0.5 else 1.0
        for t in tokens:
            r, x = (pi[i, t] - old[i, t]).exp(), (ref[i, t] - pi[i, t]).exp()
            surrogate = min(r * a[i], r.clamp(0.8, 1.2) * a[i]) * m
            total += float(surrogate - 0.1 * r * (x - x.log() - 1)) / len(tokens) / 4
    found = v32_loss(pi, old, a, mask, beta=0.1, ref_log_probs=ref, delta=0.5)
    assert found.item() == pytest.approx(-total, abs=1e-14)


def test_without_mask_and_kl_it_is_grpo(batch: Batch) -> None:
    pi, old, _, a, mask = batch
    assert torch.equal(v32_loss(pi, old, a, mask), grpo_loss(pi, old, a, mask))
    kept = v32_loss(pi, old, a, mask, delta=2.0)
    assert torch.equal(kept, v32_loss(pi, old, a, mask))


def test_trap_2_pi_old_recomputed_by_the_trainer(batch: Batch) -> None:
    """The engine gave other probabilities than the trainer, which has not moved at all: compared
    with itself the trainer sees no drift, and the bad output stays."""
    pi, _, _, _, mask = batch
    engine = pi + 0.8  # of sampling, by other arithmetic and other experts
    a = torch.full((4,), -0.5).double()
    assert not off_policy_mask(pi, engine, a, mask, delta=0.5).any()
    assert off_policy_mask(pi, pi.clone(), a, mask, delta=0.5).all()  # the mistake
    right = v32_loss(pi, pi.clone(), a, mask, delta=0.5, sampled_log_probs=engine)
    wrong = v32_loss(pi, pi.clone(), a, mask, delta=0.5)
    assert (right.item(), wrong.item()) == (0.0, pytest.approx(0.5))


def test_trap_3_good_outputs_are_never_masked(batch: Batch) -> None:
    """Masked by drift alone, a good output from afar would teach nothing."""
    pi, _, _, a, mask = batch
    slope = gradient(lambda x: v32_loss(x, pi + 1.0, a.abs(), mask, delta=0.5), pi)
    assert (slope[mask] < 0).all()
    drift = ((pi + 1.0 - pi) * mask).sum(1) / mask.sum(1)
    blind = drift <= 0.5  # the mistake
    assert not blind.any()


def test_trap_4_a_dropped_output_still_pays_its_kl(batch: Batch) -> None:
    pi, old, ref, a, mask = batch
    slope = gradient(
        lambda x: v32_loss(x, old, a, mask, beta=0.1, ref_log_probs=ref, delta=0.5), pi
    )
    rho = (pi - old).exp()
    expected = 0.1 * rho * (pi - ref) / 4 / 4  # of the second output, 4 tokens, 4 outputs
    assert torch.allclose(slope[1, :4], expected[1, :4], atol=1e-14)
    assert slope[1, :4].abs().min() > 0  # multiplied into the KL as well it would be 0


def test_trap_5_no_division_by_the_std() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]])
    found = group_advantages(rewards, scale=False)
    assert torch.allclose(found[0], torch.tensor([0.75, -0.25, -0.25, -0.25]))
    ratio = group_advantages(rewards) / found
    assert torch.allclose(ratio, torch.full_like(ratio, 1 / 0.1875**0.5))
    hard = torch.tensor([[1.0] + 63 * [0.0]])  # 1 of 64: the std would weigh it 8 times as much
    assert (group_advantages(hard) / group_advantages(hard, scale=False))[0, 0] > 8


def test_trap_7_what_stands_outside_the_mask_makes_no_nan(batch: Batch) -> None:
    """-inf of a padding token: `torch.where` after the arithmetic has the gradient 0 * inf."""
    pi, old, ref, a, mask = batch
    holes = [x.masked_fill(~mask, -torch.inf) for x in (pi, old, ref)]
    options = {"beta": 0.1, "delta": 0.5}
    slope = gradient(
        lambda x: v32_loss(x, holes[1], a, mask, ref_log_probs=holes[2], **options), holes[0]
    )
    clean = gradient(lambda x: v32_loss(x, old, a, mask, ref_log_probs=ref, **options), pi)
    assert torch.equal(slope.masked_fill(~mask, 0), clean)
    assert (slope[~mask] == 0).all()

    def late(x: Tensor) -> Tensor:
        log_x = holes[2] - x
        return torch.where(mask, (log_x.exp() - log_x - 1) * (x - holes[1]).exp(), 0.0).sum()

    assert gradient(late, holes[0]).isnan().any()


# --- the support of sampling ---


def test_support_by_hand() -> None:
    p = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    assert sampling_support(p.log(), top_p=0.7).tolist() == [False, True, False, True, False]
    assert sampling_support(p.log(), top_p=0.71).sum() == 3
    assert sampling_support(p.log(), top_k=2).tolist() == [False, True, False, True, False]
    # of the two that top-k leaves, 0.4 / 0.7 reaches 0.5 alone
    assert sampling_support(p.log(), top_k=2, top_p=0.5).sum() == 1
    assert sampling_support(p.log()).all()
    assert sampling_support(torch.tensor([0.0, -900.0, -50.0])).all()  # 1 is not a share to reach
    assert sampling_support(torch.zeros(4), top_p=0.5).tolist() == [True, True, False, False]


def test_trap_8_without_the_mask_the_ratio_is_below_1_on_average() -> None:
    """Samples come from the cut distribution; E[pi / pi_sampled] is 1 on the same support, and
    without it what pi leaves to the tokens outside is missing."""
    now, then = torch.randn(2, 7, generator=torch.Generator().manual_seed(1)).double()
    support = sampling_support(then, top_p=0.8)
    assert 1 < support.sum() < 7
    p_sampled = then.masked_fill(~support, -torch.inf).softmax(-1)
    drawn = support.nonzero()[:, 0]  # every outcome that can be drawn, enumerated
    tokens = torch.stack([torch.zeros_like(drawn), drawn], dim=1)
    logits = now.expand(len(drawn), 2, 7)
    rows = support.expand_as(logits)
    mask = torch.ones(len(drawn), 1, dtype=torch.bool)
    log_p = kept_log_probs(logits, tokens, rows, mask)[:, 0]
    mean = (p_sampled[drawn] * (log_p - p_sampled[drawn].log()).exp()).sum()
    assert mean.item() == pytest.approx(1, abs=1e-14)
    whole = token_log_probs(logits, tokens)[:, 0]
    without = (p_sampled[drawn] * (whole - p_sampled[drawn].log()).exp()).sum()
    assert without.item() == pytest.approx(now.softmax(-1)[support].sum().item(), abs=1e-14)
    assert without < 0.95


def test_kept_log_probs_and_their_gradient() -> None:
    logits = torch.randn(2, 4, 7).double().requires_grad_()
    tokens = torch.randint(7, (2, 4))
    support = torch.rand(2, 4, 7) < 0.5
    support[:, :-1].scatter_(-1, tokens[:, 1:, None], True)
    mask = torch.tensor([[0, 1, 1], [0, 1, 0]]).bool()
    support[0, 0] = False  # of a prompt, where nothing was sampled
    found = kept_log_probs(logits, tokens, support, mask)
    (slope,) = torch.autograd.grad(found[mask].sum(), logits)
    assert found.isfinite().all()
    assert slope.isfinite().all()
    assert (slope[:, :-1][mask][~support[:, :-1][mask]] == 0).all()
    kept = logits[0, 1][support[0, 1]].log_softmax(-1)
    place = support[0, 1][: tokens[0, 2]].sum()
    assert found[0, 1].item() == pytest.approx(kept[place].item(), abs=1e-14)


# --- the experts of sampling ---

ONE = replace(TINY, n_group=1, topk_group=1)


def experts_with_gradient(layer: MoE) -> list[int]:
    return [
        i
        for i, expert in enumerate(layer.experts)
        if any(p.grad is not None and p.grad.abs().max() > 0 for p in expert.parameters())
    ]


def test_replayed_experts_get_the_gradient() -> None:
    """The engine's router is off by rounding: other experts win, unless its choice is kept."""
    torch.manual_seed(0)
    trainer, engine = MoE(ONE), MoE(ONE)
    engine.load_state_dict(trainer.state_dict())
    with torch.no_grad():
        engine.gate.weight.add_(0.01 * torch.randn_like(engine.gate.weight))
    x = torch.randn(3, ONE.hidden_size)
    with record_routing(engine) as sampled, torch.no_grad():
        engine(x)
    used = sorted(sampled[0].indices.unique().tolist())
    trainer(x).sum().backward()
    free = experts_with_gradient(trainer)
    trainer.zero_grad()
    with keep_routing(trainer, [sampled[0].indices]), record_routing(trainer) as replayed:
        trainer(x).sum().backward()
    assert free != used
    assert experts_with_gradient(trainer) == used
    assert torch.equal(replayed[0].indices, sampled[0].indices)


def test_trap_9_the_choice_is_replayed_and_the_weights_are_not() -> None:
    """With the weights of sampling as well, the router gets no gradient."""
    torch.manual_seed(0)
    layer, x = MoE(ONE), torch.randn(5, ONE.hidden_size)
    with record_routing(layer) as noted, torch.no_grad():
        layer(x)
    with keep_routing(layer, [noted[0].indices]):
        layer(x).square().sum().backward()
    assert layer.gate.weight.grad is not None
    assert layer.gate.weight.grad.abs().max() > 1e-3

    layer.zero_grad()
    stored = noted[0]
    handle = layer.gate.register_forward_hook(lambda *_: stored)  # the mistake
    layer(x).square().sum().backward()
    handle.remove()
    assert layer.gate.weight.grad is None


def test_a_whole_model_replayed() -> None:
    """Own choices replayed change nothing; groups and scaling too; the block ends."""
    torch.manual_seed(0)
    model, tokens = DeepSeek(TINY), torch.randint(TINY.vocab_size, (2, 9))
    with record_routing(model) as noted:
        logits = model(tokens)
    indices = [routing.indices for routing in noted]
    with keep_routing(model, indices):
        assert torch.equal(model(tokens), logits)
    others = [(i + 1) % TINY.n_routed_experts for i in indices]
    with keep_routing(model, others):
        assert not torch.allclose(model(tokens), logits)
    assert torch.equal(model(tokens), logits)


def test_anticipatory_routing_is_the_same_replay() -> None:
    """V4 section 4.2.3: features of now, indices of an older router."""
    torch.manual_seed(0)
    layer, x = MoE(ONE), torch.randn(6, ONE.hidden_size)
    old = Gate(ONE)
    old.load_state_dict(layer.gate.state_dict())
    with torch.no_grad():
        layer.gate.weight.add_(0.5 * torch.randn_like(layer.gate.weight))
    with keep_routing(layer, [old(x).indices]), record_routing(layer) as noted:
        layer(x)
    assert torch.equal(noted[0].indices, old(x).indices)
    now = layer.gate._affinity(x).gather(1, noted[0].indices)
    weights = now / now.sum(1, keepdim=True) * ONE.routed_scaling_factor
    assert torch.allclose(noted[0].weights, weights)


# --- bad input ---


def test_bad_input(batch: Batch) -> None:
    pi, old, ref, a, mask = batch
    with pytest.raises(ValueError, match="old_log_probs must be detached"):
        unbiased_kl(pi, old.clone().requires_grad_(), ref)
    with pytest.raises(ValueError, match="log_probs lie too far from"):
        unbiased_kl(pi.float(), old.float() - 500, ref.float())
    with pytest.raises(ValueError, match=r"delta must be at least 0, got -0\.1"):
        off_policy_mask(pi, old, a, mask, delta=-0.1)
    with pytest.raises(ValueError, match="mask must mark at least one token"):
        off_policy_mask(pi, old, a, torch.zeros_like(mask), delta=0.1)
    with pytest.raises(ValueError, match="must be finite on every output token"):
        off_policy_mask(pi, old.masked_fill(mask, torch.nan), a, mask, delta=0.1)
    with pytest.raises(ValueError, match=r"beta must be at least 0, got -1\.0"):
        v32_loss(pi, old, a, mask, beta=-1.0)
    with pytest.raises(ValueError, match=r"ref_log_probs must be given with a beta, got beta 0\.1"):
        v32_loss(pi, old, a, mask, beta=0.1)
    with pytest.raises(ValueError, match=r"top_p must lie above 0 and at most at 1, got 0\.0"):
        sampling_support(pi, top_p=0.0)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        sampling_support(pi, top_k=0)
    logits, tokens = torch.zeros(1, 2, 4), torch.tensor([[0, 1]])
    support = torch.tensor([True, False, True, True]).expand(1, 2, 4)
    with pytest.raises(ValueError, match="support must contain every token of the output"):
        kept_log_probs(logits, tokens, support, torch.ones(1, 1, dtype=torch.bool))


def replayed(layer: MoE, indices: list[Tensor], *, calls: int = 1) -> None:
    with keep_routing(layer, indices):
        for _ in range(calls):
            layer(torch.ones(3, ONE.hidden_size))


def test_bad_routing() -> None:
    layer = MoE(ONE)
    good = torch.zeros(3, ONE.num_experts_per_tok, dtype=torch.long)
    with pytest.raises(ValueError, match=r"one entry a call of a gate, got 1$"):
        replayed(layer, [good], calls=2)
    with pytest.raises(ValueError, match="one entry a call of a gate, got 1 more"):
        replayed(layer, [good, good])
    with pytest.raises(ValueError, match=r"indices must have shape \(3, 4\), got \(2, 4\)"):
        replayed(layer, [good[:2]])
    with pytest.raises(ValueError, match="indices must lie in 0 to 15, got 16 to 16"):
        replayed(layer, [good + 16])
    assert not layer.gate._forward_hooks  # none is left behind
