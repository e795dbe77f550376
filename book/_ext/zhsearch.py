"""Search in Chinese without a word list.

Sphinx's own Chinese search cuts the pages into the words of a dictionary but not the reader's
query, so a compound such as 负载均衡 is found only by chance. Here both sides are cut into
overlapping pairs of characters, in Python while the index is built and by the same rule in the
browser; Latin words, digits and identifiers stay whole.
"""

from __future__ import annotations

import re

from sphinx.search.zh import SearchChinese

HAN = "\u3400-\u9fff\uf900-\ufaff"
RUN = re.compile(f"[{HAN}]+")


def bigrams(text: str) -> list[str]:
    """Pairs of neighbouring Chinese characters.

    >>> bigrams("负载均衡, MoE")
    ['负载', '载均', '均衡']
    """
    return [run[i : i + 2] for run in RUN.findall(text) for i in range(len(run) - 1)]


class SearchChineseBigram(SearchChinese):
    lang = "zh"
    language_name = "Chinese (bigrams)"
    js_stemmer_code = "var Stemmer = function () { this.stemWord = (w) => w; };"
    js_splitter_code = (
        "var splitQuery = (query) => { const out = [];\n"
        f"  for (const [s] of query.matchAll(/[{HAN}]+|[a-zA-Z0-9_]+/g)) {{\n"
        "    if (/[a-zA-Z0-9_]/.test(s[0]) || s.length < 3) { out.push(s); continue; }\n"
        "    for (let i = 0; i + 1 < s.length; i++) out.push(s.slice(i, i + 2)); }\n"
        "  return out; };"
    )

    def split(self, input: str) -> list[str]:
        return bigrams(input) + self.latin1_letters.findall(input)

    def word_filter(self, word: str) -> bool:
        return len(word) > 1

    def stem(self, word: str) -> str:
        return word.lower()


def setup(app):
    app.add_search_language(SearchChineseBigram)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
