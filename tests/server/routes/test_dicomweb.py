"""Instances stored as a PACS stores them (DICOM PS3.18 section 10.5)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pydicom.data
import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO

from tests.server.phantom import Served
from tests.server.routes.asking import COUNT, LIMIT, STUDY_LIMIT, assert_problem, events_of

FILES = Path(pydicom.data.__file__).parent / "test_files"
CT = (FILES / "CT_small.dcm").read_bytes()
RELATED = 'multipart/related; type="application/dicom"; boundary=edge'


@pytest.fixture(autouse=True)
def left_empty(served: Served) -> Iterator[None]:
    yield
    for job in served.http.get("/v1/clips").json():
        served.http.delete(f"/v1/clips/{job['id']}")


def related(*instances: bytes) -> bytes:
    head = b"--edge\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + each + b"\r\n" for each in instances) + b"--edge--\r\n"


def post(served: Served, *instances: bytes, path: str = "", accept: str = "*/*") -> httpx.Response:
    headers = {"Content-Type": RELATED, "Accept": accept}
    return served.http.post(
        f"/dicom-web/studies{path}", content=related(*instances), headers=headers
    )


def module(answer: httpx.Response) -> Dataset:
    """The response as a second reader of the DICOM JSON model sees it."""
    return Dataset.from_json(answer.text)


def clip_of(item: Dataset) -> str:
    """Where an instance's clip is; it is nowhere else, so RetrieveURL is there and empty."""
    assert "RetrieveURL" in item
    assert not item.RetrieveURL
    return str(item.private_block(0x0045, "GDKVM LIVE")[0x01].value)


def changed(clip: bytes, **elements: Any) -> bytes:
    made, content = dcmread(DicomBytesIO(clip)), DicomBytesIO()
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    made.save_as(content)
    return content.getvalue()


def test_instances_are_stored_and_measured(served: Served, clip: bytes) -> None:
    answer = post(served, clip)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/dicom+json"
    (item,) = module(answer).ReferencedSOPSequence
    header = dcmread(DicomBytesIO(clip))
    assert item.ReferencedSOPInstanceUID == header.SOPInstanceUID
    assert item.ReferencedSOPClassUID == header.SOPClassUID
    place = clip_of(item)
    assert list(events_of(served, place))[-1][0] == "done"
    assert served.http.get(f"{place}/result").json()["clip"]["frames"] == COUNT


def test_an_instance_that_is_stored_again_is_the_one_that_is_there(
    served: Served, clip: bytes
) -> None:
    first, second = (module(post(served, clip)).ReferencedSOPSequence[0] for _ in range(2))
    assert clip_of(first) == clip_of(second)
    assert len(served.http.get("/v1/clips").json()) == 1


def test_each_instance_has_its_own_success_or_failure(served: Served, clip: bytes) -> None:
    answer = post(served, clip, CT, b"no instance")
    assert answer.status_code == 202
    told = module(answer)
    assert "RetrieveURL" in told
    assert not told.RetrieveURL
    assert len(told.ReferencedSOPSequence) == 1
    (failed,) = told.FailedSOPSequence
    assert failed.ReferencedSOPInstanceUID == dcmread(DicomBytesIO(CT)).SOPInstanceUID
    assert failed.FailureReason == 0x0122
    assert told.OtherFailuresSequence[0].FailureReason == 0xC000


def test_no_instance_stored_is_a_conflict(served: Served) -> None:
    assert post(served, CT, CT).status_code == 409
    assert served.http.get("/v1/clips").json() == []


def test_an_instance_that_nothing_can_refer_to_is_not_taken(served: Served, clip: bytes) -> None:
    told = module(post(served, changed(clip, SOPInstanceUID="")))
    assert told.OtherFailuresSequence[0].FailureReason == 0xC000
    assert served.http.get("/v1/clips").json() == []


def test_an_instance_that_is_too_long_is_refused_alone(served: Served, clip: bytes) -> None:
    answer = post(served, clip + bytes(LIMIT), clip)
    assert answer.status_code == 202
    told = module(answer)
    assert told.OtherFailuresSequence[0].FailureReason == 0xA700
    assert len(told.ReferencedSOPSequence) == 1


def test_a_request_that_is_too_long_is_refused_as_a_whole(served: Served, clip: bytes) -> None:
    body = related(clip, *[bytes(LIMIT)] * (STUDY_LIMIT // LIMIT))
    for content in (body, (body[start : start + LIMIT] for start in range(0, len(body), LIMIT))):
        headers = {"Content-Type": RELATED}
        answer = served.http.post("/dicom-web/studies", content=content, headers=headers)
        assert_problem(answer, 413, "too_large")


def test_the_study_of_the_path_must_be_that_of_the_instances(served: Served, clip: bytes) -> None:
    named = changed(clip, StudyInstanceUID="1.2.3")
    answer = post(served, named, path="/1.2.3.4.5")
    assert answer.status_code == 409
    assert module(answer).FailedSOPSequence[0].FailureReason == 0xA901
    assert post(served, named, path="/1.2.3").status_code == 200
    assert_problem(post(served, clip, path="/Doe^Jane"), 400, "bad_request")


def test_the_answer_is_xml_where_that_is_asked_for(served: Served, clip: bytes) -> None:
    answer = post(served, clip, accept="application/dicom+xml")
    assert answer.headers["Content-Type"] == "application/dicom+xml"
    root = ElementTree.fromstring(answer.content)
    space = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
    assert root.tag == f"{space}NativeDicomModel"
    (uid,) = [each for each in root.iter(f"{space}DicomAttribute") if each.get("tag") == "00081155"]
    assert uid.findtext(f"{space}Value") == dcmread(DicomBytesIO(clip)).SOPInstanceUID


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/dicom+json", "json"),
        ("application/json", "json"),
        ("application/dicom+xml, */*;q=0.1", "xml"),
        ("application/dicom+xml;q=0.5, application/dicom+json", "json"),
        ("application/dicom+json;q=0, application/dicom+xml;q=0.2", "xml"),
        ('multipart/related; type="application/dicom+xml"', "xml"),
    ],
)
def test_the_answer_is_of_the_type_liked_best(served: Served, accept: str, kind: str) -> None:
    answer = post(served, CT, accept=accept)
    assert answer.headers["Content-Type"] == f"application/dicom+{kind}"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": RELATED, "Accept": "text/html"}, 406, "not_acceptable"),
        ({"Content-Type": "application/json"}, 415, "unsupported_media_type"),
        ({"Content-Type": RELATED.replace("dicom", "dicom+json")}, 415, "unsupported_media_type"),
        ({"Content-Type": 'multipart/related; type="application/dicom"'}, 400, "bad_request"),
        ({"Content-Type": RELATED.replace("edge", "other")}, 400, "bad_request"),
    ],
)
def test_a_request_that_is_not_understood_is_a_problem(
    served: Served, clip: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    answer = served.http.post("/dicom-web/studies", content=related(clip), headers=headers)
    assert_problem(answer, status, code)
    assert served.http.get("/v1/clips").json() == []
