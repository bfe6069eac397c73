"""The README's pictures are those that the pages give."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page

from tests.e2e.screenshots import IMAGES, SHOTS, take

MOST_BYTES = 150_000
README = IMAGES.parents[1] / "README.md"


def test_the_readme_shows_every_picture_and_none_is_large() -> None:
    shown = re.findall(r"docs/images/(\w+)\.webp", README.read_text(encoding="utf-8"))
    assert sorted(shown) == sorted(SHOTS) == sorted(each.stem for each in IMAGES.iterdir())
    assert all(each.stat().st_size < MOST_BYTES for each in IMAGES.iterdir())


@pytest.mark.parametrize("name", ["correction", "phone"])
def test_a_picture_can_be_taken_anew(visit: Callable[..., Page], address: str, name: str) -> None:
    """The other two are stops on the way to these."""
    picture = take(visit("about:blank"), address, name)
    assert picture[8:12] == b"WEBP"
    assert len(picture) < MOST_BYTES
