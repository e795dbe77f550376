"""Mixing matrices and gains of the figure, against dsnotes.after.hyper."""

import itertools

import pytest
import torch

from dsnotes.after.hyper import gains, sinkhorn

N = 4


@pytest.fixture
def figure(lab):
    return lab("hyper")


def draws(count: int = 120) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = itertools.cycle([0.1, 1.0, 3.0, 6.0, 10.0])
    return [
        next(sizes) * torch.randn(N, N, dtype=torch.float64, generator=generator)
        for _ in range(count)
    ]


def found(matrix: list[list[float]]) -> torch.Tensor:
    return torch.tensor(matrix, dtype=torch.float64)


def test_sinkhorn_is_that_of_the_library(figure) -> None:
    for i, logits in enumerate(draws()):
        iters, eps = 1 + i % 20, (0.0, 1e-6)[i % 2]
        expected = sinkhorn(logits, iters=iters, eps=eps)
        got = found(figure.call("HyperLab.sinkhorn", logits.tolist(), iters, eps))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_rows_alone_are_a_softmax_and_free_ones_near_the_identity(figure) -> None:
    for logits in draws(20):
        got = found(figure.call("HyperLab.softmax", logits.tolist()))
        torch.testing.assert_close(got, logits.softmax(-1), rtol=0, atol=1e-12)
        got = found(figure.call("HyperLab.free", logits.tolist(), 0.1))
        torch.testing.assert_close(got, torch.eye(N).double() + 0.1 * logits)


@pytest.mark.parametrize(
    "fields",
    [{"rule": "free", "noise": 0.15}, {"rule": "rows"}, {"rule": "sinkhorn", "sharp": 3}],
    ids=lambda f: f["rule"],
)
def test_gains_over_all_sublayers(figure, fields) -> None:
    matrices = figure.call("HyperLab.mixings", figure.state(**fields))
    assert len(matrices) == 122
    expected = gains(found(matrices))
    got = found(figure.call("HyperLab.gains", matrices))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=0)


def test_noise_is_normal(figure) -> None:
    """One hundred and twenty-two matrices are the identity and what was drawn."""
    matrices = found(figure.call("HyperLab.mixings", figure.state(rule="free", noise=1.0, seed=5)))
    noise = matrices - torch.eye(N)
    assert abs(noise.mean()) < 0.08
    assert abs(noise.std() - 1) < 0.05


def test_what_the_figure_shows(figure) -> None:
    """Free ones grow both ways, rows alone keep the forward gain, both sums keep both."""
    last = {
        rule: figure.call(
            "HyperLab.gains", figure.call("HyperLab.mixings", figure.state(rule=rule))
        )[-1]
        for rule in ("free", "rows", "sinkhorn")
    }
    assert min(last["free"]) > 3
    assert last["rows"][0] == pytest.approx(1)
    assert 1.1 < last["rows"][1] < 4
    assert last["sinkhorn"] == pytest.approx([1, 1], abs=1e-3)


def test_goals_and_sentences(figure) -> None:
    iters = next(
        i for i in range(1, 21) if figure.goal(1, figure.state(rule="sinkhorn", sharp=1, iters=i))
    )
    reaching = [
        {"noise": 0.01},
        {"rule": "sinkhorn", "iters": iters},
        {"rule": "sinkhorn", "sharp": 6},
    ]
    for i, fields in enumerate(reaching):
        assert not figure.goal(i, figure.state())
        assert figure.goal(i, figure.state(**fields))
    assert not figure.goal(0, figure.state(noise=0))
    presets = figure.eval("HyperLab.presets.map(({ state }) => state)")
    said = [figure.say(figure.state(**p)) for p in presets]
    assert len(set(said)) == len(presets) == 5
    assert not any("NaN" in s for s in said)
