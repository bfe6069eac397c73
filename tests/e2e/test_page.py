"""The live page in a real browser, against a real server."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pydicom
import pytest
from playwright.sync_api import Page, Route, expect

from server.ingest import sample_path
from tests.e2e.browsing import (
    PHONE,
    is_too_wide,
    show_outlines,
    violations,
    wait_for_outline,
)
from tests.server.ingest.making import save, ultrasound

Visit = Callable[..., Page]


def test_the_sample_plays_with_outlines_and_an_ef_and_can_be_frozen_and_stepped(
    visit: Visit, address: str
) -> None:
    page = visit(address)
    expect(page.locator("#ef")).to_have_attribute("data-state", re.compile("measured|withheld"))
    expect(page.locator("#connection")).to_have_text("live")
    show_outlines(page)
    for name in ("lv", "myocardium"):
        wait_for_outline(page, name)
    assert violations(page) == []

    page.keyboard.press(" ")
    expect(page.locator("#badge")).to_be_visible()
    place = page.locator("#place")
    total = int(re.findall(r"\d+", place.inner_text())[1])
    page.keyboard.press("ArrowLeft")
    expect(place).to_have_text(re.compile(rf"^{total - 1} of {total}, 0\.\d+ s ago$"))
    page.keyboard.press("Home")
    expect(place).to_have_text(re.compile(rf"^1 of {total},"))
    page.locator("#scrub").fill(str(total - 1))
    expect(place).to_have_text(re.compile(rf"^{total} of {total},"))
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
    page.keyboard.press("Escape")
    page.locator("#play").click()
    expect(page.locator("#badge")).to_be_hidden()
    page.locator("#opacity").press("Home")
    page.keyboard.press(" ")  # of no use to a slider, so it freezes
    expect(page.locator("#badge")).to_be_visible()
    assert page.locator("#opacity").input_value() == "0"


def test_the_page_says_what_it_is_and_links_to_what_there_is(visit: Visit, address: str) -> None:
    page = visit(address, PHONE)
    expect(page.locator("body")).to_contain_text("Research use only")
    for path in ("/docs", "/metrics", "clips.html"):
        assert page.locator(f"a[href='{path}']").count() == 1
        assert page.request.get(f"{address}/{path.lstrip('/')}").ok
    assert not is_too_wide(page)
    assert violations(page) == []


@pytest.mark.parametrize("path", ["/", "/clips.html"])
def test_files_without_an_ending_can_be_chosen_as_dicom_media_hold_no_others(
    visit: Visit, address: str, path: str
) -> None:
    """DICOM PS3.10, section 8.5: a File ID is of capitals, digits and underscores, with no dot."""
    page = visit(f"{address}{path}")
    assert page.locator("input[type=file]").get_attribute("accept") is None


def test_its_policy_allows_nothing_from_elsewhere(visit: Visit, address: str) -> None:
    page = visit(address)
    policy = page.request.get(address).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"unsafe|https?:|\*", policy)
    blocked = page.evaluate("""async () => {
      const told = new Promise((resolve) => addEventListener(
        "securitypolicyviolation", (event) => resolve(event.effectiveDirective)));
      fetch("https://example.invalid/").catch(() => {});
      return told;
    }""")
    assert blocked == "connect-src"


def test_a_camera_is_streamed_from_a_worker_and_can_be_cropped(visit: Visit, address: str) -> None:
    page = visit(address)
    page.locator("#source-camera").click()
    expect(page.locator("#source")).to_contain_text("live")
    show_outlines(page)
    wait_for_outline(page, "lv")
    assert any(worker.url.endswith("/sender.js") for worker in page.workers)
    whole = page.evaluate("() => image.clientWidth / image.clientHeight")

    page.locator("#crop").click()
    page.locator("#crop-left").fill("25")
    page.locator("#crop-right").fill("25")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_function(
        "whole => Math.abs(image.clientWidth / image.clientHeight - whole / 2) < 0.02", arg=whole
    )
    wait_for_outline(page, "lv")


def test_a_film_is_streamed_by_the_browser_and_never_uploaded(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "grey.webm"
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for value in range(50):
            grey_HW3 = np.full((120, 160, 3), 40 + value, np.uint8)
            film.mux(stream.encode(av.VideoFrame.from_ndarray(grey_HW3, format="rgb24")))
        film.mux(stream.encode())
    page = visit(address)
    uploads: list[str] = []
    page.on("request", lambda each: uploads.append(each.url) if each.method == "POST" else None)
    page.locator("#file").set_input_files(path)
    expect(page.locator("#source")).to_contain_text("grey.webm")
    expect(page.locator("#quality-words")).to_contain_text("no left ventricle is seen")
    assert uploads == []


def test_a_session_that_is_left_for_another_is_not_kept_to_be_resumed(
    visit: Visit, address: str
) -> None:
    page = visit(address)
    begun = page.locator("#log li", has_text="has begun")
    expect(begun).to_have_count(1)
    name = re.findall(r"s_\S+", begun.inner_text())[0]
    page.locator("#view").select_option("A2C")
    expect(begun).to_have_count(2)
    phases = {name: "live"}
    while phases.get(name) == "live":
        phases = {
            each["session"]: each["phase"]
            for each in page.request.get(f"{address}/v1/sessions").json()
        }
    assert name not in phases


def test_a_dicom_file_is_read_by_the_server_and_played_live(visit: Visit, address: str) -> None:
    page = visit(address)
    page.locator("#file").set_input_files(sample_path())
    expect(page.locator("#source")).to_contain_text(sample_path().name)
    show_outlines(page)
    wait_for_outline(page, "lv")


def test_of_a_clip_whose_frame_rate_is_unknown_no_heart_rate_is_made_up(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    clip = pydicom.dcmread(sample_path())
    del clip.FrameTime, clip.FrameIncrementPointer
    clip.save_as(tmp_path / "timeless.dcm")
    page = visit(address)
    page.locator("#file").set_input_files(tmp_path / "timeless.dcm")
    expect(page.locator("#source")).to_contain_text("frame rate is unknown")
    expect(page.locator("#ef-words")).to_contain_text("the frame rate is unknown")
    expect(page.locator("#rate-figure")).not_to_contain_text(re.compile(r"\d"))


def test_a_clip_that_as_such_has_no_ef_is_not_played_as_if_it_had(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    frames_THWC = np.repeat(np.random.default_rng(0).integers(0, 99, (12, 96, 96, 1)), 3, axis=3)
    frames_THWC[:, 20:60, 20:60] = (200, 30, 10)
    flow = save(ultrasound(frames_THWC.astype(np.uint8), "RGB", FrameTime="40"), tmp_path / "flow")
    page = visit(address)
    expect(page.locator("#source")).to_contain_text("The sample clip")
    page.locator("#file").set_input_files(flow)
    expect(page.locator("#notice")).to_have_text(
        "This clip is not played live: colour Doppler covers the image. "
        "Its result is among the clips."
    )
    expect(page.locator("#source")).to_contain_text("The sample clip")


def test_a_file_that_is_no_clip_is_refused_in_words(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("not a clip")
    page = visit(address)
    page.locator("#file").set_input_files(note)
    refused = page.locator("#notice")
    expect(refused).to_contain_text("neither DICOM")
    assert violations(page) == []
    # The sample's session may come up only now: it says nothing of the file.
    show_state(page, state="live", reason=None, awayMs=None, resent=0)
    expect(refused).to_contain_text("neither DICOM")
    show_state(page, state="waiting", reason=None, attempt=1, waitMs=100)
    expect(refused).to_contain_text("Trying again")
    show_state(page, state="live", reason=None, awayMs=None, resent=0)
    expect(refused).to_be_hidden()


def show_state(page: Page, **detail: Any) -> None:
    page.evaluate("async (detail) => (await import('./readings.js')).showState(detail)", detail)


def test_of_two_sources_the_one_asked_for_last_is_shown(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("not a clip")
    page = visit(address)
    expect(page.locator("#connection")).to_have_text("live")
    held: list[Route] = []
    page.route("**/sample.json", lambda route: held.append(route))
    page.locator("#source-sample").click()
    page.locator("#file").set_input_files(note)
    refused = page.locator("#notice")
    expect(refused).to_contain_text("neither DICOM")
    with page.expect_event("requestfinished", lambda each: each.url.endswith("/sample/29.jpg")):
        held[0].continue_()
    page.wait_for_timeout(200)
    expect(refused).to_contain_text("neither DICOM")


def test_who_asked_for_less_motion_sees_a_still_picture(visit: Visit, address: str) -> None:
    page = visit(address, reduced_motion="reduce")
    expect(page.locator("#badge")).to_be_visible()
    wait_for_outline(page, "lv")
