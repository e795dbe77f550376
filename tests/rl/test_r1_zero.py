"""r1_zero: what is learned and what not, groups without a signal, scores, and a run that learns."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl import rollout, shellgame
from dsnotes.rl.objective import DEEPSEEKMATH, OBJECTIVES
from dsnotes.rl.presets import GPU, LAPTOP, PRESETS, new_model
from dsnotes.rl.r1_zero import base_step, evaluate, grpo_step, rejection_sample, supervised_step
from dsnotes.rl.reward import accuracy_reward, language_reward
from dsnotes.rl.shellgame import NO_THOUGHT, SYMBOLS, decode, encode, is_held_out
from dsnotes.training.loop import train
from dsnotes.training.state import TrainState

SMALL = replace(
    LAPTOP,
    config=replace(LAPTOP.config, hidden_size=32, n_routed_experts=4, initializer_range=0.1),
    swaps=2,
    base_lengths=(1.0, 1.0, 1.0),
    base_steps=120,
    base_batch=64,
    rl_steps=40,
    prompts=8,
    group_size=8,
    rl_learning_rate=3e-3,
)


def fresh(steps: int = 10) -> TrainState:
    return TrainState.create(new_model(SMALL, seed=0), steps=steps, learning_rate=1e-3)


def parrot(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[list[int], int], str], *, samples: int
) -> DeepSeek:
    """A model whose completion number n of a problem is `answer(prompt, n)`."""
    model = new_model(SMALL, seed=0)

    def generate(prompts: Tensor, *, max_new_tokens: int, **options: object) -> Tensor:
        rows = torch.full((len(prompts), max_new_tokens), shellgame.END_ANSWER)
        for i, prompt in enumerate(prompts.tolist()):
            said = encode(answer(prompt, i % samples))
            rows[i, : len(said)] = torch.tensor(said)
        return rows

    monkeypatch.setattr(model, "generate", generate)
    return model


def solve(prompt: list[int]) -> str:
    """The right final position, read from the prompt alone."""
    ball, *swaps, _ = (SYMBOLS[token] for token in prompt[: SMALL.swaps + 2])
    for swap in swaps:
        a, b = swap.split("-")
        ball = {a: b, b: a}.get(ball, ball)
    return ball


# --- supervised training ---


def test_prompt_and_padding_are_not_learned() -> None:
    """The loss is the mean of -log p over the tokens of the completion, one by one."""
    drawn = shellgame.problems(4, swaps=2, generator=torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    text = shellgame.completions(drawn, lengths=SMALL.base_lengths, generator=g)
    assert (text == shellgame.PAD).any()
    run = fresh()
    terms = []
    for prompt, row in zip(drawn.prompts.tolist(), text.tolist(), strict=True):
        logits = run.model(torch.tensor([prompt + row]))[0].log_softmax(-1)
        for i, token in enumerate(row):
            if token != shellgame.PAD:
                terms.append(-logits[len(prompt) + i - 1, token])
    found = supervised_step(run, drawn.prompts, text)["loss"]
    assert found == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)


# --- GRPO ---


def gradients(run: TrainState) -> Tensor:
    found = [p.grad.flatten() for p in run.model.parameters() if p.grad is not None]
    return torch.cat(found)


def test_equal_rewards_give_no_gradient() -> None:
    run = fresh()
    grpo_step(run, SMALL, reward=lambda texts, answer, **columns: [0.7] * len(texts))
    assert not gradients(run).any()


def test_the_loss_is_zero_and_the_gradient_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    loss = rollout.grpo_loss

    def recorded(*a, **k):
        losses.append(loss(*a, **k))
        return losses[-1]

    monkeypatch.setattr(rollout, "grpo_loss", recorded)
    run = fresh()
    grpo_step(run, SMALL, reward=lambda texts, **columns: [float(len(t) % 2) for t in texts])
    assert abs(losses[0].item()) < 1e-6
    assert gradients(run).abs().max() > 1e-4


@pytest.mark.parametrize(
    "values", [None, 1.0, [1.0], [None] * 64, ["1"] * 64, [[1.0]] * 64, [float("nan")] * 64]
)
def test_a_reward_that_is_no_list_of_numbers_is_named(values: object) -> None:
    run = fresh()
    with pytest.raises(ValueError, match=r"reward must return one finite number .* \(64\), got"):
        grpo_step(run, SMALL, reward=lambda texts, **columns: values)
    with pytest.raises(ValueError, match=r"keep must return one finite number .* \(64\), got"):
        rejection_sample(
            run.model, SMALL, problems=32, samples=2, keep=lambda texts, **columns: values
        )
    assert run.step == 0


def test_rewards_may_be_whole_numbers() -> None:
    assert grpo_step(fresh(), SMALL, reward=lambda texts, **c: [1] * len(texts))["reward"] == 1.0


def test_completions_of_padding_alone_are_refused() -> None:
    run, prompts = fresh(), torch.ones(2, 4).long()
    with pytest.raises(ValueError, match="loss must be finite, got nan"):
        supervised_step(run, prompts, torch.full((2, 5), shellgame.PAD))
    assert run.step == 0


def test_columns_and_texts_belong_together() -> None:
    """Every text is scored with the answer of its own problem, the prefix included in the text."""
    seen: list[tuple[list[str], list[str]]] = []

    def reward(texts: list[str], answer: list[str], **columns: Any) -> list[float]:
        seen.append((texts, answer))
        return [0.0] * len(texts)

    run = fresh()
    grpo_step(run, SMALL, reward=reward, prefix=NO_THOUGHT)
    ((texts, answers),) = seen
    drawn = shellgame.problems(8, swaps=2, generator=torch.Generator().manual_seed(0))
    assert answers == [a for a in drawn.answers for _ in range(8)]
    assert all(text.startswith("<think>\n</think>\n<answer>") for text in texts)


def test_training_problems_are_never_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = shellgame.problems
    monkeypatch.setattr(
        shellgame, "problems", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1]
    )
    run = fresh()
    base_step(run, SMALL)
    grpo_step(run, SMALL)
    assert not any(any(is_held_out(d.prompts)) for d in drawn)
    evaluate(run.model, SMALL, problems=5, samples=2)
    assert len(drawn) == 3
    assert all(is_held_out(drawn[-1].prompts))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_published_objective_runs_as_it_is(name: str) -> None:
    run = fresh()
    before = run.model.lm_head.weight.clone()
    report = grpo_step(run, SMALL, reward=odd, objective=OBJECTIVES[name])
    assert 0 < report["reward"] < 1
    assert not run.model.lm_head.weight.equal(before)
    assert (run.reference is not None) == (OBJECTIVES[name].beta > 0)


def odd(texts: list[str], **columns: Any) -> list[float]:
    return [float(len(text) % 2) for text in texts]


def test_a_constant_average_is_over_what_an_answer_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dr. GRPO's max_length is that of the preset, unless the objective has one of its own."""
    seen: list[int | None] = []
    loss = rollout.grpo_loss

    def recorded(*a, objective, **k):
        seen.append(objective.max_length)
        return loss(*a, objective=objective, **k)

    monkeypatch.setattr(rollout, "grpo_loss", recorded)
    grpo_step(fresh(), SMALL, objective=OBJECTIVES["dr-grpo"])
    grpo_step(fresh(), SMALL, objective=replace(OBJECTIVES["dr-grpo"], max_length=50))
    assert seen == [SMALL.max_new_tokens, 50]


def test_the_kl_is_to_the_model_of_the_first_step() -> None:
    """There it is 0 and has no gradient, since r = 1; once the policy has moved it pulls back."""
    equal = lambda texts, **columns: [0.5] * len(texts)  # noqa: E731
    run = fresh()
    start = run.model.lm_head.weight.clone()
    grpo_step(run, SMALL, reward=equal, objective=DEEPSEEKMATH)
    assert gradients(run).abs().max() < 1e-9
    assert run.reference.lm_head.weight.equal(start)
    grpo_step(run, SMALL, reward=odd, objective=DEEPSEEKMATH)
    grpo_step(run, SMALL, reward=equal, objective=DEEPSEEKMATH)
    assert gradients(run).abs().max() > 1e-7
    assert run.reference.lm_head.weight.equal(start)
    run.set_reference()
    assert run.reference.lm_head.weight.equal(run.model.lm_head.weight)


def test_a_rewarded_habit_spreads() -> None:
    """The base writes half of its steps in Chinese and half in English; only Chinese is rewarded.

    (That accuracy rises takes longer: the notebook and the recorded runs show it.)
    """
    options = {"weight_decay": 0.01, "cooldown": 0.3}
    run = TrainState.create(new_model(SMALL, seed=0), steps=60, learning_rate=1e-2, **options)
    list(train(run, lambda r: base_step(r, SMALL, script="mixed"), progress=False))

    def chinese(texts: list[str], **columns: Any) -> list[float]:
        return language_reward(texts, language=["zh"] * len(texts))

    tuned = TrainState.create(run.model, steps=30, learning_rate=3e-3, **options)
    history = list(train(tuned, lambda r: grpo_step(r, SMALL, reward=chinese), progress=False))
    assert history[0]["reward"] < 0.5
    assert history[-1]["reward"] > 0.9


# --- scores ---


def test_pass_at_1_is_a_mean_and_majority_a_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 5 samples, 3 right: pass@1 0.6, majority 1. Two right against three others: 0.4, and 1."""

    def first(prompt: list[int], n: int) -> str:
        said = solve(prompt) if n < 3 else "5" if solve(prompt) != "5" else "1"
        return f"<think> 1 </think> <answer> {said} </answer>"

    result = evaluate(parrot(monkeypatch, first, samples=5), SMALL, problems=20, samples=5)
    assert result.pass_at_1 == pytest.approx(0.6)
    assert (result.majority, result.format, result.length) == (1.0, 1.0, 6.0)

    def second(prompt: list[int], n: int) -> str:
        wrong = [c for c in "12345" if c != solve(prompt)]
        said = solve(prompt) if n >= 3 else wrong[n]
        return f"<think> </think> <answer> {said} </answer>"

    result = evaluate(parrot(monkeypatch, second, samples=5), SMALL, problems=20, samples=5)
    assert result.pass_at_1 == pytest.approx(0.4)
    assert (result.majority, result.format) == (1.0, 0.0)  # nothing thought: not the template


def test_completions_without_an_answer_do_not_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(prompt: list[int], n: int) -> str:
        if n == 0:
            return f"<think> 1 </think> <answer> {solve(prompt)} </answer>"
        return "<think> 1 <think> 1 </answer>"

    result = evaluate(parrot(monkeypatch, answer, samples=4), SMALL, problems=20, samples=4)
    assert result.pass_at_1 == pytest.approx(0.25)
    assert result.majority == 1.0


def test_rejection_sampling_keeps_what_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(prompt: list[int], n: int) -> str:
        said = solve(prompt) if n % 2 else "1"
        return f"<think> 1 </think> <answer> {said} </answer>"

    model = parrot(monkeypatch, answer, samples=4)
    prompts, completions = rejection_sample(
        model, SMALL, problems=30, samples=4, keep=accuracy_reward
    )
    assert len(prompts) >= 60
    for prompt, row in zip(prompts.tolist(), completions.tolist(), strict=True):
        assert decode(row).split("\n")[4] == solve(prompt)
    with pytest.raises(ValueError, match="keep must pass at least one of 8 completions, got none"):
        rejection_sample(
            model, SMALL, problems=4, samples=2, keep=lambda texts, **c: [0.5] * len(texts)
        )


# --- presets ---


def test_presets_hold_the_longest_completion_and_fit_the_model() -> None:
    assert {"laptop": LAPTOP, "gpu": GPU} == PRESETS
    for preset in PRESETS.values():
        assert len(preset.base_lengths) == preset.swaps + 1
        prompt, thought = preset.swaps + 2, preset.swaps + 5
        assert preset.max_new_tokens >= thought
        assert prompt + preset.max_new_tokens <= preset.config.max_position_embeddings
        assert preset.config.vocab_size == shellgame.VOCAB_SIZE


def test_the_preset_for_a_gpu_runs_on_a_cpu_too() -> None:
    """Its model and its lengths, with next to no data."""
    preset = replace(GPU, device="cpu", base_batch=4, prompts=2, group_size=2)
    run = TrainState.create(new_model(preset, seed=0), steps=2, learning_rate=1e-4)
    assert base_step(run, preset)["loss"] > 0
    assert grpo_step(run, preset)["length"] > 0
    assert run.step == 2


# --- recorded runs ---

RUNS = Path(__file__).parents[2] / "book" / "data" / "runs"


@pytest.mark.parametrize(("name", "seeds"), [("grpo", 9), ("r1", 3)])
def test_records_are_of_this_preset(name: str, seeds: int) -> None:
    """Who changes the preset must run the experiments again."""
    record = json.loads((RUNS / f"{name}.json").read_text("utf-8"))
    assert record["settings"]["preset"] == json.loads(json.dumps(asdict(LAPTOP)))
    assert {run["seed"] for run in record["runs"]} == set(range(seeds))
    parameters = sum(p.numel() for p in new_model(LAPTOP, seed=0).parameters())
    if name == "grpo":
        assert record["settings"]["parameters"] == parameters
    else:
        assert {run["parameters"]["base"] for run in record["runs"]} == {parameters}


def test_the_record_of_a_gpu_is_of_its_preset() -> None:
    record = json.loads((RUNS / "grpo_gpu.json").read_text("utf-8"))
    assert record["settings"]["preset"] == json.loads(json.dumps(asdict(GPU)))
    assert record["settings"]["parameters"] == sum(
        p.numel() for p in new_model(replace(GPU, device="cpu"), seed=0).parameters()
    )
    ends = sorted(run["after"]["pass_at_1"] for run in record["runs"])
    assert ends[0] < 0.9 < 0.99 < ends[1]  # as the page says: two learned it, one fell back


def test_recorded_accuracy_rises_on_every_seed_and_in_no_control() -> None:
    record = json.loads((RUNS / "grpo.json").read_text("utf-8"))
    ends = {
        (run["variant"], run["seed"]): (run["before"]["pass_at_1"], run["after"]["pass_at_1"])
        for run in record["runs"]
    }
    for seed in range(9):
        before, after = ends["zero", seed]
        assert before < 0.3
        assert after > 0.9
    for control in ("forbidden", "random", "more_text", "chance"):
        assert max(ends[control, seed][1] for seed in range(3)) < 0.3
