"""Live code: the servers of `make live`, the message when they are not there, and that both end."""

import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import expect

NOTEBOOK = "notebooks/papers"
LIVE = Path(__file__).parents[2] / "live.py"


@pytest.fixture
def live():
    process = subprocess.Popen(
        [sys.executable, LIVE, "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    address = process.stdout.readline().split()[1]
    yield address
    process.terminate()
    assert process.wait(20) == 0
    process.stdout.close()
    for port in (address.split(":")[2].split("/")[0], re.search(r"live=(\d+)", address)[1]):
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5)


def test_a_reader_changes_a_cell_and_runs_it(page, live):
    outside = []
    page.on("request", lambda r: "//127.0.0.1:" in r.url or outside.append(r.url))
    page.goto(live)  # as it is printed
    assert "live=" not in page.url  # the token does not stay in the address
    page.goto(page.url.replace("/book/index.html", f"/{NOTEBOOK}.html"))
    page.get_by_role("button", name="在页内编辑并运行").click()
    expect(page.get_by_role("status")).to_contain_text("可以修改并运行", timeout=60_000)
    for n, code in enumerate(("x = 6 * 7", "print('answer', x)")):
        cell = page.locator(".thebe-cell").nth(n)
        cell.locator(".CodeMirror").evaluate("(e, code) => e.CodeMirror.setValue(code)", code)
        cell.get_by_role("button", name="run", exact=True).click()
    expect(page.locator("main")).to_contain_text("answer 42", timeout=60_000)
    assert [url for url in outside if not url.startswith(("data:", "blob:"))] == []


def test_without_the_server_there_is_no_button(page):
    button = page.get_by_role("button", name="在页内编辑并运行")
    page.goto(f"/{NOTEBOOK}.html", wait_until="networkidle")
    assert button.count() == 0
    page.goto(f"/{NOTEBOOK}.html#live=9:token")  # nobody listens there
    page.reload()
    expect(page.get_by_role("status")).to_contain_text("没有应答", timeout=20_000)
    expect(button).to_be_hidden()


def test_a_wrong_token_is_refused(live):
    port = re.search(r"live=(\d+)", live)[1]
    wrong = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/kernels", headers={"Authorization": "token wrong"}
    )
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(wrong, timeout=20)
