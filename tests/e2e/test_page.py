"""The page at / in a real browser, against a real server."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from server.commands.local import local_server
from server.ingest import sample_path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on the path")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENT_MS = 60_000
"""How long a slow machine may take; nothing here measures time."""

COUNT_PIXELS_OF = """(canvas, [red, green, blue]) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const away = [red, green, blue].map((value, k) => Math.abs(data[i + k] - value));
    count += Math.max(...away) < 40;
  }
  return count;
}"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_server() as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The page, open; whatever it complains of fails the test."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(PATIENT_MS)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.goto(address)
    yield page
    page.close()
    assert [each for each in complaints if "overlay.mp4" not in each] == []


def css_colour(page: Page, name: str) -> list[int]:
    """A structure's colour as the legend shows it."""
    text = page.evaluate(
        "name => getComputedStyle(document.querySelector(`.legend .${name}`), '::before')"
        ".borderTopColor",
        name,
    )
    return [int(number) for number in re.findall(r"\d+", text)[:3]]


def test_the_sample_clip_plays_with_its_outlines_and_an_ef(page: Page) -> None:
    expect(page.locator("#ef")).to_have_attribute("data-state", "measured", timeout=PATIENT_MS)
    expect(page.locator("#ef-figure")).to_have_text(re.compile(r"^\d+\s?%$"))
    expect(page.locator("#connection")).to_have_text("live")
    page.locator("#opacity").fill("100")
    page.wait_for_timeout(500)
    canvas = page.locator("#image")
    for name in ("lv", "myocardium"):
        assert canvas.evaluate(COUNT_PIXELS_OF, css_colour(page, name)) > 50, name


def test_the_page_says_what_it_is_and_links_to_what_there_is(page: Page, address: str) -> None:
    expect(page.locator("body")).to_contain_text("Research use only")
    for path in ("/docs", "/metrics"):
        assert page.locator(f"a[href='{path}']").count() == 1
        assert page.request.get(address + path).ok


def test_a_clip_of_ones_own_is_answered_with_its_ef(page: Page) -> None:
    page.locator("input[type=file]").set_input_files(sample_path())
    answer = page.locator("p.headline")
    expect(answer).to_have_text(re.compile(r"Ejection fraction \d+ %"), timeout=PATIENT_MS)
    expect(page.locator("video.overlay")).to_have_js_property("readyState", 4, timeout=PATIENT_MS)


def test_a_file_that_is_no_clip_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("not a clip")
    page.locator("input[type=file]").set_input_files(note)
    refusal = page.locator("p.error")
    expect(refusal).to_contain_text("neither DICOM", timeout=PATIENT_MS)
