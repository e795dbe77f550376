"""Which tokens a query reads, what that catches and what the indexer learns, against dsnotes."""

import random

import pytest
import torch

from dsnotes.after.indexer import indexer_loss, select

N = 16


@pytest.fixture
def sparse(lab):
    return lab("sparse")


def states(seed, n=120):
    rng = random.Random(seed)
    for _ in range(n):
        yield [rng.uniform(0, 5) for _ in range(N)], rng.randint(1, N)


def target(sparse):
    return torch.tensor(sparse.eval("SparseLab.TARGET"), dtype=torch.float64)


def test_choice_mass_and_both_losses(sparse):
    p = target(sparse)
    assert p.sum().item() == pytest.approx(1)
    everything = torch.ones(1, 1, N, dtype=torch.bool)
    for scores, k in states(0):
        given = torch.tensor(scores, dtype=torch.float64)[None, None]
        chosen = select(given, everything, topk=k).mask(N)
        found = sparse.call("SparseLab.choose", scores, k, "token")
        assert found == chosen[0, 0].tolist()
        assert sparse.call("SparseLab.caught", found) == pytest.approx((p * chosen).sum().item())
        own = p * chosen / (p * chosen).sum()
        four = indexer_loss(given, own, chosen).item()
        assert sparse.call("SparseLab.loss", scores, found) == pytest.approx(four, abs=1e-9)
        three = indexer_loss(given, p[None, None], everything).item()
        assert sparse.call("SparseLab.loss", scores, [True] * N) == pytest.approx(three, abs=1e-9)


def test_a_step_goes_down_the_gradient(sparse):
    p, everything = target(sparse)[None, None], torch.ones(1, 1, N, dtype=torch.bool)
    for scores, _ in states(1, 100):
        given = torch.tensor(scores, dtype=torch.float64)[None, None].requires_grad_()
        (gradient,) = torch.autograd.grad(indexer_loss(given, p, everything), given)
        expected = (given.detach() - 0.7 * gradient)[0, 0].tolist()
        assert sparse.call("SparseLab.learn", scores, 0.7) == pytest.approx(expected, abs=1e-9)


def test_blocks_window_and_limit(sparse):
    p = target(sparse)
    for scores, k in states(2, 100):
        sums = torch.tensor(scores, dtype=torch.float64).softmax(0).view(4, 4).sum(1)
        blocks = sums.topk(max(1, k // 4)).indices.tolist()
        found = sparse.call("SparseLab.choose", scores, k, "block")
        assert found == [i // 4 in blocks for i in range(N)]
        assert sparse.call("SparseLab.choose", scores, k, "window") == [
            i >= N - k for i in range(N)
        ]
        caught = sparse.call("SparseLab.caught", sparse.call("SparseLab.choose", scores, k, "best"))
        assert caught == pytest.approx(p.topk(k).values.sum().item())


def test_the_choice_is_right_before_the_scores_are(sparse):
    """What the page says of the button: the order comes first, the size later."""
    p = target(sparse)
    best = set(p.topk(4).indices.tolist())
    scores = sparse.state()["scores"]
    for _ in range(400):
        chosen = sparse.call("SparseLab.choose", scores, 4, "token")
        if {i for i in range(N) if chosen[i]} == best:
            break
        scores = sparse.call("SparseLab.learn", scores, 1.5)
    assert sparse.call("SparseLab.loss", scores, [True] * N) > 0.02


def test_presets_say_different_things(sparse):
    said = [
        sparse.say(sparse.state(**preset["state"])) for preset in sparse.eval("SparseLab.presets")
    ]
    assert len(set(said)) == len(said)


def test_goals(sparse):
    assert not any(sparse.goal(i, sparse.state()) for i in range(2))
    learnt = sparse.eval("SparseLab.presets")[1]["state"]["scores"]
    assert sparse.goal(0, sparse.state(scores=learnt))
    assert not sparse.goal(1, sparse.state(scores=learnt))
    assert sparse.goal(1, sparse.state(scores=learnt, scale=8))
