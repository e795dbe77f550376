"""What a check says of mistakes inside the reader's own function."""

import pytest

from dsnotes.practice import check


def test_a_variable_read_too_early_is_not_a_cell_that_has_not_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def answer() -> int:
        total += 1  # type: ignore[used-before-def]
        return total

    with check("moe-0", answer):
        answer()
    said = capsys.readouterr().out
    assert "UnboundLocalError" in said
    assert "先运行上面的各格" not in said


def test_an_assertion_of_the_reader_without_a_message_is_quoted(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with check("moe-0", 3):
        raise AssertionError
    assert "不对。这一行不成立：`raise AssertionError`" in capsys.readouterr().out
