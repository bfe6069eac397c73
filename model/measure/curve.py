"""Turning points of a volume curve: even sampling, smoothing, period, minima and maxima.

Source: ef-and-measurement.md section 1.5, steps 2 to 6.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.measure.peaks import find_peaks, ranges_within

GRID_MS = 20.0
"""Step of the even grid on which turns are searched; they are read from the raw values."""

SMOOTHING_MS = 130.0
SMOOTHING_FRAMES = 5
SMOOTHING_PERIODS = 0.45
"""No window is longer than this share of a beat: beyond it a quadratic no longer follows."""

PERIOD_MS = (330.0, 1800.0)
"""180 to 33 beats a minute (source: 35 to 180)."""

MIN_CORRELATION = 0.3
NEAR_BEST = 0.85
"""The shortest period that correlates nearly as well as the best is taken, not its double."""

MIN_STROKE_SHARE = 0.01
"""What moves by less, such as a still image, does not beat."""

ES_PROMINENCE = 0.3
"""Depth of a minimum over the stroke, between the source's 0.15 (recall) and 0.5 (precision)."""

ES_DISTANCE_PERIODS = 0.5
ES_DISTANCE_MS = (150.0, 450.0)

CLOSING_DROP = 0.15
"""A maximum at the live end counts once the curve has lost this share of the stroke again."""

CLOSING_PERIODS = 0.6
"""A maximum this soon after the last one is a wave of filling, not the end of diastole."""

READING_PERIODS = 0.12
READING_MS = (50.0, 120.0)
"""Half of the span about a turn that its values are read from, and its limits."""

READING_CORE = 0.4
"""Share of that span whose mean is taken.

Both were picked among nine variants on simulated curves; docs/measurement.md tells what they leave
on others.
"""

LEVEL_DROP = 0.12
LEVEL_ES = 0.15
LEVEL_MS = 60.0
"""An edge is level where the curve moves by less than that share of the stroke in that time."""


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A stretch without gaps, on an even grid.

    Attributes:
        start_ms: time of the first value.
        smooth_G: smoothed values, GRID_MS apart.
        frame_ms: median interval of the frames behind it.
        period_ms: of the beat, None where the stretch holds no two beats.
        stroke: typical rise and fall within a beat, in the unit of the values.
    """

    start_ms: float
    smooth_G: NDArray[np.float64]
    frame_ms: float
    period_ms: float | None
    stroke: float

    def time_ms(self, index: int) -> float:
        """Time of a grid point."""
        return self.start_ms + index * GRID_MS


@dataclass(frozen=True, slots=True)
class Turns:
    """Where a curve turns, as indices of its grid, in order of time.

    Attributes:
        minima: ends of systole.
        maxima: ends of diastole, ``maxima[i]`` before ``minima[i]``; the last one may follow the
            last minimum. None at the first or last place where the curve has not turned.
    """

    minima: tuple[int, ...]
    maxima: tuple[int | None, ...]


def build_curve(times_ms_T: NDArray[np.float64], values_T: NDArray[np.float64]) -> Curve | None:
    """Put a stretch of the curve on an even grid and smooth it.

    Args:
        times_ms_T: rising times.
        values_T: volumes in any unit.

    Returns:
        The curve, None where the stretch is too short for any beat.
    """
    if len(times_ms_T) < SMOOTHING_FRAMES or times_ms_T[-1] - times_ms_T[0] < PERIOD_MS[0] / 2:
        return None
    even_G = _resample(times_ms_T, values_T)
    frame_ms = float(np.median(np.diff(times_ms_T)))
    period_ms = find_period_ms(even_G)
    window_ms = max(SMOOTHING_MS, (SMOOTHING_FRAMES - 1) * frame_ms)
    if period_ms is not None:
        window_ms = min(window_ms, SMOOTHING_PERIODS * period_ms)
    window = min(2 * round(window_ms / GRID_MS / 2) + 1, 2 * ((len(even_G) - 1) // 2) + 1)
    smooth_G = smoothed(even_G, max(window, 5))
    stroke = _typical_stroke(smooth_G, period_ms)
    start_ms = _first_edge_ms(times_ms_T) + GRID_MS / 2
    return Curve(start_ms, smooth_G, frame_ms, period_ms, stroke)


def smoothed(even_G: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Put a quadratic through each window and read it at the middle; at the ends read the last one.

    This is scipy's ``savgol_filter(even_G, window, 2)`` at a tenth of its cost.

    Args:
        even_G: evenly spaced values, at least ``window`` of them.
        window: odd number of values.
    """
    fit_WW = _window_fit(window)
    half = window // 2
    return np.concatenate(
        [
            fit_WW[:half] @ even_G[:window],
            np.convolve(even_G, fit_WW[half], mode="valid"),
            fit_WW[half + 1 :] @ even_G[-window:],
        ]
    )


@lru_cache(maxsize=64)
def _window_fit(window: int) -> NDArray[np.float64]:
    """Matrix from a window's values to those of the quadratic through them."""
    place = np.linspace(-1, 1, window)
    powers_W3 = np.stack([np.ones(window), place, place**2], axis=1)
    return np.asarray(powers_W3 @ np.linalg.pinv(powers_W3), np.float64)


def _resample(
    times_ms_T: NDArray[np.float64], values_T: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Average the straight lines between the values over steps of GRID_MS."""
    steps_ms = np.diff(times_ms_T)
    area_T = np.concatenate([[0.0], np.cumsum(0.5 * (values_T[1:] + values_T[:-1]) * steps_ms)])
    first_ms = _first_edge_ms(times_ms_T)
    count = int((times_ms_T[-1] - first_ms) / GRID_MS)
    edges_ms = first_ms + GRID_MS * np.arange(count + 1)
    # The integral of a line is a parabola: interpolate it exactly, not linearly.
    left = np.clip(np.searchsorted(times_ms_T, edges_ms, side="right") - 1, 0, len(steps_ms) - 1)
    inside_ms = edges_ms - times_ms_T[left]
    slope = (values_T[left + 1] - values_T[left]) / steps_ms[left]
    integral = area_T[left] + inside_ms * (values_T[left] + 0.5 * slope * inside_ms)
    return np.asarray(np.diff(integral) / GRID_MS, np.float64)


def _first_edge_ms(times_ms_T: NDArray[np.float64]) -> float:
    """Place the grid alike wherever the stretch begins, so that a turn found again is the same."""
    return float(np.ceil(times_ms_T[0] / GRID_MS) * GRID_MS)


def find_period_ms(even_G: NDArray[np.float64]) -> float | None:
    """Find the beat's period by autocorrelation.

    Returns:
        None where no lag within PERIOD_MS and seven tenths of the stretch correlates.
    """
    count = len(even_G)
    centred_G = even_G - even_G.mean()
    last = min(int(PERIOD_MS[1] / GRID_MS), int(0.7 * count)) + 2
    first = int(PERIOD_MS[0] / GRID_MS) - 1
    if last <= first + 2 or last >= count:
        return None
    spectrum = np.fft.rfft(centred_G, 2 * count)
    product_L = np.fft.irfft(np.abs(spectrum) ** 2)[:last]
    energy_G = np.concatenate([[0.0], np.cumsum(centred_G**2)])
    lags_L = np.arange(last)
    overlap_L = np.sqrt(energy_G[count - lags_L] * (energy_G[-1] - energy_G[lags_L]))
    correlation_L = product_L / np.maximum(overlap_L, 1e-12)
    peaks = find_peaks(correlation_L[first - 1 :]) + first - 1
    peaks = peaks[correlation_L[peaks] >= MIN_CORRELATION]
    if len(peaks) == 0:
        return None
    peak = int(peaks[correlation_L[peaks] >= NEAR_BEST * correlation_L[peaks].max()][0])
    before, at, after = correlation_L[peak - 1 : peak + 2]
    return GRID_MS * (peak + 0.5 * float(before - after) / float(before - 2 * at + after))


def _typical_stroke(smooth_G: NDArray[np.float64], period_ms: float | None) -> float:
    """Take the median over the stretch of the range within a little more than a beat."""
    if period_ms is None:
        return float(np.ptp(smooth_G))
    size = min(round(1.1 * period_ms / GRID_MS), len(smooth_G))
    return float(np.median(ranges_within(smooth_G, size)))


def find_turns(curve: Curve) -> Turns:
    """Find ends of systole and of diastole.

    Minima are prominent and apart; a maximum lies between each two. The first and the last maximum
    count only if the curve has turned there or is level at the edge.
    """
    smooth_G, stroke = curve.smooth_G, curve.stroke
    if stroke <= MIN_STROKE_SHARE * float(np.abs(smooth_G).max()):
        return Turns((), ())
    period_ms = curve.period_ms or PERIOD_MS[0]
    apart_ms = float(np.clip(ES_DISTANCE_PERIODS * period_ms, *ES_DISTANCE_MS))
    minima = find_peaks(-smooth_G, distance=apart_ms / GRID_MS, prominence=ES_PROMINENCE * stroke)
    minima = _with_edge_minima(curve, minima)
    if len(minima) == 0:
        return Turns((), ())
    bounds = [0, *minima.tolist(), len(smooth_G)]
    peaks = [left + int(np.argmax(smooth_G[left : right or 1])) for left, right in pairwise(bounds)]
    maxima: list[int | None] = list(peaks)
    if not _is_first_maximum(curve, peaks[0], int(minima[0])):
        maxima[0] = None
    if not _is_last_maximum(curve, peaks[-1], int(minima[-1]), peaks[-2]):
        maxima[-1] = None
    return Turns(tuple(minima.tolist()), tuple(maxima))


def _with_edge_minima(curve: Curve, minima: NDArray[np.intp]) -> NDArray[np.intp]:
    """Add a first and a last minimum of which an edge of the stretch hides one side.

    A half beat has no full fall before, or no full rise after its end of systole; a tenth of the
    stroke will do, or that the curve is level there.
    """
    smooth_G = curve.smooth_G
    last = _edge_minimum(curve, smooth_G, int(minima[-1]) if len(minima) else 0)
    if last is not None:
        minima = np.append(minima, last)
    end = len(smooth_G) - 1
    first = _edge_minimum(curve, smooth_G[::-1], end - int(minima[0]) if len(minima) else 0)
    return minima if first is None else np.insert(minima, 0, end - first)


def _edge_minimum(curve: Curve, smooth_G: NDArray[np.float64], start: int) -> int | None:
    """Find a minimum between a known one, or the other edge, and the end of a curve."""
    peak = start + int(np.argmax(smooth_G[start:]))
    low = peak + int(np.argmin(smooth_G[peak:]))
    if low <= start or smooth_G[peak] - smooth_G[low] < 0.5 * curve.stroke:
        return None
    turned = smooth_G[-1] - smooth_G[low] >= 0.1 * curve.stroke
    before = smooth_G[max(len(smooth_G) - 1 - _edge_span(curve), peak)]
    level = before - smooth_G[low] <= LEVEL_ES * curve.stroke
    return low if turned or level else None


def _is_first_maximum(curve: Curve, peak: int, minimum: int) -> bool:
    """Tell whether the curve's first maximum is an end of diastole."""
    smooth_G, stroke = curve.smooth_G, curve.stroke
    if smooth_G[peak] - smooth_G[minimum] < 0.4 * stroke:
        return False
    span = _edge_span(curve)
    if peak >= span:
        return True
    rose = smooth_G[peak] - smooth_G[0] >= 0.05 * stroke
    return bool(rose or smooth_G[0] - smooth_G[min(span, minimum)] <= LEVEL_DROP * stroke)


def _is_last_maximum(curve: Curve, peak: int, minimum: int, previous: int) -> bool:
    """Tell whether the maximum after the last minimum is an end of diastole already."""
    smooth_G, stroke = curve.smooth_G, curve.stroke
    if smooth_G[peak] - smooth_G[minimum] < 0.4 * stroke:
        return False
    apart_ms = CLOSING_PERIODS * (curve.period_ms or PERIOD_MS[0])
    if (peak - previous) * GRID_MS < apart_ms:
        return False
    return bool(smooth_G[peak] - smooth_G[-2:].mean() >= CLOSING_DROP * stroke)


def _edge_span(curve: Curve) -> int:
    """Grid points that an edge of the stretch reaches in: LEVEL_MS or two frames."""
    return int(np.ceil(max(LEVEL_MS, 2 * curve.frame_ms) / GRID_MS))


def read_extremes(
    times_ms_T: NDArray[np.float64],
    values_TK: NDArray[np.float64],
    at_ms: float,
    bend: int,
    period_ms: float,
) -> tuple[float, NDArray[np.float64]]:
    """Read turning values from quadratics through the raw values about the turn.

    A single extreme frame is biased by its noise; a fit of five frames or more is hardly. What bias
    its own vertex has left is taken off by reading the fit's mean about the vertex.

    Args:
        times_ms_T: rising times.
        values_TK: raw values, one curve per column.
        at_ms: where the smoothed curve turns.
        bend: -1 for a maximum, 1 for a minimum.
        period_ms: of the beat; the fit reaches further in a slow one.

    Returns:
        Time of the first curve's vertex, and each curve's value about its own vertex; about
        ``at_ms`` where a fit has no vertex of that bend among its frames.
    """
    half_ms = float(np.clip(READING_PERIODS * period_ms, *READING_MS))
    near = np.flatnonzero(np.abs(times_ms_T - at_ms) <= half_ms)
    if len(near) < SMOOTHING_FRAMES:
        near = np.sort(np.argsort(np.abs(times_ms_T - at_ms))[:SMOOTHING_FRAMES])
    offset = (times_ms_T[near] - at_ms) / half_ms
    powers = np.stack([np.ones(len(near)), offset, offset**2], axis=1)
    constant_K, slope_K, bend_K = np.linalg.lstsq(powers, values_TK[near], rcond=None)[0]
    is_bent_K = bend_K * bend > 0
    vertex_K = np.where(is_bent_K, -slope_K / (2 * np.where(is_bent_K, bend_K, 1.0)), 0.0)
    vertex_K = np.where((offset[0] <= vertex_K) & (vertex_K <= offset[-1]), vertex_K, 0.0)
    # The mean of a quadratic over +-w about a point is its value there plus bend * w^2 / 3.
    values_K = constant_K + slope_K * vertex_K + bend_K * (vertex_K**2 + READING_CORE**2 / 3)
    return at_ms + half_ms * float(vertex_K[0]), values_K
