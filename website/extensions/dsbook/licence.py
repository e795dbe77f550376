"""Under the caption of each figure: the licence to use it again, with a link to the terms."""

from __future__ import annotations

import os
from pathlib import Path

from lxml import etree

TERMS = "book/appendix/cite.html#cite-reuse"
NAME = "CC BY 4.0"


def lines(page: etree.ElementBase, path: Path) -> None:
    """Add the line to every figure of a page that has a caption; once."""
    root = page.get("data-content_root") or "./"
    for caption in page.xpath("//figure//figcaption"):
        if caption.xpath(".//*[@class='licence']"):
            continue
        line = etree.SubElement(caption, "p", {"class": "licence"})
        link = etree.SubElement(line, "a", {"href": os.path.join(root, TERMS), "rel": "license"})
        link.text = NAME
