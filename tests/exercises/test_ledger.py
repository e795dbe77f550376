"""The exercises of the ledger, solved from the sizes that the facts of the release give."""

from dsnotes.after.config import DEEPSEEK_V4_FLASH, DEEPSEEK_V4_PRO

from .notebook import NOTEBOOKS, answers
from .page import exercise, page

RIGHT = {label: answer.right for label, answer in answers(NOTEBOOKS / "ledger.ipynb").items()}


def run(label: str) -> dict:
    names: dict = {}
    exec(RIGHT[label], names)
    return names


def test_ledger_1() -> None:
    """The layout of the released kernels: 656 bytes a latent, 132 a key."""
    answer = run("ledger-1")
    assert (answer["latent"], answer["key"]) == (656, 132)
    assert answer["whole"] == 48068
    assert "512" in exercise("ledger-1")


def test_ledger_2() -> None:
    """Counted by layers of a kind: 21 CSA and 20 HCA in Flash, 30 and 31 in Pro."""
    per_token = run("ledger-2")["bytes_per_token"]
    assert per_token(DEEPSEEK_V4_FLASH.compress_ratios, 584, 68) == 21 * 652 / 4 + 20 * 584 / 128
    assert per_token(DEEPSEEK_V4_PRO.compress_ratios, 584, 68) == 30 * 652 / 4 + 31 * 584 / 128


def test_ledger_3() -> None:
    """The window holds 128 whole entries a layer; the page offers about nine hundred."""
    assert round(run("ledger-3")["guess"], 3) == 0.084
    assert "约九百个" in page("ledger")
