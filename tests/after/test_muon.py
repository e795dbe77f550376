"""Muon: the iteration on singular values, Algorithm 1 line by line, and the known traps.

`by_the_algorithm` takes the steps of one matrix from the printed lines, with the singular value
decomposition where we multiply matrices. Each `wrong` variant of it is a mistake seen in public
code; the trap tests hold our optimizer against the right one and check that the wrong one is far.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dsnotes.after.muon import Muon, groups_of, matrices, use_muon
from dsnotes.after.newton_schulz import (
    HYBRID,
    SETTLE,
    STEEP,
    newton_schulz_flops,
    orthogonalize,
    singular_values,
)
from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.experts import stack
from dsnotes.model.mtp import add_modules
from dsnotes.training import texts
from dsnotes.training.loop import language_step, train
from dsnotes.training.state import TrainState

STANDARD = (STEEP,) * 5  # of the optimizer as it was published, before V4
SHAPES = [(12, 20), (20, 12), (16, 16), (1, 7)]
LR, DECAY = 0.02, 0.1


def spectrum(x: Tensor) -> Tensor:
    return torch.linalg.svdvals(x.double())


def far(x: Tensor, y: Tensor) -> float:
    return (x - y).abs().max().item()


def by_the_algorithm(
    weight: Tensor, gradients: list[Tensor], *, wrong: str = "", gamma: float = 0.18
) -> Tensor:
    """Algorithm 1 for one matrix, Newton-Schulz on its singular values."""
    (n, m), mu = weight.shape, 0.95
    momentum = torch.zeros_like(weight)
    scale = math.sqrt(max(1, n / m)) if wrong == "ratio" else math.sqrt(max(n, m)) * gamma
    coefficients = {
        "five steps": STANDARD,
        "settles first": (SETTLE,) * 2 + (STEEP,) * 8,
        "b and c exchanged": tuple((a, c, b) for a, b, c in HYBRID),
    }.get(wrong, HYBRID)
    for gradient in gradients:
        if wrong == "mean":  # a running mean, and the whole gradient beside it
            momentum = mu * momentum + (1 - mu) * gradient
        else:
            momentum = mu * momentum + gradient
        direction = momentum if wrong == "no look ahead" else mu * momentum + gradient
        u, s, vh = torch.linalg.svd(direction / direction.norm(), full_matrices=False)
        for a, b, c in coefficients:
            s = a * s + b * s**3 + c * s**5
        weight = weight * (1 - LR * DECAY) - LR * scale * (u * s) @ vh
    return weight


def problem(
    shape: tuple[int, ...], *, steps: int = 4, seed: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """A weight and gradients in float64, some directions of them much larger than others."""
    generator = torch.Generator().manual_seed(seed)
    draw = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(steps + 1)]
    return draw[0], [gradient * torch.logspace(0, -2, shape[-1]) for gradient in draw[1:]]


def stepped(
    weight: Tensor, gradients: list[Tensor], optimizer: Callable[..., torch.optim.Optimizer]
) -> Tensor:
    """The weight after a step with each gradient."""
    parameter = nn.Parameter(weight.clone())
    made = optimizer([parameter])
    for gradient in gradients:
        parameter.grad = gradient.clone()
        made.step()
    return parameter.detach()


def muon(parameters: list[nn.Parameter], **options: object) -> Muon:
    return Muon([{"params": parameters, **options}], lr=LR)


# --- Newton-Schulz ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coefficients", [HYBRID, STANDARD, (SETTLE,)])
def test_the_steps_act_on_singular_values_alone(
    shape: tuple[int, int], coefficients: tuple[tuple[float, float, float], ...]
) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    expected = (u * singular_values(s / s.norm(), coefficients)) @ vh
    assert far(orthogonalize(x, coefficients), expected) < 1e-11


def test_five_steps_leave_a_band_and_eight_and_two_end_at_one() -> None:
    x = torch.randn(12, 20, dtype=torch.float64)
    five, ten = spectrum(orthogonalize(x, STANDARD)), spectrum(orthogonalize(x))
    assert five.min() < 0.75
    assert five.max() > 1.05
    assert far(ten, torch.ones(12)) < 1e-3


def test_the_first_map_misses_one_and_the_second_rests_there() -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert singular_values(one, (STEEP,)).item() == pytest.approx(0.7010)
    assert singular_values(one, (SETTLE,)).item() == 1
    # f'(1) = 0: what is left of an error is of the order of its square
    for error in (1e-2, 1e-3, 1e-4):
        assert (singular_values(one + error, (SETTLE,)) - 1).abs() < 4 * error**2
    a, b, c = SETTLE
    assert a + 3 * b + 5 * c == 0


def test_no_step_of_the_hybrid_leaves_the_reach_of_the_next() -> None:
    """From any value up to 1, even a thousandth: never above 1.21, in the end within 0.004 of 1."""
    sigma = torch.linspace(1e-3, 1, 2000, dtype=torch.float64)
    for k in range(1, len(HYBRID) + 1):
        assert singular_values(sigma, HYBRID[:k]).max() < 1.21
    assert far(singular_values(sigma), torch.ones(2000)) < 4e-3


def test_a_transposed_matrix_gives_the_transposed_result() -> None:
    x = torch.randn(20, 12, dtype=torch.float64)
    assert far(orthogonalize(x.mT.contiguous()), orthogonalize(x).mT) < 1e-14


def test_every_matrix_of_a_stack_goes_its_own_way() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64) * torch.logspace(-3, 3, 6).view(2, 3, 1, 1)
    found = orthogonalize(x)
    for i in range(2):
        for j in range(3):
            assert far(found[i, j], orthogonalize(x[i, j])) < 1e-14


@pytest.mark.parametrize("factor", [1e-30, 1e-42, 1e18, 1e38])
def test_the_size_of_a_gradient_does_not_matter(factor: float) -> None:
    """Also where float32 could not square it: a momentum that decays gets there."""
    x = torch.randn(4, 6).clamp(-1, 1)
    found = orthogonalize(x * factor)
    assert found.isfinite().all()
    assert far(spectrum(found), torch.ones(4)) < 2e-3
    assert far(found, orthogonalize(x)) < (1e-2 if factor < 1e-38 else 1e-5)  # few bits are left


def test_zero_stays_zero() -> None:
    assert torch.equal(orthogonalize(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))


def test_bfloat16_is_enough() -> None:
    """V4 section 3.4.1: the products may be in BF16."""
    found = spectrum(orthogonalize(torch.randn(64, 96).bfloat16()))
    assert far(found, torch.ones(64)) < 0.03


def test_operations_are_those_of_the_products() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for n, m in SHAPES:
        with FlopCounterMode(display=False) as counter:
            orthogonalize(torch.randn(n, m))
        assert counter.get_total_flops() == newton_schulz_flops(n, m)


# --- Algorithm 1 ---


@pytest.mark.parametrize("shape", SHAPES)
def test_the_lines_of_algorithm_1(shape: tuple[int, int]) -> None:
    weight, gradients = problem(shape)
    assert far(stepped(weight, gradients, muon), by_the_algorithm(weight, gradients)) < 1e-12


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (128, 128), (8, 512)])
def test_an_update_has_the_rms_of_gamma_whatever_its_shape(shape: tuple[int, int]) -> None:
    found = stepped(torch.zeros(shape), [torch.randn(shape)], muon) / LR
    assert found.square().mean().sqrt().item() == pytest.approx(0.18, rel=1e-3)


def test_a_stack_of_experts_is_as_many_matrices() -> None:
    weight, gradients = problem((3, 8, 5))
    found = stepped(weight, gradients, muon)
    for i in range(3):
        alone = by_the_algorithm(weight[i], [gradient[i] for gradient in gradients])
        assert far(found[i], alone) < 1e-12


def test_rows_cut_a_weight_into_independent_matrices() -> None:
    weight, gradients = problem((12, 5))
    found = stepped(weight, gradients, lambda p: muon(p, rows=(4, 2)))
    for part in (slice(0, 4), slice(4, 6), slice(6, 10), slice(10, 12)):
        alone = by_the_algorithm(weight[part], [gradient[part] for gradient in gradients])
        assert far(found[part], alone) < 1e-12


def test_matrices_are_views() -> None:
    weight = torch.zeros(2, 6, 5)
    for i, one in enumerate(matrices(weight, rows=(2, 4))):
        one += i + 1
    assert weight[:, :, 0].tolist() == [[1, 1, 2, 2, 2, 2], [3, 3, 4, 4, 4, 4]]


def test_experts_that_live_in_one_stack_stay_there() -> None:
    """`model.experts.stack` moves weights into one tensor, of which each is a view."""
    weight, gradients = problem((3, 8, 5))
    experts = [nn.Parameter(one.clone()) for one in weight]
    optimizer = muon(experts)
    home = None
    for gradient in gradients:
        for expert, own in zip(experts, gradient, strict=True):
            expert.grad = own.clone()
        optimizer.step()
        home = stack(experts)
    assert home is not None
    assert home.data_ptr() == experts[0].data_ptr()
    assert far(home, stepped(weight, gradients, muon)) < 1e-14


def test_the_other_rule_is_adamw() -> None:
    weight, gradients = problem((6, 5))
    ours = stepped(weight, gradients, lambda p: muon(p, rule="adamw"))
    options = {"lr": LR, "betas": (0.9, 0.95), "eps": 1e-20, "weight_decay": DECAY}
    theirs = stepped(weight, gradients, lambda p: torch.optim.AdamW(p, **options))
    assert far(ours, theirs) < 1e-15


def test_a_weight_without_gradient_is_left_alone() -> None:
    used, idle = nn.Parameter(torch.ones(2, 3)), nn.Parameter(torch.ones(2, 3))
    used.grad = torch.randn(2, 3)
    optimizer = muon([used, idle])
    optimizer.step()
    assert torch.equal(idle, torch.ones(2, 3))
    assert list(optimizer.state) == [used]


def test_an_idle_expert_goes_on_at_full_speed() -> None:
    """Its momentum decays, but its size does not count: AdamW's step would fade."""
    gradients = [torch.randn(4, 6), *[torch.zeros(4, 6)] * 2200]
    weight = nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon([weight], lr=LR, weight_decay=0.0)
    moved = []
    for gradient in gradients:
        before, weight.grad = weight.detach().clone(), gradient
        optimizer.step()
        moved.append((weight.detach() - before).square().mean().sqrt().item() / LR)
    assert moved[:1000] == pytest.approx([0.18] * 1000, rel=2e-3)
    assert all(math.isfinite(one) for one in moved)
    assert moved[-1] > 0.1  # the last bit of float32 times 0.95 is rounded up to itself


def test_a_closure_is_asked_for_the_loss() -> None:
    weight = nn.Parameter(torch.ones(2, 3))
    optimizer = muon([weight])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 6
    assert optimizer.step() is None


# --- which weights ---


def names(model: nn.Module, group: dict[str, object]) -> set[str]:
    own = {id(weight) for weight in group["params"]}
    every = model.named_parameters(remove_duplicate=False)  # a module shares the head
    return {name for name, weight in every if id(weight) in own}


def test_matrices_get_muon_and_the_rest_adamw() -> None:
    model = DeepSeek(replace(TINY, num_nextn_predict_layers=1))
    add_modules(model)
    first, last = groups_of(model)
    assert (first["rule"], last["rule"]) == ("muon", "adamw")
    by_muon, by_adamw = names(model, first), names(model, last)
    assert by_muon | by_adamw >= {name for name, _ in model.named_parameters()}
    assert not by_muon & by_adamw
    taken = [id(weight) for group in (first, last) for weight in group["params"]]
    assert sorted(taken) == sorted({id(weight) for weight in model.parameters()})
    kinds = {name.split(".")[-2] for name in by_adamw if "norm" not in name}
    assert kinds == {"embed_tokens", "lm_head", "head"}  # those of the prediction module as well
    for part in ("q_b_proj", "kv_b_proj", "experts.0.down_proj", "mlp.gate.weight", "eh_proj"):
        assert any(part in name for name in by_muon), part


def test_a_pattern_cuts_the_weights_of_its_name() -> None:
    model = DeepSeek(TINY)
    width = TINY.qk_nope_head_dim + TINY.qk_rope_head_dim
    rest, heads, last = groups_of(model, rows={r"q_b_proj": (width,)})
    assert heads["rows"] == (width,)
    assert names(model, heads) == {
        f"model.layers.{i}.self_attn.q_b_proj.weight" for i in range(TINY.num_hidden_layers)
    }
    assert rest["rows"] is None
    assert last["rule"] == "adamw"


def test_a_model_of_matrices_alone_has_one_group() -> None:
    assert [group["rule"] for group in groups_of(nn.Linear(4, 3, bias=False))] == ["muon"]
    assert [group["rule"] for group in groups_of(nn.Linear(4, 3), adamw=".")] == ["adamw"]


# --- an optimizer of PyTorch ---


def test_a_state_dict_goes_on_where_it_was() -> None:
    weight, gradients = problem((6, 5), steps=6)
    whole = stepped(weight, gradients, muon)
    first, second = nn.Parameter(weight.clone()), nn.Parameter(weight.clone())
    optimizer = muon([first])
    for gradient in gradients[:3]:
        first.grad = gradient.clone()
        optimizer.step()
    second.data.copy_(first)
    other = muon([second])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for gradient in gradients[3:]:
        second.grad = gradient.clone()
        other.step()
    assert torch.equal(second, whole)


def run(steps: int, *, rate: float = 3e-3) -> TrainState:
    torch.manual_seed(0)
    state = TrainState.create(DeepSeek(TINY), steps=steps, learning_rate=rate, cooldown=0.5)
    use_muon(state, learning_rate=rate, rows={r"q_b_proj": (24,)})
    return state


def test_the_loop_trains_with_it_and_takes_a_run_up_again(tmp_path: Path) -> None:
    def data():
        return texts.batches(steps=12, batch_size=4, seq_len=16, seed=0)

    whole = run(12)
    losses = [one["loss"] for one in train(whole, language_step, data(), progress=False)]
    assert losses[-1] < losses[0] - 0.3
    assert whole.scheduler.get_last_lr() == [0.0] * 3  # every group follows the schedule
    path = tmp_path / "run.pt"
    for _, _ in zip(
        range(8),
        train(run(12), language_step, data(), checkpoint=path, save_every=6, progress=False),
        strict=False,
    ):
        pass  # interrupted after the eighth step: the file is of the sixth
    again = run(12)
    list(train(again, language_step, data(), checkpoint=path, progress=False))
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_another_setting_is_another_run(tmp_path: Path) -> None:
    saved = run(4).state_dict()
    other = run(4)
    other.optimizer.param_groups[0]["gamma"] = 0.2
    with pytest.raises(ValueError, match=r"optimizer\.0\.gamma 0\.2, got 0\.18"):
        other.load_state_dict(saved)


# --- refusals ---


def test_bad_groups_are_refused_by_name() -> None:
    vector, matrix = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(6, 5))
    with pytest.raises(ValueError, match=r"matrices or stacks of them under 'muon', got shape \(3"):
        muon([vector])
    with pytest.raises(ValueError, match="rule must be 'muon' or 'adamw', got 'sgd'"):
        muon([matrix], rule="sgd")
    for rows in [(4,), (0,), (), (6, 6)]:
        with pytest.raises(ValueError, match=r"rows must be positive and fill the 6 rows"):
            muon([matrix], rows=rows)
    for bad in ({"lr": -1.0}, {"weight_decay": -0.1}, {"gamma": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be at least 0"):
            muon([matrix], **bad)
    for bad in ({"momentum": 1.0}, {"betas": (0.9, 1.0)}):
        with pytest.raises(ValueError, match=f"{next(iter(bad))} must be at least 0 and below 1"):
            muon([matrix], **bad)


def test_a_pattern_in_no_name_is_refused() -> None:
    with pytest.raises(ValueError, match="rows must name weights of the model, got 'q_proj'"):
        groups_of(nn.Linear(4, 3), rows={"q_proj": (1,)})


def test_a_run_that_has_begun_keeps_its_optimizer() -> None:
    state = run(4)
    state.step = 1
    with pytest.raises(ValueError, match="state must be at step 0, got one at 1"):
        use_muon(state, learning_rate=1e-3)


def test_another_schedule_is_refused() -> None:
    state = run(4)
    state.scheduler = torch.optim.lr_scheduler.ConstantLR(state.optimizer)
    with pytest.raises(TypeError, match="state must have a LambdaLR, got ConstantLR"):
        use_muon(state, learning_rate=1e-3)


def test_bad_sizes_of_a_product_are_refused() -> None:
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        newton_schulz_flops(0, 3)


# --- traps ---


def off(wrong: str, *, shape: tuple[int, int] = (12, 20), gamma: float = 0.18) -> float:
    """How far a wrong variant ends from ours, measured in the length of our whole way."""
    weight, gradients = problem(shape)
    ours = stepped(weight, gradients, muon)
    assert far(ours, by_the_algorithm(weight, gradients)) < 1e-12
    other = by_the_algorithm(weight, gradients, wrong=wrong, gamma=gamma)
    return ((other - ours).norm() / (ours - weight).norm()).item()


def test_trap_1_five_steps_are_not_the_hybrid() -> None:
    assert off("five steps") > 0.05
    weight, gradients = torch.zeros(12, 20, dtype=torch.float64), problem((12, 20))[1][:1]
    ours = spectrum(stepped(weight, gradients, muon))
    five = spectrum(by_the_algorithm(weight, gradients, wrong="five steps"))
    assert ours.max() / ours.min() < 1.01
    assert five.max() / five.min() > 1.3


@pytest.mark.parametrize("wrong", ["settles first", "b and c exchanged"])
def test_trap_2_the_order_of_the_coefficients(wrong: str) -> None:
    found = off(wrong)
    assert not found < 0.05  # exchanged ones run away to infinity


def test_trap_3_gamma_is_0_18() -> None:
    assert off("", gamma=0.2) > 0.08


@pytest.mark.parametrize("shape", [(12, 20), (20, 12)])
def test_trap_4_the_scale_is_the_root_of_the_larger_side(shape: tuple[int, int]) -> None:
    assert off("ratio", shape=shape) > 0.1
    rms = {
        n: by_the_algorithm(
            torch.zeros(n, 16, dtype=torch.float64), problem((n, 16))[1][:1], wrong="ratio"
        )
        .square()
        .mean()
        .sqrt()
        .item()
        / LR
        for n in (4, 16)
    }
    assert rms[16] == pytest.approx(rms[4], rel=1e-2)  # 1 / sqrt(m), whatever n is: not 0.18
    assert rms[16] == pytest.approx(0.25, rel=1e-2)


def test_trap_5_a_stack_flattened_into_one_matrix() -> None:
    """The expert with the largest gradient takes the step of all the others."""
    weight, gradients = problem((3, 8, 5))
    scale = torch.tensor([1.0, 1e-3, 1e-3], dtype=torch.float64).view(3, 1, 1)
    gradients = [gradient * scale for gradient in gradients]
    ours = stepped(weight, gradients, muon)
    for i in range(3):
        alone = by_the_algorithm(weight[i], [gradient[i] for gradient in gradients])
        assert far(ours[i], alone) < 1e-12
    flat = by_the_algorithm(weight.flatten(0, 1), [one.flatten(0, 1) for one in gradients])
    assert ((flat.view_as(ours) - ours).norm() / (ours - weight).norm()) > 0.1
    moved = flat.view_as(ours) - weight * (1 - LR * DECAY) ** len(gradients)
    assert moved[1].norm() < 0.01 * moved[0].norm()


def test_trap_6_the_whole_gradient_beside_a_running_mean() -> None:
    assert off("mean") > 0.1
    assert off("no look ahead") > 0.1


def test_trap_7_embedding_and_head_are_not_muons() -> None:
    """A token that did not occur moves under Muon: Newton-Schulz mixes the rows."""
    model = nn.ModuleDict({"embed_tokens": nn.Embedding(6, 4)})
    assert [group["rule"] for group in groups_of(model)] == ["adamw"]
    gradient = torch.zeros(6, 4)
    gradient[:3] = torch.randn(3, 4)
    rows = stepped(torch.zeros(6, 4), [gradient], muon).norm(dim=1)
    by_adamw = stepped(torch.zeros(6, 4), [gradient], lambda p: muon(p, rule="adamw"))
    assert by_adamw.norm(dim=1)[3:].tolist() == [0, 0, 0]
    # the rows that occurred are no longer as large as their gradients say
    assert (
        far(rows[:3] / rows[:3].max(), gradient[:3].norm(dim=1) / gradient.norm(dim=1).max()) > 0.1
    )
