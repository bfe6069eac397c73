"""Peaks of a curve, by prominence and by distance."""

import numpy as np
from numpy.typing import NDArray


def find_peaks(
    values_G: NDArray[np.float64], *, distance: float = 1.0, prominence: float = 0.0
) -> NDArray[np.intp]:
    """Find local maxima; of a flat top its middle.

    Args:
        values_G: evenly spaced values; the first and the last are no peaks.
        distance: where two peaks are nearer than this many steps, the higher one stays.
        prominence: what a peak must rise over the higher of the two lows beside it; a low reaches
            to the next value above the peak, or to the edge.

    Returns:
        Indices, rising.
    """
    if len(values_G) < 3:
        return np.empty(0, np.intp)
    peaks = _apart(values_G, _local_maxima(values_G), int(np.ceil(distance)))
    rises = [_prominence(values_G, int(peak)) >= prominence for peak in peaks]
    return peaks[np.array(rises, bool)]


def _local_maxima(values_G: NDArray[np.float64]) -> NDArray[np.intp]:
    # Runs of equal values become one value each; a maximum is higher than both neighbours.
    starts = np.flatnonzero(np.concatenate([[True], values_G[1:] != values_G[:-1]]))
    ends = np.concatenate([starts[1:], [len(values_G)]]) - 1
    runs = values_G[starts]
    top = np.flatnonzero((runs[1:-1] > runs[:-2]) & (runs[1:-1] > runs[2:])) + 1
    return np.asarray((starts[top] + ends[top]) // 2, np.intp)


def _apart(
    values_G: NDArray[np.float64], peaks: NDArray[np.intp], distance: int
) -> NDArray[np.intp]:
    """Go from the highest peak down, and drop what is too near to one that stays."""
    stays = np.ones(len(peaks), bool)
    for at in np.argsort(values_G[peaks], kind="stable")[::-1]:
        if stays[at]:
            stays[np.abs(peaks - peaks[at]) < distance] = False
            stays[at] = True
    return peaks[stays]


def _prominence(values_G: NDArray[np.float64], peak: int) -> float:
    top = values_G[peak]
    higher = np.flatnonzero(values_G > top)
    after = int(np.searchsorted(higher, peak))
    left = int(higher[after - 1]) + 1 if after > 0 else 0
    right = int(higher[after]) if after < len(higher) else len(values_G)
    return float(top - max(values_G[left : peak + 1].min(), values_G[peak:right].min()))


def ranges_within(values_G: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Largest less smallest value in a window about each place, cut off at the edges.

    Args:
        values_G: evenly spaced values.
        size: of the window; the middle of an even one lies after its half.
    """
    padded = np.pad(values_G, (size // 2, size - 1 - size // 2), mode="edge")
    windows_GW = np.lib.stride_tricks.sliding_window_view(padded, size)
    return np.asarray(windows_GW.max(axis=1) - windows_GW.min(axis=1), np.float64)
