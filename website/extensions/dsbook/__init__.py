"""The extensions of the book, as one: each module below is explained at its top.

A module can also stand alone: `extensions = ["dsbook.katexmath"]`.
"""

from __future__ import annotations

PARTS = (
    "ahead",
    "anchors",
    "block",
    "cachekey",
    "citethis",
    "codelink",
    "course",
    "csvtables",
    "english",
    "eqcode",
    "eqindex",
    "exercises",
    "figuretext",
    "finish",
    "folds",
    "gbt7714",
    "katexmath",
    "kernels",
    "lab",
    "mathtags",
    "nbfigure",
    "numbers",
    "papers",
    "permalinks",
    "plans",
    "predict",
    "published",
    "quiz",
    "reference",
    "repo",
    "runtimes",
    "scoreboard",
    "sides",
    "testlink",
    "verses",
    "zhsearch",
)


def setup(app):
    for part in PARTS:
        app.setup_extension(f"{__name__}.{part}")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
