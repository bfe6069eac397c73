"""Clips from a real DICOMweb server, Orthanc: searched, fetched, and what goes wrong on the way."""

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from server.batch.dicomweb import INSTANCE, PAGE, SERIES, STUDY, fetch, open_web, search
from server.batch.errors import FetchError, ListingError
from server.ingest import IngestLimits, TooLargeError, open_clip, sample_path
from tests.server.orthanc import orthanc_server
from tests.server.phantom import phantom_clip

COUNT = 3


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PACS with two clips of ultrasound, one of them compressed, and an X-ray."""
    folder = tmp_path_factory.mktemp("clips")
    with orthanc_server(tmp_path_factory.mktemp("orthanc")) as orthanc:
        for name, modality in (("us", "US"), ("jpeg", "US"), ("xray", "DX")):
            source = sample_path() if name == "jpeg" else phantom_clip(folder / name, COUNT)
            made = dcmread(source)
            made.Modality = modality
            made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
            made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            made.StudyDate = "20240101" if name == "us" else "20250101"
            made.save_as(folder / name)
            content = (folder / name).read_bytes()
            assert orthanc.post("/instances", content=content).status_code == 200
        yield f"{orthanc.base_url}/dicom-web"


def test_every_ultrasound_instance_is_found_and_fetched_as_it_is_stored(
    pacs: str, tmp_path: Path
) -> None:
    places = list(search(pacs, None))
    assert len(places) == 2
    counts = set()
    for number, place in enumerate(places):
        path = tmp_path / str(number)
        with open_web(None) as web, path.open("wb") as file:
            fetch(web, place, file, is_dicomweb=True)
        with open_clip(path) as clip:
            counts.add((len(list(clip.frames)), clip.encoding))
    with open_clip(sample_path()) as clip:
        sample = (len(list(clip.frames)), clip.encoding)
    assert sample in counts
    assert COUNT in {count for count, _ in counts}


def test_a_search_may_be_narrowed(pacs: str) -> None:
    assert len(list(search(f"{pacs}?StudyDate=20240101", None))) == 1
    assert list(search(f"{pacs}?StudyDate=19990101", None)) == []


def test_a_server_that_is_none_is_told_in_words(pacs: str) -> None:
    with pytest.raises(ListingError, match="answers 404"):
        list(search(pacs.replace("/dicom-web", "/nothing"), None))
    with pytest.raises(ListingError, match="ConnectError"):
        list(search("http://127.0.0.1:1/dicom-web", None))
    with open_web(None) as web, pytest.raises(FetchError, match="answers 404"):
        fetch(web, f"{pacs}/studies/1/series/2/instances/3", io.BytesIO(), is_dicomweb=True)


def test_a_file_longer_than_allowed_is_not_taken(pacs: str) -> None:
    (place, *_) = search(pacs, None)
    small = IngestLimits(file_bytes=1000)
    with open_web(None) as web, pytest.raises(TooLargeError):
        fetch(web, place, io.BytesIO(), is_dicomweb=True, limits=small)


@pytest.mark.parametrize(
    ("key", "sent"), [("abc", "Bearer abc"), ("Basic dTpw", "Basic dTpw"), (None, None)]
)
def test_a_key_is_a_token_unless_it_names_its_scheme(key: str | None, sent: str | None) -> None:
    with open_web(key) as web:
        asked: httpx.Headers = web.headers
        assert asked.get("Authorization") == sent


@contextmanager
def serving_without_pages(count: int, page: int | None) -> Iterator[str]:
    """A DICOMweb server of so many series, of which every search finds the first page, or all."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_series = self.path.startswith("/series")
            found = [
                {tag: {"vr": "UI", "Value": [f"1.2.{number}"]} for tag in (STUDY, SERIES, INSTANCE)}
                for number in range(count if is_series else 1)
            ][:page]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_knows_no_pages_is_searched_once() -> None:
    with serving_without_pages(PAGE + 1, None) as address:
        assert len(list(islice(search(address, None), 2 * PAGE))) == PAGE + 1


def test_a_server_that_knows_only_its_first_page_is_told_in_words() -> None:
    with (
        serving_without_pages(PAGE + 1, PAGE) as address,
        pytest.raises(ListingError, match="narrow"),
    ):
        list(islice(search(address, None), 2 * PAGE))
