"""The outside links of the built book, kept in one place with the day each was last seen to answer.

python website/links.py            # is book/data/links.csv the list of the links in the book?
python website/links.py --write    # make it so; the days of links already listed are kept
python website/links.py --check    # ask every address (needs the internet) and note the day
"""

import argparse
import csv
import datetime
import sys
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path

from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
LIST = ROOT / "book" / "data" / "links.csv"


def outside(html: Path = HTML) -> dict[str, list[str]]:
    """Address → pages that link to it; pages of source code are left out."""
    found = defaultdict(list)
    for path in sorted(html.rglob("*.html")):
        page = path.relative_to(html).with_suffix("").as_posix()
        if page.startswith(("source/", "_static/")):
            continue
        soup = BeautifulSoup(path.read_text("utf8"), "html.parser")
        for link in soup.select("a[href^=http]"):
            address = link["href"].split("#")[0]
            if page not in found[address]:
                found[address].append(page)
    return dict(sorted(found.items()))


def read() -> dict[str, str]:
    """Address → day it was last seen to answer, or nothing."""
    if not LIST.is_file():
        return {}
    with LIST.open(encoding="utf8", newline="") as file:
        return {row["address"]: row["answered"] for row in csv.DictReader(file)}


def write(days: dict[str, str]) -> None:
    with LIST.open("w", encoding="utf8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("address", "answered"))
        rows.writerows(sorted(days.items()))


def answers(address: str) -> bool:
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=20):
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        print(f"{address}: {error}")
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="bring the list up to date")
    parser.add_argument("--check", action="store_true", help="ask every address, note the day")
    arguments = parser.parse_args()
    days, now = read(), set(outside())
    if arguments.check:
        today = datetime.date.today().isoformat()
        write({a: today if answers(a) else day for a, day in days.items()})
    elif arguments.write:
        write({address: days.get(address, "") for address in now})
    elif now != set(days):
        for address in sorted(now - set(days)):
            print(f"not listed: {address}")
        for address in sorted(set(days) - now):
            print(f"no longer in the book: {address}")
        sys.exit("book/data/links.csv is out of date: python website/links.py --write")


if __name__ == "__main__":
    main()
