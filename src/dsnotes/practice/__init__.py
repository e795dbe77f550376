"""Exercises that can be failed: blank cells in notebooks, and mechanisms to write.

`check` and `close` are for the notebooks. `python -m dsnotes.practice moe` writes a mechanism of
the book with blanks, and grades what the reader has filled in.
"""

from dsnotes.practice.cells import check, close

__all__ = ["check", "close"]
