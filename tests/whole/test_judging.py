"""judging: poems whose worth is known by hand, and a loss that does not depend on the batches."""

from dataclasses import replace

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.data.poems import Verse, verses
from dsnotes.model.deepseek import DeepSeek
from dsnotes.rl.novelty import Known
from dsnotes.training.verses import character_loss, padded, vocabulary
from dsnotes.whole import judging
from dsnotes.whole.judging import evaluate, held_out_loss, worth

TOWER = Verse("尤", ("白日依山盡", "黃河入海流", "欲窮千里目", "更上一層樓"))


def model() -> DeepSeek:
    torch.manual_seed(0)
    return DeepSeek(replace(TINY, num_hidden_layers=1, vocab_size=len(vocabulary())))


def test_worth_by_hand() -> None:
    """One poem that keeps every rule, one that does not rhyme, and one that is none."""
    texts = [TOWER.text, TOWER.text.replace("樓", "山"), "白日"]
    known = Known(["白日依山盡", "黃河入海清"])
    found = worth(texts, [TOWER] * 3, known)
    assert (found["poems"], found["rules"], found["form"]) == (3, 1 / 3, 2 / 3)
    assert found["broken"]["rhyme"] == 2 / 3
    assert found["broken"]["form"] == 1 / 3
    assert found["copied"] == 2 / 8
    assert found["nearly_copied"] == 4 / 8
    assert found["characters"] == 20  # 山 is in the first line already
    assert found["repeated_lines"] == 3 / 8


def test_worth_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="texts must be at least 1"):
        worth([], [], Known([]))


def test_loss_does_not_depend_on_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    poems, ours = verses()[::400], model()
    expected = held_out_loss(ours, vocabulary(), poems)
    monkeypatch.setattr(judging, "_ROWS", 3)
    assert held_out_loss(ours, vocabulary(), poems) == pytest.approx(expected, abs=1e-5)
    same = [v for v in poems if v.form == "七律"]
    tokens = padded([vocabulary().encode(verse) for verse in same])
    assert held_out_loss(ours, vocabulary(), same) == pytest.approx(character_loss(ours, tokens))


def test_evaluate_asks_as_many_of_each_form_and_changes_nothing() -> None:
    ours, poems = model(), verses(held_out=True)[::20]
    before = {name: weight.clone() for name, weight in ours.state_dict().items()}
    found = evaluate(ours, vocabulary(), poems, Known([]), per_form=3, seed=4)
    assert {form: own["poems"] for form, own in found["forms"].items()} == dict.fromkeys(
        ("五絕", "七絕", "五律", "七律"), 3
    )
    assert len(found["shown"]) == 8
    assert found == evaluate(ours, vocabulary(), poems, Known([]), per_form=3, seed=4)
    assert all(torch.equal(weight, before[name]) for name, weight in ours.state_dict().items())
