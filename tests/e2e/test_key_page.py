"""The pages of a server that wants a key, in a real browser."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from server.ingest import sample_path
from tests.e2e.browsing import violations
from tests.e2e.serving import serving

KEY = "gdkvm_only-for-this-test"


def test_a_page_asks_for_the_key_and_then_streams_and_uploads_with_it(
    visit: Callable[..., Page], tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{hashlib.sha256(KEY.encode()).hexdigest()} name=reader\n")
    with serving(tmp_path, api_keys_file=keys) as server:
        page = visit(server.http)
        dialog = page.get_by_role("dialog", name="This server asks for a key")
        expect(dialog).to_be_visible()
        assert violations(page) == []
        dialog.get_by_label("Key").fill("another one")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text("The server does not know this key.")
        dialog.get_by_label("Key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#ef")).to_have_attribute("data-state", re.compile("measured|withheld"))

        page.goto(f"{server.http}/clips.html")  # the key stays in its tab
        page.locator("#files").set_input_files(sample_path())
        expect(page.locator("#ef-figure")).to_have_text(re.compile(r"^EF \d+ %$"))
        expect(page.locator("#player")).to_be_visible()
