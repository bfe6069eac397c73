from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model import STRUCTURES, Mask, MeasurementError, Region, correct_mask, measure_frame
from model.measure.correction import draw
from model.postprocess import to_source_labels
from model.preprocess import make_fit

SIDE = 128
SIZE = (300, 400)
REGION = Region(20, 60, 256, 300)


def ellipse(
    row: float, col: float, high: float, wide: float, count: int = 240
) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, count)
    line_P2 = np.stack([row + high * np.cos(angle), col + wide * np.sin(angle)], axis=1)
    line_P2[-1] = line_P2[0]
    return line_P2


def half_ellipse(base: float, col: float, length: float, wide: float) -> NDArray[np.float64]:
    """Apex up over a flat base; upside down where the length is negative."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 160)
    arc_P2 = np.stack([base - length * np.cos(angle), col + wide * np.sin(angle)], axis=1)
    return np.concatenate([arc_P2, arc_P2[:1]])


def mask_of(drawn: dict[str, list[NDArray[np.float64]]]) -> Mask:
    """A network's mask that is what was drawn over nothing."""
    fit = make_fit(REGION, SIZE, SIDE)
    nothing = np.zeros((len(STRUCTURES), SIDE, SIDE), np.float32)
    return correct_mask(Mask(nothing, fit, 1.0), drawn)


HEART = {
    "lv": [half_ellipse(190, 210, 120, 45)],
    "myocardium": [half_ellipse(190, 210, 140, 65)],
    "atrium": [half_ellipse(190, 210, -60, 45)],
}


def test_the_level_of_a_drawn_map_is_the_outline_to_a_tenth_of_a_pixel() -> None:
    line_P2 = ellipse(60.3, 61.7, 30.2, 18.9)
    map_HW = draw([line_P2], (SIDE, SIDE))
    row, col = np.mgrid[:SIDE, :SIDE]
    # Distance to an ellipse, to first order: (f - 1) over the length of f's gradient.
    away = np.stack([(row - 60.3) / 30.2, (col - 61.7) / 18.9])
    f = np.hypot(*away)
    slope = np.hypot(away[0] / 30.2, away[1] / 18.9) / np.maximum(f, 1e-9)
    expected = np.clip(0.5 - (f - 1) / np.maximum(slope, 1e-9), 0, 1)
    np.testing.assert_allclose(map_HW, expected, atol=0.05)


def test_an_outline_within_another_is_a_hole() -> None:
    map_HW = draw([ellipse(60, 60, 30, 30), ellipse(60, 60, 10, 10)], (SIDE, SIDE))
    assert (map_HW[60, 60], map_HW[60, 80], map_HW[60, 100]) == (0.0, 1.0, 0.0)


def test_a_drawn_ventricle_is_measured_as_the_half_ellipsoid_that_it_is() -> None:
    reading = measure_frame(mask_of(HEART), (0.5, 0.5))
    assert reading.lv is not None
    assert reading.lv.axis_method == "class_interface"
    assert reading.lv.area_px == pytest.approx(np.pi / 2 * 120 * 45, rel=0.01)
    assert reading.lv.length_cm == pytest.approx(6.0, rel=0.02)
    # Two thirds of pi a^2 L, in cm.
    assert reading.lv.volume_ml == pytest.approx(2 / 3 * np.pi * 2.25**2 * 6.0, rel=0.02)


def test_what_gives_way_is_taken_by_its_neighbours_and_what_grows_takes_their_place() -> None:
    mask = mask_of(HEART)
    smaller = correct_mask(mask, {"lv": [half_ellipse(180, 210, 100, 30)]})
    labels_HW = to_source_labels(smaller)
    assert labels_HW[120, 210] == 1
    assert labels_HW[120, 180] == 2  # was ventricle, beside the wall
    assert labels_HW[187, 210] == 3  # was ventricle, above the atrium
    larger = to_source_labels(correct_mask(mask, {"lv": [half_ellipse(190, 210, 130, 55)]}))
    assert larger[120, 165] == 1  # was wall
    assert larger[120, 156] == 2
    np.testing.assert_allclose(smaller.probabilities_NHW.sum(axis=0).max(), 1.0, atol=1e-5)
    assert smaller.probabilities_NHW.min() >= 0.0


def test_a_wall_may_be_drawn_as_what_it_encloses() -> None:
    whole = [half_ellipse(200, 210, 150, 65)]
    labels_HW = to_source_labels(mask_of({**HEART, "myocardium": whole}))
    assert [labels_HW[row, 210] for row in (60, 120, 195)] == [2, 1, 3]


def test_a_hole_and_two_pieces_that_were_drawn_are_shown() -> None:
    mask = mask_of({"lv": [ellipse(120, 150, 40, 30), ellipse(120, 150, 9, 9)]})
    assert to_source_labels(mask)[[120, 120], [150, 170]].tolist() == [0, 1]
    again = correct_mask(mask, {"atrium": [ellipse(220, 150, 12, 25), ellipse(220, 250, 9, 9)]})
    labels_HW = to_source_labels(again)
    assert labels_HW[[120, 120, 220, 220], [150, 170, 150, 250]].tolist() == [0, 1, 3, 3]


def test_a_structure_without_outlines_is_nowhere() -> None:
    reading = measure_frame(correct_mask(mask_of(HEART), {"lv": []}), None)
    assert reading.lv is None
    assert reading.quality.reasons[0] == "no_left_ventricle"


def test_what_was_not_drawn_and_not_touched_stays_to_the_bit() -> None:
    mask = mask_of(HEART)
    changed = correct_mask(mask, {"atrium": [ellipse(222, 210, 30, 40)]})
    above = slice(0, 60)
    np.testing.assert_array_equal(
        changed.probabilities_NHW[:2, above], mask.probabilities_NHW[:2, above]
    )


def test_the_network_s_mask_is_left_alone() -> None:
    mask = mask_of(HEART)
    before = mask.probabilities_NHW.copy()
    correct_mask(mask, {"lv": []})
    np.testing.assert_array_equal(mask.probabilities_NHW, before)


@pytest.mark.parametrize(
    ("drawn", "words"),
    [
        ({"lv": [ellipse(40, 210, 30, 30)]}, "rows 20 to 275 and columns 60 to 359"),
        ({"lv": [ellipse(120, 210, 0.5, 0.5)]}, "too small"),
    ],
)
def test_outlines_that_cannot_be_measured_are_refused(
    drawn: dict[str, list[NDArray[np.float64]]], words: str
) -> None:
    with pytest.raises(MeasurementError, match=words):
        correct_mask(mask_of(HEART), drawn)


def test_a_model_of_the_ventricle_alone_takes_no_other_outline() -> None:
    mask = mask_of(HEART)
    alone = replace(mask, probabilities_NHW=mask.probabilities_NHW[:1])
    with pytest.raises(MeasurementError, match="atrium"):
        correct_mask(alone, {"atrium": HEART["atrium"]})
    assert correct_mask(alone, {"lv": HEART["lv"]}).probabilities_NHW.shape == (1, SIDE, SIDE)
