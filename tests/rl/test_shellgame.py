"""shellgame: the true path by hand, the held-out tenth, the noise of the base text, the layout."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dsnotes.rl import shellgame
from dsnotes.rl.reward import accuracy_reward, format_reward, language_reward
from dsnotes.rl.shellgame import Problems, completions, decode, encode, is_held_out, problems, read


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(tokens: Tensor) -> list[str]:
    return [decode(row) for row in tokens.tolist()]


def play(prompt: str) -> list[int]:
    """Where the ball is after each swap, with real cups in a row."""
    ball, *swaps, equals = prompt.split()
    assert equals == "="
    cups = [i == int(ball) - 1 for i in range(5)]
    path = []
    for swap in swaps:
        a, b = (int(cup) - 1 for cup in swap.split("-"))
        cups[a], cups[b] = cups[b], cups[a]
        path.append(cups.index(True))
    return path


def test_reading_a_prompt() -> None:
    found = read(torch.tensor([encode("3 1-3 4-5 1-2 ="), encode("5 1-2 4-5 3-4 =")]))
    assert found.path.tolist() == [[0, 0, 1], [4, 3, 2]]
    assert found.answers == ["2", "3"]


@pytest.mark.parametrize("held_out", [True, False])
def test_the_path_is_that_of_real_cups(held_out: bool) -> None:
    drawn = problems(200, swaps=7, held_out=held_out, generator=seeded())
    for prompt, path, answer in zip(texts(drawn.prompts), drawn.path, drawn.answers, strict=True):
        assert path.tolist() == play(prompt)
        assert int(answer) == play(prompt)[-1] + 1


def test_training_and_held_out_problems_share_none() -> None:
    assert not any(is_held_out(problems(2000, generator=seeded()).prompts))
    assert all(is_held_out(problems(2000, held_out=True, generator=seeded()).prompts))


def test_a_tenth_of_all_problems_is_held_out_and_all_are_drawn() -> None:
    """5 balls and 10 pairs for each of 2 swaps: 500 problems, 50 held out."""
    seen = {
        held_out: Counter(
            tuple(row)
            for row in problems(
                20_000, swaps=2, held_out=held_out, generator=seeded()
            ).prompts.tolist()
        )
        for held_out in (True, False)
    }
    assert (len(seen[True]), len(seen[False])) == (50, 450)
    for counts in seen.values():
        expected = 20_000 / len(counts)  # Poisson, about: five standard deviations on either side
        assert max(abs(n - expected) for n in counts.values()) < 5 * expected**0.5


def test_every_answer_is_right_once_in_five() -> None:
    for held_out in (True, False):
        drawn = problems(20_000, held_out=held_out, generator=seeded())
        shares = drawn.path[:, -1].bincount() / 20_000
        assert (shares - 0.2).abs().max() < 5 * (0.2 * 0.8 / 20_000) ** 0.5


@pytest.mark.parametrize("script", ["digit", "en", "zh"])
def test_solutions_earn_every_reward(script: shellgame.Script) -> None:
    drawn = problems(50, generator=seeded())
    written = texts(completions(drawn, script=script, generator=seeded()))
    assert accuracy_reward(written, answer=drawn.answers) == [1.0] * 50
    assert format_reward(written) == [1.0] * 50
    for language in ("en", "zh"):
        shares = language_reward(written, language=[language] * 50)
        assert shares == [float(script == language)] * 50
    thought = written[0].split("\n")[1].split()
    names = {"digit": "1 2 3 4 5", "en": "one two three four five", "zh": "一 二 三 四 五"}
    assert thought == [names[script].split()[p] for p in drawn.path[0].tolist()]


def test_mixed_text_is_half_of_each_language() -> None:
    drawn = problems(1000, generator=seeded())
    written = texts(completions(drawn, script="mixed", generator=seeded()))
    share = sum(language_reward(written, language=["zh"] * 1000)) / 1000
    assert share == pytest.approx(0.5, abs=5 * 0.5 / 6000**0.5)
    assert accuracy_reward(written, answer=drawn.answers) == [1.0] * 1000


def test_noise_of_the_base_text() -> None:
    """A complete thought is right with probability 1/5 + 4/5 (1 - 5/4 e)^n, others once in five.

    Each step keeps the difference between right and chance with factor 1 - 5/4 e: an error goes to
    one of four other places, and a later one may undo it.
    """
    n = 7000
    drawn = problems(n, generator=seeded())
    written = completions(drawn, lengths=[1.0] * 7, error=0.1, generator=seeded(1))
    right = torch.tensor(accuracy_reward(texts(written), answer=drawn.answers))
    stop = (written != shellgame.PAD).sum(1) - 5
    for k in range(7):
        here = right[stop == k]
        assert len(here) == pytest.approx(n / 7, abs=5 * (n * 6 / 49) ** 0.5)
        expected = 0.2 + 0.8 * 0.875**6 if k == 6 else 0.2
        noise = (expected * (1 - expected) / len(here)) ** 0.5
        assert here.mean().item() == pytest.approx(expected, abs=5 * noise)


def test_a_complete_thought_answers_with_its_last_position_even_if_wrong() -> None:
    drawn = problems(300, generator=seeded())
    rows = texts(completions(drawn, error=0.5, generator=seeded()))
    for row in rows:
        lines = row.split("\n")
        assert lines[1].split()[-1] == lines[4]


def test_an_error_moves_the_ball_and_the_next_step_goes_on_from_there() -> None:
    drawn = problems(100, generator=seeded())
    for prompt, row in zip(
        texts(drawn.prompts), texts(completions(drawn, error=1.0, generator=seeded())), strict=True
    ):
        ball, *swaps, _ = prompt.split()
        for swap, step in zip(swaps, row.split("\n")[1].split(), strict=True):
            assert int(step) - 1 != play(f"{ball} {swap} =")[0]  # wrong at every step
            ball = step


def test_an_empty_thought_is_the_prefix_that_forbids_thinking() -> None:
    drawn = problems(5, generator=seeded())
    rows = completions(drawn, lengths=[1.0] + [0.0] * 6, generator=seeded())
    assert {tuple(row[:3]) for row in rows.tolist()} == {shellgame.NO_THOUGHT}
    assert rows.shape == (5, 11)
    assert (rows[:, 5:] == shellgame.PAD).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, shellgame.VOCAB_SIZE - 1), max_size=20))
def test_text_and_tokens_are_one_to_one(tokens: list[int]) -> None:
    assert encode(decode(tokens)) == tokens


def test_layout_of_a_completion() -> None:
    tokens = encode("<think> 3 4 </think> <answer> 4 </answer>")
    assert decode([*tokens, shellgame.PAD]) == "<think>\n3 4\n</think>\n<answer>\n4\n</answer>"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d, g: problems(0, generator=g), "count and swaps must be at least 1, got 0"),
        (lambda d, g: problems(1, swaps=0, generator=g), "at least 1, got 1 and 0"),
        (lambda d, g: encode("3 6-7 ="), "symbols of the shell game, got '6-7'"),
        (lambda d, g: decode([3, 31]), "tokens must lie in 0 to 30, got 31"),
        (lambda d, g: decode([-1]), "tokens must lie in 0 to 30, got -1"),
        (lambda d, g: completions(d, lengths=[1.0] * 6, generator=g), "must hold 7 frequencies"),
        (lambda d, g: completions(d, lengths=[0.0] * 7, generator=g), "not all 0"),
        (lambda d, g: completions(d, lengths=[-1.0] * 7, generator=g), "at least 0"),
        (lambda d, g: completions(d, error=1.5, generator=g), "error must lie between 0 and 1"),
    ],
)
def test_bad_input(call: object, message: str) -> None:
    drawn: Problems = problems(2, generator=seeded())
    with pytest.raises(ValueError, match=message):
        call(drawn, seeded())  # type: ignore[operator]
