"""axe-core finds no violation on any page, in the light and in the dark."""

import pytest
from axe_playwright_python.sync_playwright import Axe

AXE = Axe()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_violation(browser, site, name, scheme):
    assert _violations(browser, f"{site}/{name}.html", scheme) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_violation_while_searching(browser, site, scheme):
    assert _violations(browser, f"{site}/search.html?q=负载均衡", scheme) == []


def _violations(browser, url, scheme):
    """[(rule, impact, first places)]"""
    context = browser.new_context(color_scheme=scheme, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(url, wait_until="load")
    found = AXE.run(page).response["violations"]
    context.close()
    return [
        (rule["id"], rule["impact"], [" ".join(map(str, n["target"])) for n in rule["nodes"][:4]])
        for rule in found
    ]
