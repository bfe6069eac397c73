"""The live page over a link with 100 ms of delay and loss that breaks twice."""

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

from tests.e2e.browsing import show_outlines, wait_for_outline
from tests.e2e.link import bad_link


def test_the_view_goes_on_over_a_bad_link_and_says_when_its_session_is_resumed(
    visit: Callable[..., Page], address: str
) -> None:
    port = urlsplit(address).port
    assert port is not None
    with bad_link(port) as link:
        page = visit(f"http://127.0.0.1:{link.port}")
        show_outlines(page)
        wait_for_outline(page, "lv")
        resumed = page.locator("#resumed")

        link.cut()
        expect(resumed).to_have_text(re.compile(r"^Session resumed after \d+\.\d s"))
        wait_for_outline(page, "lv")
        page.wait_for_function("() => resumed.hidden")

        link.is_dead = True  # as when a cable is pulled: nobody is told
        page.wait_for_function("() => !notice.hidden")
        link.is_dead = False
        expect(resumed).to_be_visible()
        page.keyboard.press(" ")
        expect(page.locator("#badge")).to_be_visible()
        log = page.locator("#log")
        expect(log.get_by_text("has begun")).to_have_count(1)
        expect(log.get_by_text("Session resumed")).to_have_count(2)
