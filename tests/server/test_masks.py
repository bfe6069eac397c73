"""Every encoding of one mask says the same, pixel for pixel."""

import base64

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from model import STRUCTURES, Fit, Mask, Quality, Reading, Region, measure_frame, to_source_labels
from server.masks import Runs, encode_mask
from server.protocol import ContourMask, PngMask, RleMask

NOTHING = Reading(None, dict.fromkeys(STRUCTURES, ()), Quality("fail", ()), 0.0)

Labels = NDArray[np.uint8]
label_maps = arrays(
    np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3)
)


def decode(mask: RleMask) -> Labels:
    """Pixel by pixel, as docs/protocol.md words it."""
    rows, cols = mask.size
    pixels = [0] * (rows * cols)
    for index, name in enumerate(STRUCTURES):
        place = 0
        for turn, length in enumerate(mask.counts[name]):
            for pixel in range(place, place + length):
                pixels[pixel] = index + 1 if turn % 2 else pixels[pixel]
            place += length
        assert place == rows * cols
    return np.array(pixels, np.uint8).reshape(rows, cols)


def encode_rle(labels_HW: Labels) -> RleMask:
    mask = encode_mask("rle", labels_HW, Runs(labels_HW), NOTHING)
    assert isinstance(mask, RleMask)
    return mask


@given(label_maps)
def test_run_lengths_decode_to_the_map(labels_HW: Labels) -> None:
    mask = encode_rle(labels_HW)
    np.testing.assert_array_equal(decode(mask), labels_HW)
    for counts in mask.counts.values():
        assert all(length > 0 for length in counts[1:])
        assert all(isinstance(length, int) for length in counts)


@given(label_maps)
def test_the_documented_line_of_numpy_decodes_run_lengths(labels_HW: Labels) -> None:
    for index, counts in enumerate(encode_rle(labels_HW).counts.values()):
        decoded = np.repeat(np.arange(len(counts)) % 2, counts).reshape(labels_HW.shape)
        np.testing.assert_array_equal(decoded, labels_HW == index + 1)


@given(label_maps)
def test_areas_are_the_pixels_of_each_structure(labels_HW: Labels) -> None:
    found = Runs(labels_HW).areas_px()
    assert found == {
        name: sum(label == index + 1 for label in labels_HW.ravel().tolist())
        for index, name in enumerate(STRUCTURES)
    }


@pytest.mark.parametrize(
    ("labels", "lv"),
    [
        ([[0, 0], [0, 0]], [4]),
        ([[1, 1], [1, 1]], [0, 4]),
        ([[1, 0], [0, 1]], [0, 1, 2, 1]),
        ([[0, 1], [1, 2]], [1, 2, 1]),
        ([[2, 1], [3, 1]], [1, 1, 1, 1]),
    ],
)
def test_background_comes_first_and_lengths_reach_the_last_pixel(
    labels: list[list[int]], lv: list[int]
) -> None:
    assert encode_rle(np.array(labels, np.uint8)).counts["lv"] == lv


@given(label_maps)
def test_a_png_holds_the_labels_as_grey_levels(labels_HW: Labels) -> None:
    mask = encode_mask("png", labels_HW, Runs(labels_HW), NOTHING)
    assert isinstance(mask, PngMask)
    assert mask.size == labels_HW.shape
    raw = np.frombuffer(base64.b64decode(mask.png, validate=True), np.uint8)
    np.testing.assert_array_equal(cv2.imdecode(raw, cv2.IMREAD_UNCHANGED), labels_HW)


def test_no_mask_is_written_where_none_is_wanted() -> None:
    labels_HW = np.ones((4, 4), np.uint8)
    assert encode_mask("none", labels_HW, Runs(labels_HW), NOTHING) is None


def soft_disc(
    rows: int, cols: int, centre: tuple[float, float], radius: float
) -> NDArray[np.float32]:
    """One inside, zero outside, a ramp of one pixel at the edge."""
    row, col = np.mgrid[0:rows, 0:cols]
    away = np.hypot(row - centre[0], col - centre[1])
    return np.clip(radius - away + 0.5, 0, 1).astype(np.float32)


def test_outlines_enclose_the_same_pixels_as_the_map() -> None:
    maps = np.zeros((3, 64, 64), np.float32)
    maps[0] = soft_disc(64, 64, (22, 30), 14)
    maps[2] = soft_disc(64, 64, (50, 30), 8)
    whole = Region(0, 0, 64, 64)
    mask = Mask(maps, Fit(1, 1, 0, 0, whole, (64, 64), 64), presence=1.0)
    labels_HW = to_source_labels(mask)
    message = encode_mask("contour", labels_HW, Runs(labels_HW), measure_frame(mask, None))
    assert isinstance(message, ContourMask)
    assert list(message.contours) == list(STRUCTURES)
    filled = np.zeros((64, 64), np.uint8)
    for index, lines in enumerate(message.contours.values()):
        for line in lines:
            assert line[0] == line[-1]
            assert all(
                round(10 * value) == pytest.approx(10 * value) for point in line for value in point
            )
            points = np.array([[col, row] for row, col in line], np.float32)
            inside = np.array(
                [
                    [cv2.pointPolygonTest(points, (c, r), False) > 0 for c in range(64)]
                    for r in range(64)
                ]
            )
            filled[inside] = index + 1
    # An outline to a tenth of a pixel can decide otherwise only on the edge itself.
    differ = filled != labels_HW
    row, col = np.nonzero(differ)
    edge = np.minimum(abs(np.hypot(row - 22, col - 30) - 14), abs(np.hypot(row - 50, col - 30) - 8))
    assert np.all(edge < 0.15)
    assert np.count_nonzero(differ) <= 12
    assert message.contours["myocardium"] == []


@pytest.mark.parametrize(
    ("name", "radii_px"), [("lv", [14]), ("myocardium", [14, 6]), ("atrium", [14])]
)
def test_the_largest_outline_comes_first_and_is_the_only_one_of_a_cavity(
    name: str, radii_px: list[int]
) -> None:
    maps = np.zeros((3, 64, 64), np.float32)
    index = STRUCTURES.index(name)
    maps[index] = np.maximum(soft_disc(64, 64, (12, 12), 6), soft_disc(64, 64, (44, 44), 14))
    mask = Mask(maps, Fit(1, 1, 0, 0, Region(0, 0, 64, 64), (64, 64), 64), presence=1.0)
    labels_HW = to_source_labels(mask)
    message = encode_mask("contour", labels_HW, Runs(labels_HW), measure_frame(mask, None))
    assert isinstance(message, ContourMask)
    areas = [cv2.contourArea(np.array(line, np.float32)) for line in message.contours[name]]
    assert areas == [pytest.approx(np.pi * radius**2, rel=0.03) for radius in radii_px]
