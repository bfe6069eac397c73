"""Peaks against SciPy's, which finds them by other means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d
from scipy.signal import find_peaks as reference_peaks

from model.measure.peaks import find_peaks, ranges_within

Curve = NDArray[np.float64]


def curves(distinct: bool) -> st.SearchStrategy[Curve]:
    """Curves of whole numbers, so that flat tops are common unless all values differ."""
    values = st.integers(-50, 50) if distinct else st.integers(0, 6)
    return st.lists(values, min_size=3, max_size=60, unique=distinct).map(
        lambda drawn: np.array(drawn, np.float64)
    )


@given(curves(distinct=False))
def test_flat_tops_are_found_in_their_middle(values_G: Curve) -> None:
    np.testing.assert_array_equal(find_peaks(values_G), reference_peaks(values_G)[0])


@given(curves(distinct=False), st.floats(0.1, 6))
def test_prominence_is_told_from_the_higher_low(values_G: Curve, prominence: float) -> None:
    expected = reference_peaks(values_G, prominence=prominence)[0]
    np.testing.assert_array_equal(find_peaks(values_G, prominence=prominence), expected)


@given(curves(distinct=True), st.floats(1, 20), st.floats(0, 30))
def test_of_near_peaks_the_higher_one_stays(
    values_G: Curve, distance: float, prominence: float
) -> None:
    expected = reference_peaks(values_G, distance=distance, prominence=prominence)[0]
    found = find_peaks(values_G, distance=distance, prominence=prominence)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0, 3.0, 3.0], [1.0, 2.0, 3.0]])
def test_what_does_not_turn_has_no_peak(values: list[float]) -> None:
    assert len(find_peaks(np.array(values))) == 0


@given(curves(distinct=False), st.integers(1, 80))
def test_ranges_are_those_of_the_windows(values_G: Curve, size: int) -> None:
    size = min(size, len(values_G))
    expected = maximum_filter1d(values_G, size) - minimum_filter1d(values_G, size)
    np.testing.assert_array_equal(ranges_within(values_G, size), expected)
