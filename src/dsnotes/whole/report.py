"""The table of a run: which share of the poems of each model keeps every rule, and what it cost.

It is read from the results of the stages, and written as `report.md`.
"""

from typing import Any

from dsnotes.data.poems import VERSE_FORMS
from dsnotes.whole.run import Result, Run

MODELS = {
    "pretrain": "base",
    "cold_start": "cold start",
    "reinforce": "RL",
    "pretrain_small": "small base",
    "distill": "student",
    "reinforce_small": "RL on the small model",
}
_CLOCKS = {"seconds": "minutes", "cpu_seconds": "cpu_minutes"}
_COLUMNS = ("copied", "characters", "loss", "max_vio")


def report(run: Run) -> Result:
    """Collect the table and the figures beside it, and write both as text."""
    found = {name: run.result(name) or {} for name in (*MODELS, "corpus", "decode", "release")}
    rows = {title: row(found[name]) for name, title in MODELS.items()}
    clock = run.result("clock") or {}
    text = [*_table(found["corpus"], rows), "", *_lines(found, clock)]
    (run.folder / "report.md").write_text("\n".join(text) + "\n", "utf8")
    totals = {which: sum(spent[which] for spent in clock.values()) for which in _CLOCKS}
    return {"rows": rows, **{name: round(totals[which] / 60, 1) for which, name in _CLOCKS.items()}}


def row(judged: dict[str, Any]) -> dict[str, Any]:
    """The share of poems that keep every rule, by form, and the other columns of a model."""
    return {
        **{form: own["rules"] for form, own in judged["forms"].items()},
        **{name: judged[name] for name in _COLUMNS},
    }


def _table(corpus: Result, rows: dict[str, dict[str, Any]]) -> list[str]:
    head = ["model", *VERSE_FORMS, "copied lines", "characters", "loss", "MaxVio"]
    own = [f"{corpus['forms'][form]['rules']:.0%}" for form in VERSE_FORMS]
    lines = [head, ["---"] * len(head), ["corpus", *own, "", "", "", ""]]
    for title, cells in rows.items():
        shares = [f"{cells[form]:.0%}" if form in cells else "" for form in VERSE_FORMS]
        rest = [
            f"{cells['copied']:.1%}",
            str(cells["characters"]),
            f"{cells['loss']:.3f}",
            f"{cells['max_vio']:.2f}",
        ]
        lines.append([title, *shares, *rest])
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _lines(found: dict[str, Result], clock: dict[str, dict[str, float]]) -> list[str]:
    decode, release = found["decode"], found["release"]
    rates = ", ".join(f"{way} {rate:.0f}" for way, rate in decode["tokens_per_second"].items())
    accepted = ", ".join(f"{share:.0%} at {t}" for t, share in decode["accepted"].items())
    lines = [
        f"tokens a second: {rates}",
        f"drafts accepted: {accepted} (temperature)",
        f"cache: {decode['cache_bytes']} bytes a token, {decode['cache_bytes_by_head']} by head",
        f"checkpoint: {release['bytes']} bytes, loss {release['loss']:.3f}, by transformers the "
        f"same text in {_percent(release['same_by_transformers'])}",
    ]
    for kind, its in found["pretrain"]["specialists"].items():
        where = f"layer {its['layer']}, expert {its['expert']}"
        lines.append(f"{kind}: {where} takes {its['share']:.0%}, of others {its['others']:.0%}")
    for which, name in _CLOCKS.items():
        each = ", ".join(f"{stage} {spent[which]:.0f}" for stage, spent in clock.items())
        total = sum(spent[which] for spent in clock.values()) / 60
        lines.append(f"{which}: {each}; {total:.1f} {name} in all")
    return lines


def _percent(share: float | None) -> str:
    return "no case (not installed)" if share is None else f"{share:.0%} of cases"
