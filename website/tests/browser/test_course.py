"""The slides, sheets and answers of the course, on the screen and on paper."""

import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "website"), str(ROOT / "website" / "extensions")]

import slides  # noqa: E402
from dsbook.course import NAMES  # noqa: E402

COURSE = "/book/course"


@pytest.fixture
def quiet(page: Page, base_url: str) -> Page:
    """A page that asks for nothing outside the site and finds all it asks for."""
    page.trouble = []

    def on_request(route):
        if route.request.url.startswith((base_url + "/", "data:")):
            route.continue_()
        else:
            page.trouble.append(f"outside: {route.request.url}")
            route.abort()

    page.route("**/*", on_request)
    page.on("response", lambda r: r.status >= 400 and page.trouble.append(f"{r.status} {r.url}"))
    page.on("console", lambda m: m.type == "error" and page.trouble.append(m.text))
    page.on("pageerror", lambda error: page.trouble.append(str(error)))
    return page


@pytest.mark.parametrize("name", NAMES)
def test_ten_slides_a_page_each_and_none_too_full(quiet: Page, name: str) -> None:
    slides.open_page(quiet, f"{COURSE}/slides/{name}.html")
    assert quiet.locator(".slide").count() == 10
    assert slides.overfull(quiet, "slides") == []
    images = quiet.evaluate("[...document.images].map(e => e.naturalWidth > 0 && e.height > 60)")
    assert all(images)
    assert slides.printed(quiet)[1] == 10
    quiet.check("#with-notes")
    assert slides.printed(quiet)[1] == 10
    assert quiet.trouble == []


@pytest.mark.parametrize("name", NAMES)
def test_a_sheet_is_one_page_of_paper(quiet: Page, name: str) -> None:
    slides.open_page(quiet, f"{COURSE}/sheets/{name}.html")
    assert slides.overfull(quiet, "sheets") == []
    assert quiet.locator(".sheet ol.long > li").count() == 3
    assert slides.printed(quiet)[1] == 1
    assert quiet.trouble == []


def test_what_is_too_full_is_named(quiet: Page) -> None:
    slides.open_page(quiet, f"{COURSE}/slides/moe.html")
    quiet.evaluate("document.querySelector('#s2 .body').append('满'.repeat(4000))")
    assert slides.overfull(quiet, "slides") == ["s2"]


def test_the_notes_are_seen_when_asked_for(quiet: Page) -> None:
    slides.open_page(quiet, f"{COURSE}/slides/moe.html")
    notes = quiet.locator(".notes").first
    assert not notes.is_visible()
    quiet.get_by_label("讲稿").check()
    assert notes.is_visible()


def test_the_arrow_keys_turn_the_slides(quiet: Page) -> None:
    slides.open_page(quiet, f"{COURSE}/slides/moe.html")
    top = "document.querySelector('#s3').getBoundingClientRect().top"
    for _ in range(2):
        quiet.keyboard.press("ArrowRight")
    assert abs(quiet.evaluate(top)) < 250
    quiet.keyboard.press("ArrowLeft")
    assert quiet.evaluate(top) > 250


def test_slides_open_from_a_file(page: Page, html: Path) -> None:
    slides.open_page(page, (html / "book/course/slides/moe.html").as_uri())
    assert slides.overfull(page, "slides") == []
    assert page.evaluate("[...document.images].every(e => e.naturalWidth > 0)")


def test_every_question_of_the_quizzes_is_answered_for_the_instructor(quiet: Page) -> None:
    quiet.goto(f"{COURSE}/quizzes.html")
    asked = quiet.locator(".guess").count()
    assert asked >= 6 * len(NAMES)
    quiet.goto(f"{COURSE}/key.html")
    assert quiet.locator("li").count() == asked
    assert quiet.trouble == []
