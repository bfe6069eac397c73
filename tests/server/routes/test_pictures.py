"""A clip's pictures and outlines over HTTP, held to what pydicom and the label maps show."""

import io

import cv2
import numpy as np
import pydicom
import pytest

from tests.server.phantom import Served
from tests.server.routes.asking import COUNT, assert_problem


def test_a_picture_is_the_frame_that_was_measured(served: Served, stored: str, clip: bytes) -> None:
    pixels = pydicom.dcmread(io.BytesIO(clip)).pixel_array
    for index in (0, COUNT - 1):
        answer = served.http.get(f"{stored}/frames/{index}.jpg")
        assert answer.headers["Content-Type"] == "image/jpeg"
        picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture is not None
        assert picture.shape == pixels[index].shape[:2]
        grey = pixels[index] if pixels[index].ndim == 2 else pixels[index][..., 0]
        assert np.abs(picture.astype(float) - grey).mean() < 2


def test_the_outlines_enclose_the_label_maps(served: Served, stored: str) -> None:
    archive = np.load(io.BytesIO(served.http.get(f"{stored}/masks.npz").content))
    answer = served.http.get(f"{stored}/outlines.json")
    assert answer.headers["Content-Type"] == "application/json"
    frames = answer.json()
    assert [frame["seq"] for frame in frames] == list(range(COUNT))
    for labels_HW, frame in zip(archive["labels_THW"], frames, strict=True):
        drawn_HW = np.zeros_like(labels_HW)
        for line in frame["contours"]["lv"]:
            assert line[0] == line[-1]
            points = np.round(np.array(line)[:, ::-1]).astype(np.int32)
            cv2.fillPoly(drawn_HW, [points], 1)
        both = np.logical_and(drawn_HW, labels_HW == 1).sum()
        assert 2 * both / (drawn_HW.sum() + (labels_HW == 1).sum()) > 0.95


ODD = ("1_0", "%201", "1%20", "+1", "%2B1", "01", "1.0", "%D9%A3", "1e1")
"""What Python and pydantic take for whole numbers, and more that is none."""


@pytest.mark.parametrize("index", [COUNT, 99_999_999, 10**30])
def test_there_is_no_picture_beyond_the_last(served: Served, stored: str, index: int) -> None:
    answer = served.http.get(f"{stored}/frames/{index}.jpg")
    assert "no such frame" in assert_problem(answer, 404, "not_found")


def test_a_picture_has_a_number_and_a_clip(served: Served, stored: str) -> None:
    for index in ("-1", "one", *ODD):
        assert_problem(served.http.get(f"{stored}/frames/{index}.jpg"), 400, "bad_request")
        assert_problem(served.http.get(f"/sample/{index}.jpg"), 400, "bad_request")
        answer = served.http.patch(f"{stored}/frames/{index}", json={"contours": None})
        assert_problem(answer, 400, "bad_request")
    assert_problem(served.http.get("/v1/clips/c_none/frames/0.jpg"), 404, "not_found")
