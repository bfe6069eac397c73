"""Volumes against the closed forms of ellipsoids."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.measure.axis import LongAxis
from model.measure.volume import biplane_volume_ml, disk_diameters, disk_volume
from tests.model.measure.simulation import reading_of


def half_ellipse(
    length: float, radius: float, angle: float = 0.0, points: int = 2000
) -> tuple[NDArray[np.float64], LongAxis]:
    """Apex at the top, flat base, then turned; (row, column)."""
    turn = np.linspace(np.pi, 2 * np.pi, points)
    arc = np.stack([length + length * np.sin(turn), radius * np.cos(turn)], axis=1)
    outline = np.concatenate([arc, arc[:1]])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    ends = np.array([[0.0, 0.0], [length, 0.0], [length, -radius], [length, radius]]) @ rotation.T
    axis = LongAxis(ends[0], ends[1], ends[2:], "class_interface")
    return outline @ rotation.T, axis


def ellipse(length: float, radius: float) -> tuple[NDArray[np.float64], LongAxis]:
    turn = np.linspace(0, 2 * np.pi, 4000)
    outline = np.stack([length / 2 * (1 - np.cos(turn)), radius * np.sin(turn)], axis=1)
    ends = np.array([[0.0, 0.0], [length, 0.0]])
    return outline, LongAxis(ends[0], ends[1], ends, "class_interface")


def volume(outline_P2: NDArray[np.float64], axis: LongAxis) -> float:
    diameters = disk_diameters(outline_P2, axis)
    return disk_volume(diameters, diameters, axis.length)


@given(
    length=st.floats(20, 400),
    slenderness=st.floats(0.15, 0.5),
    angle=st.floats(-np.pi, np.pi),
)
@settings(deadline=None, max_examples=60)
def test_a_half_ellipsoid_has_its_volume_at_any_size_and_angle(
    length: float, slenderness: float, angle: float
) -> None:
    radius = slenderness * length
    expected = 2 / 3 * np.pi * radius**2 * length
    assert volume(*half_ellipse(length, radius, angle)) == pytest.approx(expected, rel=1e-3)


def test_an_ellipsoid_has_its_volume() -> None:
    assert volume(*ellipse(90, 25)) == pytest.approx(np.pi / 6 * 90 * 50 * 50, rel=2e-3)


def test_disks_are_sampled_at_the_middle_of_their_slices() -> None:
    outline, axis = half_ellipse(100, 30)
    from_base = 1 - (np.arange(20) + 0.5) / 20
    expected = 2 * 30 * np.sqrt(1 - from_base**2)
    np.testing.assert_allclose(disk_diameters(outline, axis), expected, rtol=1e-3)


def test_only_what_is_inside_counts_where_a_chord_crosses_a_notch() -> None:
    # A square with a slot of width 4 cut from its upper edge, half-way down.
    outline = np.array(
        [[0, 0], [0, 8], [10, 8], [10, 12], [0, 12], [0, 20], [20, 20], [20, 0], [0, 0]], float
    )
    axis = LongAxis(np.array([0.0, 10.0]), np.array([20.0, 10.0]), np.zeros((2, 2)), "flat_base")
    np.testing.assert_allclose(disk_diameters(outline, axis), [16.0] * 10 + [20.0] * 10)


@given(factor=st.floats(0.1, 10))
def test_volume_grows_with_the_cube_of_scale(factor: float) -> None:
    outline, axis = half_ellipse(60, 20)
    bigger = LongAxis(
        axis.apex_2 * factor, axis.base_2 * factor, axis.hinges_22 * factor, axis.method
    )
    assert volume(outline * factor, bigger) == pytest.approx(factor**3 * volume(outline, axis))


def test_biplane_disks_have_the_height_of_the_longer_axis() -> None:
    a4c, a2c = reading_of(120).lv, reading_of(90).lv
    assert a4c is not None
    assert a2c is not None
    # 20 equal disks: pi/4 * longer length * product of the diameters, in mm^3.
    expected = (
        np.pi / 4 * a4c.length_index * a4c.diameters_index_20[0] * a2c.diameters_index_20[0] / 1000
    )
    assert biplane_volume_ml(a4c, a2c) == pytest.approx(expected)
    assert biplane_volume_ml(a2c, a4c) == pytest.approx(expected)


def test_biplane_has_no_volume_without_calibration() -> None:
    a4c, a2c = reading_of(120).lv, reading_of(90, index_mm=None).lv
    assert a4c is not None
    assert a2c is not None
    assert biplane_volume_ml(a4c, a2c) is None
