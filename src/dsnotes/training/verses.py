"""Verse in four forms, with titles, as tokens: the poems of `dsnotes.data.poems.verses`.

One character is one token. A poem is its form, its rhyme group, its title, its text and an end:

    五絕 尤 登 樓 <text> 白 日 依 山 盡 ， 黃 河 入 海 流 。 欲 窮 千 里 目 ， 更 上 一 ... <end>

Nothing stands in the place of a title that a poem does not have. All up to <text> is the prompt:
whoever asks for a poem says form and group, and may name a subject. The tokens of form and group
are not those of the characters.

Sequences of one batch end in padding where they are shorter than the longest. As attention looks
back only, no token of a poem sees any; `loop.language_step(padding=PAD)` and `character_loss` do
not predict it either, and it does not count in the load of the experts.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.checks.numeric import at_least
from dsnotes.data.poems import RHYMES, TITLE_LENGTH, VERSE_FORMS, Verse, asked_for, verses
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.texts import Batch

_NAMES = [f"<{name}>" for name in (*VERSE_FORMS, *RHYMES)]
SPECIALS = ("<pad>", "<end>", "<text>", *_NAMES, "，", "。")
PAD, END, TEXT = 0, 1, 2
_WINDOW = 8  # batches whose poems are sorted by length together


class Vocabulary:
    """What each token stands for: `SPECIALS`, then characters.

    ValueError for symbols that begin otherwise.

        >>> vocabulary().prompt("五絕", "尤", "登樓")[:2]
        [3, 32]
        >>> tokens = vocabulary().encode(verses()[0])
        >>> vocabulary().decode(tokens[tokens.index(TEXT) + 1 :]) == verses()[0].text
        True
    """

    @checked
    def __init__(self, symbols: Sequence[str]) -> None:
        if tuple(symbols[: len(SPECIALS)]) != SPECIALS:
            raise ValueError(f"symbols must begin with those of SPECIALS, got {symbols[0]!r}, ...")
        self.symbols = tuple(symbols)
        self._ids = {symbol: i for i, symbol in enumerate(self.symbols)}

    @classmethod
    def of(cls, poems: Iterable[Verse]) -> "Vocabulary":
        """The vocabulary of some poems and their titles."""
        used = {c for verse in poems for c in verse.title + "".join(verse.lines)}
        return cls((*SPECIALS, *sorted(used)))

    def __len__(self) -> int:
        return len(self.symbols)

    @checked
    def prompt(self, form: str, rhyme: str, title: str = "") -> list[int]:
        """The tokens that ask for a poem. ValueError for an unknown form, group or character."""
        asked_for(form, rhyme, forms=VERSE_FORMS)
        if len(title) > TITLE_LENGTH:
            raise ValueError(f"title must have at most {TITLE_LENGTH} characters, got {len(title)}")
        name = self._characters("title", title)
        return [self._ids[f"<{form}>"], self._ids[f"<{rhyme}>"], *name, TEXT]

    @checked
    def encode(self, verse: Verse) -> list[int]:
        """Prompt, text and end of a poem; ValueError for a character of no token."""
        prompt = self.prompt(verse.form, verse.rhyme, verse.title)
        return [*prompt, *self._characters("verse", verse.text), END]

    @checked
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens up to the first end or padding; ValueError for one that is none."""
        text = []
        for token in tokens:
            if not 0 <= token < len(self):
                raise ValueError(f"tokens must lie in 0 to {len(self) - 1}, got {token}")
            if token in (PAD, END):
                break
            text.append(self.symbols[token])
        return "".join(text)

    def _characters(self, name: str, text: str) -> list[int]:
        if unknown := [character for character in text if character not in self._ids]:
            raise ValueError(
                f"{name} must consist of the characters of the vocabulary, got {unknown[0]!r}"
            )
        return [self._ids[character] for character in text]


@cache
def vocabulary() -> Vocabulary:
    """That of all poems of the package.

    >>> len(vocabulary()), vocabulary().symbols[2:5]
    (3035, ('<text>', '<五絕>', '<七絕>'))
    """
    return Vocabulary.of(verses() + verses(held_out=True))


@checked
def room(form: str) -> int:
    """Tokens of a poem after its prompt: lines with their punctuation, and the end.

    ValueError for an unknown form.

        >>> room("五絕"), room("七律")
        (25, 65)
    """
    asked_for(form, RHYMES[0], forms=VERSE_FORMS)
    count, length = VERSE_FORMS[form]
    return count * (length + 1) + 1


@checked
def padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "batch seq"]:
    """Sequences as one tensor, with `PAD` after the shorter ones; ValueError for none.

    >>> padded([[7, 8, 9], [7]])
    tensor([[7, 8, 9],
            [7, 0, 0]])
    """
    if not rows:
        raise ValueError("rows must hold at least one, got none")
    return torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(row) for row in rows], batch_first=True, padding_value=PAD
    )


@checked
def batches(
    poems: Sequence[Verse], vocabulary: Vocabulary, *, steps: int, batch_size: int, seed: int
) -> Iterator[Batch]:
    """Yield `steps` batches of poems, in an order by `seed` that is new in every epoch.

    Those of eight batches are sorted by length, so that a batch needs little padding, and the eight
    come in any order. Their domain is the form. What is left at the end of an epoch, and does not
    fill a batch, is passed over. ValueError, at the first batch, for negative steps and a batch
    that is empty or larger than the data.

        >>> batch = next(batches(verses(), vocabulary(), steps=1, batch_size=4, seed=0))
        >>> len(batch.tokens), len(batch.domain)
        (4, 4)
    """
    at_least(0, steps=steps)
    if not 1 <= batch_size <= len(poems):
        raise ValueError(f"batch_size must lie in 1 to {len(poems)}, got {batch_size}")
    rows = [vocabulary.encode(verse) for verse in poems]
    forms = list(VERSE_FORMS)
    domains = torch.tensor([forms.index(verse.form) for verse in poems])
    generator = torch.Generator().manual_seed(seed)
    queue: list[list[int]] = []
    for _ in range(steps):
        if not queue:
            order = torch.randperm(len(rows), generator=generator).tolist()
            order = order[: len(order) // batch_size * batch_size]
            for start in range(0, len(order), _WINDOW * batch_size):
                window = order[start : start + _WINDOW * batch_size]
                window.sort(key=lambda i: len(rows[i]))
                made = [window[i : i + batch_size] for i in range(0, len(window), batch_size)]
                turn = torch.randperm(len(made), generator=generator).tolist()
                queue += [made[i] for i in turn]
            queue.reverse()
        chosen = queue.pop()
        yield Batch(padded([rows[i] for i in chosen]), domains[chosen])


@torch.no_grad()
@checked
def character_loss(model: DeepSeek, tokens: Int[Tensor, "batch seq"]) -> float:
    """Cross-entropy in nats per character of the text, given the prompt; nothing is changed.

    The prompt, punctuation, the end and padding do not count. ValueError for sequences without a
    character after <text>.

        >>> from dataclasses import replace
        >>> tokens = padded([vocabulary().encode(verse) for verse in verses()[:4]])
        >>> model = DeepSeek(replace(POET, vocab_size=len(vocabulary())))
        >>> round(character_loss(model, tokens), 1)  # ln 3035
        8.0
    """
    tokens = tokens.to(model.device)
    text = (tokens == TEXT).cumsum(dim=1) > 0
    counts = (text & (tokens >= len(SPECIALS)))[:, 1:]
    if not counts.any():
        raise ValueError(f"tokens must hold characters, got none in {tuple(tokens.shape)}")
    targets = tokens[:, 1:].masked_fill(~counts, -1)
    logits = model(tokens)[:, :-1]  # (batch, seq - 1, vocab)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1).item()
