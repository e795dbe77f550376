"""The turned arrows: RoPE, the matrices that absorption would need, and scores as MLA has them."""

import itertools
import random
from dataclasses import replace

import pytest
import torch

from dsnotes.config import TINY
from dsnotes.model.mla import MLA
from dsnotes.model.rope import apply_rope, rope_rotation

VIEWS = ["turn", "between", "apart"]
ONE_HEAD = replace(
    TINY,
    num_attention_heads=1,
    q_lora_rank=None,
    qk_nope_head_dim=2,
    qk_rope_head_dim=2,
    v_head_dim=2,
    kv_lora_rank=2,
)


def turn(vectors: torch.Tensor, position: int, step: float) -> torch.Tensor:
    """RoPE of the library for pairs in the last axis that turn by `step` a position."""
    frequency = torch.tensor([step], dtype=torch.float64)
    rotation = rope_rotation(torch.tensor(position), frequency, dtype=torch.float64)
    return apply_rope(vectors, rotation)


def states(count: int = 150):
    draw = random.Random(0)
    for _ in range(count):
        vectors = {name: [draw.gauss(0, 1) for _ in range(2)] for name in ("q", "c", "qr", "kr")}
        vectors["w"] = [draw.gauss(0, 1) for _ in range(4)]
        yield vectors, draw.uniform(0, 2), draw.randrange(0, 40), draw.randrange(0, 40)


def tensors(vectors: dict[str, list[float]]) -> dict[str, torch.Tensor]:
    found = {name: torch.tensor(v, dtype=torch.float64) for name, v in vectors.items()}
    return found | {"w": found["w"].view(2, 2)}


def test_arrows_turn_as_rope_turns_them(lab) -> None:
    for vectors, step, t, _ in states():
        expected = turn(torch.tensor(vectors["q"], dtype=torch.float64), t, step)
        assert lab("rotate").call("RotateLab.turned", vectors["q"], t * step) == pytest.approx(
            expected.tolist(), abs=1e-9
        )


def test_the_matrix_to_absorb_and_the_scores(lab) -> None:
    """As the notebook of the section: R_(j-t) W column by column, scores from both sides turned."""
    figure = lab("rotate")
    for (vectors, step, t, j), view in itertools.product(states(), VIEWS):
        v = tensors(vectors)
        key = v["w"] @ v["c"]
        if view == "apart":
            matrix = v["w"]
            score = v["q"] @ key + turn(v["qr"], t, step) @ turn(v["kr"], j, step)
        else:
            matrix = turn(v["w"].T.contiguous(), j - t, step).T
            score = turn(v["q"], t, step) @ turn(key, j, step)
        found = figure.call("RotateLab.absorbed", view, vectors["w"], step, t - j)
        assert found == pytest.approx(matrix.flatten().tolist(), abs=1e-9)
        assert figure.call("RotateLab.apart", found, vectors["w"]) == pytest.approx(
            ((matrix - v["w"]).norm() / v["w"].norm()).item(), abs=1e-9
        )
        assert figure.call("RotateLab.score", view, vectors, step, t, j) == pytest.approx(
            score.item(), abs=1e-9
        )
        # the matrix of that distance gives the score; W alone gives the one without the turn
        for m in (matrix, v["w"]):
            carried = (m.T @ v["q"]) @ v["c"]
            if view == "apart":
                carried += turn(v["qr"], t, step) @ turn(v["kr"], j, step)
            flat = m.flatten().tolist()
            assert figure.call("RotateLab.scoreAbsorbed", view, vectors, flat, step, t - j) == (
                pytest.approx(carried.item(), abs=1e-9)
            )


def test_decoupled_scores_are_those_of_mla(lab) -> None:
    """One head, two channels of each kind: its weights over latents, both ways of reading them."""
    layer = MLA(ONE_HEAD).double().requires_grad_(False)
    figure = lab("rotate")
    for vectors, step, _, _ in states(100):
        v, t = tensors(vectors), 5
        layer.kv_b_proj.weight[:] = torch.cat([v["w"], torch.eye(2, dtype=torch.float64)])
        latents = torch.stack(
            [
                torch.cat([v["c"] * (j + 1), turn(v["kr"], j, step)])  # the value is the latent
                for j in range(t + 1)
            ]
        )
        query = torch.cat([v["q"], turn(v["qr"], t, step)])
        scores = [
            figure.call(
                "RotateLab.score",
                "apart",
                vectors | {"c": [x * (j + 1) for x in vectors["c"]]},
                step,
                t,
                j,
            )
            for j in range(t + 1)
        ]
        weights = (torch.tensor(scores, dtype=torch.float64) * layer.softmax_scale).softmax(0)
        expected = weights @ latents[:, :2]
        for attend in (layer.attend, layer.attend_absorbed):
            out = attend(query[None, None, None], latents[None])[0, 0, 0]
            torch.testing.assert_close(out, expected, rtol=0, atol=1e-9)


def test_what_the_figure_shows(lab) -> None:
    """Both arrows moved: the same product. Coupled: six matrices, W right at distance 0 only."""
    figure = lab("rotate")
    vectors, step = figure.eval("RotateLab.vectors"), 0.4
    for view in VIEWS:
        for distance in range(6):
            products = [
                figure.call("RotateLab.score", view, vectors, step, t, t - distance)
                for t in range(5, 12)
            ]
            assert products == pytest.approx([products[0]] * 7, abs=1e-12)
            matrix = figure.call("RotateLab.absorbed", view, vectors["w"], step, distance)
            fixed = figure.call(
                "RotateLab.scoreAbsorbed", view, vectors, vectors["w"], step, distance
            )
            same = view == "apart" or distance == 0
            assert (matrix == pytest.approx(vectors["w"])) == same
            if view != "turn":
                assert (fixed == pytest.approx(products[0])) == same


def test_goals_and_sentences(lab) -> None:
    figure = lab("rotate")
    reaching = [
        {"view": "turn", "t": 6},
        {"view": "between", "step": 0},
        {"view": "apart", "distance": 5},
    ]
    for i, fields in enumerate(reaching):
        assert not figure.goal(i, figure.state())
        assert figure.goal(i, figure.state(**fields))
    presets = figure.eval("RotateLab.presets.map(({ state }) => state)")
    assert len({figure.say(figure.state(**p)) for p in presets}) == len(presets) == 3
    for fields in (*reaching, {"distance": 0}, {"view": "turn", "step": 0}):
        assert "NaN" not in figure.say(figure.state(**fields))
