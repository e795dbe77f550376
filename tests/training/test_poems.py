"""poems: what a token stands for, prompts that are no characters, batches that repeat by seed."""

import math
from dataclasses import replace

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.data.poems import FORMS, RHYMES, Poem, quatrains
from dsnotes.model.deepseek import DeepSeek
from dsnotes.training.loop import evaluate, language_step
from dsnotes.training.poems import (
    END,
    SPECIALS,
    batches,
    character_loss,
    decode,
    encode,
    held_out,
    prompt,
    room,
    vocabulary,
)
from dsnotes.training.state import TrainState

HERON = Poem("尤", ("白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓"))


def poet() -> DeepSeek:
    torch.manual_seed(0)
    return DeepSeek(replace(TINY, vocab_size=len(vocabulary())))


def test_every_symbol_has_one_token() -> None:
    assert len(set(vocabulary())) == len(vocabulary())
    assert vocabulary()[: len(SPECIALS)] == SPECIALS
    assert vocabulary()[END] == "<end>"
    assert all(len(character) == 1 for character in vocabulary()[len(SPECIALS) :])


@pytest.mark.parametrize("part", [True, False])
def test_poems_come_back_from_their_tokens(part: bool) -> None:
    for poem in quatrains(held_out=part):
        tokens = encode(poem)
        assert tokens[:2] == prompt(poem.form, poem.rhyme)
        assert (len(tokens) - 2, tokens[-1]) == (room(poem.form), END)
        assert decode(tokens[2:]) == poem.text


def test_the_tokens_of_a_prompt_are_no_characters() -> None:
    """東 is a character of many poems, and the name of a group."""
    used = {token for poem in quatrains() for token in encode(poem)[2:]}
    asked = {token for form in FORMS for rhyme in RHYMES for token in prompt(form, rhyme)}
    assert len(asked) == len(FORMS) + len(RHYMES)
    assert used.isdisjoint(asked)
    assert decode(prompt("五", "東")) == "<五><東>"  # in a poem it breaks the form


def test_text_ends_at_the_first_end() -> None:
    tokens = encode(HERON)[2:]
    assert decode([*tokens, *tokens]) == HERON.text
    assert decode([END, *tokens]) == ""
    assert decode([]) == ""


def test_batches_repeat_by_seed_and_begin_anew_in_every_epoch() -> None:
    share = len(quatrains()) // 3
    first, again, other = (
        [b.tokens for b in batches(steps=4, batch_size=share, seed=seed)] for seed in (0, 0, 1)
    )
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not first[0].equal(other[0])
    rows = [tuple(row) for batch in first[:3] for row in batch.tolist()]
    assert len(set(rows)) == len(rows) == 3 * share
    assert not first[3].equal(first[0])
    assert set(map(tuple, first[3].tolist())) & set(rows)


def test_held_out_poems_are_in_no_batch() -> None:
    (everything,) = batches(steps=1, batch_size=len(quatrains()), seed=0)
    seen = set(map(tuple, everything.tokens.tolist()))
    assert len(seen) == len(quatrains())
    assert seen.isdisjoint(map(tuple, held_out().tokens.tolist()))
    assert not held_out().domain.any()


def test_the_steps_of_a_language_model_take_the_batches() -> None:
    state = TrainState.create(poet(), steps=2, learning_rate=1e-3)
    losses = [
        language_step(state, batch, gamma=0.01, mtp_weight=0.0)["loss"]
        for batch in batches(steps=2, batch_size=8, seed=0)
    ]
    assert losses[1] < losses[0]
    part = held_out()._replace(tokens=held_out().tokens[:8], domain=held_out().domain[:8])
    assert evaluate(state.model, part).loss < losses[0]


def test_the_loss_of_characters_is_theirs_alone() -> None:
    model, tokens = poet(), held_out().tokens[:3]
    log_probs = model(tokens).log_softmax(-1)
    terms = [
        -log_probs[i, t - 1, token].item()
        for i, row in enumerate(tokens.tolist())
        for t, token in enumerate(row)
        if len(vocabulary()[token]) == 1 and vocabulary()[token] not in "，。"
    ]
    assert len(terms) == 3 * 20
    assert character_loss(model, tokens) == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert character_loss(model, tokens) == pytest.approx(math.log(len(vocabulary())), abs=0.1)


# --- wrong input ---


def test_unknown_symbols_are_named() -> None:
    with pytest.raises(ValueError, match=r"poem must consist of .* vocabulary\(\), got 'x'"):
        encode(HERON._replace(lines=("x日依山盡", *HERON.lines[1:])))
    with pytest.raises(ValueError, match="tokens must lie in 0 to 3030, got 3031"):
        decode([5, 3031])
    with pytest.raises(ValueError, match="form must be one of"):
        room("六")
    with pytest.raises(ValueError, match="rhyme must be one of the groups"):
        prompt("五", "五")


def test_batches_that_do_not_fit_are_refused() -> None:
    for size in (0, len(quatrains()) + 1):
        with pytest.raises(ValueError, match=f"batch_size must lie in 1 to 6717, got {size}"):
            next(batches(steps=1, batch_size=size, seed=0))
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        next(batches(steps=-1, batch_size=4, seed=0))
    with pytest.raises(ValueError, match="tokens must hold characters, got none"):
        character_loss(poet(), torch.tensor([prompt("五", "尤")]))
