"""What the section on MLA says in its figure and its text, against the shapes of V3."""

import math
import re
from pathlib import Path

from dsnotes.config import DEEPSEEK_V3

BOOK = Path(__file__).parents[2] / "book"
PAGE = (BOOK / "model" / "mla.md").read_text("utf8")
YARN = (BOOK / "appendix" / "yarn.md").read_text("utf8")
FIGURE = (BOOK / "figures" / "mla-latent.svg").read_text("utf8")

HEADS, CONTENT = DEEPSEEK_V3.num_attention_heads, DEEPSEEK_V3.qk_nope_head_dim
POSITION, VALUE = DEEPSEEK_V3.qk_rope_head_dim, DEEPSEEK_V3.v_head_dim
LATENT = DEEPSEEK_V3.kv_lora_rank


def test_the_figure_says_what_absorption_costs_at_every_position() -> None:
    """More multiplications at every position of the context, far fewer numbers read."""
    multiplied = (2 * LATENT + POSITION) / (CONTENT + POSITION + VALUE)
    read = HEADS * (CONTENT + POSITION + VALUE) / (LATENT + POSITION)
    assert f"乘加是 {multiplied:.1f} 倍" in FIGURE
    assert f"读取是 1/{read:.0f}" in FIGURE
    assert "与上下文长短无关" not in FIGURE


def test_a_positional_key_per_head_loses_most_but_not_all() -> None:
    """8,704 numbers a layer lie between MLA's 576 and multi-head attention's 32,768."""
    trap = re.search(r"常见错误 1：.*?:::", PAGE, re.DOTALL)
    assert trap
    assert "又还回去" not in trap[0]
    assert "mla.ipynb::per_head_left" in trap[0]
    per_head, plain = LATENT + HEADS * POSITION, 2 * HEADS * CONTENT
    assert (per_head, plain) == (8704, 32_768)
    assert round(plain / per_head, 1) == 3.8


def test_an_index_of_a_frequency_is_not_that_of_a_head() -> None:
    """i numbers the heads, m the frequencies, t and j the positions."""
    assert r"\theta_i" not in PAGE + YARN
    assert r"\theta_m" in YARN
    for symbol in (r"\vect k^C_{t,i}", r"\vect q_{t,i}", r"W^{UK}_i"):
        assert symbol in PAGE


def test_what_is_inferred_is_said_to_be() -> None:
    """The papers do not say how 93.3 % was counted, nor why the code does not fuse matrices."""
    for line in PAGE.splitlines():
        if "93.3%" in line and "6 比特" in line:
            assert "MLA-3" in line
    assert "所以代码不这样做" not in PAGE


def test_the_hand_of_the_clock_goes_as_far_as_it_says() -> None:
    """The slowest pair of V3 turns some thirty degrees within the trained length."""
    slowest = 10000 ** -(31 / 32)
    assert 31 < math.degrees(4096 * slowest) < 32
    assert "才转了三十来度" in YARN
    assert 128 * 1024 / 4096 == 32
    assert "三十二倍" in YARN
