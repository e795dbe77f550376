"""novelty: copies and near-copies are told from new lines, and a batch of one poem from many."""

import pickle
import subprocess
import sys

import pytest

from dsnotes.data.poems import quatrains
from dsnotes.rl.novelty import Known, diversity, diversity_reward, novelty, novelty_reward

POEM = "白日依山盡，黃河入海流。欲窮千里目，更上一層樓。"
OTHER = "紅豆生南國，春來發幾枝。願君多採擷，此物最相思。"


def known() -> Known:
    return Known(["白日依山盡", "黃河入海流", "朝辭白帝彩雲間"])


@pytest.mark.parametrize(
    ("line", "copied", "near"),
    [
        ("白日依山盡", True, True),
        ("紅日依山盡", False, True),
        ("白日依樓盡", False, True),
        ("白日依山去", False, True),
        ("紅日依山去", False, False),
        ("日白依山盡", False, False),
        ("白日依山", False, False),
        ("白日依山盡處", False, False),
        ("朝辭白帝彩雲中", False, True),
        ("朝發白帝彩雲中", False, False),
        ("", False, False),
    ],
)
def test_a_line_that_differs_in_one_place_is_a_near_copy(
    line: str, copied: bool, near: bool
) -> None:
    assert known().has(line) is copied
    assert known().has_like(line) is near


def test_novelty_is_the_share_of_new_lines() -> None:
    assert novelty(POEM, known()) == 0.5
    assert novelty(POEM.replace("白日", "紅日"), known()) == 0.5
    assert novelty(POEM.replace("白日", "紅雨"), known()) == 0.75
    assert novelty(OTHER, known()) == 1
    assert novelty("不是詩", known()) == 0
    assert novelty_reward([POEM, OTHER, ""], known=known(), form=["五絕"] * 3) == [0.5, 1, 0]


def test_the_poems_of_the_package_are_copies_of_themselves_and_not_of_each_other() -> None:
    own = Known(line for poem in quatrains() for line in poem.lines)
    assert novelty_reward([poem.text for poem in quatrains()[:50]], known=own) == [0] * 50
    others = [novelty(poem.text, own) for poem in quatrains(held_out=True)]
    assert 0.97 < sum(others) / len(others) < 1


def test_known_lines_travel_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(known())).has_like("紅日依山盡")


def test_diversity_of_one_poem_and_of_many() -> None:
    one = diversity([POEM])
    assert one.characters == 20
    assert (one.repeated_lines, one.repeated_bigrams, one.repeated_characters) == (0, 0, 0)
    twice = diversity([POEM, POEM])
    assert twice.characters == 20
    assert (twice.repeated_lines, twice.repeated_bigrams) == (0.5, 0.5)
    assert twice.repeated_characters == 0  # of those in one poem
    assert diversity([POEM, OTHER]).characters == 40
    assert diversity(["白日白日白，白日白日白。"]).repeated_characters == 0.8
    assert diversity(["", "不是詩"]) == (0, 0, 0, 0)
    assert diversity([]) == (0, 0, 0, 0)


def test_the_reward_of_diversity_falls_with_every_poem_that_is_the_same() -> None:
    assert diversity_reward([POEM, OTHER], rhyme=["尤", "支"]) == [1, 1]
    assert diversity_reward([POEM] * 4) == [0.25] * 4
    alone, *same = diversity_reward([OTHER, POEM, POEM])
    assert (alone, same) == (1, [0.5, 0.5])
    (loop,) = diversity_reward(["白日白日白，白日白日白。"])
    assert loop == pytest.approx(2 / 8)  # 白日 and 日白, of eight
    assert diversity_reward(["", "詩"]) == [0, 0]


def test_the_measures_need_no_torch() -> None:
    code = "import sys, dsnotes.rl.novelty; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
