"""How evenly the experts of a model are loaded by held-out poems, and what they are for.

An expert is a specialist of a kind of character, such as the rhyme words, if it takes more of those
than of all others. Which it is is found on one half of the poems and measured on the other.

Equations
    MaxVio as in `model.balance`, over all tokens of the poems, the mean over the layers
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dsnotes.checks.arguments import checked
from dsnotes.data.poems import Verse
from dsnotes.model.balance import expert_load, max_vio
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import record_routing
from dsnotes.training.padding import without_padding
from dsnotes.training.verses import PAD, TEXT, Vocabulary, padded

WORDS = {  # characters that speak of a thing, wherever they stand
    "season": "春夏秋冬雪霜寒暑",
    "frontier": "邊塞關胡戍烽虜戰軍旗",
    "parting": "別離送歸客酒柳愁",
}
KINDS = ("rhyme", *WORDS, "punctuation")
_ROWS = 64


@checked
def balance(model: DeepSeek, vocabulary: Vocabulary, poems: Sequence[Verse]) -> float:
    """MaxVio_global of the main model over some poems; 0 is perfect balance.

    >>> from dsnotes.data.poems import verses
    >>> from dsnotes.training.verses import vocabulary
    >>> 0 <= balance(DeepSeek(BARD), vocabulary(), verses()[:8]) <= 7
    True
    """
    experts = model.config.n_routed_experts
    choices = _choices(model, vocabulary, poems)[0]
    loads = [expert_load(layer, n_routed_experts=experts) for layer in choices]
    return round(max_vio(torch.stack(loads)).mean().item(), 4)


@checked
def specialists(
    model: DeepSeek, vocabulary: Vocabulary, poems: Sequence[Verse]
) -> dict[str, dict[str, Any]]:
    """For each of `KINDS` the expert that has most to do with it: layer, number, and two shares.

    `share` is how many of such characters it takes, `others` how many of all other tokens of the
    texts. Kinds of which the poems have none are left out.

        >>> from dsnotes.data.poems import verses
    >>> from dsnotes.training.verses import vocabulary
    >>> list(specialists(DeepSeek(BARD), vocabulary(), verses()[:8])["rhyme"])
        ['layer', 'expert', 'share', 'others']
    """
    first, second = (_choices(model, vocabulary, poems[start::2]) for start in (0, 1))
    found = {}
    for kind in KINDS:
        (seek, apart), (share, others) = (
            _shares(choices, kinds == KINDS.index(kind), kinds, model.config.n_routed_experts)
            for choices, kinds in (first, second)
        )
        if seek.isfinite().all() and share.isfinite().all():
            best = int((seek - apart).argmax())
            layer, expert = divmod(best, model.config.n_routed_experts)
            found[kind] = {
                "layer": layer,  # of those with experts
                "expert": expert,
                "share": round(share.flatten()[best].item(), 4),
                "others": round(others.flatten()[best].item(), 4),
            }
    return found


def _shares(choices: Tensor, own: Tensor, kinds: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """Which share of the tokens `own`, and of the other tokens of texts, goes to each expert."""
    one_hot = torch.zeros(*choices.shape[:2], experts).scatter_(2, choices, 1.0)
    return one_hot[:, own].mean(dim=1), one_hot[:, ~own & (kinds >= -1)].mean(dim=1)


@torch.no_grad()
def _choices(
    model: DeepSeek, vocabulary: Vocabulary, poems: Sequence[Verse]
) -> tuple[Tensor, Tensor]:
    """The experts of every token, (layers, tokens, k), and its kind; -1 is none, -2 the prompt."""
    choices, kinds = [], []
    kind_of = _kinds(vocabulary)
    for start in range(0, len(poems), _ROWS):
        tokens = padded([vocabulary.encode(verse) for verse in poems[start : start + _ROWS]])
        with record_routing(model) as routings:
            model.hidden(tokens.to(model.device))
        kept = without_padding(routings, tokens.to(model.device), PAD)
        choices.append(torch.stack([routing.indices for routing in kept]).cpu())
        kinds.append(kind_of(tokens)[tokens != PAD])
    return torch.cat(choices, dim=1), torch.cat(kinds)


def _kinds(vocabulary: Vocabulary) -> Callable[[Tensor], Tensor]:
    table = torch.full((len(vocabulary),), -1)
    for token, symbol in enumerate(vocabulary.symbols):
        for kind, characters in WORDS.items():
            if symbol in characters:
                table[token] = KINDS.index(kind)
        if symbol in "，。":
            table[token] = KINDS.index("punctuation")
    stop = vocabulary.symbols.index("。")

    def kinds(tokens: Tensor) -> Tensor:
        found = table[tokens]
        rhymes = torch.zeros_like(tokens, dtype=torch.bool)
        rhymes[:, :-1] = tokens[:, 1:] == stop  # of the even lines
        found = found.masked_fill(rhymes, KINDS.index("rhyme"))
        return found.masked_fill((tokens == TEXT).cumsum(dim=1) == 0, -2)

    return kinds
