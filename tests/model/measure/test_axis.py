"""The long axis by each of its four rules, on shapes whose axis is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.measure.axis import (
    LongAxis,
    class_interface_axis,
    find_long_axis,
    flat_base_axis,
    polar_peaks_axis,
    principal_axis,
)
from model.measure.contour import ATRIUM, MYOCARDIUM

APEX, BASE = (20.0, 50.0), (110.0, 50.0)


def bullet(tilt_degrees: float = 0.0, points: int = 400) -> NDArray[np.float64]:
    """Half an ellipse of length 90 and width 50 above a straight base, closed, apex up."""
    turn = np.linspace(np.pi, 2 * np.pi, points)
    arc = np.stack([110 + 90 * np.sin(turn), 50 + 25 * np.cos(turn)], axis=1)
    base = np.stack([np.full(60, 110.0), np.linspace(75, 25, 60)], axis=1)
    outline = np.concatenate([arc, base[1:-1], arc[:1]])
    return turned(outline, tilt_degrees)


def turned(points_P2: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (points_P2 - 60) @ rotation.T + 60


def neighbours_of(outline: NDArray[np.float64], tilt_degrees: float = 0.0) -> NDArray[np.intp]:
    upright = turned(outline, -tilt_degrees)
    return np.where(upright[:, 0] > 109.9, ATRIUM, MYOCARDIUM).astype(np.intp)


def assert_axis(axis: LongAxis | None, tilt_degrees: float, within: float) -> None:
    assert axis is not None
    apex, base = turned(np.array([APEX, BASE]), tilt_degrees)
    assert np.hypot(*(axis.apex_2 - apex)) < within
    assert np.hypot(*(axis.base_2 - base)) < within


@pytest.mark.parametrize("tilt", [-60, -20, 0, 20, 60, 180])
def test_the_border_on_the_atrium_gives_the_hinges_at_any_tilt(tilt: float) -> None:
    outline = bullet(tilt)
    axis = class_interface_axis(outline, neighbours_of(outline, tilt))
    assert_axis(axis, tilt, 1.5)


def test_a_short_break_in_the_border_on_the_atrium_is_bridged() -> None:
    outline = bullet()
    beside = neighbours_of(outline)
    beside[(outline[:, 0] > 109.9) & (np.abs(outline[:, 1] - 45) < 3)] = MYOCARDIUM
    assert_axis(class_interface_axis(outline, beside), 0, 1.5)


def test_no_atrium_or_nothing_but_atrium_gives_no_hinges() -> None:
    outline = bullet()
    for only in (ATRIUM, MYOCARDIUM):
        assert class_interface_axis(outline, np.full(len(outline), only, np.intp)) is None


def test_an_atrium_at_one_point_is_no_annulus() -> None:
    outline = bullet()
    beside = np.full(len(outline), MYOCARDIUM, np.intp)
    beside[100] = ATRIUM
    assert class_interface_axis(outline, beside) is None


@pytest.mark.parametrize("tilt", [-30, 0, 30])
def test_a_flat_base_is_found_without_an_atrium(tilt: float) -> None:
    axis = find_long_axis(bullet(tilt), None)
    assert axis.method == "flat_base"
    assert_axis(flat_base_axis(bullet(tilt)), tilt, 4.0)


def test_two_peaks_below_and_one_above_are_hinges_and_apex() -> None:
    # Base bulging down between two corners.
    turn = np.linspace(0, np.pi, 61)
    bulge = np.stack([110 + 8 * np.sin(turn), 50 + 25 * np.cos(turn)], axis=1)
    arc = bullet()[:400]
    outline = np.concatenate([arc, bulge[1:-1], arc[:1]])
    assert_axis(polar_peaks_axis(outline), 0, 5.0)


def test_the_last_rule_takes_the_long_side_of_the_smallest_box() -> None:
    box = np.array([[10, 40], [10, 60], [70, 60], [70, 40], [10, 40]], float)
    axis = principal_axis(box)
    np.testing.assert_allclose(axis.apex_2, [10, 50], atol=1e-3)
    np.testing.assert_allclose(axis.base_2, [70, 50], atol=1e-3)
    assert axis.length == pytest.approx(60, abs=1e-3)


def test_the_surest_rule_that_applies_is_taken() -> None:
    outline = bullet()
    assert find_long_axis(outline, neighbours_of(outline)).method == "class_interface"
    blind = np.full(len(outline), MYOCARDIUM, np.intp)
    assert find_long_axis(outline, blind).method == "flat_base"
