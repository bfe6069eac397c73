"""The clips page in a real browser, against a real server."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from server.ingest import sample_path
from tests.e2e.browsing import PHONE, is_too_wide, violations, wait_for_outline

Visit = Callable[..., Page]


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
    check_downloads(page)

    page.set_viewport_size({"width": PHONE[0], "height": PHONE[1]})
    assert not is_too_wide(page)
    assert violations(page) == []
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


def check_downloads(page: Page) -> None:
    """What is saved is what the server has."""
    with page.expect_download() as caught:
        page.locator("#downloads").get_by_role("button", name="JSON").click()
    assert caught.value.suggested_filename == "examples_ybr_color-result.json"
    saved = json.loads(Path(caught.value.path()).read_text())
    assert saved["clip"]["frames"] == 30


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
