"""Put a figure that a notebook glued into another page, numbered and with a caption.

MyST-NB's own cross-page gluing knows no SVG and no captions. ::

    ```{nbfigure} /notebooks/moe.ipynb::fig-load
    :name: fig-moe-load
    :alt: 每层 64 个专家的负载热图
    :width: 90%
    各专家收到的 token 数。
    ```

The notebook did ``glue("fig-load", fig, display=False)``. ``:alt:`` and a caption are required. A
key that the notebook did not glue is a warning.
"""

from __future__ import annotations

import hashlib
import os
from base64 import b64decode
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb.ext.glue.crossref import read_glue_cache
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

log = logging.getLogger(__name__)
SUFFIX = {"image/svg+xml": ".svg", "image/png": ".png"}


class glued_image(nodes.General, nodes.Element):
    """Stands for the picture until the notebook has run."""


class NbFigure(SphinxDirective):
    required_arguments = 1
    has_content = True
    option_spec = {  # noqa: RUF012
        "name": directives.unchanged_required,
        "alt": directives.unchanged_required,
        "width": directives.unchanged,
    }

    def run(self):
        notebook, _, key = self.arguments[0].partition("::")
        if not (key and self.options.get("alt") and self.content):
            raise self.error("nbfigure needs <notebook>::<key>, :alt: and a caption")
        _, file = self.env.relfn2path(notebook)
        self.env.note_dependency(file)
        image = glued_image(doc=self.env.path2doc(file), key=key, alt=self.options["alt"])
        image["width"] = self.options.get("width")
        self.set_source_info(image)
        figure = nodes.figure("", image)
        self.set_source_info(figure)
        self.add_name(figure)
        text = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, text)
        figure += nodes.caption("", "", *text[0].children)
        if len(text) > 1:
            figure += nodes.legend("", *text[1:])
        return [figure]


class FillGluedImages(SphinxPostTransform):
    default_priority = 4  # before MyST-NB's own gluing (5)

    def run(self, **kwargs):
        for node in list(self.document.findall(glued_image)):
            folder = self.env.mystnb_config.output_folder
            data = read_glue_cache(str(folder), node["doc"]).get(node["key"], {}).get("data", {})
            mime = next((m for m in SUFFIX if m in data), None)
            if not mime:
                log.warning(
                    "no picture %r glued in %r",
                    node["key"],
                    node["doc"],
                    location=node,
                    type="nbfigure",
                )
                node.parent.remove(node)
                continue
            raw = data[mime]
            content = raw.encode() if mime.endswith("xml") else b64decode(raw)
            node.replace_self(self._image(node, content, SUFFIX[mime]))

    def _image(self, node, content: bytes, suffix: str) -> nodes.image:
        builder = self.app.builder
        name = hashlib.sha256(content).hexdigest() + suffix
        target = Path(builder.outdir) / builder.imagedir / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        page = Path(builder.outdir, builder.get_target_uri(self.env.docname)).parent
        uri = Path(os.path.relpath(target, page)).as_posix()
        image = nodes.image(uri=uri, alt=node["alt"], candidates={"*": uri})
        if node["width"]:
            image["width"] = node["width"]
        return image


def setup(app):
    app.add_node(glued_image)
    app.add_directive("nbfigure", NbFigure)
    app.add_post_transform(FillGluedImages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
