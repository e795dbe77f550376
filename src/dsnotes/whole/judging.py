"""What the poems of a model are worth: rules kept, lines copied, how varied they are, and its loss.

The rules are those of `rl.regulated`, novelty and diversity those of `rl.novelty`. A model is asked
for poems by the prompts of held-out ones.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.data.poems import VERSE_FORMS, Verse
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.novelty import Known, diversity
from dsnotes.rl.regulated import judge, split
from dsnotes.training.verses import Vocabulary, character_loss, padded
from dsnotes.whole.writing import prompt_of, write

_ROWS = 64  # poems read at once


@checked
def worth(texts: Sequence[str], asked: Sequence[Verse], known: Known) -> dict[str, Any]:
    """What poems are worth: rules kept, rules broken, lines copied, and how varied they are.

    All are shares from 0 to 1 but `characters`, the number of different ones.

        >>> from dsnotes.data.poems import verses
        >>> own = verses()[:50]
        >>> worth([v.text for v in own], own, Known(v.lines[0] for v in own))["copied"]
        0.25
    """
    at_least(1, texts=len(texts))
    verdicts = [judge(t, form=v.form, rhyme=v.rhyme) for t, v in zip(texts, asked, strict=True)]
    lines = [line for text in texts for line in split(text)]
    varied = diversity(texts)
    broken = Counter(rule for verdict in verdicts for rule in verdict.broken)
    return {
        "poems": len(texts),
        "rules": _share(verdict.keeps_all_rules for verdict in verdicts),
        "form": _share("form" not in verdict.broken for verdict in verdicts),
        "broken": {rule: broken[rule] / len(texts) for rule in broken},
        "copied": _share(known.has(line) for line in lines),
        "nearly_copied": _share(known.has_like(line) for line in lines),
        **varied._asdict(),
    }


@checked
def evaluate(
    model: DeepSeek,
    vocabulary: Vocabulary,
    held_out: Sequence[Verse],
    known: Known,
    *,
    per_form: int,
    seed: int = 0,
) -> dict[str, Any]:
    """`worth` of poems to the prompts of held-out ones, in all and by form; nothing is changed.

    `loss` is that of the held-out poems themselves, in nats a character. `shown` has two texts of
    each form with their prompts.
    """
    at_least(1, per_form=per_form)
    asked = spread(held_out, per_form)
    sampler = torch.Generator(device=model.device).manual_seed(seed)
    texts = write(model, vocabulary, asked, sampler=sampler)
    found = worth(texts, asked, known)
    found["loss"] = held_out_loss(model, vocabulary, held_out)
    found["forms"], found["shown"] = {}, []
    for form in VERSE_FORMS:
        own = [i for i, verse in enumerate(asked) if verse.form == form]
        if own:
            found["forms"][form] = worth([texts[i] for i in own], [asked[i] for i in own], known)
        found["shown"] += [[*prompt_of(asked[i]), texts[i]] for i in own[:2]]
    return found


@checked
def held_out_loss(model: DeepSeek, vocabulary: Vocabulary, poems: Sequence[Verse]) -> float:
    """Nats a character of poems given their prompts, the mean over all characters.

    >>> from dsnotes.data.poems import verses
    >>> from dsnotes.training.verses import vocabulary
    >>> round(held_out_loss(DeepSeek(BARD), vocabulary(), verses()[:8]), 1)
    8.0
    """
    total = characters = 0.0
    for form in VERSE_FORMS:
        own = _of_form(poems, form)
        for start in range(0, len(own), _ROWS):
            rows = own[start : start + _ROWS]
            count = sum(len(line) for verse in rows for line in verse.lines)
            tokens = padded([vocabulary.encode(verse) for verse in rows])
            total += character_loss(model, tokens) * count
            characters += count
    return total / characters


def spread(poems: Sequence[Verse], per_form: int) -> list[Verse]:
    """As many poems of each form, or all there are, from all over: a corpus is sorted by rhyme.

    >>> from dsnotes.data.poems import verses
    >>> len({verse.rhyme for verse in spread(verses(), 30)}) > 15
    True
    """
    found = []
    for form in VERSE_FORMS:
        own = _of_form(poems, form)
        count = min(per_form, len(own))
        found += [own[i * len(own) // count] for i in range(count)]
    return found


def _of_form(poems: Sequence[Verse], form: str) -> list[Verse]:
    return [verse for verse in poems if verse.form == form]


def _share(found: Iterable[bool]) -> float:
    values = list(found)
    return sum(values) / max(len(values), 1)
