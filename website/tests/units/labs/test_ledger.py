"""The ledger of keys and values, against the bytes counted from the configurations."""

import pytest

from dsnotes.after.config import DEEPSEEK_V4_FLASH, DEEPSEEK_V4_PRO, DEEPSEEK_V32
from dsnotes.after.ledger import grouped_kv_bytes_per_token, kv_bytes_per_token, window_bytes
from dsnotes.config import DEEPSEEK_V3

EACH = {
    "V1 67B": grouped_kv_bytes_per_token(layers=95, groups=8, head_dim=128),
    "V3": kv_bytes_per_token(DEEPSEEK_V3),
    "V3.2": kv_bytes_per_token(DEEPSEEK_V32),
    "V4-Pro": kv_bytes_per_token(DEEPSEEK_V4_PRO),
    "V4-Flash": kv_bytes_per_token(DEEPSEEK_V4_FLASH),
}
WINDOW = {"V4-Pro": window_bytes(DEEPSEEK_V4_PRO), "V4-Flash": window_bytes(DEEPSEEK_V4_FLASH)}


@pytest.fixture
def ledger(lab):
    return lab("ledger")


@pytest.mark.parametrize("context", [128, 1000, 131072, 1048576])
def test_bytes_of_a_text(ledger, context):
    rows = ledger.call("LedgerLab.kept", context)
    assert {row["name"]: row["grows"] for row in rows} == {n: e * context for n, e in EACH.items()}
    assert {row["name"]: row["window"] for row in rows if row["window"]} == WINDOW


def test_a_text_shorter_than_the_window_does_not_fill_it(ledger):
    assert ledger.call("LedgerLab.kept", 64)[4]["window"] == WINDOW["V4-Flash"] / 2


def test_the_longest_text_that_fits(ledger):
    for row in ledger.call("LedgerLab.fits", 80e9):
        name = row["name"]
        used = row["tokens"] * EACH[name] + WINDOW.get(name, 0)
        assert used <= 80e9 < used + EACH[name]
