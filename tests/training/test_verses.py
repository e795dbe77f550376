"""verses: sequences with a title or none, padding that is learned from by nobody, bad input."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.data.poems import RHYMES, VERSE_FORMS, Verse, verses
from dsnotes.model.deepseek import DeepSeek
from dsnotes.model.mtp import add_modules, mtp_loss, predict
from dsnotes.training import poems
from dsnotes.training.loop import language_step, next_token_loss
from dsnotes.training.padding import padding_documents
from dsnotes.training.state import TrainState
from dsnotes.training.verses import (
    END,
    PAD,
    SPECIALS,
    TEXT,
    Vocabulary,
    batches,
    character_loss,
    padded,
    room,
    vocabulary,
)

HERON = Verse("尤", ("白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓"), "登樓")
PART = verses()[::40]


def poet() -> DeepSeek:
    torch.manual_seed(0)
    return DeepSeek(replace(TINY, vocab_size=len(vocabulary())))


# --- tokens ---


def test_every_symbol_has_one_token() -> None:
    symbols = vocabulary().symbols
    assert len(set(symbols)) == len(symbols) == len(vocabulary())
    assert symbols[: len(SPECIALS)] == SPECIALS
    assert [symbols[i] for i in (PAD, END, TEXT)] == ["<pad>", "<end>", "<text>"]
    assert all(len(character) == 1 for character in symbols[len(SPECIALS) :])
    assert set(symbols[len(SPECIALS) :]) == set(poems.vocabulary()[len(poems.SPECIALS) :])


def test_a_sequence_is_form_group_title_text_and_end() -> None:
    symbols = [vocabulary().symbols[token] for token in vocabulary().encode(HERON)]
    assert symbols == ["<五絕>", "<尤>", *"登樓", "<text>", *HERON.text, "<end>"]
    without = vocabulary().encode(HERON._replace(title=""))
    assert [vocabulary().symbols[token] for token in without[:4]] == [
        "<五絕>",
        "<尤>",
        "<text>",
        "白",
    ]


def test_all_poems_of_the_package_come_back_from_their_tokens() -> None:
    for held_out in (True, False):
        for verse in verses(held_out=held_out):
            tokens, asked = vocabulary().encode(verse), [verse.form, verse.rhyme, verse.title]
            prompt = vocabulary().prompt(*asked)
            assert tokens[: len(prompt)] == prompt
            assert (len(tokens) - len(prompt), tokens[-1]) == (room(verse.form), END)
            assert vocabulary().decode(tokens[len(prompt) :]) == verse.text


def test_text_ends_at_the_first_end_or_padding() -> None:
    tokens = vocabulary().encode(HERON)[5:]
    assert vocabulary().decode([*tokens, *tokens]) == HERON.text
    assert vocabulary().decode([*tokens[:-1], PAD, PAD]) == HERON.text
    assert vocabulary().decode([END, *tokens]) == vocabulary().decode([]) == ""


def test_a_vocabulary_is_made_of_poems_or_of_its_own_symbols() -> None:
    small = Vocabulary.of([HERON])
    assert small.symbols == (*SPECIALS, *sorted({*HERON.text, *HERON.title} - {"，", "。"}))
    again = Vocabulary(small.symbols)
    assert again.encode(HERON) == small.encode(HERON)


# --- batches ---


def test_padded_rows_are_as_long_as_the_longest() -> None:
    tokens = padded([[5, 6], [7], [8, 9, END]])
    assert tokens.tolist() == [[5, 6, PAD], [7, PAD, PAD], [8, 9, END]]


def test_batches_repeat_by_seed_and_every_poem_comes_once_an_epoch() -> None:
    steps = len(PART) // 16

    def drawn(seed: int, steps: int = steps) -> list[torch.Tensor]:
        made = batches(PART, vocabulary(), steps=steps, batch_size=16, seed=seed)
        return [batch.tokens for batch in made]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(a.equal(b) for a, b in zip(first, again, strict=True))
    assert not all(a.equal(b) for a, b in zip(first, other, strict=True))
    rows = Counter(
        vocabulary().decode(row[row.index(TEXT) + 1 :]) for t in first for row in t.tolist()
    )
    assert len(rows) == 16 * steps
    assert set(rows) <= {verse.text for verse in PART}
    longer = drawn(0, 2 * steps)
    assert all(a.equal(b) for a, b in zip(first, longer, strict=False))
    assert len(longer) == 2 * steps


def test_poems_of_a_batch_are_about_as_long_and_their_domain_is_the_form() -> None:
    """Little of a batch is padding, and batches of all lengths come in turn."""
    made = list(batches(PART, vocabulary(), steps=16, batch_size=16, seed=0))
    pads = sum((batch.tokens == PAD).sum().item() for batch in made)
    assert pads / sum(batch.tokens.numel() for batch in made) < 0.08
    lengths = [batch.tokens.shape[1] for batch in made]
    assert lengths != sorted(lengths)
    assert max(lengths[:8]) - min(lengths[:8]) > 30
    forms = list(VERSE_FORMS)
    for batch in made:
        for row, domain in zip(batch.tokens.tolist(), batch.domain.tolist(), strict=True):
            assert vocabulary().symbols[row[0]] == f"<{forms[domain]}>"


# --- losses ---


def test_padding_changes_neither_the_loss_nor_a_gradient() -> None:
    rows = [vocabulary().encode(verse) for verse in (HERON, verses()[-1])]
    model = poet()
    for row in rows:
        bare, wide = torch.tensor([row]), torch.tensor([row + [PAD] * 7])
        losses, gradients = [], []
        for tokens in (bare, wide):
            model.zero_grad()
            loss = next_token_loss(model(tokens), tokens, padding=PAD)
            loss.backward()
            losses.append(loss.item())
            gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)
    tokens = padded(rows)
    each = [next_token_loss(model(torch.tensor([row])), torch.tensor([row])) for row in rows]
    mean = sum(x.item() * (len(row) - 1) for x, row in zip(each, rows, strict=True))
    mean /= sum(len(row) - 1 for row in rows)
    assert next_token_loss(model(tokens), tokens, padding=PAD).item() == pytest.approx(
        mean, rel=1e-5
    )
    assert next_token_loss(model(tokens), tokens).item() != pytest.approx(mean, rel=1e-4)


def test_a_step_counts_no_padding_in_loss_or_load() -> None:
    rows = [vocabulary().encode(verse) for verse in (HERON, verses()[-1], HERON._replace(title=""))]
    assert sum(map(len, rows)) % len(rows)  # as many tokens a poem would hide what is left out
    tokens = padded(rows)
    batch = next(batches(PART, vocabulary(), steps=1, batch_size=3, seed=0))._replace(tokens=tokens)
    expected = next_token_loss(poet()(tokens), tokens, padding=PAD).item()
    state = TrainState.create(add_modules(poet()), steps=1, learning_rate=1e-3)
    report = language_step(state, batch, gamma=0.01, mtp_weight=0.3, padding=PAD)
    assert report["loss"] == pytest.approx(expected, rel=1e-6)
    real = sum(map(len, rows))
    per_layer = report["load"].sum(dim=1) / TINY.num_experts_per_tok
    assert per_layer.tolist() == [real, real, real - len(rows)]  # a module lacks the last token
    whole = language_step(
        TrainState.create(add_modules(poet()), steps=1, learning_rate=1e-3), batch, mtp_weight=0.3
    )
    assert whole["load"].sum() > report["load"].sum()


def test_prediction_modules_do_not_learn_from_padding() -> None:
    """Equation 24 divides by the whole length, padding included."""
    row, model = vocabulary().encode(HERON), add_modules(poet())
    sums = []
    for width in (0, 9):
        tokens = torch.tensor([row + [PAD] * width])
        ahead = predict(model, model.hidden(tokens), tokens)
        documents = padding_documents(tokens, PAD)
        loss = mtp_loss(ahead, tokens, weight=1.0, documents=documents)
        sums.append(loss.item() * (tokens.shape[1] - 1))
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)
    assert sums[0] == pytest.approx((len(row) - 2) * math.log(len(vocabulary())), rel=0.05)


def test_a_step_gives_the_modules_no_padding_to_learn() -> None:
    """The direction in which padding pulls them is none; how far a step goes is cut to a norm."""
    row, directions = vocabulary().encode(HERON), []
    for width in (0, 9):
        state = TrainState.create(add_modules(poet()), steps=1, learning_rate=1e-3)
        tokens = torch.tensor([row + [PAD] * width])
        batch = next(batches(PART, vocabulary(), steps=1, batch_size=1, seed=0))
        language_step(state, batch._replace(tokens=tokens), mtp_weight=0.3, padding=PAD)
        gradient = state.model.model.layers[-1].eh_proj.weight.grad
        directions.append(gradient / gradient.norm())
    torch.testing.assert_close(*directions, rtol=1e-3, atol=1e-6)


def test_the_loss_of_characters_is_that_of_the_text_alone() -> None:
    model, tokens = poet(), padded([vocabulary().encode(v) for v in (HERON, verses()[-1])])
    log_probs = model(tokens).log_softmax(-1)
    terms = []
    for i, row in enumerate(tokens.tolist()):
        start = row.index(TEXT)
        terms += [
            -log_probs[i, t - 1, row[t]].item()
            for t in range(start + 1, len(row))
            if row[t] >= len(SPECIALS)
        ]
    assert len(terms) == 20 + 56
    assert character_loss(model, tokens) == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert character_loss(model, tokens) == pytest.approx(math.log(len(vocabulary())), abs=0.1)


# --- wrong input ---


def test_unknown_symbols_are_named() -> None:
    with pytest.raises(ValueError, match=r"verse must consist of .* vocabulary, got 'x'"):
        vocabulary().encode(HERON._replace(lines=("x日依山盡", *HERON.lines[1:])))
    with pytest.raises(ValueError, match=r"title must consist of .* vocabulary, got 'x'"):
        vocabulary().prompt("五絕", "尤", "登x")
    with pytest.raises(ValueError, match="title must have at most 12 characters, got 13"):
        vocabulary().prompt("五絕", "尤", "登" * 13)
    with pytest.raises(
        ValueError, match=f"tokens must lie in 0 to {len(vocabulary()) - 1}, got -1"
    ):
        vocabulary().decode([5, -1])
    with pytest.raises(ValueError, match="form must be one of"):
        room("五")
    with pytest.raises(ValueError, match="rhyme must be one of the groups"):
        vocabulary().prompt("五絕", RHYMES)
    with pytest.raises(ValueError, match="symbols must begin with those of SPECIALS"):
        Vocabulary(("白", "日"))


def test_batches_that_do_not_fit_are_refused() -> None:
    for size in (0, len(PART) + 1):
        with pytest.raises(
            ValueError, match=rf"batch_size must lie in 1 to {len(PART)}, got {size}"
        ):
            next(batches(PART, vocabulary(), steps=1, batch_size=size, seed=0))
    with pytest.raises(ValueError, match="steps must be at least 0, got -1"):
        next(batches(PART, vocabulary(), steps=-1, batch_size=4, seed=0))
    with pytest.raises(ValueError, match="rows must hold at least one, got none"):
        padded([])
    with pytest.raises(ValueError, match="tokens must hold characters, got none"):
        character_loss(poet(), torch.tensor([vocabulary().prompt("五絕", "尤")]))


def test_a_sequence_wise_loss_takes_no_padding() -> None:
    state = TrainState.create(poet(), steps=1, learning_rate=1e-3)
    batch = next(batches(PART, vocabulary(), steps=1, batch_size=2, seed=0))
    with pytest.raises(ValueError, match="sequence_alpha must be 0 with padding"):
        language_step(state, batch, sequence_alpha=0.1, padding=PAD)
    with pytest.raises(ValueError, match="tokens must hold something else than padding"):
        next_token_loss(torch.zeros(1, 3, 4), torch.tensor([[1, 0, 0]]), padding=0)
