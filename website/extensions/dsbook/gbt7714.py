"""References in the style of GB/T 7714, the Chinese national standard.

Two styles, chosen by one setting in ``_config.yml``: ``bibtex_default_style: gbt7714-2025`` (in
force since 2026-07-01) or ``gbt7714-2015`` (some schools still ask for it). What differs here: the
2025 edition has a mark for preprints, ``[PP/OL]``, with the platform and the year, and sets
Chinese entries with full-width punctuation; under the 2015 edition a preprint is an electronic
bulletin, ``[EB/OL]``.

Corporate authors are written ``{DeepSeek-AI}`` in the .bib file; ``and others`` becomes "et al"
(等 in Chinese).
"""

from __future__ import annotations

import functools
import re

import pybtex.plugin
from pybtex.plugin import register_plugin
from pybtex.richtext import HRef, Text
from pybtex.style.formatting import BaseStyle
from pybtex.style.template import FieldIsMissing

HAN = re.compile("[\u3400-\u9fff]")
MARK = {
    "article": "J",
    "inproceedings": "C",
    "proceedings": "C",
    "book": "M",
    "incollection": "M",
    "phdthesis": "D",
    "mastersthesis": "D",
    "techreport": "R",
    "misc": "EB",
    "online": "EB",
    "software": "CP",
    "dataset": "DS",
}


def plain(tex: str) -> str:
    """The text of a BibTeX field: accents decoded, braces gone, ``--`` as a plain hyphen.

    >>> plain("Rozi{\\\\`e}re, {LLM} 1--20")
    'Rozière, LLM 1-20'
    """
    return (
        str(Text.from_latex(tex))
        .replace("{", "")
        .replace("}", "")
        .replace("–", "-")
        .replace("--", "-")
    )


def name(person) -> str:
    """One author: 张三, VASWANI A, DeepSeek-AI (a corporate author keeps its case)."""
    last = plain(" ".join(person.prelast_names + person.last_names))
    first = [plain(n) for n in person.first_names + person.middle_names]
    if HAN.search(last):
        return last + "".join(first)
    if not first:
        return last
    return " ".join([last.upper(), *(n[0].upper() for n in first)])


def people(persons, chinese: bool) -> str:
    """At most three authors, then 等 or et al."""
    names = [name(p) for p in persons]
    more = len(names) > 3 or "others" in names
    names = [n for n in names if n != "others"][:3]
    return ", ".join(names) + ((", 等" if chinese else ", et al") if more else "")


def fullwidth(text: str) -> str:
    """Punctuation of a Chinese entry in the 2025 edition: full-width, but for "." and "[]"."""
    for half, full in ((", ", "，"), (": ", "："), (" (", "（"), ("(", "（"), (")", "）")):
        text = text.replace(half, full)
    return text


class GBT7714(BaseStyle):
    """Numbered references in the order of citation."""

    default_label_style = "number"
    default_sorting_style = "none"
    edition = 2025

    def format_entry(self, label, entry, bib_data=None):
        from pybtex.style import FormattedEntry

        text, url = self.describe(entry)
        if url:
            return FormattedEntry(entry.key, Text(text, ". ", HRef(url, url), "."), label)
        return FormattedEntry(entry.key, Text(text, "."), label)

    def describe(self, entry) -> tuple[str, str]:
        """(everything up to the link, the link)."""

        def field(key: str) -> str:
            return plain(entry.fields.get(key, ""))

        if not entry.fields.get("title"):
            raise FieldIsMissing("title", entry)
        chinese = bool(HAN.search(field("title")))
        url = entry.fields.get("url") or (
            f"https://arxiv.org/abs/{field('eprint')}" if field("eprint") else ""
        )
        published = entry.type == "inproceedings" or (
            entry.type == "article" and "arxiv" not in field("journal").lower()
        )
        preprint = bool(field("eprint")) and not published
        mark = ("PP" if self.edition >= 2025 else "EB") if preprint else MARK.get(entry.type, "Z")
        authors = people(entry.persons.get("author", []), chinese)
        text = f"{authors}. " if authors else ""
        text += f"{field('title')}[{mark}{'/OL' if url else ''}]"
        if preprint and self.edition >= 2025:
            text += f". {field('archiveprefix') or 'arXiv'} ({field('year')})"
        elif preprint or mark == "EB":
            text += f". ({self._date(field)})"
        elif entry.type == "article":
            text += f". {field('journal')}, {field('year')}"
            text += f", {field('volume')}" if field("volume") else ""
            text += f"({field('number')})" if field("number") else ""
        else:
            place = ": ".join(
                filter(None, (field("address"), field("publisher") or field("school")))
            )
            text += f"//{field('booktitle')}" if field("booktitle") else ""
            text += ". " + ", ".join(filter(None, (place, field("year"))))
        if field("pages") and not preprint:
            text += f": {field('pages')}"
        return (fullwidth(text) if chinese and self.edition >= 2025 else text), url

    @staticmethod
    def _date(field) -> str:
        return field("date") or field("year")


class GBT7714Of2015(GBT7714):
    edition = 2015


def setup(app):
    register_plugin("pybtex.style.formatting", "gbt7714-2025", GBT7714)
    register_plugin("pybtex.style.formatting", "gbt7714-2015", GBT7714Of2015)
    # sphinxcontrib-bibtex asks pybtex for a plug-in at every citation, and pybtex then scans all
    # installed packages; once is enough.
    load = pybtex.plugin._load_entry_point
    if not hasattr(load, "cache_info"):
        pybtex.plugin._load_entry_point = functools.lru_cache(None)(load)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
