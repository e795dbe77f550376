"""The training loop: it learns, repeats, balances only when told to; evaluating changes nothing."""

import dataclasses
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from dsnotes.config import TINY
from dsnotes.model import balance
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules, modules, mtp_loss, predict
from dsnotes.training import loop, texts
from dsnotes.training.state import Report, TrainState

SMALL = dataclasses.replace(
    TINY,
    hidden_size=32,
    num_hidden_layers=2,
    n_routed_experts=8,
    num_experts_per_tok=2,
    n_group=1,
    topk_group=1,
    initializer_range=0.02,
)


def trained(
    model: DeepSeek, data: list[texts.Batch], *, learning_rate: float = 3e-3, **options: object
) -> list[Report]:
    state = TrainState.create(model, steps=len(data), learning_rate=learning_rate)
    return list(loop.train(state, partial(loop.language_step, **options), data, progress=False))


def run(steps: int = 12, **options: object) -> tuple[DeepSeek, list[Report]]:
    torch.manual_seed(0)
    model = DeepSeek(SMALL)
    data = list(texts.batches(steps=steps, batch_size=4, seq_len=64, seed=0))
    return model, trained(model, data, **options)


def biases(model: DeepSeek) -> torch.Tensor:
    return torch.stack([m.gate.e_score_correction_bias for m in loop.moe_layers(model)])


def test_the_loss_falls_from_chance_and_repeats() -> None:
    _, first = run()
    _, second = run()
    assert first[0]["loss"] == pytest.approx(5.55, abs=0.05)  # ln 256
    assert first[-1]["loss"] < 5.3
    assert [report["loss"] for report in first] == [report["loss"] for report in second]


def test_next_token_loss_scores_position_i_against_token_i_plus_1() -> None:
    tokens = torch.tensor([[3, 1, 2]])
    logits = torch.full((1, 3, 4), -100.0)
    logits[0, 0, 1] = logits[0, 1, 2] = 100.0  # the last position predicts nothing
    assert loop.next_token_loss(logits, tokens).item() == 0


@pytest.mark.parametrize("shape", [(4, 1), (4, 0), (0, 8)])
def test_nothing_to_predict_is_named(shape: tuple[int, int]) -> None:
    """A mean over nothing is NaN, and one step on it makes all weights NaN."""
    torch.manual_seed(0)
    model = DeepSeek(SMALL)
    batch = texts.Batch(torch.zeros(shape).long(), torch.zeros(shape[0]).long())
    with pytest.raises(ValueError, match=r"tokens must hold two of a sequence, got shape \("):
        loop.next_token_loss(torch.zeros(*shape, 256), batch.tokens)
    with pytest.raises(ValueError, match=r"batch must hold tokens to predict, got \("):
        loop.evaluate(model, batch)
    with pytest.raises(ValueError, match="tokens must"):
        trained(model, [batch])


def test_load_counts_every_token_of_the_batch() -> None:
    _, steps = run(steps=2)
    assert steps[0]["load"].shape == (1, SMALL.n_routed_experts)
    assert steps[0]["load"].sum().item() == 4 * 64 * SMALL.num_experts_per_tok


def test_biases_move_by_gamma_only_when_asked_to() -> None:
    assert not biases(run(steps=3)[0]).any()
    assert not biases(run(steps=3, expert_alpha=0.1, sequence_alpha=0.1)[0]).any()
    model, steps = run(steps=1, gamma=0.01)
    expected = torch.zeros(SMALL.n_routed_experts)
    balance.update_bias(expected, steps[0]["load"][0], gamma=0.01)
    assert biases(model)[0].equal(expected)


def test_gamma_may_follow_a_schedule() -> None:
    """A step knows its number: what shall change in a run is a function of it."""

    def step(state: TrainState, batch: texts.Batch) -> Report:
        return loop.language_step(state, batch, gamma=0.01 if state.step < 2 else 0.0)

    torch.manual_seed(0)
    frozen_after_two = DeepSeek(SMALL)
    state = TrainState.create(frozen_after_two, steps=6, learning_rate=3e-3)
    data = texts.batches(steps=6, batch_size=4, seq_len=64, seed=0)
    list(loop.train(state, step, data, progress=False))
    assert biases(frozen_after_two).equal(biases(run(steps=2, gamma=0.01)[0]))


def test_the_learning_rate_may_follow_a_schedule() -> None:
    """PyTorch's schedulers take the place of ours."""
    one, _ = run(steps=1)
    torch.manual_seed(0)
    three = DeepSeek(SMALL)
    state = TrainState.create(three, steps=3, learning_rate=3e-3)
    state.scheduler = LambdaLR(state.optimizer, lambda step: 0.1 if step < 1 else 0.0)
    data = texts.batches(steps=3, batch_size=4, seq_len=64, seed=0)
    list(loop.train(state, loop.language_step, data, progress=False))
    for first, second in zip(one.parameters(), three.parameters(), strict=True):
        assert first.equal(second)


@pytest.mark.parametrize("option", ["expert_alpha", "sequence_alpha"])
def test_the_losses_change_the_routers(option: str) -> None:
    without, with_loss = run(steps=2)[0], run(steps=2, **{option: 1.0})[0]
    first, second = (loop.moe_layers(m)[0].gate.weight for m in (without, with_loss))
    assert not torch.allclose(first, second)


def late_max_vio(**options: object) -> float:
    """Mean of the last 30 of 60 steps: a batch of 256 tokens is noisy."""
    late = run(steps=60, **options)[1][-30:]
    return sum(balance.max_vio(report["load"]).mean().item() for report in late) / len(late)


def test_biases_and_losses_lower_max_vio() -> None:
    # with the weights all but frozen the biases have a still target
    assert late_max_vio(learning_rate=1e-5, gamma=0.003) < 0.7 * late_max_vio(learning_rate=1e-5)
    nothing = late_max_vio()
    assert late_max_vio(expert_alpha=10.0) < 0.85 * nothing
    assert late_max_vio(sequence_alpha=10.0) < 0.85 * nothing


def test_evaluate_is_the_mean_over_all_sequences_and_changes_nothing() -> None:
    model, _ = run(steps=2, gamma=0.01)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = texts.held_out(seq_len=512, domains=("math", "english"))
    result = loop.evaluate(model, batch)
    assert result.loss == pytest.approx(
        loop.next_token_loss(model(batch.tokens), batch.tokens).item(), rel=1e-5
    )
    assert result.load.shape == (2, 1, SMALL.n_routed_experts)
    assert result.load.sum().item() == batch.tokens.numel() * SMALL.num_experts_per_tok
    assert all(before[name].equal(value) for name, value in model.state_dict().items())


def test_models_without_biases_or_without_experts_train_too() -> None:
    v1 = dataclasses.replace(SMALL, topk_method="greedy", scoring_func="softmax")
    dense = dataclasses.replace(SMALL, first_k_dense_replace=2)
    data = list(texts.batches(steps=2, batch_size=4, seq_len=16, seed=0))
    assert len(trained(DeepSeek(v1), data, expert_alpha=0.01)) == 2
    assert [report["load"].numel() for report in trained(DeepSeek(dense), data)] == [0, 0]
    with pytest.raises(TypeError, match="e_score_correction_bias"):
        trained(DeepSeek(v1), data, gamma=0.01)


def with_module() -> DeepSeek:
    torch.manual_seed(0)
    return add_modules(DeepSeek(SMALL))


def module_weights(model: DeepSeek) -> torch.Tensor:
    return modules(model)[0].eh_proj.weight


def test_mtp_loss_joins_with_its_weight() -> None:
    """One step from one start: the gradients are those of both losses, the bias of the module
    moves, and a load per MoE layer comes out, that of the module over one token fewer."""
    batch = next(texts.batches(steps=1, batch_size=4, seq_len=64, seed=0))
    model, expected = with_module(), with_module()
    state = TrainState.create(model, steps=1, learning_rate=1.0, weight_decay=0.0)
    state.scheduler = LambdaLR(state.optimizer, lambda step: 0.0)
    report = loop.language_step(state, batch, gamma=0.01, sequence_alpha=1e-4, mtp_weight=0.3)
    hidden = expected.hidden(batch.tokens)
    ahead = mtp_loss(predict(expected, hidden, batch.tokens), batch.tokens, weight=0.3)
    (loop.next_token_loss(expected.lm_head(hidden), batch.tokens) + ahead).backward()
    found, wanted = (
        torch.cat([w.grad.flatten() for w in (m.lm_head.weight, module_weights(m))])
        for m in (model, expected)
    )  # of the head both losses, so that the weight counts; clipping leaves the direction
    assert torch.nn.functional.cosine_similarity(found, wanted, dim=0) > 0.99999
    assert report["load"].sum(1).tolist() == [4 * 64 * 2, 4 * 63 * 2]
    assert biases(model)[1].abs().max() == pytest.approx(0.01)


def test_without_a_weight_the_module_is_left_alone() -> None:
    batch = next(texts.batches(steps=1, batch_size=4, seq_len=64, seed=0))
    model = with_module()
    before = module_weights(model).clone()
    (report,) = trained(model, [batch], gamma=0.01)
    assert module_weights(model).grad is None
    assert module_weights(model).equal(before)
    assert report["load"].shape[0] == loop.evaluate(model, batch).load.shape[1] == 1


def test_bad_mtp_weight() -> None:
    with pytest.raises(ValueError, match=r"mtp_weight must be at least 0, got -0\.1"):
        run(steps=1, mtp_weight=-0.1)
    with pytest.raises(ValueError, match="has no multi-token prediction modules"):
        run(steps=1, mtp_weight=0.3)
