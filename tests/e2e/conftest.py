"""One server and one Chromium for all tests of the page; the page's complaints fail its test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import av
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from server.commands.local import local_server
from server.ingest import open_clip, sample_path
from tests.e2e.browsing import CHROMIUM, FLAGS, PATIENT_MS, WIDE

CAPTURED_S = 4

expect.set_options(timeout=PATIENT_MS)


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with local_server() as address:
        yield address


@pytest.fixture(scope="session")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Chromium's camera shows: the sample at the size of a capture card, in a loop."""
    path = tmp_path_factory.mktemp("camera") / "camera.mjpeg"
    with open_clip(sample_path()) as clip:
        frames = [frame.pixels_HW for frame in clip.frames]
    with av.open(str(path), "w", format="mjpeg") as film:
        stream = film.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 640, 480, "yuvj420p"
        for pixels_HW in frames * CAPTURED_S:
            picture = av.VideoFrame.from_ndarray(pixels_HW, format="gray8")
            film.mux(stream.encode(picture.reformat(640, 480, "yuvj420p")))
        film.mux(stream.encode())
    return path


# Not for the whole session: Playwright holds the thread's event loop, which other tests run.
@pytest.fixture(scope="module")
def browser(captured: Path) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not on the path")
    camera = f"--use-file-for-fake-video-capture={captured}"
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, camera])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open pages, which are closed afterwards; whatever they complain of fails the test."""
    complaints: list[str] = []
    pages: list[Page] = []

    def open_page(
        address: str,
        size: tuple[int, int] = WIDE,
        reduced_motion: Literal["reduce"] | None = None,
    ) -> Page:
        page = browser.new_page(
            viewport={"width": size[0], "height": size[1]}, reduced_motion=reduced_motion
        )
        pages.append(page)
        page.set_default_timeout(PATIENT_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: note_request(request.url))
        page.on("console", lambda message: note_console(message.text))
        page.goto(address)
        return page

    def note_request(url: str) -> None:
        if not url.startswith(("http://127.0.0.1:", "blob:", "data:", "https://example.invalid")):
            complaints.append(f"asked another server: {url}")

    def note_console(text: str) -> None:
        if "Content Security Policy" in text and "example.invalid" not in text:
            complaints.append(text)

    yield open_page
    for page in pages:
        page.close()
    assert complaints == []
