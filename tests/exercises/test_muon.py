"""The exercises of the section on Muon: products counted, matrices and equations solved."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dsnotes.after.muon import Muon, groups_of
from dsnotes.after.newton_schulz import STEEP, orthogonalize, singular_values
from dsnotes.config import TINY
from dsnotes.model.deepseek import DeepSeek
from dsnotes.practice.mechanisms import load

from .notebook import NOTEBOOKS, answers
from .page import exercise, solution


def test_muon_1() -> None:
    """A matrix of the same ratio of sides, a sixteenth as long."""
    found = orthogonalize(torch.randn(448, 128)).square().mean().sqrt().item() / 16**0.5
    assert found == pytest.approx(1 / 7168**0.5, rel=1e-3)
    assert r"1/\sqrt{7168}\approx0.0118" in solution("muon-1")
    assert f"{1 / 7168**0.5:.4f}" == "0.0118"
    assert f"{0.18 * 7168**0.5:.1f}" == "15.2"


def test_muon_2() -> None:
    """Two equations; then the map has 1 as its fixed point, where it is flat."""
    left = torch.tensor([[1.0, 1.0], [3.0, 5.0]], dtype=torch.float64)
    a = 15 / 8
    b, c = torch.linalg.solve(left, torch.tensor([1 - a, -a], dtype=torch.float64)).tolist()
    assert (b, c) == (pytest.approx(-5 / 4), pytest.approx(3 / 8))
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    y = singular_values(x, ((a, b, c),))
    y.backward()
    assert y.item() == pytest.approx(1)
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(0, abs=1e-12)
    assert r"b=-\tfrac54$、$c=\tfrac38" in solution("muon-2")


def test_muon_3() -> None:
    """By a matrix whose second singular value is a thousandth."""
    left, right = (torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0] for _ in range(2))
    x = left @ torch.tensor([1.0, 0.001, 0.0], dtype=torch.float64).diag() @ right
    values = {k: torch.linalg.svdvals(orthogonalize(x, (STEEP,) * k)).tolist() for k in (5, 6)}
    assert any(value == pytest.approx(0.47, abs=0.005) for value in values[5])
    assert max(values[6]) > 1
    assert "0.47" in solution("muon-3")
    assert 480 < STEEP[0] ** 5 < 490


def test_muon_4() -> None:
    """Counted as they run: Newton-Schulz of a matrix, and a linear layer there and back."""
    n, tokens = 64, 16
    with FlopCounterMode(display=False) as schulz:
        orthogonalize(torch.randn(n, n))
    layer, x = torch.nn.Linear(n, n, bias=False), torch.randn(tokens, n, requires_grad=True)
    with FlopCounterMode(display=False) as pass_:
        layer(x).sum().backward()
    equal = schulz.get_total_flops() / (pass_.get_total_flops() / tokens)
    assert equal == 10 * n
    assert "$10n=40960$" in solution("muon-4")
    assert f"{100 * 40960 / 75.5e6:.3f}%" in solution("muon-4")


def test_muon_5() -> None:
    assert "python -m dsnotes.practice muon`" in exercise("muon-5")
    assert load("muon").modules == ["dsnotes.after.newton_schulz", "dsnotes.after.muon"]


def test_muon_6() -> None:
    first, second = load("muon").bugs[:2]
    assert first.trap == 4
    assert "常见错误 4" in solution("muon-6")
    assert "matrix_norm" in second.old
    assert "整摞" in solution("muon-6")


def test_muon_7() -> None:
    """What the exercise asks for can be asked for: a router with AdamW, W^UK and W^UV apart."""
    model = DeepSeek(TINY)
    adamw = r"(embed_tokens|lm_head|gate)\.weight$"
    sizes = (TINY.qk_nope_head_dim, TINY.v_head_dim)
    groups = groups_of(model, adamw=adamw, rows={"kv_b_proj": sizes})
    optimizer = Muon(groups, lr=1e-3)
    model(torch.randint(TINY.vocab_size, (2, 8))).square().mean().backward()
    optimizer.step()
    routers = {id(w) for name, w in model.named_parameters() if name.endswith("gate.weight")}
    assert routers <= {id(weight) for weight in optimizer.param_groups[-1]["params"]}
    assert "muon-7" not in answers(NOTEBOOKS / "muon.ipynb")
