"""MyST-NB's table of the run times of notebooks (``nb-exec-table``) in Chinese, with a total.

The times are those of the run that produced the outputs shown; a notebook taken from the cache
keeps its own.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

WORDS = {
    "Document": "笔记本",
    "Modified": "运行时间",
    "Method": "方式",
    "Run Time (s)": "用时（秒）",
    "Status": "状态",
    "cache": "缓存",
    "✅": "通过",
    "❌": "出错",
}
HEADS = list(WORDS)[:5]


def in_chinese(table: nodes.table) -> bool:
    """Change the table if it is one of run times; says whether it was."""
    head = next(table.findall(nodes.thead), [[]])
    if [entry.astext() for entry in head[0]] != HEADS:
        return False
    for text in list(table.findall(nodes.Text)):
        if text in WORDS:
            text.parent.replace(text, nodes.Text(WORDS[text]))
    table["classes"].append("runtimes")
    body = next(table.findall(nodes.tbody))
    seconds = [row[HEADS.index("Run Time (s)")].astext() for row in body]
    total = sum(float(time) for time in seconds if time != "-")
    cells = ("合计", "", "", f"{total:.1f}", "")
    body += nodes.row("", *(nodes.entry("", nodes.paragraph("", cell)) for cell in cells))
    return True


class ChineseTable(SphinxPostTransform):
    default_priority = 9  # behind MyST-NB, which makes the table at 8

    def run(self, **kwargs):
        for table in self.document.findall(nodes.table):
            in_chinese(table)


def setup(app):
    app.add_post_transform(ChineseTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
