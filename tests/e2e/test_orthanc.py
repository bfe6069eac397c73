"""A real PACS, Orthanc: it pushes clips to us, and keeps our objects as they are."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydicom import dcmread
from pydicom.uid import generate_uid

from server.settings import Settings
from tests.server.ingest.making import run
from tests.server.orthanc import TITLE, orthanc_server
from tests.server.phantom import Served, phantom_clip, serving
from tests.server.routes.asking import COUNT, wait_until


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A PACS of its own folder and ports."""
    with orthanc_server(tmp_path_factory.mktemp("orthanc")) as client:
        yield client


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    with serving(monkeypatch, Settings(clip_dir=tmp_path / "clips")) as served:
        yield served


def clip_of_a_study(folder: Path) -> bytes:
    """The phantom with what a PACS files it by."""
    made = dcmread(phantom_clip(folder / "phantom.dcm", COUNT))
    made.StudyInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.save_as(folder / "phantom.dcm")
    return (folder / "phantom.dcm").read_bytes()


def kept(orthanc: httpx.Client, content: bytes) -> str:
    """Store an object in the PACS; returns its name there."""
    answer = orthanc.post("/instances", content=content)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["ID"])


def the_only_job_done(served: Served) -> str:
    """Where the one clip of a server is, once it is done."""
    (job,) = served.http.get("/v1/clips").json()
    place = f"/v1/clips/{job['id']}"
    wait_until(lambda: served.http.get(place).json()["state"] == "done")
    assert served.http.get(f"{place}/result").json()["clip"]["frames"] == COUNT
    return place


def test_it_pushes_by_c_store(
    orthanc: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("pynetdicom", reason="pynetdicom is not installed")
    settings = Settings(clip_dir=tmp_path / "clips", dicom_port=0)
    with serving(monkeypatch, settings) as served:
        receiver = served.parts.receiver
        assert receiver is not None
        peer = {"AET": "GDKVM", "Host": "127.0.0.1", "Port": receiver.port}
        assert orthanc.put("/modalities/gdkvm", json=peer).status_code == 200
        assert orthanc.post("/modalities/gdkvm/echo", json={}).status_code == 200
        instance = kept(orthanc, clip_of_a_study(tmp_path))
        told = orthanc.post("/modalities/gdkvm/store", json=[instance], timeout=60)
        assert (told.status_code, told.json()["FailedInstancesCount"]) == (200, 0)
        the_only_job_done(served)


def test_it_pushes_by_dicomweb(orthanc: httpx.Client, served: Served, tmp_path: Path) -> None:
    if orthanc.get("/plugins/dicom-web").status_code != 200:
        pytest.skip("Orthanc's DICOMweb plugin is not installed")
    orthanc.put("/dicom-web/servers/gdkvm", json={"Url": f"{served.url}/dicom-web/"})
    wanted = {"Resources": [kept(orthanc, clip_of_a_study(tmp_path))], "Synchronous": True}
    told = orthanc.post("/dicom-web/servers/gdkvm/stow", json=wanted, timeout=60)
    assert (told.status_code, told.json()["InstancesCount"]) == (200, "1")
    the_only_job_done(served)


@pytest.mark.parametrize("name", ["seg.dcm", "sr.dcm"])
@pytest.mark.parametrize("way", ["http", "c-store"])
def test_it_keeps_our_objects_as_they_are(
    orthanc: httpx.Client, served: Served, tmp_path: Path, name: str, way: str
) -> None:
    place = served.http.post("/v1/clips", content=clip_of_a_study(tmp_path)).headers["Location"]
    wait_until(lambda: served.http.get(place).json()["state"] == "done")
    made = tmp_path / name
    made.write_bytes(served.http.get(f"{place}/{name}").content)
    header = dcmread(made, stop_before_pixels=True)
    if way == "http":
        kept(orthanc, made.read_bytes())
    else:
        run("storescu", "-R", "-aec", TITLE, "127.0.0.1", orthanc.headers["X-Dicom-Port"], made)
    query = {"Level": "Instance", "Query": {"SOPInstanceUID": header.SOPInstanceUID}}
    (instance,) = orthanc.post("/tools/find", json=query).json()
    given = orthanc.get(f"/instances/{instance}/file").content
    assert data_set(given) == data_set(made.read_bytes())


def data_set(content: bytes) -> bytes:
    """A file's bytes behind its meta information, which the PACS may write anew.

    Source:
        DICOM PS3.10 section 7.1: (0002,0000) says how long that is from its own end on.
    """
    assert content[128:140] == b"DICM\x02\x00\x00\x00UL\x04\x00"
    return content[144 + int.from_bytes(content[140:144], "little") :]
