"""experts: a router that is made to know one kind of character is found out."""

from dataclasses import replace

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.data.poems import Verse, verses
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.moe import Gate
from dsnotes.training.loop import moe_layers
from dsnotes.training.verses import vocabulary
from dsnotes.whole.experts import KINDS, balance, specialists

POEMS = verses(held_out=True)[:60]
CONFIG = replace(
    TINY,
    num_hidden_layers=2,
    vocab_size=len(vocabulary()),
    n_routed_experts=4,
    n_group=1,
    topk_group=1,
    num_experts_per_tok=1,
)


def model() -> DeepSeek:
    torch.manual_seed(0)
    return DeepSeek(CONFIG)


def test_an_expert_of_punctuation_is_found() -> None:
    """The gate of the second layer reads one channel, which only the two marks have."""
    ours = model().requires_grad_(False)
    marks = [vocabulary().symbols.index(mark) for mark in "，。"]
    ours.model.embed_tokens.weight[:, 0] = 0
    ours.model.embed_tokens.weight[marks, 0] = 50
    gate = next(module for module in ours.modules() if isinstance(module, Gate))
    gate.weight.zero_()
    gate.weight[2, 0] = 1
    gate.e_score_correction_bias[0] = 0.49  # where all else goes
    found = specialists(ours, vocabulary(), POEMS)
    assert found["punctuation"] == {"layer": 0, "expert": 2, "share": 1.0, "others": 0.0}
    assert set(found) <= set(KINDS)
    tokens = [vocabulary().encode(verse) for verse in POEMS]
    count = sum(map(len, tokens))
    largest = max(n := sum(token in marks for row in tokens for token in row), count - n)
    assert balance(ours, vocabulary(), POEMS) == pytest.approx(4 * largest / count - 1, abs=1e-4)


def test_padding_and_batches_change_nothing() -> None:
    """Poems of unequal length in one batch count as they do alone."""
    long = next(v for v in verses() if v.form == "七律" and v.title)
    ours = model()
    pair = [long, POEMS[0]]
    one = [balance(ours, vocabulary(), [verse]) for verse in pair]
    assert balance(ours, vocabulary(), pair) <= max(one) + 1e-6
    assert len(moe_layers(ours)) == 1


def test_what_poems_do_not_speak_of_is_left_out() -> None:
    plain = Verse("尤", ("白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓"))
    assert set(specialists(model(), vocabulary(), [plain] * 4)) == {"rhyme", "punctuation"}
