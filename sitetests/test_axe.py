"""axe-core finds no violation on any page, in the light and in the dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe

AXE = Axe()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_violation(opened, theme):
    assert _violations(opened.page, theme) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_violation_while_searching(browser, site, theme):
    page = browser.new_page()
    page.goto(f"{site}/search.html?q=负载均衡", wait_until="networkidle")
    assert _violations(page, theme) == []
    page.close()


def _violations(page, theme):
    """[(rule, impact, first places)]"""
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    found = AXE.run(page).response["violations"]
    return [
        (rule["id"], rule["impact"], [" ".join(map(str, n["target"])) for n in rule["nodes"][:4]])
        for rule in found
    ]
