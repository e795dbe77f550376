"""Check that a tag names the version that the files name, and print what is new in it.

    python website/release.py v1.2.3

pyproject.toml, CITATION.cff and CHANGELOG.md must agree on the version, the last two on its date.
It needs nothing but Python, so that a wrong tag is refused before anything is built.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def notes(root: Path, tag: str) -> str:
    """The part of CHANGELOG.md about the version; ValueError says what does not agree."""
    version = tomllib.loads((root / "pyproject.toml").read_text("utf8"))["project"]["version"]
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag!r}; pyproject.toml expects 'v{version}'")
    citation = (root / "CITATION.cff").read_text("utf8")
    cited = dict(re.findall(r"^(version|date-released): *(\S+)", citation, re.M))
    if cited["version"] != version:
        raise ValueError(f"CITATION.cff has version {cited['version']}; expected {version}")
    heading = f"## [{version}] - {cited['date-released']}"
    _, found, rest = (root / "CHANGELOG.md").read_text("utf8").partition(f"\n{heading}\n")
    if not found:
        raise ValueError(f"CHANGELOG.md lacks the heading {heading!r}, the date of CITATION.cff")
    return re.split(r"^## ", rest, maxsplit=1, flags=re.M)[0].strip() + "\n"


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python website/release.py v1.2.3")
    try:
        print(notes(ROOT, sys.argv[1]), end="")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
