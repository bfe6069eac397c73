"""Clips from elsewhere: a DICOMweb server is searched, and one instance or file is fetched.

Source:
    DICOM PS3.18 sections 10.4 (retrieve, WADO-RS) and 10.6 (search, QIDO-RS).
"""

import binascii
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import httpx
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from server.batch.errors import FetchError, ListingError
from server.ingest import IngestLimits, TooLargeError

PAGE = 200
"""Answers asked for at once."""

PATIENCE_S = 60.0
CONNECT_TRIES = 3

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
"""StudyInstanceUID, SeriesInstanceUID, SOPInstanceUID."""

_SEARCH_ACCEPT = "application/dicom+json"
_INSTANCE_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def search(address: str, key: str | None) -> Iterator[str]:
    """Where every ultrasound instance of a server can be fetched.

    Args:
        address: of the DICOMweb service, with attributes to match as its query where wanted, such
            as ``https://pacs/dicom-web?StudyDate=20250101-20251231``.
        key: see ``open_web``.

    Raises:
        ListingError: the server cannot be searched.
    """
    try:
        base = httpx.URL(address)
        matching = dict(base.params)
        root = str(base.copy_with(query=None)).rstrip("/")
        with open_web(key) as web:
            for series in _pages(web, f"{root}/series", {"Modality": "US", **matching}):
                place = f"{root}/studies/{_uid(series, STUDY)}/series/{_uid(series, SERIES)}"
                for instance in _pages(web, f"{place}/instances", {}):
                    yield f"{place}/instances/{_uid(instance, INSTANCE)}"
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ListingError(f"the DICOMweb server cannot be searched: {_words(error)}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ListingError("the DICOMweb server's answer is no DICOM JSON") from error


@contextmanager
def open_web(key: str | None) -> Iterator[httpx.Client]:
    """Make a client.

    Args:
        key: sent as a bearer token, or as it is where it names its scheme (``Basic …``).
    """
    headers = {}
    if key is not None:
        headers["Authorization"] = key if " " in key else f"Bearer {key}"
    transport = httpx.HTTPTransport(retries=CONNECT_TRIES)
    with httpx.Client(
        headers=headers, timeout=PATIENCE_S, transport=transport, follow_redirects=True
    ) as web:
        yield web


def _pages(web: httpx.Client, url: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Every answer to a search, page by page.

    Raises:
        ListingError: the server gives one page again and again.
    """
    offset, before = 0, None
    while True:
        asked = query | {"limit": str(PAGE), "offset": str(offset)}
        answer = web.get(url, params=asked, headers={"Accept": _SEARCH_ACCEPT})
        found = [] if answer.raise_for_status().status_code == 204 else answer.json()
        if found and found == before:
            raise ListingError("the DICOMweb server gives the same page again: narrow the search")
        yield from found
        offset, before = offset + len(found), found
        # More than was asked for is all there is, from a server that knows no pages.
        if len(found) != PAGE:
            return


def _uid(answer: dict[str, Any], tag: str) -> str:
    value = answer[tag]["Value"][0]
    assert isinstance(value, str)
    return value


def fetch(
    web: httpx.Client,
    url: str,
    into: BinaryIO,
    *,
    is_dicomweb: bool,
    limits: IngestLimits | None = None,
) -> None:
    """Bring one file here.

    Args:
        web: see ``open_web``.
        url: of a file, or of a DICOMweb instance.
        into: where to write it.
        is_dicomweb: which of the two it is.
        limits: its longest length.

    Raises:
        FetchError: it cannot be had.
        TooLargeError: it is longer than allowed.
    """
    most = (limits or IngestLimits()).file_bytes

    def write(piece: bytes) -> None:
        if into.tell() + len(piece) > most:
            raise TooLargeError(f"more than {most} bytes came, at most that are read")
        into.write(piece)

    accept = _INSTANCE_ACCEPT if is_dicomweb else "*/*"
    try:
        with web.stream("GET", url, headers={"Accept": accept}) as answer:
            answer.raise_for_status()
            take = _first_part(answer.headers.get("content-type", ""), write) or write
            for piece in answer.iter_bytes():
                take(piece)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(f"it could not be fetched: {_words(error)}") from error
    except (MultipartParseError, binascii.Error) as error:
        raise FetchError("the server's answer is no multipart body") from error


def _first_part(
    content_type: str, write: Callable[[bytes], None]
) -> Callable[[bytes], object] | None:
    """What takes a multipart body apart and passes its first part on; None where it is none."""
    kind, options = parse_options_header(content_type)
    if not kind.startswith(b"multipart/"):
        return None
    begun = 0

    def begin() -> None:
        nonlocal begun
        begun += 1

    def part(data: bytes, start: int, end: int) -> None:
        if begun == 1:
            write(data[start:end])

    callbacks: Any = {"on_part_begin": begin, "on_part_data": part}
    parser = MultipartParser(options.get(b"boundary", b""), callbacks)
    return parser.write


def _words(error: Exception) -> str:
    """Say what a server did, without the address, which may hold a patient's number."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"the server answers {error.response.status_code}"
    return type(error).__name__
