"""Completions sampled from a model, and the step of GRPO that learns from their rewards.

A rollout draws a group of completions for each prompt, with the latent cache. A mask marks the
tokens that the model has drawn. One more pass computes their log-probabilities, with gradient.

Equations
    log pi(o_i,t | q, o_i,<t), the terms of DeepSeekMath (arXiv 2402.03300) eq 3
    DeepSeekMath algorithm 1, lines 8 to 11: advantages of the groups, and one update (mu = 1)

Departures
    - All prompts have one length, so that no position before the completion is padding.
    - At temperature T the policy is softmax(logits / T), both in sampling and in the
      log-probabilities. The papers do not say so; at T = 1 (R1) it makes no difference.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Integer
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least, token_ids
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.grpo import group_advantages, grpo_loss
from dsnotes.rl.objective import GRPO, Objective, completion_mask, token_log_probs
from dsnotes.training.state import TrainState


class Rollout(NamedTuple):
    """G completions of each prompt, one group after the other.

    `tokens` holds prompt and completion; `mask` is True for the tokens of the completion up to and
    including the stop token.
    """

    tokens: Int[Tensor, "rows seq"]
    mask: Bool[Tensor, "rows new"]

    @property
    def completions(self) -> list[list[int]]:
        """The sampled tokens of each row, without the tokens after the stop."""
        new = self.tokens[:, -self.mask.shape[1] :]  # (rows, new)
        return [row[keep].tolist() for row, keep in zip(new, self.mask, strict=True)]

    @property
    def lengths(self) -> Int[Tensor, "rows"]:
        """|o_i|, tokens sampled per row."""
        return self.mask.sum(dim=1)


@checked
def sample(
    model: DeepSeek,
    prompts: Integer[Tensor, "batch seq"],
    *,
    group_size: int,
    max_new_tokens: int,
    stop_token: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
) -> Rollout:
    """Draw `group_size` completions of each prompt; no gradient.

    Row `i * group_size + j` is completion j of prompt i. A row that does not stop within
    `max_new_tokens` is cut there. Raises what `DeepSeek.generate` raises, and ValueError for a
    group size below 1 and for tokens that the model does not know.

        >>> sample(model, torch.zeros(2, 5, dtype=torch.long), group_size=4, max_new_tokens=3,
        ...        stop_token=1).tokens.shape
        torch.Size([8, 8])
    """
    at_least(1, group_size=group_size)
    prompts = token_ids(prompts, vocab_size=model.config.vocab_size, name="prompts")
    prompts = prompts.repeat_interleave(group_size, dim=0).to(model.device)
    new = model.generate(
        prompts,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        stop_token=stop_token,
        generator=generator,
    )
    tokens = torch.cat([prompts, new], dim=1)  # (batch * group_size, seq + new)
    prompt_lengths = torch.full((len(tokens),), prompts.shape[1], device=tokens.device)
    mask = completion_mask(tokens, prompt_lengths, eos=stop_token)
    return Rollout(tokens, mask[:, -new.shape[1] :])


@checked
def completion_log_probs(
    model: DeepSeek, rollout: Rollout, *, temperature: float = 1.0
) -> Float[Tensor, "rows new"]:
    """log pi(o_i,t | q, o_i,<t) of every sampled token, with gradient; 0 after the stop.

    ValueError unless the temperature is above 0.

        >>> rollout = sample(model, tokens, group_size=4, max_new_tokens=3, stop_token=1)
        >>> completion_log_probs(model, rollout).shape == rollout.mask.shape
        True
    """
    last = rollout.mask.shape[1] + 1  # the last token of the prompt predicts the first sampled one
    logits = model.lm_head(model.hidden(rollout.tokens)[:, -last:])  # (rows, new + 1, vocab)
    found = token_log_probs(logits, rollout.tokens[:, -last:], temperature=temperature)
    return found.masked_fill(~rollout.mask, 0)


@checked
def policy_step(
    state: TrainState,
    rollout: Rollout,
    rewards: Float[Tensor, "prompts group"],
    *,
    max_new_tokens: int,
    objective: Objective = GRPO,
    temperature: float = 1.0,
) -> None:
    """One optimizer step that makes the completions likelier which earn more than their group.

    Row `i * group + j` of the rollout earned `rewards[i, j]`. The rollout must come from the model
    as it is, at this temperature, so the ratio is 1. The KL is to `state.reference`, at first the
    model as it is now. `max_new_tokens`, what a completion may have, is the `max_length` of an
    objective that averages by a constant and has none. ValueError unless there is a reward for
    every row.

        >>> state = TrainState.create(model, steps=1, learning_rate=1e-3)
        >>> rollout = sample(model, tokens, group_size=2, max_new_tokens=3, stop_token=1)
        >>> policy_step(state, rollout, torch.tensor([[1.0, 0.0], [0.0, 0.5]]), max_new_tokens=3)
        >>> state.step
        1
    """
    at_least(1, max_new_tokens=max_new_tokens)
    if rewards.numel() != len(rollout.tokens):
        raise ValueError(
            f"rewards must be one for each of {len(rollout.tokens)} completions, got "
            f"{tuple(rewards.shape)}"
        )
    if objective.average == "constant" and objective.max_length is None:
        objective = replace(objective, max_length=max_new_tokens)
    advantages = group_advantages(rewards, scale=objective.scale).flatten()
    log_probs = completion_log_probs(state.model, rollout, temperature=temperature)
    ref_log_probs = None
    if objective.beta > 0:
        reference = state.reference or state.set_reference()
        ref_log_probs = completion_log_probs(reference, rollout, temperature=temperature)
    loss = grpo_loss(
        log_probs,
        log_probs.detach(),  # the policy that sampled is the one updated
        advantages.to(log_probs.device),
        rollout.mask,
        objective=objective,
        ref_log_probs=ref_log_probs,
    )
    state.update(loss)
