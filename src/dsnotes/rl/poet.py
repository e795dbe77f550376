"""A language model that writes quatrains, rewarded by the rules of `dsnotes.rl.verse` alone.

The model has read poems (`dsnotes.training.poems`). It is asked for one in a form and a rhyme
group, writes a group of them, and GRPO makes those likelier that keep more rules. No rule says
whether a poem is any good, nor that it is new: `Scores` therefore also counts how many characters
the poems still use, and how many of their lines stand in the training data.

Equations
    GRPO as in `dsnotes.rl.r1_zero`: DeepSeekMath (arXiv 2402.03300) algorithm 1, one update per
        batch of samples

Departures
    - The prompts are drawn as frequently as poets used their rhyme groups.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.data.poems import quatrains
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.objective import GRPO, Objective
from dsnotes.rl.reward import RewardFunction, scored
from dsnotes.rl.rollout import Rollout, policy_step, sample
from dsnotes.rl.verse import Verdict, judge, split, verse_reward
from dsnotes.training.poems import END, decode, prompt, room
from dsnotes.training.state import Report, TrainState


class Scores(NamedTuple):
    """Shares from 0 to 1 over poems written to the prompts of all held-out ones."""

    form: float
    rhyme: float  # both rhyming places
    tones: float  # every place
    rules: float  # form, rhyme and tones
    reward: float  # the mean
    characters: int  # different ones, in all poems together
    copied: float  # of the lines, those that stand in a training poem


@checked
def compose(
    model: DeepSeek,
    prompts: Sequence[tuple[str, str]],
    *,
    samples: int = 1,
    temperature: float = 1.0,
    sampler: torch.Generator | None = None,
) -> tuple[Rollout, list[str]]:
    """Write `samples` poems to each prompt of form and rhyme group, one prompt after the other.

    The texts are those that `verse.judge` judges. ValueError for an unknown form or group.

        >>> rollout, poems = compose(DeepSeek(POET), [("五", "尤"), ("五", "東")], samples=3)
        >>> len(poems), len(rollout.tokens)
        (6, 6)
    """
    at_least(1, samples=samples)
    if len(prompts) == 0:
        raise ValueError("prompts must hold at least one form and rhyme group, got none")
    rollout = sample(
        model,
        torch.tensor([prompt(form, rhyme) for form, rhyme in prompts]),
        group_size=samples,
        max_new_tokens=max(room(form) for form, _ in prompts),
        stop_token=END,
        temperature=temperature,
        generator=sampler,
    )
    return rollout, [decode(row) for row in rollout.completions]


@checked
def verse_step(
    state: TrainState,
    *,
    prompts: int = 8,
    group_size: int = 16,
    reward: RewardFunction = verse_reward,
    objective: Objective = GRPO,
    temperature: float = 1.0,
) -> Report:
    """One step of GRPO on poems: `group_size` of them to each of `prompts` prompts.

    The prompts are those of training poems. `reward` is called as TRL does, with the columns `form`
    and `rhyme`. Reports the mean reward, the share of poems that keep all rules, and the number of
    different characters.

        >>> state = TrainState.create(DeepSeek(POET), steps=20, learning_rate=3e-4)
        >>> list(verse_step(state, prompts=2, group_size=4))
        ['reward', 'rules', 'characters']
    """
    at_least(1, prompts=prompts, group_size=group_size)
    poems = quatrains()
    chosen = torch.randint(len(poems), (prompts,), generator=state.generator).tolist()
    asked = [(poems[i].form, poems[i].rhyme) for i in chosen]
    rollout, texts = compose(
        state.model, asked, samples=group_size, temperature=temperature, sampler=state.sampler
    )
    columns = _columns(asked, group_size)
    rewards = torch.tensor(scored("reward", reward, texts, **columns))
    policy_step(
        state,
        rollout,
        rewards.view(prompts, group_size),
        max_new_tokens=rollout.mask.shape[1],
        objective=objective,
        temperature=temperature,
    )
    verdicts = _verdicts(texts, **columns)
    return {
        "reward": rewards.mean().item(),
        "rules": sum(v.keeps_all_rules for v in verdicts) / len(verdicts),
        "characters": len(set("".join(texts)) - set("，。")),
    }


@checked
def evaluate(
    model: DeepSeek, *, samples: int = 1, temperature: float = 1.0, seed: int = 0
) -> Scores:
    """Score `samples` poems to the form and group of every held-out poem; nothing is changed.

    >>> evaluate(DeepSeek(POET)).form
    0.0
    """
    asked = [(poem.form, poem.rhyme) for poem in quatrains(held_out=True)]
    sampler = torch.Generator(device=model.device).manual_seed(seed)
    _, texts = compose(model, asked, samples=samples, temperature=temperature, sampler=sampler)
    return score(texts, **_columns(asked, samples))


@checked
def score(texts: Sequence[str], *, form: Sequence[str], rhyme: Sequence[str]) -> Scores:
    """Scores of poems, each with the form and group that it was asked for; ValueError for none.

    >>> own = quatrains()[:100]
    >>> scores = score([p.text for p in own], form=["五"] * 100, rhyme=[p.rhyme for p in own])
    >>> scores.form, scores.rhyme, scores.copied
    (1.0, 1.0, 1.0)
    """
    if not len(texts) == len(form) == len(rhyme) > 0:
        raise ValueError(
            f"texts, form and rhyme must be one each per poem, got {len(texts)}, {len(form)} and "
            f"{len(rhyme)}"
        )
    verdicts = _verdicts(texts, form, rhyme)
    known = {line for poem in quatrains() for line in poem.lines}
    lines = [line for text in texts for line in split(text) or ()]
    n = len(verdicts)
    return Scores(
        form=sum(v.form for v in verdicts) / n,
        rhyme=sum(v.rhyme == 1 for v in verdicts) / n,
        tones=sum(v.form and v.tones == 1 for v in verdicts) / n,
        rules=sum(v.keeps_all_rules for v in verdicts) / n,
        reward=sum(v.reward for v in verdicts) / n,
        characters=len(set("".join(lines))),
        copied=sum(line in known for line in lines) / max(len(lines), 1),
    )


def _columns(asked: Sequence[tuple[str, str]], samples: int) -> dict[str, list[str]]:
    repeated = [prompt for prompt in asked for _ in range(samples)]
    return {"form": [form for form, _ in repeated], "rhyme": [rhyme for _, rhyme in repeated]}


def _verdicts(texts: Sequence[str], form: Sequence[str], rhyme: Sequence[str]) -> list[Verdict]:
    return [judge(t, form=f, rhyme=r) for t, f, r in zip(texts, form, rhyme, strict=True)]
