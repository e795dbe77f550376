"""The exercises of the section on rewards, solved with the library."""

import math
import re

import pytest
import torch

from dsnotes.rl.answers import final_answer
from dsnotes.rl.grpo import group_advantages
from dsnotes.rl.reward import (
    accuracy_reward,
    expression_reward,
    format_reward,
    language_reward,
    weighted_sum,
)
from dsnotes.rl.reward_model import bradley_terry_loss, preference_probability
from dsnotes.rl.verse import judge

from .page import exercise, page, solution


def test_reward_1() -> None:
    """The four completions of the page, scored; their sums are those of the solution."""
    text = re.search(r"```text\n(.*?)\n```", exercise("reward-1"), re.DOTALL)
    assert text
    completions = text[1].splitlines()
    assert len(completions) == 4
    found = weighted_sum([accuracy_reward, format_reward])(completions, answer=["1/2"] * 4)
    stated = re.search(r"(\d(?:、\d)+)。", solution("reward-1"))
    assert stated
    assert found == [float(n) for n in stated[1].split("、")]
    assert accuracy_reward(completions, answer=["1/2"] * 4) == [1, 1, 1, 0]
    assert format_reward(completions) == [1, 0, 0, 1]


def test_reward_2() -> None:
    """All wrong, only the format differs: a positive weight changes no advantage."""
    completions = ["<think>a</think><answer>6</answer>"] * 3 + ["6"] * 5
    columns = {"answer": ["5"] * 8}
    advantages = []
    for weight in (1.0, 0.1):
        reward = weighted_sum([accuracy_reward, format_reward], weights=[1.0, weight])
        advantages.append(group_advantages(torch.tensor([reward(completions, **columns)])))
    assert advantages[0].abs().min() > 0.5
    assert torch.allclose(*advantages, atol=1e-5)
    # with accuracy varying as well, the weight matters
    completions[0] = "<answer>5</answer>"
    mixed = []
    for weight in (1.0, 0.1):
        reward = weighted_sum([accuracy_reward, format_reward], weights=[1.0, weight])
        mixed.append(group_advantages(torch.tensor([reward(completions, **columns)])))
    assert not torch.allclose(*mixed, atol=0.1)


def test_reward_3() -> None:
    """By counting wins of a judge that follows the model, and the surprise of one."""
    a, b = torch.tensor([2.0]), torch.tensor([0.0])
    noise = torch.rand(400_000, generator=torch.Generator().manual_seed(0))
    logistic = (noise / (1 - noise)).log()  # P(logistic < x) = sigmoid(x)
    wins = (logistic < 2.0).float().mean().item()
    probability = preference_probability(a, b).item()
    assert probability == pytest.approx(wins, abs=2e-3)
    assert bradley_terry_loss(a, b).item() == pytest.approx(-math.log(wins), abs=3e-3)
    for name in ("probability", "pair_loss"):
        assert f"reward.ipynb::{name}:" in solution("reward-3")


def test_reward_4() -> None:
    """Searched: the first number of 的 that reaches 0.9."""
    words = "ten English words stand in this thought without any Chinese"
    assert len(words.split()) == 10

    def share(n: int) -> float:
        return language_reward([f"<think>{words}{'的' * n}</think>"], language=["zh"])[0]

    first = next(n for n in range(200) if share(n) >= 0.9)
    stated = re.search(r"\$n=(\d+)\$", solution("reward-4"))
    assert stated
    assert first == int(stated[1])


def test_reward_5() -> None:
    """Both patterns of the solution, what they accept, and the strings that break them."""
    solved = solution("reward-5")
    loose, paired = re.search(r"整串匹配 `([^`]+)`.*写成 `([^`]+)`", solved, re.DOTALL).groups()

    def choice_reward(completion: str, pattern: str, answer: str = "B") -> bool:
        found = re.fullmatch(pattern, final_answer(completion) or "")
        return found is not None and answer in found.groups()

    def wrap(text: str) -> str:
        return f"<think>a</think><answer>{text}</answer>"

    for pattern in (loose, paired):
        assert all(choice_reward(wrap(text), pattern) for text in ("B", "(B)", "B."))
        for text in ("A", "(A)", "A B C D", "AB", "ABCD", "B 或 C", "(A)(B)", "", "b"):
            assert not choice_reward(wrap(text), pattern)
    broken = re.search(r"写法不对的：`([^`]+)`、`([^`]+)`", solved)
    assert broken
    for text in broken.groups():
        assert choice_reward(wrap(text), loose)
        assert not choice_reward(wrap(text), paired)
    guess = re.search(r"没有做题的：`([^`]+)`", solved)
    assert guess
    assert choice_reward(guess[1], paired)
    assert format_reward([guess[1]]) == [1.0]
    right = sum(choice_reward(wrap(text), paired) for text in "ABCD")
    assert right == 1  # a guess wins one time in four


def test_reward_6() -> None:
    """Graded by the tests of the section (`tests/practice`)."""
    assert "`python -m dsnotes.practice reward`" in exercise("reward-6")


def test_reward_7() -> None:
    """The planted bugs are tried in `tests/practice`; an honest answer passes both of these."""
    assert "`python -m dsnotes.practice --bug reward-2`" in exercise("reward-7")
    assert "`--bug reward-4`" in exercise("reward-7")
    assert expression_reward(["<answer>24</answer>"], numbers=[[4, 7, 8, 8]], target=[24]) == [0.0]


def test_reward_8() -> None:
    """What the solution says that the rules of verse hold off."""
    again = "白日依山盡，黃河入海流。欲窮千里目，更上一江流。"
    assert judge(again, form="五", rhyme="尤").rhyme == 0.5
    assert not judge("白日依山盡，黃河入海流。白日依山盡，黃河入海流。", form="五", rhyme="尤").form
    assert "重复的句子" in solution("reward-8")


def test_the_page_has_no_other_exercise() -> None:
    assert re.findall(r":label: ex-reward-(\d+)", page("reward")) == list("12345678")
