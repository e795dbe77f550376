"""Asking a model for verse: poems to prompts, what they earn, and a step of GRPO on them.

A prompt is the form, the rhyme group and the title of a poem (`training.verses`), where there is
one; the poem itself is not shown. The reward is the rules of verse, and more for a poem that keeps
all of them; what no rule asks, that it be new and varied, has terms of its own.

Equations
    GRPO as in `dsnotes.rl.r1_zero`: DeepSeekMath (arXiv 2402.03300) algorithm 1, one update per
        batch of samples

Departures
    - The prompts of a step have one form and titles of one length: nothing is padded, and no poem
      of 20 characters waits for one of 56. A form comes as often as it has lines: a longer poem
      has more places to break a rule.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.data.poems import VERSE_FORMS, Verse
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.novelty import Known, diversity_reward, novelty_reward
from dsnotes.rl.objective import GRPO, Objective
from dsnotes.rl.regulated import judge, regulated_reward
from dsnotes.rl.reward import RewardFunction, scored, weighted_sum
from dsnotes.rl.rollout import policy_step, sample
from dsnotes.training.state import Report, TrainState
from dsnotes.training.verses import END, Vocabulary, room

_ROWS = 256  # poems written at once


class Prompts:
    """The prompts of some poems, drawn for a step: all of one form, with titles of one length.

    >>> from dsnotes.data.poems import verses
    >>> drawn = Prompts(verses()).draw(3, generator=torch.Generator().manual_seed(0))
    >>> len({(verse.form, len(verse.title)) for verse in drawn})
    1
    """

    @checked
    def __init__(self, poems: Sequence[Verse]) -> None:
        if not poems:
            raise ValueError("poems must hold at least one, got none")
        self._forms: dict[str, list[Verse]] = defaultdict(list)
        self._alike: dict[tuple[str, int], list[Verse]] = defaultdict(list)
        for verse in poems:
            self._forms[verse.form].append(verse)
            self._alike[verse.form, len(verse.title)].append(verse)

    def draw(self, count: int, *, generator: torch.Generator) -> list[Verse]:
        """Form first, as likely as it is long; then a poem of the form, and others as it."""
        forms = [form for form in VERSE_FORMS if form in self._forms]
        a_line_each = [form for form in forms for _ in range(VERSE_FORMS[form][0])]
        own = self._forms[a_line_each[_below(len(a_line_each), generator)]]
        first = own[_below(len(own), generator)]
        alike = self._alike[first.form, len(first.title)]
        return [alike[_below(len(alike), generator)] for _ in range(count)]


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (), generator=generator))


@checked
def write(
    model: DeepSeek,
    vocabulary: Vocabulary,
    asked: Sequence[Verse],
    *,
    temperature: float = 1.0,
    sampler: torch.Generator | None = None,
) -> list[str]:
    """A poem of the model to the prompt of each of `asked`, as a text that the rules can judge.

    >>> from dsnotes.data.poems import verses
    >>> from dsnotes.training.verses import vocabulary
    >>> len(write(DeepSeek(BARD), vocabulary(), verses()[:2]))
    2
    """
    texts = [""] * len(asked)
    for form in VERSE_FORMS:
        own = [i for i, verse in enumerate(asked) if verse.form == form]
        for start in range(0, len(own), _ROWS):
            rows = own[start : start + _ROWS]
            new = model.generate(
                [vocabulary.prompt(*prompt_of(asked[i])) for i in rows],
                max_new_tokens=room(form),
                temperature=temperature,
                stop_token=END,
                generator=sampler,
            )
            for i, tokens in zip(rows, new.tolist(), strict=True):
                texts[i] = vocabulary.decode(tokens)
    return texts


@checked
def poem_reward(
    known: Known,
    *,
    without: Collection[str] = (),
    novelty: float = 0.2,
    diversity: float = 0.2,
) -> RewardFunction:
    """The rules, half a point more for a poem that keeps all, and the two terms by their weights.

    The rules named in `without` are asked for nowhere.

        >>> reward = poem_reward(Known([]), diversity=0.0)
        >>> poem = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
        >>> reward([poem], form=["五絕"], rhyme=["尤"])
        [1.7]
    """
    rules = partial(regulated_reward, without=without)
    every = partial(every_rule_reward, without=without)
    new = partial(novelty_reward, known=known)
    terms: list[RewardFunction] = [rules, every, new, diversity_reward]
    return weighted_sum(terms, weights=[1.0, 0.5, novelty, diversity])


def every_rule_reward(
    completions: list[str],
    form: list[str],
    rhyme: list[str],
    *,
    without: Collection[str] = (),
    **columns: Any,
) -> list[float]:
    """1 for a text that keeps all rules but those in `without`, else 0."""
    rows = zip(completions, form, rhyme, strict=True)
    return [float(judge(t, form=f, rhyme=r, without=without).keeps_all_rules) for t, f, r in rows]


@checked
def poem_step(
    state: TrainState,
    vocabulary: Vocabulary,
    asking: Prompts,
    reward: RewardFunction,
    *,
    prompts: int,
    group_size: int,
    objective: Objective = GRPO,
) -> Report:
    """One step of GRPO: reports the mean reward, the share that keeps all rules, and characters.

    `reward` is called as TRL does, with the columns `form` and `rhyme`.

        >>> from dsnotes.data.poems import verses
        >>> from dsnotes.training.verses import vocabulary
        >>> state = TrainState.create(DeepSeek(BARD), steps=1, learning_rate=1e-3)
        >>> reward = poem_reward(Known([]))
        >>> list(poem_step(state, vocabulary(), Prompts(verses()), reward, prompts=2, group_size=2))
        ['reward', 'rules', 'characters']
    """
    at_least(1, prompts=prompts, group_size=group_size)
    asked = asking.draw(prompts, generator=state.generator)
    rollout = sample(
        state.model,
        torch.tensor([vocabulary.prompt(*prompt_of(verse)) for verse in asked]),
        group_size=group_size,
        max_new_tokens=room(asked[0].form),
        stop_token=END,
        generator=state.sampler,
    )
    texts = [vocabulary.decode(row) for row in rollout.completions]
    asked = [verse for verse in asked for _ in range(group_size)]
    columns = {"form": [v.form for v in asked], "rhyme": [v.rhyme for v in asked]}
    rewards = torch.tensor(scored("reward", reward, texts, **columns))
    policy_step(
        state,
        rollout,
        rewards.view(prompts, group_size),
        max_new_tokens=rollout.mask.shape[1],
        objective=objective,
    )
    return {
        "reward": rewards.mean().item(),
        "rules": sum(every_rule_reward(texts, **columns)) / len(texts),
        "characters": len(set("".join(texts)) - set("，。")),
    }


def prompt_of(verse: Verse) -> tuple[str, str, str]:
    """What `Vocabulary.prompt` takes to ask for such a poem: form, rhyme group, title."""
    return verse.form, verse.rhyme, verse.title
