"""writing: prompts without padding, a reward whose parts can be left out, a step that learns."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.data.poems import VERSE_FORMS, Verse, verses
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.novelty import Known
from dsnotes.rl.objective import Objective
from dsnotes.rl.regulated import judge
from dsnotes.training.state import TrainState
from dsnotes.training.verses import END, vocabulary
from dsnotes.whole.writing import Prompts, every_rule_reward, poem_reward, poem_step, write

TOWER = Verse("尤", ("白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓"), "登樓")


def model() -> DeepSeek:
    torch.manual_seed(0)
    small = replace(TINY, num_hidden_layers=1, vocab_size=len(vocabulary()))
    return DeepSeek(replace(small, initializer_range=0.02))


@cache
def asking() -> Prompts:
    return Prompts(verses())


def test_prompts_of_a_step_are_alike_and_forms_come_as_often_as_they_are_long() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [asking().draw(4, generator=generator) for _ in range(400)]
    assert all(len({(v.form, len(v.title)) for v in step}) == 1 for step in drawn)
    for form, (lines, _) in VERSE_FORMS.items():
        expected = 400 * lines / 24
        assert 0.7 * expected < sum(step[0].form == form for step in drawn) < 1.3 * expected
    assert {len(v.title) for step in drawn for v in step} >= set(range(6))
    again = torch.Generator().manual_seed(0)
    assert [asking().draw(4, generator=again) for _ in range(3)] == drawn[:3]


def test_prompts_of_one_form_need_no_other() -> None:
    assert Prompts([TOWER]).draw(2, generator=torch.Generator()) == [TOWER, TOWER]
    with pytest.raises(ValueError, match="poems must hold at least one"):
        Prompts([])


def test_texts_stand_in_the_order_of_their_prompts() -> None:
    """A model that answers with the third token of the prompt: the title begins there."""
    asked = [v for form in reversed(VERSE_FORMS) for v in verses() if v.form == form][::2000]
    asked = [verse for verse in [*asked, TOWER] if verse.title]
    assert len({verse.title[0] for verse in asked}) > 4
    seen: list[list[int]] = []

    class Echo(DeepSeek):
        def generate(self, prompts: Any, *, max_new_tokens: int, **options: Any) -> torch.Tensor:
            seen.extend(prompts)
            return torch.tensor([[prompt[2], END] for prompt in prompts])

    texts = write(Echo(replace(TINY, num_hidden_layers=1)), vocabulary(), asked)
    assert texts == [verse.title[0] for verse in asked]
    assert len(seen) == len(asked)


def test_every_part_of_the_reward_counts_by_its_weight() -> None:
    columns = {"form": ["五絕"] * 2, "rhyme": ["尤"] * 2}
    texts = [TOWER.text, TOWER.text.replace("樓", "山")]
    new, old = Known([]), Known(TOWER.lines)
    broken = judge(texts[1], form="五絕", rhyme="尤")
    plain = poem_reward(new, novelty=0.0, diversity=0.0)(texts, **columns)
    assert plain == pytest.approx([1.5, broken.reward()])  # no half a point for all
    assert every_rule_reward(texts, **columns) == [1, 0]
    without = poem_reward(new, without=("rhyme",), novelty=0.0, diversity=0.0)(texts, **columns)
    assert without == pytest.approx([1.5, 1.5])
    one = {"form": ["五絕"], "rhyme": ["尤"]}
    assert poem_reward(new, novelty=0.3, diversity=0.0)(texts[:1], **one) == pytest.approx([1.8])
    assert poem_reward(old, novelty=0.3, diversity=0.0)(texts[:1], **one) == pytest.approx([1.5])
    twice = poem_reward(new, novelty=0.0, diversity=0.4)([TOWER.text] * 2, **columns)
    assert twice == pytest.approx([1.7, 1.7])


def test_a_step_asks_in_groups_and_learns_what_is_rewarded() -> None:
    """Poems earn by the different characters of the latter half of the vocabulary."""
    seen: list[dict[str, Any]] = []

    def reward(texts: list[str], **columns: Any) -> list[float]:
        seen.append(columns)
        return [len(set(text) & common) / 10 for text in texts]

    common = set(vocabulary().symbols[-1500:])
    one_form = Prompts([verse for verse in verses() if verse.form == "五絕"])
    state = TrainState.create(model(), steps=30, learning_rate=1e-2)
    reports = [
        poem_step(
            state, vocabulary(), one_form, reward, prompts=2, group_size=8,
            objective=Objective(beta=0.001),
        )
        for _ in range(30)
    ]  # fmt: skip
    assert all(columns["rhyme"][:8] == [columns["rhyme"][0]] * 8 for columns in seen)
    assert {len(columns["form"]) for columns in seen} == {16}
    rewards = [report["reward"] for report in reports]
    assert sum(rewards[-4:]) > 1.2 * sum(rewards[:4])
    assert state.reference is not None
    assert list(reports[0]) == ["reward", "rules", "characters"]


def test_a_step_needs_prompts_and_groups() -> None:
    state = TrainState.create(model(), steps=1, learning_rate=1e-3)
    with pytest.raises(ValueError, match="group_size must be at least 1, got 0"):
        poem_step(state, vocabulary(), asking(), poem_reward(Known([])), prompts=1, group_size=0)
