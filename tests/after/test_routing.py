"""routing: the table and the bias choose, affinities weigh, the clamp comes before the product."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dsnotes.after.config import TINY_V4
from dsnotes.after.routing import ClampedMLP, GateV4, MoEV4

WORDS = torch.arange(30) % 7


def test_the_table_sends_equal_words_to_equal_experts() -> None:
    gate = GateV4(TINY_V4, hashed=True)
    indices, weights, scores = gate(torch.randn(30, 64), WORDS)
    assert torch.equal(indices, gate.tid2eid[WORDS])
    assert all(len(set(row)) == 4 for row in indices.tolist())
    expected = scores.gather(1, indices)
    expected = 1.5 * expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(weights, expected)


def test_the_affinity_is_the_root_of_softplus() -> None:
    gate, x = GateV4(TINY_V4, hashed=False), torch.randn(30, 64)
    scores = gate(x, WORDS).scores
    torch.testing.assert_close(scores, torch.log1p((x @ gate.weight.T).exp()).sqrt())


def test_the_bias_chooses_and_does_not_weigh() -> None:
    gate, x = GateV4(TINY_V4, hashed=False), torch.randn(30, 64)
    gate.e_score_correction_bias[3] = 10.0
    indices, weights, scores = gate(x, WORDS)
    assert (indices == 3).any(1).all()
    chosen = scores.gather(1, indices)
    torch.testing.assert_close(weights, 1.5 * chosen / chosen.sum(1, keepdim=True))


def test_a_table_has_no_bias() -> None:
    gate = GateV4(TINY_V4, hashed=True)
    assert gate.e_score_correction_bias is None
    assert set(gate.state_dict()) == {"weight", "tid2eid"}


def test_trap_1_the_clamp_comes_before_the_product() -> None:
    """Primus#698 clamped the product: a large gate times a small value is then cut as well."""
    mlp, x = ClampedMLP(8, 16, limit=0.5), 4 * torch.randn(50, 8)
    gate, up = mlp.gate_proj(x), mlp.up_proj(x)
    right = mlp.down_proj(F.silu(gate.clamp(max=0.5)) * up.clamp(-0.5, 0.5))
    wrong = mlp.down_proj((F.silu(gate) * up).clamp(-0.5, 0.5))
    torch.testing.assert_close(mlp(x), right)
    assert (right - wrong).abs().max() > 0.1


def test_trap_2_layers_with_a_table_have_shared_experts_too() -> None:
    """ATOM#1076 left them out there: what all tokens share was missing from the first layers."""
    moe, x = MoEV4(TINY_V4, 0), torch.randn(6, 64)
    assert moe.gate.hashed
    routed = moe._routed(x, moe.gate(x, WORDS[:6]))
    assert (moe(x, WORDS[:6]) - routed).abs().max() > 1e-4


def test_trap_3_the_table_is_no_formula() -> None:
    """Ports made it up as (word + r * stride) mod E; the released one is a table of the file."""
    gate = GateV4(TINY_V4, hashed=True)
    words = torch.arange(256)
    formula = (words[:, None] + 4 * torch.arange(4)) % 16
    table = gate.tid2eid.clone()
    gate.load_state_dict({**gate.state_dict(), "tid2eid": formula})
    assert torch.equal(gate(torch.randn(256, 64), words).indices, formula)
    same = (table.sort().values == formula.sort().values).all(1)
    assert same.float().mean() < 0.1


def test_trap_4_a_bias_under_another_name_is_not_taken_for_zero() -> None:
    """Atlas#186 read it under a wrong name and went on with zeros: the choice was another."""
    gate = GateV4(TINY_V4, hashed=False)
    state = gate.state_dict()
    state["gate.bias"] = state.pop("e_score_correction_bias")
    with pytest.raises(RuntimeError, match="e_score_correction_bias"):
        gate.load_state_dict(state)


def test_the_first_layers_are_hashed() -> None:
    config = replace(TINY_V4, num_hash_layers=2)
    assert [MoEV4(config, i).gate.hashed for i in range(4)] == [True, True, False, False]


def test_the_sum_is_over_the_chosen_and_the_shared() -> None:
    moe, x = MoEV4(TINY_V4, 0), torch.randn(6, 64)
    indices, weights, _ = moe.gate(x, WORDS[:6])
    expected = moe.shared_experts(x)
    for t in range(6):
        for i, g in zip(indices[t].tolist(), weights[t], strict=True):
            expected[t] += g * moe.experts[i](x[t])
    torch.testing.assert_close(moe(x, WORDS[:6]), expected)


def test_bfloat16_leaves_the_bias_and_the_table_alone() -> None:
    """A step of 0.001 would vanish in bfloat16 from 0.5 on."""
    gate = GateV4(TINY_V4, hashed=False).bfloat16()
    assert (gate.weight.dtype, gate.e_score_correction_bias.dtype) == (
        torch.bfloat16,
        torch.float32,
    )
    assert GateV4(TINY_V4, hashed=True).bfloat16().tid2eid.dtype == torch.long


def test_words_outside_the_vocabulary_are_named() -> None:
    with pytest.raises(ValueError, match="0 to 255"):
        GateV4(TINY_V4, hashed=True)(torch.randn(1, 64), torch.tensor([256]))
    with pytest.raises(ValueError, match="limit must be above 0"):
        ClampedMLP(4, 4, limit=0.0)
