"""grpo: objectives against plain loops and finite differences, one test per trap, bad input."""

import math
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dsnotes.rl.grpo import group_advantages, grpo_loss, process_advantages
from dsnotes.rl.objective import DAPO, DR_GRPO, OBJECTIVES, V3, Objective

# --- advantages ---


@pytest.mark.parametrize(
    ("samples", "right", "up", "down", "up_sample", "down_sample"),
    [
        (8, 1, 2.6458, -0.3780, 2.4749, -0.3536),
        (8, 4, 1.0000, -1.0000, 0.9354, -0.9354),
        (8, 7, 0.3780, -2.6458, 0.3536, -2.4749),
        (16, 1, 3.8730, -0.2582, 3.7500, -0.2500),
        (64, 1, 7.9373, -0.1260, 7.8750, -0.1250),
    ],
)
def test_advantages_of_binary_rewards(
    samples: int, right: int, up: float, down: float, up_sample: float, down_sample: float
) -> None:
    """sqrt((1-p)/p) and -sqrt(p/(1-p)); with the std of a sample both times sqrt((G-1)/G)."""
    rewards = (torch.arange(samples) < right).float()[None]
    population, sample = (group_advantages(rewards, correction=c)[0] for c in (0, 1))
    assert [population[0].item(), population[-1].item()] == pytest.approx([up, down], abs=5e-5)
    found = [sample[0].item(), sample[-1].item()]
    assert found == pytest.approx([up_sample, down_sample], abs=5e-5)
    assert abs(population.sum().item()) < 1e-5


def test_trap_5_normalised_over_the_group_not_the_batch() -> None:
    """An easy question (7 of 8 right) beside a hard one (1 of 8). Over the batch a wrong answer to
    the hard question is blamed as much as one to the easy question, over groups 7 times less."""
    rewards = torch.stack([(torch.arange(8) < n).float() for n in (7, 1)])
    found = group_advantages(rewards)
    assert found.sum(1).abs().max() < 1e-5
    assert (found[0, -1] / found[1, -1]).item() == pytest.approx(7.0, rel=1e-5)
    batch = (rewards - rewards.mean()) / rewards.std(correction=0)
    assert batch[0, -1] == batch[1, -1]
    assert batch.sum(1).abs().min() > 5


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e-30, -7.3])
@pytest.mark.parametrize("samples", [2, 10, 64])
def test_trap_5_zero_variance_gives_exactly_0(value: float, samples: int) -> None:
    """Also where the rounded mean differs from the value (ten times 0.1), and with eps = 0."""
    rewards = torch.full((2, samples), value)
    rewards[1, 0] += 1.0
    for scale in (True, False):
        found = group_advantages(rewards, scale=scale)
        assert found[0].tolist() == [0.0] * samples
        assert found[1].abs().min() > 0


@settings(deadline=None)
@given(
    st.lists(st.integers(-5, 5), min_size=2, max_size=12),
    st.sampled_from([0.5, 1.0, 3.0]),
    st.integers(-4, 4),
)
def test_advantages_ignore_shift_and_positive_scale(
    values: list[int], factor: float, shift: int
) -> None:
    rewards = torch.tensor([values], dtype=torch.float64)
    a, b = group_advantages(rewards), group_advantages(factor * rewards + shift)
    assert torch.allclose(a, b, atol=1e-9)
    assert abs(a.sum().item()) < 1e-9
    if len(set(values)) > 1:
        assert a.square().mean().item() == pytest.approx(1.0)


def test_process_supervision_by_hand() -> None:
    """Three outputs of two, one and three steps: mean and std over all six step rewards."""
    steps = [[(1, 1.0), (4, 0.0)], [(3, 0.5)], [(0, 0.0), (2, 1.0), (3, 1.0)]]
    rewards, ends = torch.full((1, 3, 6), math.nan), torch.zeros(1, 3, 6, dtype=torch.bool)
    for i, marks in enumerate(steps):
        for t, reward in marks:
            rewards[0, i, t], ends[0, i, t] = reward, True
    flat = torch.tensor([reward for marks in steps for _, reward in marks])
    expected = torch.zeros(3, 6)
    for i, marks in enumerate(steps):
        for t in range(6):
            later = [(r - flat.mean()) / flat.std(correction=0) for end, r in marks if end >= t]
            expected[i, t] = sum(later)
    assert torch.allclose(process_advantages(rewards, ends)[0], expected, atol=1e-6)


def test_process_supervision_with_one_step_is_outcome_supervision() -> None:
    rewards, ends = torch.randn(3, 4), torch.zeros(3, 4, 5, dtype=torch.bool)
    ends[..., -1] = True
    per_token = process_advantages(rewards[..., None].expand(3, 4, 5), ends)
    for scale in (True, False):
        per_token = process_advantages(rewards[..., None].expand(3, 4, 5), ends, scale=scale)
        expected = group_advantages(rewards, scale=scale)[..., None].expand(3, 4, 5)
        assert torch.allclose(per_token, expected, atol=1e-6)


def test_leave_one_out_baseline() -> None:
    """G/(G-1) (r - mean) is r less the mean of the others (RLOO, Dr. GRPO appendix A)."""
    rewards = torch.randn(2, 5)
    others = torch.stack([torch.cat([r[:i], r[i + 1 :]]).mean() for r in rewards for i in range(5)])
    found = 5 / 4 * group_advantages(rewards, scale=False)
    assert torch.allclose(found, rewards - others.view(2, 5), atol=1e-6)


# --- the objective ---


def sample(*, batch: int = 6, seq: int = 7, spread: float = 0.3) -> dict[str, Tensor]:
    """Random float64 log-probs; some ratios are clipped, some outputs short, one of one token."""
    log_probs = -torch.rand(batch, seq, dtype=torch.float64) - 0.1
    lengths = torch.tensor([1, seq, 2, 5, seq, 3])[:batch]
    drift = spread * torch.randn(batch, 1) + spread * torch.randn(batch, seq)
    return {
        "log_probs": log_probs,
        "old_log_probs": log_probs + drift.double(),
        "ref_log_probs": log_probs + spread * torch.randn(batch, seq).double(),
        "advantages": torch.randn(batch).double(),
        "mask": torch.arange(seq) < lengths[:, None],
    }


def written_out(
    data: dict[str, Tensor],
    *,
    ratio: str,
    average: str,
    beta: float,
    low: float,
    high: float,
    max_length: int | None,
) -> float:
    """The objectives token by token, in plain Python."""
    outputs = []
    for i, mask in enumerate(data["mask"].tolist()):
        places = [t for t, inside in enumerate(mask) if inside]
        pi, old, ref = (
            [data[name][i, t].item() for t in places]
            for name in ("log_probs", "old_log_probs", "ref_log_probs")
        )
        terms = []
        for j in range(len(places)):
            log_rho = pi[j] - old[j]
            log_r = ref[j] - pi[j]
            if ratio != "token":
                log_rho = sum(pi) - sum(old)
            if ratio == "geometric":
                log_rho /= len(places)
            if ratio == "sequence":
                log_r = sum(ref) - sum(pi)
            rho, a = math.exp(log_rho), data["advantages"][i].item()
            clipped = min(max(rho, 1 - low), 1 + high)
            kl = math.exp(log_r) - log_r - 1
            terms.append(min(rho * a, clipped * a) - beta * kl)
        outputs.append(terms)
    if average == "sequence":
        return -sum(sum(terms) / len(terms) for terms in outputs) / len(outputs)
    if average == "token":
        return -sum(map(sum, outputs)) / sum(map(len, outputs))
    assert max_length is not None
    return -sum(map(sum, outputs)) / len(outputs) / max_length


RATIOS, AVERAGES = ("token", "sequence", "geometric"), ("sequence", "token", "constant")


@pytest.mark.parametrize("beta", [0.0, 0.1])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("ratio", RATIOS)
def test_value_and_gradient(ratio: Any, average: Any, beta: float) -> None:
    """Against the formula in plain Python: the value, and the gradient by central differences."""
    data = sample()
    max_length = 9 if average == "constant" else None
    x = data["log_probs"].clone().requires_grad_()
    objective = Objective(
        ratio=ratio, average=average, beta=beta, clip_high=0.28, max_length=max_length
    )
    loss = grpo_loss(**data | {"log_probs": x}, objective=objective)

    def formula(log_probs: Tensor) -> float:
        return written_out(
            data | {"log_probs": log_probs},
            ratio=ratio,
            average=average,
            beta=beta,
            low=0.2,
            high=0.28,
            max_length=max_length,
        )

    assert loss.item() == pytest.approx(formula(data["log_probs"]), abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, x)
    for i, t in data["mask"].nonzero().tolist():
        step = torch.zeros_like(x)
        step[i, t] = 1e-6
        low, high = formula(data["log_probs"] - step), formula(data["log_probs"] + step)
        assert gradient[i, t].item() == pytest.approx((high - low) / 2e-6, abs=1e-8)
    assert gradient[~data["mask"]].abs().max() == 0
    assert gradient.abs().max() > 1e-3


def test_on_policy_gradient() -> None:
    """DeepSeekMath eq 20-21: with pi = pi_old each token gets A + beta (pi_ref / pi - 1)."""
    data = sample() | {"old_log_probs": None}
    data["old_log_probs"] = data["log_probs"]
    x = data["log_probs"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        grpo_loss(**data | {"log_probs": x}, objective=Objective(beta=0.1)), x
    )
    r = (data["ref_log_probs"] - data["log_probs"]).exp()
    coefficient = data["advantages"][:, None] + 0.1 * (r - 1)
    expected = coefficient / data["mask"].sum(1, keepdim=True) / 6
    assert torch.allclose(-gradient, expected.masked_fill(~data["mask"], 0), atol=1e-12)


def test_published_objectives() -> None:
    """Each preset against its formula; what a report does not give is PPO's 0.2 and no KL."""
    data = sample()
    options: dict[str, Any] = {"beta": 0.0, "low": 0.2, "high": 0.2, "max_length": None}
    formulas = {
        "deepseekmath": options | {"ratio": "token", "average": "sequence", "beta": 0.04},
        "deepseek-v3": options | {"ratio": "sequence", "average": "sequence"},
        "deepseek-r1": options
        | {"ratio": "sequence", "average": "sequence", "low": 10.0, "high": 10.0, "beta": 0.001},
        "dr-grpo": options | {"ratio": "token", "average": "constant", "max_length": 9},
        "dapo": options | {"ratio": "token", "average": "token", "high": 0.28},
    }
    assert formulas.keys() == OBJECTIVES.keys()
    found = {}
    for name, formula in formulas.items():
        objective = replace(OBJECTIVES[name], max_length=formula["max_length"])
        found[name] = grpo_loss(**data, objective=objective).item()
        assert found[name] == pytest.approx(written_out(data, **formula), abs=1e-12), name
    assert len({round(value, 6) for value in found.values()}) == 5
    assert {name for name, objective in OBJECTIVES.items() if not objective.scale} == {"dr-grpo"}


@pytest.mark.parametrize("ratio", RATIOS)
def test_advantages_per_token(ratio: Any) -> None:
    """(batch, seq) advantages: constant ones equal (batch,); others weigh their own token."""
    data = sample()
    wide = data["advantages"][:, None].repeat(1, 7)
    objective = Objective(ratio=ratio)
    plain = grpo_loss(**data, objective=objective)
    assert grpo_loss(**data | {"advantages": wide}, objective=objective) == plain
    wide[1, 3] += 1
    assert grpo_loss(**data | {"advantages": wide}, objective=objective) != plain
    wide[:, 3:] = math.nan
    data["mask"][:, 3:] = False
    assert grpo_loss(**data | {"advantages": wide}, objective=objective).isfinite()


@pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf, 1e4])
@pytest.mark.parametrize("ratio", RATIOS)
def test_trap_2_what_stands_outside_the_mask_does_not_matter(ratio: Any, rubbish: float) -> None:
    """Prompt and padding: same loss bit for bit, gradient 0 there and finite everywhere."""
    data = sample()
    objective = Objective(ratio=ratio, beta=0.1)
    loss = grpo_loss(**data, objective=objective)
    changed = dict(data)
    for name in ("log_probs", "old_log_probs", "ref_log_probs"):
        changed[name] = data[name].masked_fill(~data["mask"], rubbish)
    x = changed["log_probs"].requires_grad_()
    again = grpo_loss(**changed, objective=objective)
    assert torch.equal(loss, again.detach())
    (gradient,) = torch.autograd.grad(again, x)
    assert gradient.isfinite().all()
    assert gradient[~data["mask"]].abs().max() == 0


def test_trap_2_prompt_tokens_in_the_loss() -> None:
    """With the prompt counted, advantages 1 and -1 no longer weigh two outputs alike."""
    ones = torch.ones(2, 10, dtype=torch.bool)
    mask = ones.clone()
    mask[0, :8] = False  # a long prompt and an output of 2
    mask[1, :2] = False
    x = torch.full((2, 10), -1.0, requires_grad=True)
    a = torch.tensor([1.0, -1.0])
    (right,) = torch.autograd.grad(grpo_loss(x, x.detach(), a, mask), x)
    (wrong,) = torch.autograd.grad(grpo_loss(x, x.detach(), a, ones), x)
    assert right.sum(1).tolist() == pytest.approx([-0.5, 0.5])
    assert (wrong * mask).sum(1).tolist() == pytest.approx([-0.1, 0.4])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_trap_3_the_loss_prints_0_and_the_gradient_is_not_0(name: str) -> None:
    """One update a batch and outputs of one length: rho = 1, the advantages sum to 0."""
    objective = OBJECTIVES[name]
    if name == "dr-grpo":
        objective = replace(objective, max_length=5)
    a = group_advantages(torch.tensor([[1.0, 0, 0, 0], [1, 1, 1, 0]]), scale=objective.scale)
    x = torch.full((8, 5), -1.0, requires_grad=True)
    mask = torch.ones(8, 5, dtype=torch.bool)
    loss = grpo_loss(
        x, x.detach(), a.flatten(), mask, objective=objective, ref_log_probs=x.detach()
    )
    (gradient,) = torch.autograd.grad(loss, x)
    assert abs(loss.item()) < 1e-6
    assert torch.equal(gradient.sign(), -a.flatten().sign()[:, None].expand(8, 5))


def test_trap_3_what_the_loss_prints_depends_on_the_average() -> None:
    """Outputs of different lengths: the mean of means still prints 0, the mean over tokens the
    lengths. Neither says whether anything is learnt."""
    x = torch.full((2, 8), -1.0)
    mask = torch.arange(8) < torch.tensor([[2], [8]])
    a = torch.tensor([1.0, -1.0])
    assert grpo_loss(x, x, a, mask).item() == 0
    assert grpo_loss(x, x, a, mask, objective=DAPO).item() == pytest.approx(0.6)


def per_token(average: Any, lengths: list[int], a: list[float], **options: Any) -> list[float]:
    """On policy: how hard each output's tokens are pushed."""
    seq = max(lengths)
    mask = torch.arange(seq) < torch.tensor(lengths)[:, None]
    x = torch.full((len(lengths), seq), -1.0, requires_grad=True)
    objective = Objective(average=average, **options)
    loss = grpo_loss(x, x.detach(), torch.tensor(a), mask, objective=objective)
    return (-torch.autograd.grad(loss, x)[0][:, 0]).tolist()


def test_trap_6_length_bias() -> None:
    """Two wrong answers of 10 and 100 tokens: 1/|o| blames a token of the long one ten times less,
    the mean over tokens and the constant alike."""
    lengths, a = [10, 100, 10, 100], [1.0, 1.0, -1.0, -1.0]
    short_right, long_right, short_wrong, long_wrong = per_token("sequence", lengths, a)
    assert short_wrong / long_wrong == pytest.approx(10)
    assert short_right / long_right == pytest.approx(10)
    for average, options in (("token", {}), ("constant", {"max_length": 100})):
        pushes = per_token(average, lengths, a, **options)
        assert [abs(p) for p in pushes] == pytest.approx([abs(pushes[0])] * 4)


def test_trap_6_token_mean_still_depends_on_the_lengths_of_others() -> None:
    """DAPO's denominator is the number of tokens in the group: the same answer counts less beside
    long ones. A constant denominator does not see them."""
    beside_short, beside_long = (per_token("token", [10, n], [1.0, -1.0])[0] for n in (10, 190))
    assert beside_short / beside_long == pytest.approx(10)
    beside_short, beside_long = (
        per_token("constant", [10, n], [1.0, -1.0], max_length=200)[0] for n in (10, 190)
    )
    assert beside_short == beside_long


def test_dapo_of_several_groups() -> None:
    """DAPO (8) averages within a group, then over groups; "token" over all that is given, as TRL's
    `dapo` does. Groups of 2 + 4 and 20 + 40 tokens: 1/6 and 1/60 against 1/66 for both."""
    lengths, advantages = [2, 4, 20, 40], [1.0] * 4
    in_groups = [
        push / 2
        for i in (0, 2)
        for push in per_token("token", lengths[i : i + 2], advantages[i : i + 2])
    ]
    assert in_groups == pytest.approx([1 / 12, 1 / 12, 1 / 120, 1 / 120])
    assert per_token("token", lengths, advantages) == pytest.approx([1 / 66] * 4)


def test_trap_6_difficulty_bias() -> None:
    """The size of a group's push, sum |A|: without std G 2p(1-p), with std G 2 sqrt(p(1-p)). From
    half right to 1 of 64 right it falls by 16.3 without, by 4.03 with std."""
    rewards = torch.stack([(torch.arange(64) < n).float() for n in (32, 1)])
    for scale, fall in ((False, 16.254), (True, 4.0316)):
        half, one = group_advantages(rewards, scale=scale).abs().sum(1).tolist()
        assert half / one == pytest.approx(fall, rel=1e-4)


def test_trap_7_sequence_ratio_is_not_the_token_ratio() -> None:
    """Twenty tokens, each 2 % more likely: no token is clipped, the output is: 1.02^20 = 1.486."""
    x = torch.full((1, 20), -1.0, requires_grad=True)
    old, mask = x.detach() - math.log(1.02), torch.ones(1, 20, dtype=torch.bool)
    loss = {r: grpo_loss(x, old, torch.ones(1), mask, objective=Objective(ratio=r)) for r in RATIOS}
    moved = {r: torch.autograd.grad(loss[r], x)[0].abs().max().item() > 0 for r in RATIOS}
    assert loss["token"].item() == pytest.approx(-1.02)
    assert loss["geometric"].item() == pytest.approx(-1.02)
    assert loss["sequence"].item() == pytest.approx(-1.2)
    assert moved == {"token": True, "sequence": False, "geometric": True}


def test_trap_8_on_policy_the_sequence_ratio_is_a_sum_over_tokens() -> None:
    """No 1/|o| in V3 eq 26: an output of 10 tokens is pushed at each as hard as one of 100."""
    pushes = per_token("sequence", [10, 100], [1.0, 1.0], ratio="sequence")
    assert pushes == pytest.approx([0.5, 0.5])


def test_an_overflowing_ratio_leaves_no_nan() -> None:
    """exp(200) is inf in float32; where the clip holds, its gradient is 0 and not 0 * inf."""
    x = torch.full((1, 100), -1.0, requires_grad=True)
    mask = torch.ones(1, 100, dtype=torch.bool)
    loss = grpo_loss(x, x.detach() - 2, torch.ones(1), mask, objective=V3)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx(-1.2)
    assert gradient.abs().max() == 0


def test_an_output_without_tokens_counts_0() -> None:
    """DAPO's overlong filter: the truncated output is masked out, the others keep their share."""
    data = sample()
    whole = grpo_loss(**data)
    without = dict(data)
    without["mask"] = data["mask"].clone()
    without["mask"][1] = False
    alone = grpo_loss(**{name: tensor[1:2] for name, tensor in data.items()})
    assert grpo_loss(**without).item() == pytest.approx((whole - alone / 6).item())


def test_bfloat16() -> None:
    data = {n: t.bfloat16() if t.is_floating_point() else t for n, t in sample().items()}
    objective = Objective(beta=0.1)
    found = grpo_loss(**data, objective=objective)
    assert found.dtype == torch.bfloat16
    wide = {n: t.float() if t.is_floating_point() else t for n, t in data.items()}
    assert found.item() == pytest.approx(grpo_loss(**wide, objective=objective).item(), abs=0.02)


# --- bad input ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": torch.zeros(6, 7, dtype=torch.bool)}, "mask must mark at least one token"),
        (
            {"objective": Objective(beta=0.1), "ref_log_probs": None},
            r"ref_log_probs must be given .* got beta 0\.1",
        ),
        (
            {"objective": DR_GRPO},
            "objective must have a max_length with average 'constant', got None",
        ),
        (
            {"old_log_probs": torch.zeros(6, 7, requires_grad=True)},
            "old_log_probs must be detached",
        ),
        ({"advantages": torch.zeros(6, requires_grad=True)}, "advantages must be detached"),
    ],
)
def test_bad_input(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the check of annotations, which users do not have."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        grpo_loss(**sample() | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": -0.1}, r"beta must be at least 0, got -0\.1"),
        ({"clip_low": -1.0}, "clip_low must be at least 0"),
        ({"clip_high": -1.0}, "clip_high must be at least 0"),
        ({"ratio": "tokens"}, r"ratio must be one of \('token', .* got 'tokens'"),
        ({"average": "mean"}, r"average must be one of \('sequence', .* got 'mean'"),
        ({"max_length": 5}, "max_length must be None unless .* got 5 with 'sequence'"),
        ({"average": "constant", "max_length": 0}, "max_length must be at least 1"),
    ],
)
def test_bad_objectives(
    change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ValueError, match=message):
        Objective(**change)
    with pytest.raises(ValueError, match=message):
        replace(DAPO, **{"average": "sequence"} | change)


@pytest.mark.parametrize("name", ["old_log_probs", "ref_log_probs", "mask", "advantages"])
def test_shapes_that_would_broadcast(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """(6, 1) fits (6, 7) by broadcasting, and would be wrong."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    data = sample() | {"advantages": torch.randn(6, 7).double()}
    with pytest.raises(ValueError, match=rf"{name} must be .* \(6, 7\).*as in log_probs.*\(6, 1\)"):
        grpo_loss(**data | {name: data[name][:, :1]})
    with pytest.raises(ValueError, match=r"advantages must be .* = \(6\) or .* got .*\(1,\)"):
        grpo_loss(**data | {"advantages": torch.ones(1)})


def test_bad_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(
        TypeError, match=r"rewards must be a floating-point tensor .* got torch\.int64"
    ):
        group_advantages(torch.tensor([[1, 0]]))
    data = sample()
    with pytest.raises(TypeError, match=r"mask must be a bool tensor .* got torch\.int64"):
        grpo_loss(**data | {"mask": data["mask"].long()})


def test_bad_rewards() -> None:
    with pytest.raises(ValueError, match=r"at least 2 samples, got \(3, 1\)"):
        group_advantages(torch.zeros(3, 1))
    with pytest.raises(ValueError, match="rewards must be finite, got nan or inf"):
        group_advantages(torch.tensor([[1.0, math.nan]]))
    with pytest.raises(ValueError, match="correction must be 0 or 1, got 2"):
        group_advantages(torch.zeros(1, 3), correction=2)
    with pytest.raises(ValueError, match="eps must be at least 0"):
        group_advantages(torch.zeros(1, 3), eps=-1e-4)
    ends = torch.zeros(2, 3, 4, dtype=torch.bool)
    ends[0] = True
    with pytest.raises(ValueError, match=r"at least 2 steps in each group, got \[12, 0\]"):
        process_advantages(torch.zeros(2, 3, 4), ends)
