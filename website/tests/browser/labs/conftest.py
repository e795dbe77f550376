"""Opens an interactive figure on its page (see moving.py)."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

sys.path.insert(0, str(Path(__file__).parent))

from moving import LabPage


@pytest.fixture
def open_lab(page: Page):
    """Name of a figure, address behind the page's → the figure on its page."""
    return lambda name, address="": LabPage(page, name, address)


@pytest.fixture
def touch_lab(browser: Browser, browser_context_args: dict) -> Iterator[Callable[..., LabPage]]:
    """The same on a phone that knows fingers."""
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
    context = browser.new_context(**browser_context_args | phone)
    yield lambda name, address="": LabPage(context.new_page(), name, address)
    context.close()
