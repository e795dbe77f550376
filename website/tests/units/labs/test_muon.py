"""Singular values on their way, against those of dsnotes."""

import random

import pytest
import torch

from dsnotes.after.newton_schulz import HYBRID, SETTLE, STEEP, singular_values

WAYS = {
    "hybrid": HYBRID,
    "steep": (STEEP,) * 10,
    "settle": (SETTLE,) * 10,
    "reversed": (SETTLE,) * 2 + (STEEP,) * 8,
}


@pytest.fixture
def muon(lab):
    return lab("muon")


@pytest.mark.parametrize("way", WAYS)
def test_values_after_every_number_of_steps(muon, way):
    rng = random.Random(0)
    for steps in range(11):
        for _ in range(20):
            x = 10 ** rng.uniform(-5, 0)
            expected = singular_values(torch.tensor(x, dtype=torch.float64), WAYS[way][:steps])
            found = muon.call("MuonLab.after", x, way, steps)
            assert found == pytest.approx(expected.item(), rel=1e-9)


def test_presets_say_different_things(muon):
    said = [muon.say(muon.state(**preset["state"])) for preset in muon.eval("MuonLab.presets")]
    assert len(set(said)) == len(said)


def test_goals(muon):
    assert not any(muon.goal(i, muon.state()) for i in range(2))
    assert any(muon.goal(0, muon.state(power=[p / 20, p / 20], steps=9)) for p in range(-60, 1))
    assert not muon.goal(0, muon.state(steps=10))
    assert muon.goal(1, muon.state(power=[-0.02, -4.9]))
    assert not muon.goal(1, muon.state(power=[-0.02, -4.5]))
    assert not muon.goal(1, muon.state(power=[-0.02, -4.9], way="settle"))
