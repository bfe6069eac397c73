"""The page for users, and the error tree, say what the code does."""

import inspect
import re
from pathlib import Path

import server.ingest.errors
from server.errors import WireCodes
from server.ingest import WARNINGS, IngestError, IngestLimits

PAGE = (Path(__file__).parents[3] / "docs/clips.md").read_text(encoding="utf-8")


def refusals() -> list[type[IngestError]]:
    return [
        member
        for _, member in inspect.getmembers(server.ingest.errors, inspect.isclass)
        if issubclass(member, IngestError) and member is not IngestError
    ]


def test_every_refusal_has_a_code_of_its_own() -> None:
    codes = [refusal.code for refusal in refusals()]
    assert len(set(codes) - {IngestError.code}) == len(codes)


def test_the_error_tree_names_every_refusal_and_its_code() -> None:
    tree = dict(re.findall(r"^ +(\w+Error) +([a-z_]+)  ", server.ingest.errors.__doc__ or "", re.M))
    assert tree == {refusal.__name__: refusal.code for refusal in refusals()}


def test_the_page_names_every_refusal_with_its_status() -> None:
    rows = {code: int(status) for code, status in re.findall(r"\| `(\w+)` \| (\d{3}) \|", PAGE)}
    assert rows == {refusal.code: WireCodes.HTTP[refusal.code] for refusal in refusals()}
    assert all(400 <= status < 500 for status in rows.values())


def test_the_page_names_every_warning() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|\d].*) \|$", PAGE, re.M))
    assert rows == WARNINGS


def test_the_page_names_the_bounds() -> None:
    limits = IngestLimits()
    for words in (
        f"{limits.file_bytes >> 20} MiB",
        f"{limits.frames:,}",
        f"{limits.frame_pixels:,}",
        f"{limits.decoded_bytes >> 30} GiB",
        f"{limits.decode_s:g} s",
        f"{limits.archive_members}, each unpacking to at most {limits.archive_ratio} times",
        f"{limits.header_elements:,}",
    ):
        assert f"| {words}" in PAGE
