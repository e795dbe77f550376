"""Formulas that carry the paper's own number.

A labelled display formula is numbered by Sphinx, ``(1.3)``. One with ``\\tag{12}`` keeps that
number instead, does not use one of ours up, and ``{eq}`label``` prints it.
"""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.domains.math import MathDomain
from sphinx.util.nodes import make_refnode

TAG = re.compile(r"\\tag\*?\s*\{((?:[^{}]|\{[^{}]*\})*)\}")


def split(tex: str) -> tuple[str, str | None]:
    r"""The formula without its ``\tag``, and the number; as it is when there is none or several.

    >>> split(r"x \tag{12}")
    ('x', '12')
    """
    tags = TAG.findall(tex)
    return (TAG.sub("", tex).strip(), tags[0].strip()) if len(tags) == 1 else (tex, None)


class TaggedMathDomain(MathDomain):
    """Sphinx's equations, plus the papers' own numbers given by ``\\tag``."""

    initial_data = {**MathDomain.initial_data, "tags": {}}  # noqa: RUF012
    data_version = 1

    @property
    def tags(self) -> dict[str, tuple[str, str]]:
        return self.data.setdefault("tags", {})  # label -> (docname, number)

    def process_doc(self, env, docname, document):
        super().process_doc(env, docname, document)
        for node in document.findall(nodes.math_block):
            number = split(node.astext())[1]
            if number and node.get("label"):
                self.tags[node["label"]] = docname, number

    def clear_doc(self, docname):
        super().clear_doc(docname)
        for label in [k for k, v in self.tags.items() if v[0] == docname]:
            del self.tags[label]

    def merge_domaindata(self, docnames, otherdata):
        super().merge_domaindata(docnames, otherdata)
        self.tags.update({k: v for k, v in otherdata["tags"].items() if v[0] in docnames})

    def get_enumerable_node_type(self, node):
        if isinstance(node, nodes.math_block) and split(node.astext())[1]:
            return None
        return super().get_enumerable_node_type(node)

    def resolve_xref(self, env, fromdocname, builder, typ, target, node, contnode):
        if target in self.tags:
            docname, number = self.tags[target]
            form = env.config.math_eqref_format or "({number})"
            text = nodes.Text(form.format(number=number))
            return make_refnode(
                builder, fromdocname, docname, nodes.make_id(f"equation-{target}"), text
            )
        return super().resolve_xref(env, fromdocname, builder, typ, target, node, contnode)


def setup(app):
    app.add_domain(TaggedMathDomain, override=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
