"""Under each figure stands the licence it may be used again by."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "website" / "extensions"))

from dsbook import finish, licence  # noqa: E402

PAGE = """<html data-content_root="../../"><body>
<figure><img src="a.svg"><figcaption><p>一张图</p></figcaption></figure>
<figure><img src="b.svg"></figure></body></html>"""


def test_a_figure_with_a_caption_has_the_line_once_with_a_link_to_the_terms():
    page = finish.parse(PAGE)
    for _ in range(2):
        licence.lines(page, Path("page.html"))
    (link,) = page.xpath("//p[@class='licence']/a")
    assert link.text == "CC BY 4.0"
    assert link.get("rel") == "license"
    assert link.get("href") == "../../book/appendix/cite.html#cite-reuse"


def test_the_step_is_one_of_a_build_and_the_terms_exist():
    assert licence.lines in finish.STEPS
    page, _, label = licence.TERMS.partition("#")
    source = (ROOT / page).with_suffix(".md").read_text("utf8")
    assert f"({label})=" in source
