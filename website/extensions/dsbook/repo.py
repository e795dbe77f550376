"""One place for the addresses: environment variables, which the Makefile and the forges hand on.

``BOOK_REPO_URL`` is the address of the repository. When it is given, pages get the repository,
edit and issue buttons, notebook pages also the launch buttons for Binder and (GitHub only) Colab,
and source pages link to the repository. When it is not, or the theme does not know the host's
addresses, there is no button: none is dead. ``BOOK_REPO_BRANCH`` names the branch (default
``main``); Colab opens the branch ``colab``, whose notebooks install the library in their first
cell (``website/colab.py``).

``BOOK_URL`` is the address at which others read the book, see ``published.py``.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from sphinx.errors import ConfigError

COLAB = "colab"  # the branch


def address(name: str) -> str:
    """What a variable of the environment gives, without a slash at its end; "" without one."""
    given = os.environ.get(name, "").strip().rstrip("/")
    parts = urlsplit(given)
    if given and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ConfigError(f"{name} is {given!r}; expected an address such as https://book.example")
    if parts.hostname and (parts.hostname == "localhost" or parts.hostname.startswith("127.")):
        raise ConfigError(f"{name} is {given!r}, an address of this machine that nobody can open")
    return given


def set_repository(app, config):
    url = address("BOOK_REPO_URL")
    config.book_repo_url = url
    config.book_repo_branch = os.environ.get("BOOK_REPO_BRANCH") or "main"
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


def lead_to_colab(app, pagename, templatename, context, doctree):
    """The Colab button opens the notebook that installs the library first."""
    branch = f"/blob/{app.config.book_repo_branch}/"
    for group in context.get("header_buttons", ()):
        for button in group.get("buttons", ()) if group["type"] == "group" else ():
            if button.get("text") == "Colab":
                button["url"] = button["url"].replace(branch, f"/blob/{COLAB}/", 1)


def setup(app):
    app.add_config_value("book_repo_url", "", "html", [str])
    app.add_config_value("book_repo_branch", "main", "html", [str])
    app.add_message_catalog("booktheme", str(Path(__file__).parents[2] / "locale"))
    app.connect("config-inited", set_repository, priority=1)
    app.connect("html-page-context", lead_to_colab, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
