import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gdkvm_client import (
    BadAnswerError,
    BusyError,
    ClipRefusedError,
    ClipResult,
    Clips,
    ConnectionLostError,
    GdkvmError,
    InputError,
    Job,
    NotFinishedError,
    NotFoundError,
    ServerFaultError,
    SessionLostError,
    TooBigError,
    UnauthorizedError,
)
from server.settings import Settings
from server.study import analyse_clip
from tests.server.phantom import Served, grey_predictor, phantom_clip, serving

COUNT = 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return phantom_clip(tmp_path_factory.mktemp("clip") / "clip (1) [ä].dcm", COUNT)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(clip_dir=tmp_path_factory.mktemp("clips"), upload_max_bytes=1_000_000)
    with pytest.MonkeyPatch.context() as patch, serving(patch, settings) as served:
        yield served


@pytest.fixture
def clips(served: Served) -> Iterator[Clips]:
    with Clips(served.url) as clips:
        yield clips
    served.backend.gate.set()


def test_a_clip_is_analysed_and_forgotten(served: Served, clips: Clips, clip: Path) -> None:
    result = clips.analyse(clip, view="A2C")
    wanted = analyse_clip(clip, grey_predictor(), view="A2C").document
    assert result.document == wanted
    assert [frame.seq for frame in result.frames] == list(range(COUNT))
    assert [frame.time_ms for frame in result.frames] == [40.0 * seq for seq in range(COUNT)]
    first = result.frames[0].lv
    assert first is not None
    assert first.volume_ml == wanted["frames"][0]["lv"]["volume_ml"]
    assert result.ef.state == wanted["ef"]["state"]
    assert result.model.name == "grey"
    assert served.http.get("/v1/clips").json() == []


def test_a_clip_that_takes_longer_than_the_wait_is_waited_for_all_the_same(
    served: Served, clips: Clips, clip: Path
) -> None:
    served.backend.gate.clear()
    threading.Timer(0.3, served.backend.gate.set).start()
    assert len(clips.analyse(clip, wait_s=0.05).frames) == COUNT
    assert served.http.get("/v1/clips").json() == []


def test_a_clip_is_uploaded_followed_fetched_and_deleted(
    served: Served, clips: Clips, clip: Path, tmp_path: Path
) -> None:
    served.backend.gate.clear()
    job = clips.upload(clip)
    assert job.state in ("queued", "running")
    with pytest.raises(NotFinishedError):
        clips.result(job.id)
    with pytest.raises(TimeoutError, match=job.id):
        clips.wait(job, timeout_s=0.0)
    served.backend.gate.set()
    done = clips.wait(job, timeout_s=30)
    assert (done.id, done.state, done.progress) == (job.id, "done", 1.0)
    assert len(clips.result(job.id).frames) == COUNT
    for name in ("masks.npz", "overlay.mp4"):
        clips.download(job.id, name, tmp_path / name)
    with np.load(tmp_path / "masks.npz", allow_pickle=False) as masks:
        assert masks["labels_THW"].shape == (COUNT, 144, 144)
    assert (tmp_path / "overlay.mp4").read_bytes()[4:8] == b"ftyp"
    clips.delete(job.id)
    for act in (clips.job, clips.result, clips.delete):
        with pytest.raises(NotFoundError):
            act(job.id)
    with pytest.raises(NotFoundError):
        clips.download(job.id, "masks.npz", tmp_path / "later.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"masks.npz", "overlay.mp4"}


def test_a_refused_file_is_an_error_with_the_servers_words(
    served: Served, clips: Clips, tmp_path: Path
) -> None:
    (tmp_path / "words").write_text("no clip")
    with pytest.raises(ClipRefusedError) as refusal:
        clips.analyse(tmp_path / "words")
    assert (refusal.value.code, refusal.value.retryable) == ("not_a_clip", False)
    assert "DICOM" in refusal.value.message
    with pytest.raises(ClipRefusedError, match=re.escape(refusal.value.message)):
        clips.wait(clips.upload(tmp_path / "words"))
    (tmp_path / "large").write_bytes(bytes(1_000_001))
    with pytest.raises(TooBigError):
        clips.upload(tmp_path / "large")
    with pytest.raises(InputError):
        clips.upload(tmp_path / "words", view="PLAX")
    with pytest.raises(FileNotFoundError):
        clips.upload(tmp_path / "missing")


class Scripted(BaseHTTPRequestHandler):
    """Answers every request with the server's script."""

    def do_GET(self) -> None:
        status, kind, body = self.server.script  # type: ignore[attr-defined]
        self.server.keys.append(self.headers["Authorization"])  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) + self.server.missing))  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@pytest.fixture
def scripted() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Scripted)
    server.keys, server.missing = [], 0
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "kind", "retryable"),
    [
        (401, "unauthorized", UnauthorizedError, False),
        (408, "idle_timeout", SessionLostError, True),
        (503, "full", BusyError, True),
        (507, "storage_full", BusyError, True),
        (500, "engine_failed", ServerFaultError, False),
        (422, "of_a_newer_server", ServerFaultError, False),
    ],
)
def test_a_problem_document_becomes_the_error_of_its_code(
    scripted: Any, status: int, code: str, kind: type[GdkvmError], retryable: bool
) -> None:
    body = json.dumps({"code": code, "detail": "a sentence", "status": status}).encode()
    scripted.script = (status, "application/problem+json", body)
    with Clips(scripted.url) as clips, pytest.raises(kind) as refusal:
        clips.job("c_1")
    found = refusal.value
    assert (found.code, found.message, found.retryable) == (code, "a sentence", retryable)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>a proxy</html>"),
        (200, b"[]"),
        (200, b'{"id": "c_1"}'),
        (200, b'{"id": "c_1", "state": "failed", "progress": null, "error": {}}'),
        (200, b"\xff\xfe"),
    ],
)
def test_an_answer_that_is_none_of_ours_is_said_to_be_so(
    scripted: Any, status: int, body: bytes
) -> None:
    scripted.script = (status, "application/json", body)
    with Clips(scripted.url) as clips, pytest.raises(BadAnswerError):
        clips.job("c_1")


def test_a_refusal_that_is_none_of_ours_keeps_its_status(scripted: Any) -> None:
    scripted.script = (502, "text/html", b"<html>a proxy</html>")
    with Clips(scripted.url) as clips, pytest.raises(GdkvmError, match="502"):
        clips.job("c_1")


def test_the_key_is_sent_where_there_is_one(scripted: Any) -> None:
    body = b'{"id": "c_1", "state": "done", "progress": 1.0, "error": null}'
    scripted.script = (200, "application/json", body)
    with Clips(scripted.url, key="secret") as clips:
        assert clips.job("c_1") == Job("c_1", "done", 1.0, None)
    with Clips(scripted.url) as clips:
        clips.job("c_1")
    assert scripted.keys == ["Bearer secret", None]


def test_a_download_that_breaks_off_leaves_the_file_before_it(
    scripted: Any, tmp_path: Path
) -> None:
    scripted.script, scripted.missing = (200, "video/mp4", b"half of it"), 10
    (tmp_path / "overlay.mp4").write_bytes(b"from earlier")
    with Clips(scripted.url) as clips, pytest.raises(ConnectionLostError):
        clips.download("c_1", "overlay.mp4", tmp_path / "overlay.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["overlay.mp4"]
    assert (tmp_path / "overlay.mp4").read_bytes() == b"from earlier"


def test_no_server_is_a_lost_connection_and_no_address_an_error_of_input() -> None:
    with Clips("http://127.0.0.1:9") as clips, pytest.raises(ConnectionLostError) as lost:
        clips.job("c_1")
    assert lost.value.retryable
    with pytest.raises(InputError), Clips("nowhere") as clips:
        clips.job("c_1")


@pytest.mark.parametrize("missing", ["ef", "beats", "frames", "model"])
def test_a_result_of_another_shape_is_refused(clip: Path, missing: str) -> None:
    document = dict(analyse_clip(clip, grey_predictor()).document)
    del document[missing]
    with pytest.raises(BadAnswerError):
        ClipResult.of(document)
