"""What of the book lacks its English title, abstract or caption, or has changed since it was
translated (`dsbook.english`).

    python website/english.py            names it, and fails if there is any
    python website/english.py --stamp    takes the English as it stands for up to date
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook.english import Door  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--stamp", action="store_true", help="the English fits the Chinese")
    if parser.parse_args().stamp:
        Door(ROOT).write_stamps()
    found = Door(ROOT).complaints()
    if found:
        sys.exit("\n".join(found))


if __name__ == "__main__":
    main()
