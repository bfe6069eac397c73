import io
import json
import subprocess
import zipfile
from pathlib import Path
from unittest.mock import AsyncMock

import numpy as np
import pytest

from server.clips import ClipStore
from server.errors import StoreError
from server.settings import Settings
from tests.server.ingest.making import tool
from tests.server.phantom import SIDE_PX, Served, serving, true_labels
from tests.server.routes.asking import COUNT, WAIT, assert_problem, events_of, held, wait_until


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
        "study": None, "error": None,
    }  # fmt: skip
    assert served.http.delete(place).status_code == 204


def test_a_clip_whose_result_cannot_be_read_now_is_kept_and_to_be_had_later(
    served: Served, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            ClipStore, "result_file", AsyncMock(side_effect=StoreError("the share is away"))
        )
        answer = served.http.post("/v1/clips", params=WAIT, content=clip)
        assert (answer.status_code, answer.json()["state"]) == (202, "done")
        place = answer.headers["Location"]
        assert_problem(served.http.get(f"{place}/result"), 503, "store_unavailable")
    assert served.http.get(f"{place}/result").json()["clip"]["frames"] == COUNT
    served.http.delete(place)


def test_a_form_is_answered_as_the_bare_file_is(served: Served, clip: bytes, stored: str) -> None:
    name = "Müller [1] (a).dcm"
    form = served.http.post("/v1/clips", params=WAIT, files={"file": (name, clip)})
    assert form.status_code == 200
    assert form.json() == served.http.get(f"{stored}/result").json()
    assert "ller" not in form.text
    served.http.delete(form.headers["Location"])


def test_a_file_may_be_named_in_another_encoding_alone(served: Served, clip: bytes) -> None:
    """As Python's requests did before urllib3 1.25 where a name is not ASCII."""
    name = "filename*=utf-8''M%C3%BCller.dcm"
    head = f'--x\r\nContent-Disposition: form-data; name="file"; {name}\r\n\r\n'
    answer = served.http.post(
        "/v1/clips",
        params=WAIT,
        content=head.encode() + clip + b"\r\n--x--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 200
    served.http.delete(answer.headers["Location"])


def test_a_zip_is_answered_as_the_file_inside_is(served: Served, clip: bytes, stored: str) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("study/clip one.dcm", clip)
    answer = served.http.post("/v1/clips", params=WAIT, content=packed.getvalue())
    assert answer.json() == served.http.get(f"{stored}/result").json()
    served.http.delete(answer.headers["Location"])


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


@pytest.mark.parametrize(
    "said",
    ["items=0-5", "bytes=one-two", "bytes=5-2", "bytes=", "bytes", "bytes=--5", "bytes=1_0-20",
     "bytes=0-1,x", f"bytes={'9' * 5000}-", "bytes=\xb2-3"],
)  # fmt: skip
def test_a_range_that_names_no_part_is_answered_with_the_whole(
    served: Served, stored: str, said: str
) -> None:
    # RFC 9110 section 14.2: an unknown unit must, an invalid set of ranges may be ignored.
    whole = served.http.get(f"{stored}/overlay.mp4")
    answer = served.http.get(f"{stored}/overlay.mp4", headers=[(b"Range", said.encode("latin-1"))])
    assert (answer.status_code, answer.content) == (200, whole.content)
    assert "Content-Range" not in answer.headers


@pytest.mark.parametrize(
    ("said", "start", "stop"),
    [("bytes=0-0", 0, 1), ("Bytes=7-", 7, None), ("bytes=-5", -5, None), ("bytes= ,3-9,", 3, 10)],
)
def test_a_range_is_read_as_the_standard_writes_it(
    served: Served, stored: str, said: str, start: int, stop: int | None
) -> None:
    # RFC 9110 sections 5.6.1.2 (empty elements of a list) and 14.1.2.
    whole = served.http.get(f"{stored}/overlay.mp4").content
    part = served.http.get(f"{stored}/overlay.mp4", headers={"Range": said})
    assert (part.status_code, part.content) == (206, whole[start:stop])


@pytest.mark.parametrize(
    ("said", "start", "stop"),
    [("bytes=0-1,99999999-", 0, 2), ("bytes=99999999-,-3", -3, None), ("bytes=-0, 4-5 ,", 4, 6)],
)
def test_of_several_parts_those_beyond_the_end_are_left_out(
    served: Served, stored: str, said: str, start: int, stop: int | None
) -> None:
    # RFC 9110 sections 14.1.2 (a suffix of no length) and 15.5.17.
    whole = served.http.get(f"{stored}/overlay.mp4").content
    assert len(whole) < 99999999
    part = served.http.get(f"{stored}/overlay.mp4", headers={"Range": said})
    assert (part.status_code, part.content) == (206, whole[start:stop])


@pytest.mark.parametrize("said", ["bytes=99999998-,99999999-", "bytes=99999999-,-0"])
def test_several_parts_that_are_all_beyond_the_end_are_refused(
    served: Served, stored: str, said: str
) -> None:
    answer = served.http.get(f"{stored}/overlay.mp4", headers={"Range": said})
    assert answer.status_code == 416


def test_a_part_beyond_the_end_is_refused_with_the_length(served: Served, stored: str) -> None:
    # RFC 9110 section 15.5.17; by it curl tells that a download was complete already.
    length = len(served.http.get(f"{stored}/overlay.mp4").content)
    answer = served.http.get(f"{stored}/overlay.mp4", headers={"Range": f"bytes={length}-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{length}"


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
            for number in (1, 2):
                served.http.post("/v1/clips", content=clip + bytes(2 * number))
            full = served.http.post("/v1/clips", content=clip)
        assert_problem(full, 503, "full")
        assert full.headers["Retry-After"]


def test_a_stopping_server_does_not_wait_for_a_clip_to_end_and_the_next_ends_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clip: bytes
) -> None:
    with serving(monkeypatch, Settings(clip_dir=tmp_path)) as served, held(served):
        places = [
            served.http.post("/v1/clips", content=clip + bytes(2 * number)).headers["Location"]
            for number in range(3)
        ]
        store = served.parts.store
        assert store is not None
        store.leave()
    with serving(monkeypatch, Settings(clip_dir=tmp_path)) as served:
        listed = [f"/v1/clips/{job['id']}" for job in served.http.get("/v1/clips").json()]
        assert listed == places
        for place in places:
            assert list(events_of(served, place))[-1][0] == "done"
            assert served.http.get(f"{place}/result").json()["clip"]["frames"] == COUNT
