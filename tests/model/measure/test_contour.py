"""Outlines against areas known in closed form."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.measure.contour import outlines, sample, segment_lengths, signed_area


def disc(size: int, row: float, col: float, radius: float) -> NDArray[np.float32]:
    """A map that is exactly 0.5 on a circle and linear across it."""
    rows, cols = np.mgrid[0:size, 0:size]
    distance = np.hypot(rows - row, cols - col)
    return np.clip(0.5 + (radius - distance) / 4, 0, 1).astype(np.float32)


@given(row=st.floats(20, 44), col=st.floats(20, 44), radius=st.floats(8, 18))
@settings(deadline=None, max_examples=60)
def test_a_disc_has_its_area_whatever_the_grid_cuts(row: float, col: float, radius: float) -> None:
    found = outlines(disc(64, row, col, radius))
    assert len(found) == 1
    area, outline = found[0]
    assert area == pytest.approx(np.pi * radius**2, rel=0.01)
    np.testing.assert_allclose(outline[0], outline[-1])
    away = np.hypot(outline[:, 0] - row, outline[:, 1] - col)
    np.testing.assert_allclose(away, radius, atol=0.06)


def test_a_structure_at_the_edge_of_the_map_is_closed() -> None:
    area, outline = outlines(disc(64, 0, 32, 15))[0]
    assert area == pytest.approx(np.pi * 15**2 / 2, rel=0.05)
    np.testing.assert_allclose(outline[0], outline[-1])


def test_a_hole_counts_negative_and_islands_come_by_size() -> None:
    ring = np.minimum(disc(96, 40, 40, 25), 1 - disc(96, 40, 40, 10))
    map_HW = np.maximum(ring, disc(96, 80, 80, 8))
    areas = [area for area, _ in outlines(map_HW)]
    assert areas == pytest.approx([np.pi * 25**2, np.pi * 8**2, -np.pi * 10**2], rel=0.02)


def test_grain_is_no_structure() -> None:
    map_HW = np.zeros((32, 32), np.float32)
    map_HW[5, 5] = 1.0
    assert outlines(map_HW) == []


def test_an_empty_map_has_no_outline() -> None:
    assert outlines(np.zeros((32, 32), np.float32)) == []


def test_areas_have_the_sign_of_their_sense() -> None:
    square = np.array([[0, 0], [0, 3], [3, 3], [3, 0], [0, 0]], float)
    assert signed_area(square) == pytest.approx(9.0)
    assert signed_area(square[::-1]) == pytest.approx(-9.0)
    np.testing.assert_allclose(segment_lengths(square), 3.0)


def test_a_map_is_read_between_its_pixels() -> None:
    map_HW = np.arange(20, dtype=np.float32).reshape(4, 5)
    points = np.array([[1.0, 2.0], [1.5, 2.0], [1.0, 2.25]])
    np.testing.assert_allclose(sample(map_HW, points), [7.0, 9.5, 7.25], atol=0.05)
