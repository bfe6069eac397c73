"""The clips page in a real browser, against a real server."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from server.ingest import sample_path
from tests.e2e.browsing import PHONE, is_too_wide, violations, wait_for_outline
from tests.server.ingest.making import save, ultrasound
from tests.server.phantom import SIDE_PX, whole_image_region

Visit = Callable[..., Page]

SAVED = {
    "JSON": ("result", "result.json"),
    "CSV": ("frames.csv", "frames.csv"),
    "MP4": ("overlay.mp4", "overlay.mp4"),
    "NPZ": ("masks.npz", "masks.npz"),
    "DICOM SEG": ("seg.dcm", "seg.dcm"),
    "DICOM SR": ("sr.dcm", "sr.dcm"),
    "DICOM capture": ("secondary-capture.dcm", "capture.dcm"),
    "Report": ("report.html", "report.html"),
    "PNG": ("still.png", "still.png"),
    "COCO": ("masks.json", "masks.json"),
}
"""What each button of the page saves: the path on the server, and the end of the file's name."""


def test_clips_are_sent_listed_played_saved_and_deleted(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_text("not a clip")
    page = visit(f"{address}/clips.html")
    page.locator("#files").set_input_files([sample_path(), note])
    items = page.locator("#list li")
    refused = items.filter(has_text="note.txt").locator(".error")
    expect(refused).to_contain_text("neither DICOM")
    items.get_by_role("link", name=sample_path().name).click()
    expect(page.locator("#ef-figure")).to_have_text(re.compile(r"^EF \d+ %$"))
    wait_for_outline(page, "lv")
    assert violations(page) == []

    check_steps(page)
    check_beats(page)
    check_downloads(page)

    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert not is_too_wide(page)
    assert violations(page) == []
    page.on("dialog", lambda question: question.accept())
    page.locator("#forget").click()
    expect(items.filter(has_text=sample_path().name)).to_have_count(0)
    expect(page.locator("#player")).to_be_hidden()


def check_steps(page: Page) -> None:
    """Picture, curve and table show one frame."""
    page.keyboard.press("Home")
    expect(page.locator("#place")).to_have_text("1 of 30, 0.00 s")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#place")).to_have_text("2 of 30, 0.03 s")
    page.locator("#beats").get_by_role("button").nth(1).click()
    expect(page.locator("#badge")).to_have_text(re.compile("E[SD]"))
    box = page.locator("#curve").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] - 10, box["y"] + box["height"] / 2)
    expect(page.locator("#place")).to_have_text("30 of 30, 0.97 s")


def check_beats(page: Page) -> None:
    """A beat is a line, and so is what is said of the half that does not count."""
    expect(page.locator("#beats .note")).to_have_text("not used: the other half is")
    lines = page.locator("#beats").evaluate(
        """place => [...place.querySelectorAll("th, td")].map((cell) =>
             Math.round(cell.clientHeight / parseFloat(getComputedStyle(cell).lineHeight)))"""
    )
    assert set(lines) == {1}


def check_downloads(page: Page) -> None:
    """What is saved is what the server has, byte for byte."""
    origin, clip = page.url.split("/clips.html#")
    offered = page.locator("#downloads").get_by_role("button").all_inner_texts()
    assert offered == list(SAVED)
    for title, (path, ending) in SAVED.items():
        with page.expect_download() as caught:
            page.locator("#downloads").get_by_role("button", name=title, exact=True).click()
        assert caught.value.suggested_filename == f"examples_ybr_color-{ending}"
        saved = Path(caught.value.path()).read_bytes()
        assert saved == page.request.get(f"{origin}/v1/clips/{clip}/{path}").body(), title


def test_an_outline_is_corrected_by_hand_and_the_networks_own_taken_back(
    visit: Visit, address: str
) -> None:
    page = visit(f"{address}/clips.html")
    page.locator("#files").set_input_files(sample_path())
    figure = page.locator("#ef-figure")
    expect(figure).to_have_text(re.compile(r"^EF \d+ %$"))
    found = figure.inner_text()
    end_diastole = page.locator("#beats").get_by_role("button", name="end diastole of beat 1")
    end_diastole.click()
    expect(page.locator("#place")).to_contain_text(f"{end_diastole.inner_text()} of 30")
    area = page.locator("#area-figure")
    area_px = area.inner_text()

    page.locator("#edit").click()
    widen(page)
    assert violations(page) == []
    page.locator("#edit-save").click()
    expect(page.locator("#edit-words")).to_have_text("Measured anew with your outline.")
    expect(area).not_to_have_text(area_px)
    expect(page.locator("#clip-words")).to_contain_text("corrected by hand once")
    expect(page.locator("#quality-words")).to_contain_text("drawn by hand")

    page.locator("#edit-undo").click()
    expect(page.locator("#edit-words")).to_contain_text("the network's outlines")
    expect(figure).to_have_text(found)
    expect(area).to_have_text(area_px)
    expect(page.locator("#edit-undo")).to_be_hidden()


def rightmost_point(page: Page) -> Locator:
    circles = page.locator("#handles circle")
    columns = circles.evaluate_all("all => all.map((each) => Number(each.getAttribute('cx')))")
    return circles.nth(columns.index(max(columns)))


def test_on_a_phone_a_point_is_dragged_by_a_finger_that_lies_beside_it(
    visit: Visit, address: str
) -> None:
    page = visit(f"{address}/clips.html", PHONE, reduced_motion="reduce")
    page.locator("#files").set_input_files(sample_path())
    wait_for_outline(page, "lv")
    page.locator("#edit").click()
    point = rightmost_point(page)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    assert box is not None
    column = float(point.get_attribute("cx") or "")
    x, y = box["x"] + box["width"] / 2 + 15, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=4)
    page.mouse.up()
    columns_per_px = 320 / float(page.locator("#handles").evaluate("all => all.clientWidth"))
    assert float(point.get_attribute("cx") or "") == pytest.approx(
        column + 20 * columns_per_px, abs=0.5
    )
    expect(point).to_be_focused()


def widen(page: Page) -> None:
    """Pull the rightmost point of the outline to the right, then once more by the keyboard."""
    rightmost = rightmost_point(page)
    box = rightmost.bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y, steps=4)
    page.mouse.up()
    rightmost.press("ArrowRight")


def test_pixels_that_are_not_square_are_shown_as_they_are_on_both_pages(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    region = whole_image_region()
    region.PhysicalDeltaY = 2 * region.PhysicalDeltaX
    frames_THW = np.full((12, SIDE_PX, SIDE_PX), 40, np.uint8)
    made = ultrasound(frames_THW, FrameTime="40", SequenceOfUltrasoundRegions=[region])
    clip = save(made, tmp_path / "tall.dcm")
    half = "half => Math.abs(image.clientWidth / image.clientHeight - half) < 0.02"
    page = visit(f"{address}/clips.html", reduced_motion="reduce")
    page.locator("#files").set_input_files(clip)
    page.wait_for_function(half, arg=0.5)

    # Where there is no ventricle, the outline begins as an ellipse from 25 to 65 % of the height.
    page.locator("#edit").click()
    drawn = page.locator("#handles path").bounding_box()
    image = page.locator("#image").bounding_box()
    assert drawn is not None
    assert image is not None
    assert (drawn["y"] - image["y"]) / image["height"] == pytest.approx(0.25, abs=0.01)
    assert drawn["height"] / image["height"] == pytest.approx(0.4, abs=0.02)

    live = visit(address)
    live.locator("#file").set_input_files(clip)
    expect(live.locator("#source")).to_contain_text("tall.dcm")
    live.wait_for_function(half, arg=0.5)


def test_two_views_are_brought_together_and_one_view_twice_is_refused_in_words(
    visit: Visit, address: str
) -> None:
    page = visit(f"{address}/clips.html")
    for view in ("A2C", "A4C"):
        page.locator("#view").select_option(view)
        page.locator("#files").set_input_files(sample_path())
        expect(page.locator("#list li").filter(has_text=f"done · {view}")).to_have_count(1)
    chosen = "select => select.selectedOptions[0].textContent.slice(0, 3)"
    assert page.locator("#biplane-a4c").evaluate(chosen) == "A4C"
    assert page.locator("#biplane-a2c").evaluate(chosen) == "A2C"
    page.locator("#biplane-go").click()
    answer = page.locator("#biplane-answer")
    # The same pictures as both views: what they say together is what each says alone.
    expect(answer.locator(".headline")).to_have_text(re.compile(r"^EF \d+ % \d+ to \d+ %$"))
    percent = answer.locator(".headline").inner_text().split()[1]
    for view in ("four-chamber", "two-chamber"):
        row = answer.get_by_role("row", name=f"EF, {view} alone")
        expect(row).to_contain_text(f"{percent} %")
    assert violations(page) == []

    page.locator("#biplane-a2c").select_option(page.locator("#biplane-a4c").input_value())
    page.locator("#biplane-go").click()
    expect(answer).to_contain_text("a biplane measurement needs two.")


def upload_of(page: Page, path: Path) -> str:
    """Send a clip by a program beside the page; returns its name on the server."""
    origin = page.url.split("/clips.html")[0]
    answer = page.request.post(f"{origin}/v1/clips?wait_s=60", data=path.read_bytes())
    return answer.headers["location"].rpartition("/")[2]


def test_a_clip_that_cannot_be_shown_is_not_shown_as_the_one_before(
    visit: Visit, address: str
) -> None:
    page = visit(f"{address}/clips.html")
    page.locator("#files").set_input_files(sample_path())
    expect(page.locator("#ef-figure")).to_have_text(re.compile(r"^EF \d+ %$"))
    shown = page.url
    gone = upload_of(page, sample_path())
    page.reload()
    expect(page.locator("#ef-figure")).to_have_text(re.compile(r"^EF \d+ %$"))
    assert page.url == shown
    page.request.delete(f"{address}/v1/clips/{gone}")
    page.locator(f"#list a[href='#{gone}']").click()
    expect(page.locator("#result-error")).to_have_text("No such clip is kept here.")
    expect(page.locator("#ef-figure")).to_have_text("No result")
    for place in ("#ef-interval", "#ef-words", "#clip-words"):
        expect(page.locator(place)).to_have_text("")


def test_an_outline_goes_to_the_frame_that_was_shown_not_to_one_on_its_way(
    visit: Visit, address: str
) -> None:
    page = visit(f"{address}/clips.html", reduced_motion="reduce")
    page.route("**/frames/21.jpg", lambda route: None)  # never answered
    page.locator("#files").set_input_files(sample_path())
    expect(page.locator("#place")).to_contain_text("21 of 30")  # end diastole, index 20
    wait_for_outline(page, "lv")
    page.keyboard.press("ArrowRight")
    page.locator("#edit").click()
    widen(page)
    with page.expect_request(lambda each: each.method == "PATCH") as caught:
        page.locator("#edit-save").click()
    assert caught.value.url.endswith("/frames/20")


def test_after_the_server_was_away_what_could_not_be_fetched_is_fetched(
    visit: Visit, address: str
) -> None:
    page = visit(f"{address}/clips.html", reduced_motion="reduce")
    page.route("**/frames/25.jpg", lambda route: route.abort())
    page.route("**/outlines.json", lambda route: route.abort())
    page.locator("#files").set_input_files(sample_path())
    away = "The server does not answer."
    expect(page.locator("#result-error")).to_have_text(away)
    page.unroute("**/outlines.json")
    page.locator("#list a[aria-current]").click()
    place, notice = page.locator("#place"), page.locator("#notice")
    expect(notice).to_have_text(away)
    page.keyboard.press("Home")
    expect(place).to_contain_text("1 of 30")
    expect(notice).to_be_hidden()
    page.locator("#scrub").fill("25")
    expect(notice).to_have_text(away)
    page.unroute("**/frames/25.jpg")
    page.keyboard.press("Home")
    expect(place).to_contain_text("1 of 30")
    page.locator("#scrub").fill("25")
    expect(place).to_contain_text("26 of 30")
    expect(notice).to_be_hidden()


def test_whoever_comes_back_to_the_page_sees_what_came_and_went_meanwhile(
    visit: Visit, address: str
) -> None:
    page = visit(f"{address}/clips.html")
    page.locator("#files").set_input_files(sample_path())
    expect(page.locator("#ef-figure")).to_have_text(re.compile(r"^EF \d+ %$"))
    gone = page.url.rpartition("#")[2]
    page.request.delete(f"{address}/v1/clips/{gone}")
    came = upload_of(page, sample_path())
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator(f"#list a[href='#{came}']")).to_have_count(1)
    expect(page.locator(f"#list a[href='#{gone}']")).to_have_count(0)


def test_what_comes_in_leaves_what_is_pressed_or_has_the_focus(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.dcm"
    empty.touch()
    page = visit(f"{address}/clips.html")
    page.locator("#files").set_input_files(sample_path())
    expect(page.locator("#ef-figure")).to_have_text(re.compile(r"^EF \d+ %$"))
    link = page.locator("#list").get_by_role("link", name=sample_path().name).element_handle()
    link.focus()
    page.locator("#files").set_input_files(empty)
    refused = page.locator("#list li").filter(has_text="empty.dcm")
    expect(refused.locator(".error")).to_have_text("The file is empty: send the clip again.")
    assert link.evaluate("link => link === document.activeElement")
    refused.get_by_role("link").click()
    expect(page.locator("#result-error")).to_contain_text("The file is empty")


def test_a_file_dropped_on_the_page_is_sent(visit: Visit, address: str) -> None:
    page = visit(f"{address}/clips.html")
    page.evaluate("""() => {
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File(["nothing of the kind"], "dropped.mp4"));
      document.dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
    }""")
    item = page.locator("#list li").filter(has_text="dropped.mp4")
    expect(item.locator(".error")).to_be_visible()
    item.get_by_role("link").click()
    expect(page.locator("#result-error")).to_contain_text("neither DICOM")


def test_a_folder_dropped_on_the_page_is_refused_as_one(
    visit: Visit, address: str, tmp_path: Path
) -> None:
    page = visit(f"{address}/clips.html")
    browser = page.context.new_cdp_session(page)
    carried = {"items": [], "files": [str(tmp_path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 150, "y": 170, "data": carried}
        browser.send("Input.dispatchDragEvent", event)
    item = page.locator("#list li").filter(has_text=tmp_path.name)
    words = "This file cannot be read; of a folder, choose the clips in it."
    expect(item.locator(".error")).to_have_text(words)
    item.get_by_role("link").click()
    expect(page.locator("#result-error")).to_contain_text(words)
