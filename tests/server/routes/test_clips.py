import io
import json
import socket
import struct
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom.data
import pytest

from server.clips import ClipStore, Job
from server.errors import WireCodes
from server.settings import Settings
from tests.server.ingest.making import tool
from tests.server.phantom import SIDE_PX, Served, phantom_clip, serving, true_labels

PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
SAMPLE = PYDICOM_FILES / "examples_ybr_color.dcm"
COUNT, WAIT = 8, {"wait_s": 60}
LIMIT = 2_000_000


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return phantom_clip(tmp_path_factory.mktemp("phantom") / "phantom.dcm", COUNT).read_bytes()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("clips")
    settings = Settings(clip_dir=folder, upload_max_bytes=LIMIT)
    with pytest.MonkeyPatch.context() as patch, serving(patch, settings) as served:
        yield served
    assert list(folder.iterdir()) == []


@pytest.fixture
def stored(served: Served, clip: bytes) -> Iterator[str]:
    """Address of a clip that is done; whatever the test does, it is still there afterwards."""
    answer = served.http.post("/v1/clips", params=WAIT, content=clip)
    place, document = answer.headers["Location"], answer.json()
    others = {job["id"] for job in served.http.get("/v1/clips").json()}
    yield place
    kept = served.http.get(f"{place}/result")
    if kept.status_code != 404:
        assert kept.json() == document
        assert {job["id"] for job in served.http.get("/v1/clips").json()} == others
        served.http.delete(place)


def assert_problem(answer: httpx.Response, status: int, code: str) -> str:
    """Check a refusal; returns its sentence.

    Source:
        RFC 9457, sections 3 and 3.1.
    """
    document = answer.json()
    assert (answer.status_code, document["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert document["status"] == status
    assert document["type"] == "about:blank"
    assert document["title"]
    assert isinstance(document["detail"], str)
    assert len(document["detail"]) > 10
    return str(document["detail"])


def test_an_upload_waited_for_is_answered_with_its_result(served: Served, clip: bytes) -> None:
    answer = served.http.post("/v1/clips", params={**WAIT, "view": "A2C"}, content=clip)
    place = answer.headers["Location"]
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["clip"]["frames"] == COUNT
    assert answer.json()["clip"]["view"] == "A2C"
    assert served.http.get(f"{place}/result").json() == answer.json()
    state = served.http.get(place).json()
    assert state == {
        "id": place.rpartition("/")[2], "state": "done", "progress": 1.0, "view": "A2C",
        "error": None,
    }  # fmt: skip
    assert served.http.delete(place).status_code == 204


def test_a_form_is_answered_as_the_bare_file_is(served: Served, clip: bytes, stored: str) -> None:
    name = "Müller [1] (a).dcm"
    form = served.http.post("/v1/clips", params=WAIT, files={"file": (name, clip)})
    assert form.status_code == 200
    assert form.json() == served.http.get(f"{stored}/result").json()
    assert "ller" not in form.text
    served.http.delete(form.headers["Location"])


def test_a_zip_is_answered_as_the_file_inside_is(served: Served, clip: bytes, stored: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("study/clip one.dcm", clip)
    answer = served.http.post("/v1/clips", params=WAIT, content=packed.getvalue())
    assert answer.json() == served.http.get(f"{stored}/result").json()
    served.http.delete(answer.headers["Location"])


def truncated(share: float) -> bytes:
    whole = SAMPLE.read_bytes()
    return whole[: round(share * len(whole))]


REFUSALS: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "empty"),
    ("text", b"not a clip, only words", "not_a_clip"),
    ("picture", b"\x89PNG\r\n\x1a\n" + bytes(64), "not_a_clip"),
    ("empty archive", b"PK\x05\x06" + bytes(18), "no_pixels"),
    *(
        (name, (PYDICOM_FILES / name).read_bytes(), code)
        for name, code in (
            ("CT_small.dcm", "unsupported_modality"),
            ("MR_truncated.dcm", "unsupported_modality"),
            ("test-SR.dcm", "no_pixels"),
            ("no_meta.dcm", "malformed_header"),
            ("meta_missing_tsyntax.dcm", "malformed_header"),
        )
    ),
]


@pytest.mark.parametrize(("name", "content", "code"), REFUSALS, ids=[each[0] for each in REFUSALS])
def test_a_file_that_is_no_clip_is_refused_by_what_it_is(
    served: Served, stored: str, name: str, content: bytes, code: str
) -> None:
    answer = served.http.post("/v1/clips", params=WAIT, content=content)
    sentence = assert_problem(answer, WireCodes.HTTP[code], code)
    assert 400 <= answer.status_code < 500
    assert name not in sentence
    assert "Location" not in answer.headers


@pytest.mark.parametrize("share", [0.0005, 0.005, 0.02, 0.05])
def test_a_clip_cut_off_before_its_first_frame_is_refused(
    served: Served, stored: str, share: float
) -> None:
    answer = served.http.post("/v1/clips", params=WAIT, content=truncated(share))
    assert answer.status_code in (415, 422)
    assert_problem(answer, answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_clip_cut_off_later_is_refused_or_said_to_be_shorter(
    served: Served, stored: str, share: float
) -> None:
    answer = served.http.post("/v1/clips", params=WAIT, content=truncated(share))
    if answer.is_success:
        document = answer.json()
        assert document["clip"]["frames"] < 30
        assert document["clip"]["warnings"]
        served.http.delete(answer.headers["Location"])
    else:
        assert_problem(answer, 422, "truncated")


def test_every_real_file_that_is_no_heart_is_answered_and_never_with_a_fault(
    served: Served, shared_dir: Path
) -> None:
    """The network here is a phantom's; what the real one says of these files is for tests/e2e."""
    folder = shared_dir / "data" / "ultrasound"
    paths = [*folder.glob("pydicom/*.dcm"), *folder.glob("pydicom-data/*.dcm")]
    assert len(paths) > 10
    for path in paths:
        content = path.read_bytes()
        if len(content) > LIMIT:
            continue
        answer = served.http.post("/v1/clips", params=WAIT, content=content)
        assert answer.status_code < 500, path.name
        if answer.is_success:
            served.http.delete(answer.headers["Location"])


def test_a_clip_that_is_not_waited_for_fails_with_the_same_code_and_sentence(
    served: Served, stored: str
) -> None:
    waited = served.http.post("/v1/clips", params=WAIT, content=b"rubbish").json()
    place = served.http.post("/v1/clips", content=b"rubbish").headers["Location"]
    list(events_of(served, place))
    error = served.http.get(place).json()["error"]
    assert error == {"code": "not_a_clip", "message": waited["detail"], "status": 415}
    for name in ("result", "masks.npz", "overlay.mp4"):
        later = served.http.get(f"{place}/{name}")
        assert assert_problem(later, 415, "not_a_clip") == waited["detail"]
    served.http.delete(place)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"view": "PLAX"}, "view"),
        ({"view": "a4c"}, "view"),
        ({"wait_s": "-1"}, "wait_s"),
        ({"wait_s": "301"}, "wait_s"),
        ({"wait_s": "nan"}, "wait_s"),
        ({"wait_s": "soon"}, "wait_s"),
    ],
)
def test_a_query_out_of_bounds_is_refused_by_name(
    served: Served, stored: str, clip: bytes, query: dict[str, str], word: str
) -> None:
    answer = served.http.post("/v1/clips", params=query, content=clip)
    assert word in assert_problem(answer, 400, "bad_request")


def test_an_upload_declared_too_large_is_refused_unread(served: Served, stored: str) -> None:
    head = f"POST /v1/clips HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
    with raw_socket(served) as link:
        link.sendall(head.encode())
        said = link.recv(1 << 16)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b'"code": "too_large"' in said
    assert str(LIMIT).encode() in said


def test_an_upload_of_unknown_length_is_refused_where_it_gets_too_large(
    served: Served, stored: str
) -> None:
    chunks = (bytes(100_000) for _ in range(LIMIT // 100_000 + 1))
    answer = served.http.post("/v1/clips", content=chunks)
    assert_problem(answer, 413, "too_large")


def test_a_form_that_is_too_large_is_refused(served: Served, stored: str) -> None:
    answer = served.http.post("/v1/clips", files={"file": ("clip", bytes(LIMIT))})
    assert_problem(answer, 413, "too_large")


def test_an_upload_of_just_the_limit_is_read(served: Served, stored: str) -> None:
    answer = served.http.post("/v1/clips", params=WAIT, content=bytes(LIMIT))
    assert_problem(answer, 415, "not_a_clip")


@pytest.mark.parametrize(
    "form",
    [
        {"files": {"clip": ("clip", b"content")}},
        {"data": {"file": "a word, no file"}, "files": {"other": ("clip", b"content")}},
        {"files": [("file", ("a", b"1")), ("file", ("b", b"2"))]},
    ],
)
def test_a_form_needs_one_file_in_the_field_named_file(
    served: Served, stored: str, form: dict[str, Any]
) -> None:
    assert_problem(served.http.post("/v1/clips", **form), 400, "bad_request")


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"no boundary is named"),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\nanother boundary"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"'),
    ],
)
def test_a_broken_form_is_refused(served: Served, stored: str, kind: str, body: bytes) -> None:
    answer = served.http.post("/v1/clips", content=body, headers={"Content-Type": kind})
    assert_problem(answer, 400, "bad_request")


def raw_socket(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port()), timeout=30)


FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "start"),
    [("application/octet-stream", b""), ("multipart/form-data; boundary=x", FORM_HEAD)],
)
def test_an_upload_that_breaks_off_leaves_nothing(
    served: Served, stored: str, clip: bytes, kind: str, start: bytes
) -> None:
    before = served.http.get("/v1/clips").json()
    folders = set(served.parts.settings.clip_dir.glob("run-*/*"))
    link = raw_socket(served)
    head = (
        "POST /v1/clips?wait_s=5 HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(clip)}\r\n\r\n"
    )
    link.sendall(head.encode() + start + clip[: len(clip) // 2])
    wait_until(lambda: len(served.http.get("/v1/clips").json()) > len(before))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a hard reset
    link.close()
    wait_until(lambda: served.http.get("/v1/clips").json() == before)
    assert set(served.parts.settings.clip_dir.glob("run-*/*")) == folders


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("is_form", [False, True])
def test_a_full_disk_is_said_and_loses_nothing_that_is_stored(
    served: Served, stored: str, clip: bytes, monkeypatch: pytest.MonkeyPatch, is_form: bool
) -> None:
    # Every write to this device fails as one to a full disk does.
    with monkeypatch.context() as patch:
        patch.setattr(Job, "upload", Path("/dev/full"))
        sent: dict[str, Any] = {"files": {"file": ("a", clip)}} if is_form else {"content": clip}
        answer = served.http.post("/v1/clips", params=WAIT, **sent)
    assert_problem(answer, 507, "storage_full")
    assert served.http.post("/v1/clips", params=WAIT, content=clip).is_success
    last = served.http.get("/v1/clips").json()[-1]["id"]
    served.http.delete(f"/v1/clips/{last}")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""), ("DELETE", ""), ("GET", "/events"), ("GET", "/result"), ("GET", "/masks.npz"),
        ("GET", "/overlay.mp4"),
    ],
)  # fmt: skip
def test_an_unknown_clip_is_not_found(served: Served, method: str, path: str) -> None:
    answer = served.http.request(method, f"/v1/clips/c_unknown{path}")
    assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize("name", ["/v1/clips/%2e%2e%2f%2e%2e/etc/passwd", "/v1/clips/c_1/other"])
def test_nothing_else_is_below_a_clip(served: Served, name: str) -> None:
    assert_problem(served.http.get(name), 404, "not_found")


def test_a_method_that_a_path_does_not_take_is_refused(served: Served) -> None:
    assert_problem(served.http.put("/v1/clips", content=b""), 405, "method_not_allowed")


def test_a_result_asked_for_too_early_is_told_to_wait(served: Served, clip: bytes) -> None:
    with held(served):
        place = served.http.post("/v1/clips", content=clip).headers["Location"]
        wait_until(lambda: served.http.get(place).json()["state"] == "running")
        for name in ("result", "masks.npz", "overlay.mp4"):
            answer = served.http.get(f"{place}/{name}")
            assert "running" in assert_problem(answer, 409, "not_finished")
        late = served.http.post("/v1/clips", params={"wait_s": 0.05}, content=clip)
        assert late.status_code == 202
        assert late.json()["state"] == "queued"
    for each in (place, late.headers["Location"]):
        assert [event for event, _ in events_of(served, each)][-1] == "done"
        served.http.delete(each)


class held:  # noqa: N801
    """Keeps the network from answering as long as the block lasts."""

    def __init__(self, served: Served) -> None:
        self.gate = served.backend.gate

    def __enter__(self) -> None:
        self.gate.clear()

    def __exit__(self, *_: object) -> None:
        self.gate.set()


def events_of(served: Served, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read server-sent events to the end of their stream.

    Source:
        WHATWG HTML, section 9.2.6: fields end with a line break, events with an empty line.
    """
    with served.http.stream("GET", f"{place}/events", timeout=15) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            else:
                yield fields["event"], json.loads(fields["data"])
                fields = {}


def test_events_tell_each_state_and_end_with_done(served: Served, clip: bytes) -> None:
    with held(served):
        first = served.http.post("/v1/clips", content=clip).headers["Location"]
        wait_until(lambda: served.http.get(first).json()["state"] == "running")
        second = served.http.post("/v1/clips", content=clip).headers["Location"]
        events = events_of(served, second)
        assert next(events)[0] == "queued"
    rest = list(events)
    states = [event for event, _ in rest]
    assert states[-1] == "done"
    assert states == sorted(states, key=["running", "done"].index)
    assert all(state == told["state"] for state, told in rest)
    assert rest[-1][1] == served.http.get(second).json()
    for place in (first, second):
        served.http.delete(place)


def test_events_of_a_refused_clip_end_with_failed_and_why(served: Served) -> None:
    place = served.http.post("/v1/clips", content=b"rubbish").headers["Location"]
    event, told = list(events_of(served, place))[-1]
    assert (event, told["error"]["code"]) == ("failed", "not_a_clip")
    assert list(events_of(served, place)) == [(event, told)]
    served.http.delete(place)


def test_a_clip_deleted_at_work_is_gone_and_its_events_end(served: Served, clip: bytes) -> None:
    with held(served):
        place = served.http.post("/v1/clips", content=clip).headers["Location"]
        wait_until(lambda: served.http.get(place).json()["state"] == "running")
        events = events_of(served, place)
        next(events)
        assert served.http.delete(place).status_code == 204
        assert_problem(served.http.get(place), 404, "not_found")
        list(events)
    assert_problem(served.http.delete(place), 404, "not_found")
    answer = served.http.post("/v1/clips", params=WAIT, content=clip)
    assert answer.is_success
    served.http.delete(answer.headers["Location"])


def test_masks_are_those_of_every_frame(served: Served, stored: str) -> None:
    answer = served.http.get(f"{stored}/masks.npz")
    with np.load(io.BytesIO(answer.content), allow_pickle=False) as masks:
        labels_THW = masks["labels_THW"]
        assert masks["structures"].tolist() == ["lv", "myocardium", "atrium"]
    assert (labels_THW.shape, labels_THW.dtype) == ((COUNT, SIDE_PX, SIDE_PX), np.uint8)
    for index in range(COUNT):
        assert (labels_THW[index] != true_labels(index)).mean() < 0.002


def test_the_overlay_is_a_film_of_every_frame_at_its_time(
    served: Served, stored: str, tmp_path: Path
) -> None:
    answer = served.http.get(f"{stored}/overlay.mp4")
    assert answer.headers["Content-Type"] == "video/mp4"
    (tmp_path / "overlay.mp4").write_bytes(answer.content)
    words = [
        "-v", "error", "-count_frames", "-show_entries",
        "stream=codec_name,pix_fmt,nb_read_frames:format=duration", "-of", "json",
    ]  # fmt: skip
    probed = subprocess.run(
        [tool("ffprobe"), *words, tmp_path / "overlay.mp4"], check=True, capture_output=True
    )
    told = json.loads(probed.stdout)
    (stream,) = told["streams"]
    assert (stream["codec_name"], stream["pix_fmt"]) == ("h264", "yuv420p")
    assert int(stream["nb_read_frames"]) == COUNT
    assert float(told["format"]["duration"]) == pytest.approx(COUNT * 0.040, abs=0.001)


def test_a_player_may_ask_for_a_part_of_the_overlay(served: Served, stored: str) -> None:
    whole = served.http.get(f"{stored}/overlay.mp4").content
    part = served.http.get(f"{stored}/overlay.mp4", headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole[100:200])


def test_the_listing_says_every_clip_oldest_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: bytes
) -> None:
    settings = Settings(clip_dir=tmp_path, max_clips=2)
    with serving(monkeypatch, settings) as served:
        assert served.http.get("/v1/clips").json() == []
        places = [
            served.http.post("/v1/clips", params=WAIT, content=clip).headers["Location"]
            for _ in range(3)
        ]
        listed = [f"/v1/clips/{job['id']}" for job in served.http.get("/v1/clips").json()]
        assert listed == places[1:]
        assert_problem(served.http.get(places[0]), 404, "not_found")
        for _ in range(3):
            served.http.post("/v1/clips", params=WAIT, content=b"rubbish")
        assert [job["state"] for job in served.http.get("/v1/clips").json()] == ["done", "done"]
        with held(served):
            for _ in range(2):
                served.http.post("/v1/clips", content=clip)
            full = served.http.post("/v1/clips", content=clip)
        assert_problem(full, 503, "full")
        assert full.headers["Retry-After"]


def test_a_fault_of_ours_is_a_500_without_its_cause(
    served: Served, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    with monkeypatch.context() as patch:
        patch.setattr(ClipStore, "submit", fail)
        answer = served.http.post("/v1/clips", content=clip, headers={"Connection": "close"})
    assert "secret" not in assert_problem(answer, 500, "engine_failed")
    assert served.http.get("/v1/clips").json() == []


def test_a_stopping_server_does_not_wait_for_a_clip_to_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: bytes
) -> None:
    with serving(monkeypatch, Settings(clip_dir=tmp_path)) as served:
        with held(served):
            for _ in range(3):
                served.http.post("/v1/clips", content=clip)
        begun = served.parts.store
    assert list(tmp_path.iterdir()) == []
    assert begun.jobs() == []
