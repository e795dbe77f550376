"""The quatrains of `dsnotes.data.poems` as tokens, in batches like those of `texts`.

One character is one token. A poem is its form, its rhyme group, its text and an end:

    五 尤 白 日 依 山 盡 ， 黃 河 入 海 流 。 欲 窮 千 里 目 ， 更 上 一 層 樓 。 <end>

So a model that has read poems can be asked for one: form and group are a prompt, as poets were
given a rhyme to write on (限韻). The tokens of form and group are not those of the characters.
`loop.language_step` learns the whole sequence, the group as well; `character_loss` looks at the
characters alone.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.data.poems import FORMS, RHYMES, Poem, asked_for, quatrains
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.texts import Batch

SPECIALS = ("<end>", *(f"<{name}>" for name in (*FORMS, *RHYMES)), "，", "。")
END = 0


@cache
def vocabulary() -> tuple[str, ...]:
    """What each token stands for: end, forms, rhyme groups, punctuation, then the characters.

    >>> len(vocabulary()), vocabulary()[:3]
    (3031, ('<end>', '<五>', '<七>'))
    """
    poems = quatrains() + quatrains(held_out=True)
    return SPECIALS + tuple(sorted({c for poem in poems for line in poem.lines for c in line}))


@cache
def _ids() -> dict[str, int]:
    return {symbol: i for i, symbol in enumerate(vocabulary())}


@checked
def prompt(form: str, rhyme: str) -> list[int]:
    """The two tokens that ask for a poem; ValueError for an unknown form or group.

    >>> prompt("五", "尤")
    [1, 28]
    """
    asked_for(form, rhyme)
    return [_ids()[f"<{form}>"], _ids()[f"<{rhyme}>"]]


@checked
def room(form: str) -> int:
    """Tokens of a poem after its prompt: four lines with their punctuation, and the end.

    ValueError for an unknown form.

        >>> room("五")
        25
    """
    asked_for(form, RHYMES[0])
    return 4 * (FORMS[form] + 1) + 1


@checked
def encode(poem: Poem) -> list[int]:
    """Prompt, text and end of a poem; ValueError for a character that no poem of the package has.

    >>> len(encode(quatrains()[0]))
    27
    """
    unknown = [c for c in poem.text if c not in _ids()]
    if unknown:
        raise ValueError(f"poem must consist of the characters of vocabulary(), got {unknown[0]!r}")
    return [*prompt(poem.form, poem.rhyme), *(_ids()[c] for c in poem.text), END]


@checked
def decode(tokens: Sequence[int]) -> str:
    """The text of tokens up to the first end; ValueError for a token that does not exist.

    >>> poem = quatrains()[0]
    >>> decode(encode(poem)[2:]) == poem.text
    True
    """
    unknown = [token for token in tokens if not 0 <= token < len(vocabulary())]
    if unknown:
        raise ValueError(f"tokens must lie in 0 to {len(vocabulary()) - 1}, got {unknown[0]}")
    return "".join(vocabulary()[token] for token in tokens).partition(vocabulary()[END])[0]


@checked
def batches(*, steps: int, batch_size: int, seed: int) -> Iterator[Batch]:
    """Yield `steps` batches of training poems, in an order by `seed` that is new in every epoch.

    What is left at the end of an epoch, and does not fill a batch, is passed over. ValueError, at
    the first batch, for negative steps and a batch that is empty or larger than the data.

        >>> next(batches(steps=1, batch_size=4, seed=0)).tokens.shape
        torch.Size([4, 27])
    """
    at_least(0, steps=steps)
    data = _encoded(held_out=False)
    if not 1 <= batch_size <= len(data.tokens):
        raise ValueError(f"batch_size must lie in 1 to {len(data.tokens)}, got {batch_size}")
    generator = torch.Generator().manual_seed(seed)
    order = torch.zeros(0, dtype=torch.long)
    for _ in range(steps):
        if len(order) < batch_size:
            order = torch.randperm(len(data.tokens), generator=generator)
        yield Batch(data.tokens[order[:batch_size]], data.domain[order[:batch_size]])
        order = order[batch_size:]


def held_out() -> Batch:
    """All held-out poems.

    >>> held_out().tokens.shape
    torch.Size([763, 27])
    """
    return _encoded(held_out=True)


@torch.no_grad()
@checked
def character_loss(model: DeepSeek, tokens: Int[Tensor, "batch seq"]) -> float:
    """Cross-entropy in nats per character, given form and rhyme group; nothing is changed.

    The prompt, punctuation and the end do not count. ValueError for poems without characters.

        >>> round(character_loss(DeepSeek(POET), held_out().tokens[:8]), 1)  # ln 3031
        8.0
    """
    tokens = tokens.to(model.device)
    targets = tokens[:, 1:].masked_fill(tokens[:, 1:] < len(SPECIALS), -1)
    if not (targets >= 0).any():
        raise ValueError(f"tokens must hold characters, got none in {tuple(tokens.shape)}")
    logits = model(tokens)[:, :-1]  # (batch, seq - 1, vocab)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1).item()


@cache
def _encoded(*, held_out: bool) -> Batch:
    tokens = torch.tensor([encode(poem) for poem in quatrains(held_out=held_out)])
    return Batch(tokens, torch.zeros(len(tokens), dtype=torch.long))  # one domain
