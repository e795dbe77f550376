"""rollout: what is sampled and masked; log-probabilities token by token; the shift by one."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.rollout import Rollout, completion_log_probs, policy_step, sample
from dsnotes.training.state import TrainState

VOCAB, STOP = 6, 5
SMALL = replace(TINY, vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, initializer_range=0.3)


def build() -> DeepSeek:
    return DeepSeek(SMALL).double()


def draw(model: DeepSeek, prompts: Tensor, **options: object) -> Rollout:
    settings = {"group_size": 4, "max_new_tokens": 6, "stop_token": STOP}
    return sample(
        model, prompts, generator=torch.Generator().manual_seed(0), **(settings | options)
    )


def test_groups_lie_one_after_the_other_behind_their_prompt() -> None:
    prompts = torch.tensor([[1, 2, 3], [4, 0, 1]])
    rollout = draw(build(), prompts)
    assert rollout.tokens.shape[0] == rollout.mask.shape[0] == 8
    assert torch.equal(rollout.tokens[:4, :3], prompts[:1].expand(4, -1))
    assert torch.equal(rollout.tokens[4:, :3], prompts[1:].expand(4, -1))


def test_mask_ends_with_the_stop_token() -> None:
    rollout = draw(build(), torch.randint(VOCAB, (16, 3)))
    new = rollout.tokens[:, 3:].tolist()
    found = set()
    for row, mask, completion in zip(new, rollout.mask.tolist(), rollout.completions, strict=True):
        end = row.index(STOP) + 1 if STOP in row else len(row)
        assert mask == [i < end for i in range(len(row))]
        assert completion == row[:end]
        found.add(STOP in row)
    assert found == {True, False}  # both kinds occurred
    assert rollout.lengths.tolist() == [len(c) for c in rollout.completions]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_token_by_token(temperature: float) -> None:
    """Trap 2: the logits behind the prefix o_<t score o_t, with no prompt token among the terms."""
    model = build()
    rollout = draw(model, torch.randint(VOCAB, (3, 4)), temperature=temperature)
    found = completion_log_probs(model, rollout, temperature=temperature)
    for i, completion in enumerate(rollout.completions):
        prefix = rollout.tokens[i, :4].tolist()
        for t, token in enumerate(completion):
            logits = model(torch.tensor([prefix]))[0, -1]
            expected = (logits / temperature).log_softmax(-1)[token]
            assert found[i, t].item() == pytest.approx(expected.item(), abs=1e-6)
            prefix.append(token)
        assert (found[i, len(completion) :] == 0).all()


def test_what_follows_the_stop_has_no_influence() -> None:
    model, prompts = build(), torch.randint(VOCAB, (8, 3))
    rollout = draw(model, prompts)
    other = rollout.tokens.clone()
    other[:, 3:] = torch.where(rollout.mask, other[:, 3:], 2)
    assert not torch.equal(other, rollout.tokens)
    same = completion_log_probs(model, Rollout(other, rollout.mask))
    # rounding: other tokens go to other experts, and change the blocks that are multiplied
    assert torch.allclose(same, completion_log_probs(model, rollout), atol=1e-12)


def test_samples_follow_the_distribution_of_the_model() -> None:
    model, prompt = build(), torch.tensor([[3, 1]])
    n = 4000
    rollout = draw(model, prompt, group_size=n, max_new_tokens=1, temperature=0.7)
    found = rollout.tokens[:, 2].bincount(minlength=VOCAB) / n
    expected = (model(prompt)[0, -1] / 0.7).softmax(-1)
    assert expected.max() < 0.9  # something to get wrong
    assert (found - expected).abs().max() < 5 * 0.5 / n**0.5


def test_log_probs_carry_the_gradient_of_the_sampled_tokens_only() -> None:
    """The gradient on the logits is onehot - softmax where the mask is True and 0 elsewhere."""
    model = build()
    rollout = draw(model, torch.randint(VOCAB, (8, 3)))
    seen: list[Tensor] = []

    def keep(module: object, inputs: object, logits: Tensor) -> None:
        logits.retain_grad()
        seen.append(logits)

    model.lm_head.register_forward_hook(keep)
    completion_log_probs(model, rollout).sum().backward()
    (logits,) = seen
    chosen = torch.nn.functional.one_hot(rollout.tokens[:, 3:], VOCAB)
    expected = (chosen - logits[:, :-1].softmax(-1)) * rollout.mask[..., None]
    assert torch.allclose(logits.grad[:, :-1], expected, atol=1e-6)
    assert not logits.grad[:, -1].any()


def test_bad_input() -> None:
    model, prompts = build(), torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        draw(model, prompts, group_size=0)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        draw(model, prompts, max_new_tokens=0)
    with pytest.raises(ValueError, match=r"temperature must be positive, got 0\.0"):
        completion_log_probs(model, draw(model, prompts), temperature=0.0)


def test_a_step_moves_towards_what_earned_more_than_its_group() -> None:
    model, prompts = build(), torch.tensor([[1, 2, 3], [4, 0, 1]])
    state = TrainState.create(model, steps=1, learning_rate=1e-5)
    rollout = draw(model, prompts)
    before = completion_log_probs(model, rollout).detach().sum(1).view(2, 4)
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.5] * 4])
    policy_step(state, rollout, rewards, max_new_tokens=6)
    change = completion_log_probs(model, rollout).detach().sum(1).view(2, 4) - before
    assert change[0, 0] > change[0, 1:].max()
    assert state.step == 1


def test_a_reward_for_every_completion_is_needed() -> None:
    state = TrainState.create(build(), steps=1, learning_rate=1e-3)
    rollout = draw(state.model, torch.tensor([[1, 2, 3]]))
    with pytest.raises(ValueError, match=r"rewards must be one for each of 4 completions, got"):
        policy_step(state, rollout, torch.zeros(1, 3), max_new_tokens=6)
    assert state.step == 0
