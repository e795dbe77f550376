"""Notebooks have no number: they belong to the section before them, at whatever depth it stands.

How deep the others are numbered says ``numbered`` in ``_toc.yml``.
"""

from __future__ import annotations

from docutils import nodes


def unnumber(app, env):
    for doc in env.found_docs:
        if doc.startswith("notebooks/"):
            env.toc_secnumbers[doc] = dict.fromkeys(env.toc_secnumbers.get(doc, ()))
            env.titles[doc].attributes.pop("secnumber", None)
            for reference in env.tocs[doc].findall(nodes.reference):
                reference["secnumber"] = None
    return []


def setup(app):
    app.connect("env-get-updated", unnumber, priority=900)  # after they have been numbered
    return {"parallel_read_safe": True, "parallel_write_safe": True}
