import socket
import struct
from pathlib import Path
from typing import Any

import pydicom.data
import pytest

from server.clips import ClipStore, Job
from server.errors import WireCodes
from tests.server.phantom import Served
from tests.server.routes.asking import (
    LIMIT,
    WAIT,
    assert_problem,
    events_of,
    raw_socket,
    wait_until,
)

PYDICOM_FILES = Path(pydicom.data.__file__).parent / "test_files"
SAMPLE = PYDICOM_FILES / "examples_ybr_color.dcm"


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
        (f"multipart/form-data; boundary={'x' * 300}", b"--" + b"x" * 300 + b"--"),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\nanother boundary"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="file"'),
    ],
)
def test_a_broken_form_is_refused(served: Served, stored: str, kind: str, body: bytes) -> None:
    for route in ("/v1/clips", "/v1/studies"):
        answer = served.http.post(route, content=body, headers={"Content-Type": kind})
        assert_problem(answer, 400, "bad_request")


FORM_HEAD = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.mark.parametrize(
    ("kind", "start"),
    [("application/octet-stream", b""), ("multipart/form-data; boundary=x", FORM_HEAD)],
)
def test_an_upload_that_breaks_off_leaves_nothing(
    served: Served, stored: str, clip: bytes, kind: str, start: bytes
) -> None:
    before = served.http.get("/v1/clips").json()
    folders = set(served.parts.settings.clip_dir.glob("c_*"))
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
    assert set(served.parts.settings.clip_dir.glob("c_*")) == folders


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
