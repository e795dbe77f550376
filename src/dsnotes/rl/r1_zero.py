"""A small R1-Zero: a base model from supervised text, then GRPO with rewards by rule and no other.

Each step draws problems, lets the model answer each of them G times, scores the texts by rule and
moves the weights by an `Objective` of GRPO. The model never sees a solution.

Equations
    DeepSeekMath (arXiv 2402.03300) eq 3 and algorithm 1, outcome supervision, one update per batch
        of samples (mu = 1), so the ratio is 1 and no clip acts
    R1 (arXiv 2501.12948) v2 eq 4     reward = accuracy + format; here the format counts a tenth
    R1 v1 section 3                   pass@1 = mean over k samples, cons@k = their majority

Departures
    - No KL term unless the objective has one: rules stay right however far the policy goes. R1 has
      beta = 0.001 and replaces the reference every 400 steps, with us `TrainState.set_reference`.
    - A model this size knows nothing from pre-training; a little supervised training on bad text
      (`dsnotes.rl.shellgame.completions`) stands in for it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl import presets, shellgame
from dsnotes.rl.answers import final_answer
from dsnotes.rl.objective import GRPO, Objective
from dsnotes.rl.reward import RewardFunction, accuracy_reward, format_reward, scored, weighted_sum
from dsnotes.rl.rollout import Rollout, policy_step, sample
from dsnotes.rl.shellgame import Problems, Script
from dsnotes.training.state import Report, TrainState

RULES = weighted_sum([accuracy_reward, format_reward], weights=[1.0, 0.1])


class Scores(NamedTuple):
    """Shares from 0 to 1 over held-out problems, k samples of each; `length` in tokens."""

    pass_at_1: float
    majority: float  # one vote per sample that gives an answer
    format: float
    length: float


@checked
def supervised_step(
    state: TrainState, prompts: Int[Tensor, "batch seq"], completions: Int[Tensor, "batch new"]
) -> Report:
    """One step of cross-entropy on the completions; prompt and padding are not learned."""
    device = state.model.device
    tokens = torch.cat([prompts, completions], dim=1).to(device)
    hidden = state.model.hidden(tokens[:, :-1])[:, prompts.shape[1] - 1 :]  # (batch, new, hidden)
    logits = state.model.lm_head(hidden)  # (batch, new, vocab)
    loss = F.cross_entropy(logits.mT, completions.to(device).long(), ignore_index=shellgame.PAD)
    state.update(loss)
    return {"loss": loss.item()}


@checked
def base_step(state: TrainState, preset: presets.Preset, *, script: Script = "digit") -> Report:
    """One step on fresh base text of the preset."""
    given = shellgame.problems(preset.base_batch, swaps=preset.swaps, generator=state.generator)
    text = shellgame.completions(
        given,
        lengths=preset.base_lengths,
        error=preset.base_error,
        script=script,
        generator=state.generator,
    )
    return supervised_step(state, given.prompts, text)


@checked
def respond(
    model: DeepSeek,
    preset: presets.Preset,
    given: Problems,
    *,
    samples: int,
    prefix: Sequence[int] = (),
    temperature: float = 1.0,
    sampler: torch.Generator | None = None,
) -> tuple[Rollout, list[str], list[str]]:
    """Sample completions of problems: the rollout, its texts, and the right answer to each.

    `prefix` stands before every completion; it is in the texts and not in the rollout's mask.

        >>> given = shellgame.problems(2, generator=torch.Generator().manual_seed(0))
        >>> base = presets.new_model(presets.LAPTOP, seed=0)
        >>> respond(base, presets.LAPTOP, given, samples=2)[2]
        ['5', '5', '3', '3']
    """
    at_least(1, samples=samples)
    front = torch.tensor(prefix).long().expand(len(given.prompts), -1)
    rollout = sample(
        model,
        torch.cat([given.prompts, front], dim=1),
        group_size=samples,
        max_new_tokens=preset.max_new_tokens,
        stop_token=shellgame.END_ANSWER,
        temperature=temperature,
        generator=sampler,
    )
    texts = [shellgame.decode([*prefix, *row]) for row in rollout.completions]
    return rollout, texts, [answer for answer in given.answers for _ in range(samples)]


@checked
def grpo_step(
    state: TrainState,
    preset: presets.Preset,
    *,
    reward: RewardFunction = RULES,
    prefix: Sequence[int] = (),
    objective: Objective = GRPO,
    temperature: float = 1.0,
) -> Report:
    """One step of GRPO on fresh problems: DeepSeekMath algorithm 1, lines 5 to 11.

    `reward` is called as TRL does, with the column `answer`. `prefix` is put in front of every
    completion and is not learned: `shellgame.NO_THOUGHT` forbids thinking. Any objective runs: the
    KL is to `state.reference`, at first the model as it is now, and `max_length` that of the
    preset. Reports the mean reward, accuracy and length |o|, the prefix not counted.

        >>> base = presets.new_model(presets.LAPTOP, seed=0)
        >>> state = TrainState.create(base, steps=60, learning_rate=1e-3)
        >>> list(grpo_step(state, presets.LAPTOP, objective=Objective(average="token")))
        ['reward', 'accuracy', 'length']
    """
    given = shellgame.problems(preset.prompts, swaps=preset.swaps, generator=state.generator)
    rollout, texts, answers = respond(
        state.model,
        preset,
        given,
        samples=preset.group_size,
        prefix=prefix,
        temperature=temperature,
        sampler=state.sampler,
    )
    rewards = torch.tensor(scored("reward", reward, texts, answer=answers))  # (prompts * G,)
    policy_step(
        state,
        rollout,
        rewards.view(preset.prompts, preset.group_size),
        max_new_tokens=preset.max_new_tokens,
        objective=objective,
        temperature=temperature,
    )
    accuracy = accuracy_reward(texts, answer=answers)
    return {
        "reward": rewards.mean().item(),
        "accuracy": sum(accuracy) / len(accuracy),
        "length": rollout.lengths.float().mean().item(),
    }


@checked
def evaluate(
    model: DeepSeek,
    preset: presets.Preset,
    *,
    problems: int = 200,
    samples: int = 16,
    prefix: Sequence[int] = (),
    seed: int = 0,
) -> Scores:
    """Score `samples` completions of each of `problems` held-out problems; nothing is changed.

    The same seed gives the same problems. Among equally frequent answers the first one given wins
    the vote; a problem without any answer counts as wrong.

        >>> base = presets.new_model(presets.LAPTOP, seed=0)
        >>> evaluate(base, presets.LAPTOP, problems=50).pass_at_1
        0.0
    """
    at_least(1, problems=problems)
    given = shellgame.problems(
        problems, swaps=preset.swaps, held_out=True, generator=torch.Generator().manual_seed(seed)
    )
    rollout, texts, answers = respond(
        model, preset, given, samples=samples, prefix=prefix, sampler=_sampler(model, seed)
    )
    right, kept = accuracy_reward(texts, answer=answers), format_reward(texts)
    found = [final_answer(text) for text in texts]
    groups = [found[i : i + samples] for i in range(0, len(found), samples)]
    votes = [Counter(a for a in group if a is not None).most_common(1) for group in groups]
    agreed = [bool(v) and v[0][0] == a for v, a in zip(votes, given.answers, strict=True)]
    return Scores(
        pass_at_1=sum(right) / len(right),
        majority=sum(agreed) / len(agreed),
        format=sum(kept) / len(kept),
        length=rollout.lengths.float().mean().item(),
    )


@checked
def rejection_sample(
    model: DeepSeek,
    preset: presets.Preset,
    *,
    problems: int,
    samples: int,
    keep: RewardFunction,
    seed: int = 0,
) -> tuple[Int[Tensor, "kept seq"], Int[Tensor, "kept new"]]:
    """Prompts and padded completions of training problems that `keep` gives at least 1.

    Of `samples` completions of each problem all that pass stay (R1 v1 section 2.3.3). ValueError
    when none does.

        >>> base = presets.new_model(presets.LAPTOP, seed=0)
        >>> def all_pass(texts, **columns): return [1.0] * len(texts)
        >>> rejection_sample(base, presets.LAPTOP, problems=5, samples=4, keep=all_pass)[0].shape
        torch.Size([20, 8])
    """
    at_least(1, problems=problems)
    given = shellgame.problems(
        problems, swaps=preset.swaps, generator=torch.Generator().manual_seed(seed)
    )
    rollout, texts, answers = respond(
        model, preset, given, samples=samples, sampler=_sampler(model, seed)
    )
    scores = scored("keep", keep, texts, answer=answers)
    passed = torch.tensor([score >= 1 for score in scores], device=rollout.mask.device)
    if not passed.any():
        raise ValueError(f"keep must pass at least one of {len(scores)} completions, got none")
    new = rollout.tokens[:, given.prompts.shape[1] :].masked_fill(~rollout.mask, shellgame.PAD)
    return rollout.tokens[passed, : given.prompts.shape[1]], new[passed]


def _sampler(model: DeepSeek, seed: int) -> torch.Generator:
    return torch.Generator(device=model.device).manual_seed(seed)
