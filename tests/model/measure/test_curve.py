"""Smoothing, period and turns of a curve against a second tool and known courses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import savgol_filter

from model.measure.curve import (
    GRID_MS,
    build_curve,
    find_period_ms,
    find_turns,
    read_extremes,
    smoothed,
)
from tests.model.measure.simulation import Heart, frame_times_ms


@given(
    values=st.lists(st.floats(-100, 100), min_size=21, max_size=80),
    window=st.sampled_from([5, 7, 9, 15, 21]),
)
@settings(deadline=None)
def test_smoothing_is_that_of_scipy(values: list[float], window: int) -> None:
    expected = savgol_filter(np.array(values), window, 2)
    np.testing.assert_allclose(smoothed(np.array(values), window), expected, atol=1e-8)


@pytest.mark.parametrize("rate", [36, 50, 75, 110, 150, 178])
def test_the_period_is_found_from_36_to_178_beats_a_minute(rate: float) -> None:
    grid = np.arange(0, 6000, GRID_MS)
    period = find_period_ms(Heart.regular(rate, 55).volume_ml(grid))
    assert period == pytest.approx(60_000 / rate, rel=0.02)


def test_noise_and_short_stretches_have_no_period() -> None:
    rng = np.random.default_rng(0)
    assert find_period_ms(rng.normal(size=300)) is None
    assert find_period_ms(rng.normal(size=12)) is None


def test_a_stretch_too_short_for_a_beat_is_no_curve() -> None:
    assert build_curve(np.array([0.0, 33.0, 66.0, 99.0]), np.ones(4)) is None
    assert build_curve(np.linspace(0.0, 90.0, 10), np.ones(10)) is None


def test_a_stretch_cut_elsewhere_turns_at_the_same_times() -> None:
    times = frame_times_ms(6.0, 30)
    volumes = np.asarray(Heart.regular(63, 55).volume_ml(times), np.float64)
    whole, part = build_curve(times, volumes), build_curve(times[17:], volumes[17:])
    assert whole is not None
    assert part is not None
    later = {part.time_ms(each) for each in find_turns(part).minima}
    assert later <= {whole.time_ms(each) for each in find_turns(whole).minima}
    assert len(later) == 5


def test_waves_of_filling_are_no_ends_of_diastole() -> None:
    times = frame_times_ms(5.0, 50)
    # An early wave so strong that the ventricle is at first fuller than at the end of diastole.
    phase = (times % 1000) / 1000
    volumes = 100.0 - 50.0 * np.interp(
        phase, [0, 0.35, 0.4, 0.55, 0.62, 0.8, 0.95, 1], [0, 1, 1, -0.02, 0.1, 0.1, 0.0, 0]
    )
    curve = build_curve(times, volumes)
    assert curve is not None
    assert len(find_turns(curve).minima) == 5


def parabola(times: NDArray[np.float64], bend: float) -> NDArray[np.float64]:
    return 100.0 + bend * ((times - 500.0) / 100.0) ** 2


@pytest.mark.parametrize("bend", [-1, 1])
def test_a_parabola_is_read_at_its_vertex_within_its_core(bend: int) -> None:
    times = np.arange(300.0, 700.0, 10.0)
    values = np.stack([parabola(times, 4.0 * bend), parabola(times, 8.0 * bend)], axis=1)
    at_ms, (first, second) = read_extremes(times, values, 520.0, bend, 900.0)
    assert at_ms == pytest.approx(500.0)
    # Mean of 4 x^2 over |x| <= 0.4 * 0.12 * 900 / 100 is a third of its value at the end.
    core = 0.4 * 0.12 * 900 / 100
    assert first == pytest.approx(100.0 + bend * 4.0 * core**2 / 3)
    assert second == pytest.approx(100.0 + bend * 8.0 * core**2 / 3)


def test_a_curve_that_does_not_bend_is_read_where_it_was_asked() -> None:
    times = np.arange(0.0, 400.0, 20.0)
    at_ms, (value,) = read_extremes(times, (50 + times / 10)[:, None], 200.0, 1, 900.0)
    assert at_ms == pytest.approx(200.0)
    assert value == pytest.approx(70.0)
