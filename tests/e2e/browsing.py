"""What the tests of the page look at: Chromium's flags, colours on a canvas, axe's report."""

import re
import shutil

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page, expect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PATIENT_MS = 60_000
"""How long a slow machine may take; nothing here measures time."""

WIDE, PHONE = (1280, 900), (390, 844)

COUNT_PIXELS_OF = """(canvas, [red, green, blue]) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const away = [red, green, blue].map((value, k) => Math.abs(data[i + k] - value));
    count += Math.max(...away) < 40;
  }
  return count;
}"""


def css_colour(page: Page, name: str) -> list[int]:
    """A structure's colour as the legend shows it."""
    text = page.evaluate(
        "name => getComputedStyle(document.querySelector(`.legend .${name}`), '::before')"
        ".borderTopColor",
        name,
    )
    return [int(number) for number in re.findall(r"\d+", text)[:3]]


def count_outline(page: Page, name: str) -> int:
    """How many pixels of the image have a structure's colour."""
    return int(page.locator("#image").evaluate(COUNT_PIXELS_OF, css_colour(page, name)))


def show_outlines(page: Page) -> None:
    """Draw outlines at full strength, by the mouse: the keys stay the picture's."""
    slider = page.locator("#opacity")
    width_px = float(slider.evaluate("slider => slider.clientWidth"))
    slider.click(position={"x": width_px - 2, "y": 5})
    expect(slider).to_have_js_property("value", "100")


def wait_for_outline(page: Page, name: str) -> None:
    """Wait until a structure is drawn on the image."""
    page.wait_for_function(
        f"([canvas, colour]) => ({COUNT_PIXELS_OF})(canvas, colour) > 50",
        arg=[page.locator("#image").element_handle(), css_colour(page, name)],
        polling=200,
    )


def violations(page: Page) -> list[str]:
    """What axe objects to, one line a node.

    Source:
        axe-core, with its rules for WCAG 2.2 A and AA and its best practices.
    """
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{rule['id']}: {node['html'][:120]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


def is_too_wide(page: Page) -> bool:
    """Whether the page can be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))
