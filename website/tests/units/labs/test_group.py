"""一组回答: advantages, pushes and the clipped objective are those of dsnotes, traps included."""

import math
import random
from dataclasses import replace

import pytest
import torch

from dsnotes.rl.grpo import group_advantages, grpo_loss
from dsnotes.rl.objective import DAPO, DR_GRPO, GRPO, Objective, clipped_surrogate

OBJECTIVES = {"grpo": GRPO, "dapo": DAPO, "dr": replace(DR_GRPO, max_length=40)}
PROMPT = 8
STATES = range(120)


@pytest.fixture
def group(lab):
    return lab("group")


def drawn(seed: int) -> tuple[list[int], list[int]]:
    rng = random.Random(seed)
    share = rng.random()
    right = [int(rng.random() < share) for _ in range(8)]
    return right, [rng.randint(4, 40) for _ in range(8)]


def pushed(right: list[int], lengths: list[int], objective: Objective, *, prompt: int) -> list:
    """The gradient of the objective by each token's log-prob at rho = 1, a row for each answer."""
    rewards = torch.tensor([[1.1 if one else 0.1 for one in right]], dtype=torch.float64)
    advantages = group_advantages(rewards, scale=objective.scale)[0]
    width = max(lengths) + prompt
    mask = torch.tensor([[t < n + prompt for t in range(width)] for n in lengths])
    log_probs = torch.full((8, width), -1.0, dtype=torch.float64, requires_grad=True)
    loss = grpo_loss(log_probs, log_probs.detach(), advantages, mask, objective=objective)
    (gradient,) = torch.autograd.grad(-loss, log_probs)
    return [gradient[i, : n + prompt].tolist() for i, n in enumerate(lengths)]


@pytest.mark.parametrize("scale", [True, False])
def test_advantages_are_those_of_the_library(group, scale: bool) -> None:
    for seed in STATES:
        right, _ = drawn(seed)
        rewards = group.call("GroupLab.rewards", right)
        found = group.call("GroupLab.advantages", rewards, {"scale": scale})
        expected = group_advantages(torch.tensor([rewards], dtype=torch.float64), scale=scale)[0]
        assert found == pytest.approx(expected.tolist(), abs=1e-12)


@pytest.mark.parametrize("prompt", [0, PROMPT])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_each_token_is_pushed_as_the_gradient_says(group, name: str, prompt: int) -> None:
    """`prompt` tokens in the mask are trap 2."""
    wrong = "trap2" if prompt else "none"
    for seed in STATES:
        right, lengths = drawn(seed)
        found = group.call("GroupLab.pushes", right, lengths, name, wrong)
        expected = pushed(right, lengths, OBJECTIVES[name], prompt=prompt)
        for one, tokens in zip(found, expected, strict=True):
            assert tokens == pytest.approx([one] * len(tokens), abs=1e-12)


def test_groups_without_difference_have_no_arrow(group) -> None:
    for right in ([0] * 8, [1] * 8):
        for name in OBJECTIVES:
            assert group.call("GroupLab.pushes", right, [9] * 8, name, "none") == [0] * 8


def test_trap_5_makes_an_advantage_out_of_rounding(group) -> None:
    """As one writes it first, in float64: the mean and the std of the rewards as they are."""
    for seed in STATES:
        right, _ = drawn(seed)
        rewards = [1.1 if one else 0.1 for one in right]
        total = 0.0
        for reward in rewards:  # one after the other: a newer `sum` makes up for rounding
            total += reward
        centred = [reward - total / 8 for reward in rewards]
        squares = 0.0
        for one in centred:
            squares += one * one
        expected = [one / (math.sqrt(squares / 8) or 1) for one in centred]
        found = group.call("GroupLab.advantages", rewards, {"wrong": "trap5"})
        assert found == pytest.approx(expected, abs=1e-12)
    for value in (0.1, 1.1):
        found = group.call("GroupLab.advantages", [value] * 8, {"wrong": "trap5"})
        assert [abs(one) for one in found] == pytest.approx([1] * 8)
        exact = group_advantages(torch.full((1, 8), value, dtype=torch.float64))
        assert exact.tolist() == [[0.0] * 8]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_a_question_weighs(group, name: str) -> None:
    for count in range(9):
        rewards = torch.tensor([[1.1] * count + [0.1] * (8 - count)], dtype=torch.float64)
        expected = group_advantages(rewards, scale=OBJECTIVES[name].scale).abs().sum().item()
        assert group.call("GroupLab.weight", count, name) == pytest.approx(expected, abs=1e-12)


def clipped(seed: int) -> tuple[float, float, float, float]:
    rng = random.Random(seed)
    return (
        rng.uniform(0.05, 2.15),
        rng.choice([-2.0, 2.0, rng.uniform(-2, 2)]),
        rng.uniform(0.05, 0.9),
        rng.uniform(0.05, 0.9),
    )


def objective_of(form: str, rho, advantage, low: float, high: float):
    unclipped, inside = rho * advantage, rho.clamp(1 - low, 1 + high) * advantage
    if form == "min":
        return clipped_surrogate(rho, advantage, clip_low=low, clip_high=high)
    return inside if form == "clip" else torch.max(unclipped, inside)


@pytest.mark.parametrize("form", ["min", "clip", "max"])
def test_the_clipped_objective_and_its_slope(group, form: str) -> None:
    """`clip` and `max` are trap 1, as its tests write them."""
    for seed in range(400):
        ratio, advantage, low, high = clipped(seed)
        rho = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
        a = torch.tensor(advantage, dtype=torch.float64)
        value = objective_of(form, rho, a, low, high)
        (gradient,) = torch.autograd.grad(value, rho, allow_unused=True)
        given = (ratio, advantage, low, high, form)
        assert group.call("GroupLab.surrogate", *given) == pytest.approx(value.item(), abs=1e-12)
        assert group.call("GroupLab.slope", *given) == pytest.approx(gradient.item(), abs=1e-12)


def test_on_a_corner_the_slope_is_that_of_autograd(group) -> None:
    for edge in (0.75, 1.25):
        for advantage in (-2.0, 2.0):
            rho = torch.tensor(edge, dtype=torch.float64, requires_grad=True)
            a = torch.tensor(advantage, dtype=torch.float64)
            value = clipped_surrogate(rho, a, clip_low=0.25)
            (gradient,) = torch.autograd.grad(value, rho)
            found = group.call("GroupLab.slope", edge, advantage, 0.25, 0.25, "min")
            assert found == gradient.item()


def test_a_step_climbs_the_objective(group) -> None:
    """0.05 times the gradient of the library's objective by the log-prob."""
    for seed in STATES:
        ratio, advantage, low, high = clipped(seed)
        old = torch.full((1, 1), -1.0, dtype=torch.float64)
        log_probs = (old + math.log(ratio)).requires_grad_()
        loss = grpo_loss(
            log_probs,
            old,
            torch.tensor([advantage], dtype=torch.float64),
            torch.ones(1, 1, dtype=torch.bool),
            objective=Objective(clip_low=low, clip_high=high),
        )
        (gradient,) = torch.autograd.grad(-loss, log_probs)
        expected = math.exp((log_probs + 0.05 * gradient - old).item())
        found = group.call("GroupLab.stepped", ratio, advantage, low, high, "min")
        assert found == pytest.approx(expected, abs=1e-9)


def test_presets_say_different_things(group) -> None:
    presets = group.eval("GroupLab.presets")
    said = {group.say(group.state(**preset["state"])) for preset in presets}
    assert len(said) == len(presets) == 5


REACHED = [
    {"right": [1] * 8},
    {"lengths": [14, 10, 36, 18, 12, 11, 22, 13]},
    {"tab": "clip", "rho": 0.78},
]


@pytest.mark.parametrize("number", range(3))
def test_goals_can_be_reached(group, number: int) -> None:
    assert not group.goal(number, group.state())
    assert group.goal(number, group.state(**REACHED[number]))


def test_only_the_length_bias_reaches_the_second_goal(group) -> None:
    """As its reply says: with a constant below, the push on answer 5 stays the same."""
    long = group.state(**REACHED[1])
    for objective in ("dr", "dapo"):
        assert not group.goal(1, long | {"objective": objective})
    given = [group.state()["lengths"], long["lengths"]]
    before, after = (
        group.call("GroupLab.pushes", long["right"], each, "dr", "none") for each in given
    )
    assert before == after


def test_steps_reach_the_third_goal_only_when_the_smaller_is_taken(group) -> None:
    """As its reply says: 1 is passed before 1 - eps, and the wrong way nothing moves."""
    for form, stuck in (("none", False), ("clip", True)):
        now, seen = group.state(tab="clip", form=form), []
        for _ in range(12):
            now = group.call("GroupLab.moved", now)
            seen.append(now["rho"])
        assert (seen == [1.5] * 12) is stuck
        assert (seen[-1] < 0.8 and any(0.95 < rho < 1.05 for rho in seen)) is not stuck
        assert group.goal(2, now) is not stuck


def test_what_the_page_says_of_trap_1(group) -> None:
    for form, value, pull in (("min", -3, -2), ("clip", -2.4, 0)):
        given = (1.5, -2, 0.2, 0.2, form)
        assert group.call("GroupLab.surrogate", *given) == pytest.approx(value)
        assert group.call("GroupLab.slope", *given) == pull
