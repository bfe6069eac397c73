"""Several clips in one request."""

import errno
import io
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from server.clips import ClipStore, Job
from server.clips.sqlite import SqliteLedger
from server.errors import StoreError
from server.ingest import unpack_study
from server.settings import Settings
from tests.server.phantom import Served
from tests.server.routes.asking import COUNT, LIMIT, WAIT, assert_problem


@pytest.fixture(autouse=True)
def left_empty(served: Served) -> Any:
    yield
    for job in served.http.get("/v1/clips").json():
        served.http.delete(f"/v1/clips/{job['id']}")
    assert list(served.parts.settings.clip_dir.glob("c_*")) == []


def packed(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return content.getvalue()


def test_every_clip_of_a_zip_has_its_own_result(served: Served, clip: bytes) -> None:
    content = packed(one=clip, readme=b"words", two=clip + bytes(2))
    answer = served.http.post("/v1/studies", params=WAIT, content=content)
    assert answer.status_code == 200
    clips = answer.json()["clips"]
    assert [each["state"] for each in clips] == ["done", "done"]
    assert [each["result"]["clip"]["frames"] for each in clips] == [COUNT, COUNT]
    listed = served.http.get(answer.headers["Location"]).json()
    assert [each["id"] for each in listed["clips"]] == [each["id"] for each in clips]
    assert served.http.delete(answer.headers["Location"]).status_code == 204
    assert served.http.get("/v1/clips").json() == []
    assert_problem(served.http.get(answer.headers["Location"]), 404, "not_found")


def test_a_file_that_is_refused_hinders_no_other(served: Served, clip: bytes) -> None:
    contents = (clip, b"rubbish", packed(one=clip + bytes(2), two=clip + bytes(4)), packed())
    files = [("file", (f"{number}", each)) for number, each in enumerate(contents)]
    answer = served.http.post("/v1/studies", params=WAIT, files=files)
    told = [
        (each["file"], each["state"], (each["error"] or {}).get("code"))
        for each in answer.json()["clips"]
    ]
    assert told == [
        (0, "done", None), (1, "failed", "not_a_clip"), (2, "done", None), (2, "done", None),
        (3, "failed", "no_pixels"),
    ]  # fmt: skip


def test_a_study_without_a_file_and_one_that_breaks_off_are_refused(
    served: Served, clip: bytes
) -> None:
    head = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = served.http.post("/v1/studies", content=b"--x--\r\n", headers=head)
    assert_problem(answer, 400, "bad_request")
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    answer = served.http.post("/v1/studies", content=part + clip + b"\r\n" + part, headers=head)
    assert_problem(answer, 400, "bad_request")
    assert served.http.get("/v1/clips").json() == []


def test_a_disk_that_fills_while_a_zip_is_unpacked_leaves_no_clip_of_it(
    served: Served, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, room = shutil.move, iter([True])

    def move_where_there_is_room(source: Path, target: Path) -> None:
        if next(room, None) is None:
            raise OSError(errno.ENOSPC, "no room")
        move(source, target)

    monkeypatch.setattr("server.routes.studies.shutil.move", move_where_there_is_room)
    content = packed(one=clip, two=clip + bytes(2))
    (told,) = served.http.post("/v1/studies", params=WAIT, content=content).json()["clips"]
    assert (told["id"], told["error"]["code"]) == (None, "storage_full")
    assert served.http.get("/v1/clips").json() == []


def test_a_server_killed_while_it_unpacked_a_zip_leaves_nothing_of_it(
    served: Served, clip: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed" / "clips"

    def unpack_and_look(*given: Any) -> tuple[Path, ...]:
        files = unpack_study(*given)
        shutil.copytree(served.parts.settings.clip_dir, killed)
        return files

    monkeypatch.setattr("server.routes.studies.unpack_study", unpack_and_look)
    answer = served.http.post("/v1/studies", content=packed(one=clip, two=clip + bytes(2)))
    assert answer.status_code == 202
    assert (
        len([path for path in killed.rglob("*") if path.is_file() and path.read_bytes() == clip])
        == 1
    )
    SqliteLedger(Settings(clip_dir=killed)).close()
    assert [path.name for path in killed.iterdir() if path.is_dir()] == []


def test_a_member_longer_than_a_clip_may_be_is_refused_alone(served: Served, clip: bytes) -> None:
    files = [("file", ("a", bytes(LIMIT + 1))), ("file", ("b", clip))]
    clips = served.http.post("/v1/studies", params=WAIT, files=files).json()["clips"]
    assert [each["state"] for each in clips] == ["failed", "done"]
    assert clips[0]["error"]["code"] == "too_large"


def test_a_result_that_cannot_be_read_now_hinders_no_other(
    served: Served, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, away = ClipStore.result_file, iter([StoreError("the share is away")])

    async def read_all_but_one(store: ClipStore, job: Job) -> Path:
        for error in away:
            raise error
        return await read(store, job)

    monkeypatch.setattr(ClipStore, "result_file", read_all_but_one)
    files = [("file", ("a", clip)), ("file", ("b", clip + bytes(2)))]
    clips = served.http.post("/v1/studies", params=WAIT, files=files).json()["clips"]
    assert [each["state"] for each in clips] == ["done", "done"]
    assert [each["result"] is None for each in clips] == [True, False]
    late = served.http.get(f"/v1/clips/{clips[0]['id']}/result").json()
    assert late["clip"] == clips[1]["result"]["clip"]
