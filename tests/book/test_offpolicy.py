"""What the section on what came after R1 says in words, against the code and TRL's defaults."""

import math
import warnings
from dataclasses import fields
from pathlib import Path

from dsnotes.after.config import DEEPSEEK_V4_PRO
from dsnotes.after.self_verification import ALPHA, BETA, prover_reward

PAGE = (Path(__file__).parents[2] / "book" / "after" / "offpolicy.md").read_text("utf8")


def test_ten_nats() -> None:
    """The weight of k3 against that of eq 7, where the reference gives e^10 times as much."""
    assert 20_000 < math.exp(10) - 1 < 30_000
    assert "差十个 nat，前者两万多，后者是十" in PAGE


def test_rewards_of_the_prover() -> None:
    assert f"{ALPHA}\\,R_{{\\text{{证明}}}}+{BETA}\\,R_{{\\text{{自评}}}}" in PAGE
    assert round(prover_reward(0.0, 0.0, meta=1.0), 2) == 0.24
    assert prover_reward(1.0, 0.0, meta=1.0) == 0
    assert "老实承认，得 $0.24$" in PAGE


def test_the_state_kept_is_an_eighteenth_of_the_logits() -> None:
    assert round(DEEPSEEK_V4_PRO.vocab_size / DEEPSEEK_V4_PRO.hidden_size) == 18


def test_what_the_page_says_of_trl() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from trl import GRPOConfig
    default = {field.name: field.default for field in fields(GRPOConfig)}
    assert default["loss_type"] == "dapo"
    assert default["scale_rewards"] == "group"
    assert default["off_policy_mask_threshold"] is None
    for name in ('loss_type="grpo"', 'scale_rewards="none"', "off_policy_mask_threshold"):
        assert name in PAGE
