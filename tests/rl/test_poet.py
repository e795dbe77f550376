"""poet: who is asked for what, a reward that is learned, and scores that see what rules do not."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.data.poems import quatrains
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.objective import DEEPSEEKMATH, DR_GRPO
from dsnotes.rl.poet import compose, evaluate, score, verse_step
from dsnotes.rl.verse import tones
from dsnotes.training.loop import language_step, train
from dsnotes.training.poems import batches, prompt, vocabulary
from dsnotes.training.state import TrainState

POEM = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"


def poet() -> DeepSeek:
    torch.manual_seed(0)
    small = replace(TINY, num_hidden_layers=1, vocab_size=len(vocabulary()), initializer_range=0.02)
    return DeepSeek(small)


def fresh(steps: int = 10, learning_rate: float = 1e-3) -> TrainState:
    return TrainState.create(poet(), steps=steps, learning_rate=learning_rate)


def test_poems_stand_in_the_order_of_their_prompts() -> None:
    asked = [("五", "尤"), ("五", "東")]
    rollout, texts = compose(poet(), asked, samples=2, sampler=torch.Generator().manual_seed(0))
    assert rollout.tokens[:, :2].tolist() == [prompt(*a) for a in asked for _ in range(2)]
    assert len(texts) == 4
    again = compose(poet(), asked, samples=2, sampler=torch.Generator().manual_seed(0))[1]
    assert texts == again


def test_columns_belong_to_the_poems_and_prompts_to_the_training_data() -> None:
    seen: dict[str, Any] = {}

    def reward(texts: list[str], **columns: Any) -> list[float]:
        seen.update(columns, texts=texts)
        return [0.5] * len(texts)

    state = fresh()
    report = verse_step(state, prompts=3, group_size=4, reward=reward)
    assert report["reward"] == 0.5
    drawn = torch.randint(len(quatrains()), (3,), generator=torch.Generator().manual_seed(0))
    assert seen["rhyme"] == [quatrains()[i].rhyme for i in drawn.tolist() for _ in range(4)]
    assert seen["form"] == ["五"] * 12
    assert len(seen["texts"]) == 12


def test_a_rewarded_habit_spreads() -> None:
    """Poems earn by their share of level tones, at first a half."""

    def level(texts: list[str], **columns: Any) -> list[float]:
        return [sum(tones(c) == "平" for c in text) / 20 for text in texts]

    state = fresh(steps=40, learning_rate=5e-3)
    list(train(state, language_step, batches(steps=40, batch_size=16, seed=0), progress=False))
    tuned = TrainState.create(state.model, steps=15, learning_rate=5e-3)
    step = partial(verse_step, prompts=4, group_size=8, reward=level)
    history = list(train(tuned, step, progress=False))
    assert history[-1]["reward"] > history[0]["reward"] + 0.2


@pytest.mark.parametrize("objective", [DEEPSEEKMATH, DR_GRPO])
def test_other_objectives_run(objective: Any) -> None:
    state = fresh()
    before = state.model.lm_head.weight.clone()

    def odd(texts: list[str], **columns: Any) -> list[float]:
        return [float(ord((text or " ")[0]) % 2) for text in texts]

    verse_step(state, prompts=2, group_size=8, reward=odd, objective=objective)
    assert not state.model.lm_head.weight.equal(before)
    assert (state.reference is not None) == (objective.beta > 0)


# --- scores ---


def test_scores_are_shares_of_the_poems() -> None:
    texts = [POEM, POEM.replace("層樓", "層東"), "白日依山盡", POEM]
    found = score(texts, form=["五"] * 4, rhyme=["尤", "尤", "尤", "東"])
    assert found.form == 0.75
    assert found.rhyme == 0.25
    assert found.tones == 0.75
    assert found.rules == 0.25
    assert found.reward == pytest.approx((1 + 0.8 + 0 + 0.6) / 4)
    assert found.characters == len(set(POEM) - set("，。")) + 1  # and 東


def test_copied_lines_are_counted() -> None:
    known = quatrains()[0].text
    lines = known.replace("。", "，").split("，")[:4]
    mixed = known.replace(lines[1], POEM[6:11])
    assert score([known], form=["五"], rhyme=["東"]).copied == 1
    assert score([mixed], form=["五"], rhyme=["東"]).copied == 0.75
    assert score(["不"], form=["五"], rhyme=["東"]).copied == 0


def test_evaluation_asks_for_held_out_prompts_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = poet()
    asked = []

    def generate(prompts: torch.Tensor, **options: Any) -> torch.Tensor:
        asked.append(prompts.tolist())
        return torch.zeros(len(prompts), 1, dtype=torch.long)

    monkeypatch.setattr(model, "generate", generate)
    before = model.lm_head.weight.clone()
    assert evaluate(model, samples=2).form == 0
    wanted = [prompt(p.form, p.rhyme) for p in quatrains(held_out=True) for _ in range(2)]
    assert asked == [wanted]
    assert model.lm_head.weight.equal(before)


def test_the_same_seed_gives_the_same_scores() -> None:
    model = poet()
    assert evaluate(model, seed=1) == evaluate(model, seed=1)


# --- wrong input ---


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="prompts must hold at least one form and rhyme group"):
        compose(poet(), [])
    with pytest.raises(ValueError, match="rhyme must be one of the groups"):
        compose(poet(), [("五", "冬瓜")])
    with pytest.raises(ValueError, match="texts, form and rhyme must be one each per poem, got 1"):
        score([POEM], form=["五"], rhyme=[])
