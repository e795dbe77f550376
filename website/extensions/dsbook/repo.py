"""One place for the address of the repository: the environment variable ``BOOK_REPO_URL``.

When it is given, pages get the repository, edit and issue buttons, notebook pages also the launch
buttons for Binder and (GitHub only) Colab, and source pages link to the repository. When it is
not, or the theme does not know the host's addresses, there is no button: none is dead.
``BOOK_REPO_BRANCH`` names the branch (default ``main``).
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit


def set_repository(app, config):
    url = os.environ.get("BOOK_REPO_URL", "").rstrip("/")
    config.book_repo_url = url
    config.book_repo_branch = os.environ.get("BOOK_REPO_BRANCH", "main")
    host = urlsplit(url).netloc
    provider = next((name for name in ("github", "gitlab") if name in host), None)
    if not provider:
        return
    launch = {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}
    if provider == "github":
        launch["colab_url"] = "https://colab.research.google.com"
    config.html_theme_options |= {
        "repository_url": url,
        "repository_provider": provider,
        "repository_branch": config.book_repo_branch,
        "use_repository_button": True,
        "use_edit_page_button": True,
        "use_issues_button": True,
        "launch_buttons": launch,
    }


def setup(app):
    app.add_config_value("book_repo_url", "", "html", [str])
    app.add_config_value("book_repo_branch", "main", "html", [str])
    app.add_message_catalog("booktheme", str(Path(__file__).parents[2] / "locale"))
    app.connect("config-inited", set_repository, priority=1)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
