"""Corrections of outlines over HTTP, held to half ellipsoids of known area and volume."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from jsonschema import Draft202012Validator

from server.export.schema import clip_result_schema
from server.keys import ApiKey, digest_of, new_secret
from server.settings import Settings
from tests.server.export.reading import items_of
from tests.server.phantom import (
    BASE_ROW,
    BEAT_FRAMES,
    MIDDLE_COL,
    SPACING_MM,
    Served,
    phantom_clip,
    serving,
)
from tests.server.routes.asking import WAIT, assert_problem

BEATS = 2 * BEAT_FRAMES + 5
FRAME = 5
LENGTH_PX, HALF_WIDTH_PX = 60.0, 20.0

Line = list[list[float]]


def half_ellipse(length_px: float = LENGTH_PX, half_width_px: float = HALF_WIDTH_PX) -> Line:
    """A ventricle of known size on the phantom's base."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 90)
    rows = BASE_ROW + 0.5 - length_px * np.cos(angle)
    columns = MIDDLE_COL + half_width_px * np.sin(angle)
    return np.stack([rows, columns], axis=1).round(2).tolist()


def correct(served: Served, place: str, frame: int, line: Line | None, **more: Any) -> Any:
    contours = None if line is None else {"lv": [line]}
    return served.http.patch(f"{place}/frames/{frame}", json={"contours": contours}, **more)


@contextmanager
def beating(folder: Path) -> Iterator[tuple[Served, str, dict[str, Any]]]:
    """A server of one clip of two beats: its address and its result."""
    with pytest.MonkeyPatch.context() as patch, serving(patch, Settings(clip_dir=folder)) as served:
        clips = served.http.get("/v1/clips").json()
        if clips:
            place = f"/v1/clips/{clips[0]['id']}"
            yield served, place, served.http.get(f"{place}/result").json()
            return
        content = phantom_clip(folder / "phantom.dcm", BEATS).read_bytes()
        answer = served.http.post("/v1/clips", params={**WAIT, "view": "A4C"}, content=content)
        yield served, answer.headers["Location"], answer.json()


@pytest.fixture
def beats(tmp_path: Path) -> Iterator[tuple[Served, str, dict[str, Any]]]:
    with beating(tmp_path) as found:
        yield found


Beats = tuple[Served, str, dict[str, Any]]


@pytest.mark.parametrize("odd", [True, False, 0.0, "0", " 0"])
def test_a_revision_and_points_are_numbers_alone(beats: Beats, odd: Any) -> None:
    served, place, before = beats
    bodies = [
        {"contours": None, "revision": odd},
        {"contours": {"lv": [[*half_ellipse(), [str(odd), 10.0]]]}},
    ]
    for body in bodies:
        answer = served.http.patch(f"{place}/frames/{FRAME}", json=body)
        assert_problem(answer, 400, "bad_request")
    assert served.http.get(f"{place}/result").json() == before


def test_a_drawn_outline_is_measured_and_all_else_of_the_frames_stays(beats: Beats) -> None:
    served, place, before = beats
    answer = correct(served, place, FRAME, half_ellipse())
    assert answer.status_code == 200
    after = answer.json()
    assert after == served.http.get(f"{place}/result").json()
    lv = after["frames"][FRAME]["lv"]
    assert lv["area_px"] == pytest.approx(np.pi / 2 * LENGTH_PX * HALF_WIDTH_PX, rel=0.01)
    cm = SPACING_MM / 10
    volume_ml = 2 / 3 * np.pi * (HALF_WIDTH_PX * cm) ** 2 * LENGTH_PX * cm
    assert lv["volume_ml"] == pytest.approx(volume_ml, rel=0.03)
    for index, (old, new) in enumerate(zip(before["frames"], after["frames"], strict=True)):
        assert (old == new) == (index != FRAME)


def test_the_trail_tells_who_when_before_and_after(beats: Beats) -> None:
    served, place, before = beats
    line = half_ellipse()
    after = correct(served, place, FRAME, line).json()
    (edit,) = after["edits"]
    assert (edit["revision"], edit["frame"], edit["who"]) == (1, FRAME, None)
    assert abs(datetime.fromisoformat(edit["time"]) - datetime.now(UTC)).total_seconds() < 60
    assert edit["after"]["contours"] == {"lv": [line]}
    old_area_px, new_area_px = (each["frames"][FRAME]["lv"]["area_px"] for each in (before, after))
    assert edit["before"]["lv_area_px"] == pytest.approx(old_area_px, abs=0.06)
    assert edit["after"]["lv_area_px"] == pytest.approx(new_area_px, abs=0.06)
    assert edit["before"]["ef_percent"] == before["ef"]["percent"]
    assert edit["after"]["ef_percent"] == after["ef"]["percent"]
    # The shoelace formula over what was there before.
    rows, columns = np.array(edit["before"]["contours"]["lv"][0]).T
    shoelace = abs(np.dot(rows, np.roll(columns, 1)) - np.dot(columns, np.roll(rows, 1))) / 2
    assert shoelace == pytest.approx(old_area_px, rel=0.01)
    Draft202012Validator(clip_result_schema()).validate(after)


def test_another_correction_undoes_one_and_both_stay_in_the_trail(beats: Beats) -> None:
    served, place, before = beats
    first = correct(served, place, FRAME, half_ellipse()).json()
    drawn_back = correct(served, place, FRAME, first["edits"][0]["before"]["contours"]["lv"][0])
    again = drawn_back.json()["frames"][FRAME]["lv"]["area_px"]
    assert again == pytest.approx(before["frames"][FRAME]["lv"]["area_px"], rel=0.01)
    restored = correct(served, place, FRAME, None).json()
    assert [edit["revision"] for edit in restored["edits"]] == [1, 2, 3]
    assert restored["edits"][-1]["after"]["contours"] is None
    facts = {"revision", "edits"}
    kept, known = ({k: v for k, v in each.items() if k not in facts} for each in (restored, before))
    assert kept == known


def test_only_the_result_that_was_looked_at_is_corrected(beats: Beats) -> None:
    served, place, _ = beats
    tag = served.http.get(f"{place}/result").headers["ETag"]
    first = correct(served, place, FRAME, half_ellipse(), headers={"If-Match": tag})
    assert first.status_code == 200
    assert first.headers["ETag"] == served.http.get(f"{place}/result").headers["ETag"] != tag
    stale = correct(served, place, FRAME, half_ellipse(50), headers={"If-Match": tag})
    assert "revision 1" in assert_problem(stale, 412, "stale_revision")
    for names in (f"{tag}, {first.headers['ETag']}", "*"):
        assert correct(served, place, 1, half_ellipse(), headers={"If-Match": names}).is_success
    contours = {"lv": [half_ellipse()]}
    stale = served.http.patch(f"{place}/frames/2", json={"contours": contours, "revision": 1})
    assert_problem(stale, 412, "stale_revision")
    foreign = correct(served, place, 2, half_ellipse(), headers={"If-Match": '"something"'})
    assert_problem(foreign, 412, "stale_revision")
    assert served.http.get(f"{place}/result").json()["revision"] == 3


BOW = [[20.0, 40.0], [90.0, 100.0], [90.0, 40.0], [20.0, 100.0]]


@pytest.mark.parametrize(
    ("frame", "line", "code", "words"),
    [
        (FRAME, BOW, "bad_edit", "meets itself"),
        (FRAME, [[20.0, 40.0], [90.0, 100.0]], "bad_edit", "fewer than 3"),
        (FRAME, [*half_ellipse(), [150.0, 70.0]], "bad_edit", "leaves the image"),
        (FRAME, [[20.0, 40.0], [20.5, 40.0], [20.0, 40.5]], "bad_measurement", "too small"),
        (BEATS, half_ellipse(), "bad_edit", f"the clip has {BEATS}"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(
    beats: Beats, frame: int, line: Line, code: str, words: str
) -> None:
    served, place, before = beats
    assert words in assert_problem(correct(served, place, frame, line), 422, code)
    assert served.http.get(f"{place}/result").json() == before


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"contours": {"lv": [[[1, "x"]]]}}', b'{"contours": null, "who": "me"}',
     b'{"contours": {"lv": [[[1, NaN], [2, 3], [4, 5]]]}}'],
)  # fmt: skip
def test_a_body_of_another_shape_is_refused(served: Served, stored: str, body: bytes) -> None:
    assert_problem(served.http.patch(f"{stored}/frames/0", content=body), 400, "bad_request")


def test_too_long_a_body_and_unknown_names_are_refused(served: Served, stored: str) -> None:
    long = b'{"contours": {"lv": [' + b" " * (1 << 20) + b"]}}"
    assert_problem(served.http.patch(f"{stored}/frames/0", content=long), 413, "too_large")
    assert_problem(correct(served, "/v1/clips/c_none", 0, BOW), 404, "not_found")
    answer = served.http.patch(f"{stored}/frames/one", json={"contours": None})
    assert_problem(answer, 400, "bad_request")


def test_every_file_is_made_anew_and_tells_of_the_correction(beats: Beats) -> None:
    served, place, _ = beats

    def fetch(name: str) -> bytes:
        answer = served.http.get(f"{place}/{name}")
        assert answer.status_code == 200
        return answer.content

    names = ("masks.npz", "seg.dcm", "sr.dcm", "frames.csv", "report.html", "outlines.json")
    before = {name: fetch(name) for name in names}
    correct(served, place, FRAME, half_ellipse())
    after = {name: fetch(name) for name in names}
    assert all(before[name] != after[name] for name in names)
    area_px = np.pi / 2 * LENGTH_PX * HALF_WIDTH_PX
    labels_THW = np.load(io.BytesIO(after["masks.npz"]))["labels_THW"]
    assert (labels_THW[FRAME] == 1).sum() == pytest.approx(area_px, rel=0.02)
    old, new, report = (
        pydicom.dcmread(io.BytesIO(each))
        for each in (before["seg.dcm"], after["seg.dcm"], after["sr.dcm"])
    )
    assert [part.SegmentAlgorithmType for part in old.SegmentSequence] == ["AUTOMATIC"] * 3
    assert [part.SegmentAlgorithmType for part in new.SegmentSequence] == ["SEMIAUTOMATIC"] * 3
    assert old.SOPInstanceUID != new.SOPInstanceUID
    said = [item.get("TextValue", "") for item in items_of(report)]
    assert any(f"corrected by hand in frame {FRAME + 1} (" in words for words in said)
    lines = list(csv.DictReader(io.StringIO(after["frames.csv"].decode())))
    assert [line["edit"] for line in lines].count("1") == 1
    assert lines[FRAME]["edit"] == "1"
    assert datetime.fromisoformat(lines[FRAME]["edited_at"]).tzinfo is not None
    assert "Corrections by hand" in after["report.html"].decode()
    assert b"Corrections by hand" not in before["report.html"]
    outline = json.loads(after["outlines.json"])[FRAME]["contours"]["lv"][0]
    assert min(row for row, _ in outline) == pytest.approx(BASE_ROW + 0.5 - LENGTH_PX, abs=0.3)


def test_corrections_survive_a_restart_and_equal_uploads_do_not_get_them(tmp_path: Path) -> None:
    with beating(tmp_path) as (served, place, before):
        for length_px in (50, 55, 60):
            after = correct(served, place, FRAME, half_ellipse(length_px)).json()
            served.http.get(f"{place}/frames.csv")
    with beating(tmp_path) as (served, again, result):
        assert (again, result) == (place, after)
        assert correct(served, place, 7, half_ellipse()).json()["revision"] == 4
        upload = (tmp_path / "phantom.dcm").read_bytes()
        fresh = served.http.post("/v1/clips", params={**WAIT, "view": "A4C"}, content=upload)
        assert fresh.json() == before
        (folder,) = [each for each in tmp_path.glob("c_*") if each.name == place.split("/")[-1]]
        kept = {path.name for path in folder.iterdir()}
        assert kept == {
            "upload",
            "result.json",
            "r3-result.json",
            "r3-frames.csv",
            "r4-result.json",
        }


def test_the_key_s_name_is_in_the_trail_and_never_in_a_file_without_the_patient(
    tmp_path: Path,
) -> None:
    secret, keys = new_secret(), tmp_path / "keys"
    keys.write_text(ApiKey("reader-7", digest_of(secret)).to_line() + "\n")
    settings = Settings(clip_dir=tmp_path / "clips", api_keys_file=keys)
    with pytest.MonkeyPatch.context() as patch, serving(patch, settings) as served:
        served.http.headers["Authorization"] = f"Bearer {secret}"
        content = phantom_clip(tmp_path / "phantom.dcm", 8).read_bytes()
        place = served.http.post("/v1/clips", params=WAIT, content=content).headers["Location"]
        after = correct(served, place, 3, half_ellipse()).json()
        assert after["edits"][0]["who"] == "reader-7"
        for name in ("sr.dcm", "sr.dcm?template=1500"):
            named = served.http.get(f"{place}/{name}").content
            nameless = served.http.get(f"{place}/{name}", params={"deidentify": True}).content
            assert re.search(b"reader-7", named)
            assert not re.search(b"reader-7", nameless)
