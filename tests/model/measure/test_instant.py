"""One frame's reading against drawn ventricles of known size."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import MeasurementError
from model.frame import Fit, Mask, Region
from model.measure import Reading, Ventricle, measure_frame
from tests.model.measure.simulation import half_ellipse_mask

LENGTH, WIDTH = 70.0, 42.0


def ventricle(reading: Reading) -> Ventricle:
    assert reading.lv is not None
    return reading.lv


def test_a_drawn_half_ellipsoid_has_its_figures() -> None:
    reading = measure_frame(half_ellipse_mask(160, LENGTH, WIDTH), (1.0, 1.0))
    lv = ventricle(reading)
    assert reading.quality.state == "pass"
    assert lv.axis_method == "class_interface"
    assert lv.area_px == pytest.approx(np.pi / 4 * WIDTH * LENGTH, rel=0.01)
    assert lv.area_cm2 == pytest.approx(lv.area_px / 100)
    assert lv.length_cm == pytest.approx(LENGTH / 10, rel=0.01)
    assert lv.volume_ml == pytest.approx(np.pi / 6 * WIDTH**2 * LENGTH / 1000, rel=0.02)
    assert lv.apex == pytest.approx((0.45 * 160 - LENGTH / 2, 80.0), abs=1.0)
    assert lv.base == pytest.approx((0.45 * 160 + LENGTH / 2, 80.0), abs=1.0)
    assert sorted(col for _, col in lv.hinges) == pytest.approx(
        [80 - WIDTH / 2, 80 + WIDTH / 2], abs=1.5
    )


def test_without_its_outlines_a_reading_is_the_same() -> None:
    mask = half_ellipse_mask(160, LENGTH, WIDTH, tilt_degrees=12.0)
    whole = measure_frame(mask, (1.0, 1.0))
    brief = measure_frame(mask, (1.0, 1.0), keeps_outlines=False)
    assert all(len(lines) == 1 for lines in whole.contours.values())
    assert brief.contours == {"lv": (), "myocardium": (), "atrium": ()}
    assert repr(ventricle(brief)) == repr(ventricle(whole))
    assert brief.quality == whole.quality


def test_outlines_show_what_is_measured_and_the_limits_judge_what_the_network_said() -> None:
    whole = half_ellipse_mask(160, LENGTH, WIDTH)
    maps_NHW = whole.probabilities_NHW.copy()
    maps_NHW[:, 70:78, 76:84] = 0.0  # a hole of the ventricle, 64 px
    maps_NHW[2, 70:78, 76:84] = 1.0  # with a piece of atrium in it
    maps_NHW[0, 5:13, 5:13] = 1.0  # a piece apart, 64 px
    found = measure_frame(replace(whole, probabilities_NHW=maps_NHW), (1.0, 1.0))
    clean = measure_frame(whole, (1.0, 1.0))
    for name in ("lv", "atrium"):
        np.testing.assert_array_equal(found.contours[name], clean.contours[name])
    assert ventricle(found).volume_ml == ventricle(clean).volume_ml
    # 64 of some 2309 px (pi / 4 x 42 x 70) are 2.8 %: more than 1 %, less than 5 % of the pieces
    assert found.quality.reasons == ("holes_in_ventricle",)
    drawn = replace(whole, probabilities_NHW=maps_NHW, drawn=frozenset({"lv", "atrium"}))
    as_drawn = measure_frame(drawn, (1.0, 1.0))
    assert [len(as_drawn.contours[name]) for name in ("lv", "atrium")] == [3, 2]


@given(tilt=st.floats(-40, 40), length=st.floats(60, 75), slender=st.floats(0.5, 0.7))
@settings(deadline=None, max_examples=25)
def test_a_tilted_ventricle_measures_the_same(tilt: float, length: float, slender: float) -> None:
    width = slender * length
    mask = half_ellipse_mask(160, length, width, tilt_degrees=tilt)
    lv = ventricle(measure_frame(mask, (1.0, 1.0)))
    assert lv.axis_method == "class_interface"
    assert lv.volume_ml == pytest.approx(np.pi / 6 * width**2 * length / 1000, rel=0.03)
    assert lv.length_cm == pytest.approx(length / 10, rel=0.02)


@given(row=st.floats(0.6, 1.6), col=st.floats(0.6, 1.6), tilt=st.floats(-25, 25))
@settings(deadline=None, max_examples=25)
def test_oblong_pixels_change_nothing_in_millimetres(row: float, col: float, tilt: float) -> None:
    # The network's grid is isotropic in millimetres, the source's pixels are not.
    mask = half_ellipse_mask(160, LENGTH, WIDTH, tilt_degrees=tilt)
    size = (round(160 / row), round(160 / col))
    fit = Fit(row, col, 0.0, 0.0, Region(0, 0, *size), size, 160)
    lv = ventricle(measure_frame(Mask(mask.probabilities_NHW, fit, 0.99), (row, col)))
    assert lv.volume_ml == pytest.approx(np.pi / 6 * WIDTH**2 * LENGTH / 1000, rel=0.02)
    assert lv.length_cm == pytest.approx(LENGTH / 10, rel=0.02)
    assert lv.area_px * row * col == pytest.approx(np.pi / 4 * WIDTH * LENGTH, rel=0.02)


@given(spacing=st.floats(0.05, 2.0))
@settings(deadline=None, max_examples=20)
def test_millilitres_grow_with_the_cube_of_the_spacing(spacing: float) -> None:
    mask = half_ellipse_mask(128, 60, 36)
    one, other = (ventricle(measure_frame(mask, (mm, mm))) for mm in (1.0, spacing))
    assert one.volume_ml is not None
    assert other.volume_ml == pytest.approx(one.volume_ml * spacing**3)
    assert other.volume_index == pytest.approx(one.volume_index)


def test_without_calibration_there_is_a_ratio_but_no_unit() -> None:
    large = ventricle(measure_frame(half_ellipse_mask(160, 70, 42), None))
    small = ventricle(measure_frame(half_ellipse_mask(160, 60, 30), None))
    assert (large.area_cm2, large.length_cm, large.volume_ml, large.index_mm) == (None,) * 4
    expected = (30**2 * 60) / (42**2 * 70)
    assert small.volume_index / large.volume_index == pytest.approx(expected, rel=0.03)


def test_a_mirrored_image_measures_the_same() -> None:
    mask = half_ellipse_mask(160, LENGTH, WIDTH, tilt_degrees=18)
    mirrored = Mask(np.ascontiguousarray(mask.probabilities_NHW[:, :, ::-1]), mask.fit, 0.99)
    one, other = ventricle(measure_frame(mask, None)), ventricle(measure_frame(mirrored, None))
    assert other.volume_index == pytest.approx(one.volume_index, rel=0.005)
    assert other.apex[1] == pytest.approx(159 - one.apex[1], abs=1.0)


def test_the_ventricle_alone_is_measured_by_its_flat_base() -> None:
    full = half_ellipse_mask(160, LENGTH, WIDTH)
    alone = Mask(full.probabilities_NHW[:1], full.fit, 0.99)
    reading = measure_frame(alone, (1.0, 1.0))
    lv = ventricle(reading)
    assert lv.axis_method == "flat_base"
    assert lv.volume_ml == pytest.approx(np.pi / 6 * WIDTH**2 * LENGTH / 1000, rel=0.06)
    assert reading.quality.state == "warn"
    assert "annulus_not_seen" in reading.quality.reasons


def test_a_round_blob_is_no_ventricle() -> None:
    rows, cols = np.mgrid[0:160, 0:160]
    blob = np.clip(0.5 + 30 - np.hypot(rows - 80, cols - 80), 0, 1).astype(np.float32)
    mask = Mask(np.stack([blob]), half_ellipse_mask(160, 60, 30).fit, 0.99)
    quality = measure_frame(mask, None).quality
    assert (quality.state, quality.reasons) == ("fail", ("implausible_shape", "annulus_not_seen"))


def test_an_empty_mask_is_no_ventricle_and_says_so() -> None:
    full = half_ellipse_mask(96, 40, 24)
    empty = Mask(np.zeros_like(full.probabilities_NHW), full.fit, 0.1)
    reading = measure_frame(empty, (1.0, 1.0))
    assert reading.lv is None
    assert reading.quality.state == "fail"
    assert reading.quality.reasons == ("no_left_ventricle", "view_uncertain")


def test_another_view_is_not_measured_however_good_the_outline() -> None:
    full = half_ellipse_mask(160, LENGTH, WIDTH)
    quality = measure_frame(Mask(full.probabilities_NHW, full.fit, 0.3), None).quality
    assert (quality.state, quality.reasons[0]) == ("fail", "view_uncertain")


def test_a_ventricle_cut_off_by_the_image_fails() -> None:
    full = half_ellipse_mask(160, LENGTH, WIDTH)
    # The right half of the image is missing: the outline runs along its edge.
    maps = full.probabilities_NHW[:, :, :84]
    maps = np.pad(maps, ((0, 0), (0, 0), (0, 76)))
    fit = Fit(1.0, 1.0, 0.0, 0.0, Region(0, 0, 160, 84), (160, 84), 160)
    quality = measure_frame(Mask(maps, fit, 0.99), None).quality
    assert quality.state == "fail"
    assert "ventricle_cut_off" in quality.reasons


def test_a_second_piece_and_a_hole_are_told() -> None:
    full = half_ellipse_mask(160, LENGTH, WIDTH)
    maps = full.probabilities_NHW.copy()
    rows, cols = np.mgrid[0:160, 0:160]
    maps[0, np.hypot(rows - 75, cols - 80) < 5] = 0.0
    maps[0, np.hypot(rows - 30, cols - 135) < 9] = 1.0
    quality = measure_frame(Mask(maps, full.fit, 0.99), None).quality
    assert {"ventricle_in_pieces", "holes_in_ventricle"} <= set(quality.reasons)


def test_softer_edges_make_a_less_certain_volume() -> None:
    sharp = half_ellipse_mask(160, LENGTH, WIDTH)
    blurred = 0.5 + (sharp.probabilities_NHW - 0.5) * 0.3
    blurred[:, sharp.probabilities_NHW[0] == 0] = 0.0
    soft = Mask(blurred.astype(np.float32), sharp.fit, 0.99)
    one, other = (ventricle(measure_frame(mask, None)) for mask in (sharp, soft))
    assert other.volume_index_sd / other.volume_index > 1.5 * one.volume_index_sd / one.volume_index


@pytest.mark.parametrize("spacing", [(0.0, 1.0), (1.0, -0.3), (float("nan"), 1.0)])
def test_a_spacing_that_is_no_length_is_refused(spacing: tuple[float, float]) -> None:
    with pytest.raises(MeasurementError, match="above 0 mm"):
        measure_frame(half_ellipse_mask(96, 40, 24), spacing)
