"""The files that notebooks read: tables of papers and records of experiments.

They belong to the book and are in its folder `book/data`. A wheel contains a copy of them, so that
a notebook runs wherever the library is installed.
"""

from pathlib import Path

_HERE = Path(__file__).parent
# in a wheel; in a checkout
_FOLDERS = (_HERE / "book", _HERE.parents[2] / "book" / "data")


def find(name: str) -> Path:
    """The path of one file, named as in `book/data`: `"runs/balance.json"`.

    Raises FileNotFoundError where there is no such file; a name that leads out of the folder is
    refused by a ValueError.

    >>> from dsnotes.data import find
    >>> find("v3_table1_training_cost.csv").suffix
    '.csv'
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"name={name!r} leads out of the data; expected a name as in book/data")
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    places = " and ".join(map(str, _FOLDERS))
    raise FileNotFoundError(f"name={name!r} is not among the data of the book, in {places}")
