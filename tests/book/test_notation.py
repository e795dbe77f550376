"""The table of symbols: complete, and no symbol with two meanings that are not told apart.

A symbol is compared without its running indices: s_{i,t} and s are one, s_g is another.
"""

import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book"
NOTATION = (BOOK / "appendix" / "notation.md").read_text("utf8")
COMMON, TWICE = "通用", "一个字母，几个意思"
PAGES = {  # page: the heading under which its symbols stand
    "model/moe": "混合专家与负载均衡",
    "model/balance": "混合专家与负载均衡",
    "model/mla": "多头潜在注意力",
    "appendix/yarn": "多头潜在注意力",
    "model/mtp": "多 token 预测",
    "training/fp8": "FP8 混合精度训练",
    "training/fp8-accumulation": "FP8 混合精度训练",
    "training/dualpipe": "流水线",
    "training/dualpipe-overlap": "流水线",
    "rl/reward": "强化学习",
    "rl/grpo": "强化学习",
    "rl/grpo-variants": "强化学习",
    "results/r1": "结果",
    "results/v3": "结果",
    "whole/r1-miniature": "结果",
    "whole/verse": "强化学习",
    "whole/whole": "强化学习",
    "whole/scale": "一台机器之外",
    "after/compressed": "压缩注意力",
    "after/hyper": "流形约束超连接",
    "after/sparse": "稀疏注意力",
    "after/muon": "Muon 优化器",
    "after/offpolicy": "强化学习",
}

_ACCENT = r"\\(?:mathbf|vect|hat|bar|tilde|mathcal|mathbb)"
_NAME = (
    rf"(?:{_ACCENT}\s*(?:\{{{_ACCENT}\s+[A-Za-z]\}}|[A-Za-z])|PP|F\\&B|[A-Za-z]|\\(?!R\b)[a-z]+)"
)
_MARK = r"[_^](?:\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}|\\[a-zA-Z]+|[A-Za-z0-9])"
SYMBOL = re.compile(rf"({_NAME})((?:'|{_MARK})*)")


def bare(symbol: str) -> str:
    """A symbol without the marks that only number it; the others in one order and in braces."""
    match = SYMBOL.fullmatch(symbol.strip())
    if match is None:
        raise ValueError(f"not a symbol: {symbol!r}")
    name, marks = match.groups()
    kept = ["'"] if "'" in marks else []
    for mark in re.findall(_MARK, marks):
        content = re.sub(r"^\{(.*)\}$", r"\1", mark[1:])
        if not re.fullmatch(r"[ijklmntv0-9,<+-]+", content):
            kept.append(f"{mark[0]}{{{content}}}")
    return name.replace(r"\vect", r"\mathbf") + "".join(sorted(kept))


def rows() -> dict[str, list[list[str]]]:
    """Heading → the rows of its table, as cells."""
    found = defaultdict(list)
    for part in re.split(r"^## ", NOTATION, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        lines = [line for line in text.splitlines() if line.startswith("|")]
        found[heading] = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]
        ]
    return found


def symbols_of(cell: str) -> list[str]:
    return [bare(s) for s in re.findall(r"\$([^$]+)\$", cell)]


def by_section() -> dict[str, list[str]]:
    return {
        heading: [s for row in table for s in symbols_of(row[0])]
        for heading, table in rows().items()
        if table and heading != TWICE
    }


def sections_of() -> dict[str, set[str]]:
    found = defaultdict(set)
    for heading, symbols in by_section().items():
        for symbol in symbols:
            found[symbol].add(heading)
    return found


def used_alone(page: str) -> set[str]:
    """Symbols that stand alone between dollars in the text of a page, its exercises left out."""
    text = (BOOK / f"{page}.md").read_text("utf8").split("\n## 练习")[0]
    text = re.sub(r"^\$\$.*?^\$\$", "", text, flags=re.MULTILINE | re.DOTALL)
    return {bare(m) for m in re.findall(r"\$([^$\n]+)\$", text) if SYMBOL.fullmatch(m.strip())}


@pytest.mark.parametrize(
    ("symbol", "found"),
    [
        (r"\vect k^R_{t,i}", r"\mathbf k^{R}"),
        ("s_{i,t}", "s"),
        ("s_g", "s_{g}"),
        (r"h_i'^{k-1}", "h'"),
        (r"\pi_{\theta_{\text{old}}}", r"\pi_{\theta_{\text{old}}}"),
    ],
)
def test_indices_that_only_number_are_left_out(symbol: str, found: str) -> None:
    assert bare(symbol) == found


def test_within_a_section_a_symbol_stands_in_one_row() -> None:
    for heading, table in rows().items():
        if heading == TWICE or not table:
            continue
        count = Counter(s for row in table for s in set(symbols_of(row[0])))
        assert [s for s, n in count.items() if n > 1] == [], heading


def test_a_letter_of_several_meanings_is_declared_with_all_of_them() -> None:
    """The first table holds the symbols of more than one section, each with its sections."""
    several = {symbol: at for symbol, at in sections_of().items() if len(at) > 1}
    declared = {
        bare(symbol.strip("$")): {part.split("：")[0] for part in meanings.split("；")}
        for symbol, meanings in rows()[TWICE]
    }
    assert len(declared) == len(rows()[TWICE])
    assert declared == several


@pytest.mark.parametrize("page", PAGES)
def test_every_symbol_of_a_page_is_listed(page: str) -> None:
    """In its own section, or anywhere when it has one meaning in the whole book."""
    known = {
        symbol for symbol, at in sections_of().items() if len(at) == 1 or at & {COMMON, PAGES[page]}
    }
    assert sorted(used_alone(page) - known) == []


def test_symbols_once_forgotten_are_there() -> None:
    listed = by_section()
    for heading, symbols in {
        "流水线": ["I", "r", r"F\&B"],
        "多 token 预测": ["p", "q", "a", "r"],
        "强化学习": ["k_1", "k_2", "k_3", "p", "N"],
        "多头潜在注意力": ["s", r"\alpha", r"\beta", r"\theta_m", "n_g"],
        "FP8 混合精度训练": ["S", "s_g", "E", "f"],
    }.items():
        for symbol in symbols:
            assert bare(symbol) in listed[heading], (heading, symbol)


def test_values_of_v3_name_their_section_when_it_is_not_the_usual_one() -> None:
    """The page says that values come from section 4.2; these do not."""
    for heading, symbol, section in (
        ("流水线", "PP", "§3.2"),
        ("FP8 混合精度训练", "N_C", "§3.3.2"),
        ("多头潜在注意力", "s", "§4.3"),
    ):
        row = next(row for row in rows()[heading] if bare(symbol) in symbols_of(row[0]))
        assert section in " ".join(row), symbol


def test_letters_that_had_a_second_meaning_on_their_page_have_one() -> None:
    """W was a weight beside the time of its gradient, p a place beside a share, r a ratio."""
    text = {
        name: (BOOK / f"{name}.md").read_text("utf8") for name in (*PAGES, "appendix/ambiguities")
    }
    assert r"\partial W" not in text["training/dualpipe"]
    assert "$p$ 每步" not in text["rl/grpo"]
    kl = re.findall(r"^\*\*GRPO-[45]\*\*\n\n: (.*)$", text["appendix/ambiguities"], re.MULTILINE)
    assert len(kl) == 2
    assert not any(re.search(r"\$r\b", entry) for entry in kl)
