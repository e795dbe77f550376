"""The drawing of the whole model, with the part lit that the section is about. ::

    ```{block} moe
    ```

The drawing is ``book/figures/block.svg`` (setting ``block_drawing``): every part is a group
``<g data-part="moe">``. It is laid into the page, so that each part can be a link to its section
and the style sheet can make the others pale. Without a name the drawing is big, all parts lit. A
colour that is written into the drawing is recoloured for the dark page as in `darkfigures`.
"""

from __future__ import annotations

import re
from pathlib import Path

from docutils import nodes
from lxml import etree
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from dsbook.darkfigures import PAINT, recolour

log = logging.getLogger(__name__)
SVG = "http://www.w3.org/2000/svg"
PARTS = {  # name → page that explains it, and what it is called
    "attention": ("book/model/index", "注意力"),
    "moe": ("book/model/moe", "混合专家"),
    "balance": ("book/model/balance", "负载均衡"),
    "mla": ("book/model/mla", "多头潜在注意力"),
    "mtp": ("book/model/mtp", "多 token 预测"),
    "fp8": ("book/training/fp8", "FP8 训练"),
    "dualpipe": ("book/training/dualpipe", "DualPipe"),
    "reward": ("book/rl/reward", "奖励"),
    "grpo": ("book/rl/grpo", "GRPO"),
    "v3": ("book/results/v3", "V3 的成绩"),
    "r1": ("book/results/r1", "R1 的成绩"),
}

DRAWN_AS = {"attention": "mla"}  # the part it is in the drawing


class block(nodes.General, nodes.Element):
    """The drawing; `part` is the lit one, or empty."""


class Block(SphinxDirective):
    optional_arguments = 1

    def run(self):
        part = self.arguments[0] if self.arguments else ""
        if part and part not in PARTS:
            raise self.error(f"block: no part {part!r}; there are {', '.join(PARTS)}")
        node = block(part=part)
        self.set_source_info(node)
        path = Path(self.env.srcdir, self.config.block_drawing)
        self.env.note_dependency(str(path))
        if not path.is_file():
            log.info("block: no drawing %s yet", path)
        return [node]


def _themed(match: re.Match[str]) -> str:
    """A colour of a style, for either page; a browser that does not know light-dark keeps it."""
    light, dark = match[2], recolour(match[2])
    both = "" if dark == light else f";{match[1]}light-dark({light},{dark})"
    return f"{match[1]}{light}{both}"


def drawing(svg: bytes, part: str, address) -> str:
    """The drawing as part of a page; `address(page)` is the relative address of a page, or None."""
    root = etree.fromstring(svg, etree.XMLParser(remove_comments=True, remove_blank_text=True))
    for name in ("width", "height", "id"):
        root.attrib.pop(name, None)
    for element in root.iter(etree.Element):
        style = element.get("style", "")
        for key in ("fill", "stroke"):
            if key in element.attrib:
                style = f"{key}:{element.get(key)};{style}"
        if (themed := PAINT.sub(_themed, style)) != style:
            element.set("style", themed.rstrip(";"))
    root.set("role", "group")  # an image has no links inside
    if part:
        root.attrib.pop("aria-labelledby", None)
        for tag in ("title", "desc"):
            for element in root.findall(f"{{{SVG}}}{tag}"):
                root.remove(element)
        root.set("aria-label", f"整个模型的图，亮起的一处是本节：{PARTS[part][1]}")
    lit = DRAWN_AS.get(part, part)
    for group in root.findall(f".//{{{SVG}}}g[@data-part]"):
        name = group.get("data-part")
        if name == lit:
            group.set("class", "lit")
        page, title = PARTS[name]
        href = address(page)
        if href is None:
            continue
        link = etree.Element(f"{{{SVG}}}a", {"href": href, "aria-label": title})
        if part:
            link.set("tabindex", "-1")  # ten stops before the first sentence would be too many
        group.getparent().replace(group, link)
        etree.SubElement(link, f"{{{SVG}}}title").text = title
        link.append(group)
    text = etree.tostring(root, encoding="unicode")
    return re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)


def visit_html(self, node):
    builder, here = self.builder, self.builder.current_docname
    path = Path(builder.srcdir, self.config.block_drawing)
    if not path.is_file():
        raise nodes.SkipNode

    def address(page):
        known = page in builder.env.found_docs and page != here
        return builder.get_relative_uri(here, page) if known else None

    size = "block-small" if node["part"] else "block-big"
    svg = drawing(path.read_bytes(), node["part"], address)
    self.body.append(f'<div class="block-drawing {size}">{svg}</div>\n')
    raise nodes.SkipNode


def visit_text(self, node):
    raise nodes.SkipNode


def setup(app):
    app.add_config_value("block_drawing", "book/figures/block.svg", "env", [str])
    app.add_node(block, html=(visit_html, None), latex=(visit_text, None), text=(visit_text, None))
    app.add_directive("block", Block)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}
