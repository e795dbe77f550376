"""What the section on MTP says in its text, against the shapes of V3 and the sources."""

import re
from pathlib import Path

import pytest
import torch

from dsnotes.config import DEEPSEEK_V3
from dsnotes.model.counts import breakdown, mlp_parameters

BOOK = Path(__file__).parents[2] / "book"
PAGE = (BOOK / "model" / "mtp.md").read_text("utf8")


def test_what_a_token_reads_counts_the_weights_kept_in_bfloat16_twice() -> None:
    parts = breakdown(DEEPSEEK_V3)
    wide = {"output head", "routers", "norms"}
    read = sum(part.activated * (2 if part.name in wide else 1) for part in parts)
    assert rf"\frac{{{read / 1e9:.2f} \times 10^{{9}}" in PAGE
    once = sum(part.activated for part in parts)
    double = (read - once) / 1e9
    assert f"| {double:.3f}B | 2 | {2 * double:.3f} GB |" in PAGE
    single = once / 1e9 - double
    assert f"| {single:.3f}B | 1 | {single:.3f} GB |" in PAGE
    assert f"| {read / 1e9:.3f} GB |" in PAGE


def test_what_a_second_token_reads_in_a_mixture_of_experts() -> None:
    """Drawn: two tokens of uniform routing meet 15.75 of 256 experts, so half as much again."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.rand(20_000, 2, 256, generator=generator).topk(8).indices.flatten(1)
    met = (chosen.sort(dim=1).values.diff(dim=1) > 0).sum(dim=1).double().mean().item() + 1
    assert met == pytest.approx(15.75, abs=0.02)
    assert "=15.75" in PAGE
    expert = mlp_parameters(DEEPSEEK_V3.hidden_size, DEEPSEEK_V3.moe_intermediate_size)
    assert f"{expert / 1e6:.2f}M" in PAGE
    layers = DEEPSEEK_V3.num_hidden_layers - DEEPSEEK_V3.first_k_dense_replace
    assert rf"$7.75\times{layers}\times44.04\text{{M}}\approx$" in PAGE


def test_the_rate_of_acceptance_has_one_letter_and_p_another_meaning() -> None:
    """a is the rate, p the model's distribution; 1 + a is not presented as a measurement."""
    text = re.sub(r"\s", "", PAGE)
    assert "1+p" not in text
    assert "每步token数就是" not in text
    assert "$1+a_1+a_1a_2$" in text


def test_the_rule_of_acceptance_has_its_authors() -> None:
    rule = next(line for line in PAGE.splitlines() if "残差分布 $r$ 重抽" in line)
    for key in ("speculative-decoding", "speculative-sampling"):
        assert f"{{cite:p}}`{key}`" in rule
        assert f"{{{key}," in (BOOK / "references.bib").read_text("utf8")
    assert "{cite:p}`eagle`" in PAGE


def test_the_bandwidth_is_linked_to_the_document_that_states_it() -> None:
    link = re.search(r"带宽（[^（）]*\((https://[^)]*)\)） \| \| \| 每秒 3\.35 TB \|", PAGE)
    assert link
    assert link[1].endswith("docs/20250422-new-kernel-deep-dive.md")
