"""The pictures of the pages in the README, taken by a browser from a server of this machine.

    python -m tests.e2e.screenshots

writes them to docs/images. The only patient in them is the sample's, which pydicom publishes.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Page, expect, sync_playwright

from server.commands.local import local_server
from server.ingest import sample_path
from tests.e2e.browsing import CHROMIUM, FLAGS, PATIENT_MS, PHONE, wait_for_outline

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
WEBP_QUALITY = 80
WIDE = (1280, 860)


def show_live(page: Page, address: str) -> None:
    """The sample after some beats."""
    page.goto(address)
    expect(page.locator("#ef-words")).to_contain_text(re.compile("From [4-9] beats"))
    wait_for_outline(page, "lv")


def show_clip(page: Page, address: str) -> None:
    """A clip's result, at end diastole."""
    page.goto(f"{address}/clips.html")
    page.locator("#view").select_option("A4C")
    page.locator("#files").set_input_files(sample_path())
    expect(page.locator("#player")).to_be_visible()
    end_diastole = page.locator("#beats").get_by_role("button", name="end diastole of beat 1")
    end_diastole.click()
    expect(page.locator("#place")).to_contain_text(f"{end_diastole.inner_text()} of")
    wait_for_outline(page, "lv")


def show_correction(page: Page, address: str) -> None:
    """A point of the outline as it is dragged."""
    show_clip(page, address)
    page.locator("#edit").click()
    box = page.locator("#handles circle").first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"], box["y"] - box["height"], steps=4)


SHOTS: dict[str, tuple[tuple[int, int], Callable[[Page, str], None]]] = {
    "live": (WIDE, show_live),
    "clip": (WIDE, show_clip),
    "correction": (WIDE, show_correction),
    "phone": (PHONE, show_live),
}
"""Each picture's name, the size of the window, and what is done before it is taken."""


def take(page: Page, address: str, name: str) -> bytes:
    """One picture of what the window shows, as WebP."""
    size, show = SHOTS[name]
    page.set_viewport_size({"width": size[0], "height": size[1]})
    show(page, address)
    png = np.frombuffer(page.screenshot(), np.uint8)
    picture_HW3 = cv2.imdecode(png, cv2.IMREAD_COLOR)
    assert picture_HW3 is not None
    return cv2.imencode(".webp", picture_HW3, [cv2.IMWRITE_WEBP_QUALITY, WEBP_QUALITY])[1].tobytes()


def main() -> None:
    """Take every picture anew."""
    expect.set_options(timeout=PATIENT_MS)
    IMAGES.mkdir(exist_ok=True)
    with local_server() as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name in SHOTS:
            page = browser.new_page()
            path = IMAGES / f"{name}.webp"
            path.write_bytes(take(page, address, name))
            sys.stdout.write(f"{path}: {path.stat().st_size / 1024:.0f} KiB\n")
            page.close()
        browser.close()


if __name__ == "__main__":
    main()
