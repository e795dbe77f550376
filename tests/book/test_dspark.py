"""The table of the page on DSpark: what each length to verify is worth, by its own arithmetic."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "book" / "after" / "dspark.md").read_text("utf8")


def test_the_rows_of_the_example_multiply() -> None:
    _, _, rest = PAGE.partition(":name: tab-dspark-peek\n")
    rows = re.findall(
        r"^\| .+ \| \$(.+)\$ \| ([\d.]+) \| ([\d.]+) \|$", rest.partition(":::")[0], re.MULTILINE
    )
    assert len(rows) == 4
    for sum_, speed, theta in rows:
        terms, _, total = sum_.partition("=")
        added = 0.0
        for term in terms.split("+"):
            product = 1.0
            for factor in term.split(r"\times"):
                product *= float(factor)
            added += product
        assert abs(added - float(total or terms)) < 1e-9
        assert abs(added * float(speed) - float(theta)) < 1e-9
