"""Pack the built book for reading offline: python website/zip.py [--output dist/dsnotes-html.zip].

The archive opens with one folder, dsnotes-html/; the same book gives the same bytes. What only a
served book needs stays outside.
"""

import argparse
import sys
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parent.parent
HTML = ROOT / "_build" / "html"
SERVED = (".buildinfo", "404.html", "feed.xml", "llms.txt", "robots.txt", "sitemap.xml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "dsnotes-html.zip")
    output = parser.parse_args().output
    if not (HTML / "index.html").is_file():
        sys.exit("there is no book in _build/html: run `make book` first")
    output.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(output, "w") as archive:
        for path in sorted(HTML.rglob("*")):
            if path.is_file() and path.relative_to(HTML).as_posix() not in SERVED:
                # without a date of its own, an entry has the first that the format knows
                entry = ZipInfo(f"dsnotes-html/{path.relative_to(HTML).as_posix()}")
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes(), ZIP_DEFLATED)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
