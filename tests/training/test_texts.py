"""The data sets: fixed texts, a fixed held-out part, batches that repeat by seed."""

import hashlib

import pytest
import torch

from dsnotes.training import texts

SHA256 = {  # of the UTF-8 bytes: the numbers of the book hold for these texts only
    "poetry": "d198933ba6e7dbbdc3ef3663f73b4b427fa25bd8d134d20de84fc6c6e42c9c4d",
    "english": "7882bc1c43dbc3a9270541b4b593763bdfd74db7866ec3feda7fd42f50c37adf",
    "code": "b5a876e23b4e963759c3530094b000094472e3a10c885690a58f3a5d4d2b1d7d",
    "math": "aea4da876b33de4a1e3e37b9e27c84eb9972cc276e0caf92a4a6e83e9feb3e42",
}


def rows(batch: texts.Batch) -> set[tuple[int, ...]]:
    return {tuple(row) for row in batch.tokens.tolist()}


@pytest.mark.parametrize("domain", texts.DOMAINS)
def test_the_texts_never_change(domain: str) -> None:
    data = texts.corpus(domain).encode("utf-8")
    assert 80_000 < len(data) < 91_000
    assert hashlib.sha256(data).hexdigest() == SHA256[domain]


def test_every_sum_is_right() -> None:
    for line in texts.corpus("math").splitlines():
        left, right = line.split("=")
        sign = next(s for s in "+-*" if s in left)
        a, b = map(int, left.split(sign))
        assert int(right) == {"+": a + b, "-": a - b, "*": a * b}[sign]


def test_tokens_are_bytes() -> None:
    assert texts.tokens("a文").tolist() == [97, 230, 150, 135]
    text = texts.corpus("poetry")
    assert bytes(texts.tokens(text).tolist()).decode("utf-8") == text


def test_same_seed_same_batches_other_seed_other_order() -> None:
    def run(seed: int) -> torch.Tensor:
        found = texts.batches(steps=3, batch_size=4, seq_len=64, seed=seed)
        return torch.stack([batch.tokens for batch in found])

    assert run(0).shape == (3, 4, 64)
    assert run(0).equal(run(0))
    assert not run(0).equal(run(1))


def test_an_epoch_shows_every_training_sequence_once_and_no_held_out_one() -> None:
    held = texts.held_out(seq_len=1000)
    assert torch.bincount(held.domain).tolist() == [8, 8, 8, 8]
    for domain, whole in zip(texts.DOMAINS, (80, 89, 81, 86), strict=True):
        epoch = texts.batches(steps=whole - 8, batch_size=1, seq_len=1000, seed=0, domains=[domain])
        drawn = [row for batch in epoch for row in rows(batch)]
        assert len(set(drawn)) == len(drawn) == whole - 8
        assert not set(drawn) & rows(held)


def test_every_batch_holds_the_same_number_of_each_domain() -> None:
    for batch in texts.batches(steps=30, batch_size=12, seq_len=1000, seed=0):
        assert batch.domain.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert len(rows(batch)) == 12


def test_sequences_carry_their_domain() -> None:
    for batch in texts.batches(
        steps=20, batch_size=8, seq_len=128, seed=0, domains=("math", "poetry")
    ):
        for row, domain in zip(batch.tokens.tolist(), batch.domain.tolist(), strict=True):
            assert bytes(row).isascii() == (domain == 0)


def test_a_short_last_batch_is_not_yielded() -> None:
    found = texts.batches(steps=50, batch_size=70, seq_len=1000, seed=0, domains=["code"])
    assert {len(batch.tokens) for batch in found} == {70}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"domains": ["prose"]}, "domain must be one of .*got 'prose'"),
        ({"domains": []}, "domains must name at least one"),
        ({"steps": -1}, "steps must be at least 0, got -1"),
        ({"batch_size": 0}, r"batch_size must be .*got 0"),
        ({"batch_size": 10**6}, r"batch_size must be .* at most \d+, got 1000000"),
        ({"batch_size": 6}, r"batch_size must be a multiple of .*\(4\).*got 6"),
        ({"seq_len": 1}, "seq_len must be at least 2, .*got 1"),
        ({"seq_len": 20_000}, "seq_len must leave 10 sequences .*got 20000"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, object], message: str) -> None:
    good = {"steps": 1, "batch_size": 4, "seq_len": 64, "seed": 0}
    with pytest.raises(ValueError, match=message):
        next(texts.batches(**(good | kwargs)))


def test_counting_counts() -> None:
    text = texts.counting(sequences=20, seq_len=40, vocab_size=16, seed=0)
    assert torch.equal(text[:, 1:], (text[:, :-1] + 1) % 16)
    assert len(text[:, 0].unique()) > 5
    assert torch.equal(text, texts.counting(sequences=20, seq_len=40, vocab_size=16, seed=0))
    assert not torch.equal(text, texts.counting(sequences=20, seq_len=40, vocab_size=16, seed=1))


@pytest.mark.parametrize("ahead", [1, 3])
def test_counting_with_jumps_has_the_stated_entropy(ahead: int) -> None:
    """The best prediction, from the frequencies of 400,000 pairs: each jump hits all 8 tokens."""
    text = texts.counting(sequences=4000, seq_len=100 + ahead, vocab_size=8, jump=0.25, seed=0)
    share = ((text[:, ahead:] - text[:, :-ahead]) % 8).flatten().bincount() / 400_000
    expected = torch.full((8,), (1 - 0.75**ahead) / 8)
    expected[ahead] += 0.75**ahead
    assert (share - expected).abs().max() < 0.004
    entropy = -(expected * expected.log()).sum().item()
    stated = texts.counting_entropy(vocab_size=8, jump=0.25, ahead=ahead)
    assert stated == pytest.approx(entropy, rel=1e-5)
    assert texts.counting_entropy(vocab_size=8, jump=0.0, ahead=ahead) == 0


def test_counting_refuses_bad_sizes() -> None:
    with pytest.raises(ValueError, match="sequences and seq_len must be at least 1, got 0 and 4"):
        texts.counting(sequences=0, seq_len=4, seed=0)
    with pytest.raises(ValueError, match=r"jump must lie between 0 and 1, got 1\.5"):
        texts.counting(sequences=1, seq_len=4, jump=1.5, seed=0)
    with pytest.raises(ValueError, match="vocab_size must be at least 1, got 0"):
        texts.counting_entropy(vocab_size=0, jump=0.5)
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        texts.counting_entropy(jump=0.5, ahead=0)
