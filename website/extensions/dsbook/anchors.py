"""Headings keep their address: the anchor is the label of a section, or else its title.

docutils makes anchors of Latin letters and counts where there are none, so that a Chinese heading
becomes ``#id25``, and ``#id26`` as soon as a heading is written above it. Here a section with a
label, ``(mla-absorb)=``, is ``#mla-absorb``, every other one is called by its title, as in
``#rope-为什么要解耦``. A title that comes again on its page has the anchor of the section around
it in front.
"""

from __future__ import annotations

import re
import unicodedata

from docutils import nodes
from sphinx.transforms import SphinxTransform

COUNTED = re.compile(r"id\d+")


def slug(title: str) -> str:
    """A title as an anchor.

    >>> slug("RoPE 为什么要解耦？")
    'rope-为什么要解耦'
    """
    return re.sub(r"\W+", "-", unicodedata.normalize("NFKC", title).lower()).strip("-")


def rename(document: nodes.document) -> dict[str, str]:
    """Give the sections of a page their anchors; returns {old: new} of those that docutils made."""
    taken = {id_ for id_ in document.ids if not COUNTED.fullmatch(id_)}
    renamed = {}
    for section in document.findall(nodes.section):
        made = _made(section)
        labels = [id_ for id_ in section["ids"] if id_ != made]
        if made is None:
            continue
        if labels:
            new = labels[0]
        else:
            taken.discard(made)
            new = _free(section, taken)
            taken.add(new)
        section["ids"] = list(dict.fromkeys([new, *labels]))
        renamed[made] = new
        document.ids.pop(made, None)
        document.ids[new] = section
    for name, id_ in document.nameids.items():
        document.nameids[name] = renamed.get(id_, id_)
    for node in document.findall(lambda n: isinstance(n, nodes.Element) and n.get("refid")):
        node["refid"] = renamed.get(node["refid"], node["refid"])
    return renamed


def _made(section: nodes.section) -> str | None:
    """The anchor that docutils made of the title (the first: labels are added behind it)."""
    if not section["ids"] or not isinstance(section[0], nodes.title):
        return None
    first = section["ids"][0]
    labels = {nodes.make_id(name) for name in section["names"][1:]}
    return None if first in labels or "." in first else first  # a.b: an object of reference.py


def _free(section: nodes.section, taken: set[str]) -> str:
    new = slug(section[0].astext()) or "section"
    above = section.parent
    while new in taken and isinstance(above, nodes.section):
        if above["ids"] and isinstance(above[0], nodes.title):
            new = f"{above['ids'][0]}-{slug(section[0].astext())}"
        above = above.parent
    base, number = new, 2
    while new in taken:
        new, number = f"{base}-{number}", number + 1
    return new


class Anchors(SphinxTransform):
    default_priority = 850  # before the page is read for its contents, labels and numbers (880)

    def apply(self, **kwargs):
        rename(self.document)


def setup(app):
    app.add_transform(Anchors)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
