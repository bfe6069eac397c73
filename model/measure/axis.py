"""The long axis of the left ventricle: four rules, the first that passes its checks.

All outlines here are closed, P x 2 (row, column) on an isotropic grid.

Source: ef-and-measurement.md section 1.3.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from model.measure.contour import ATRIUM, segment_lengths
from model.measure.peaks import find_peaks
from model.measure.reading import AxisMethod

BRIDGED_SHARE = 0.05
"""Breaks of the ventricle-atrium interface up to this share of the outline are closed."""

HINGES_PER_LENGTH = (0.15, 1.0)
"""Annulus width over long axis; on CAMUS references 0.20 to 0.69."""

FLAT_TOLERANCE = 0.03
"""Deviation of a flat base over the outline's height.

Source: section 1.3 rule 2, 8 px or 1.5 % of an image of which a ventricle fills about half.
"""

_END = np.zeros(1, np.bool_)

FLAT_POINTS = 64
POLAR_ANGLES = 90


@dataclass(frozen=True, slots=True, eq=False)
class LongAxis:
    """From apex to the middle of the annulus.

    Attributes:
        apex_2: (row, column) on the isotropic grid; so are the others.
        base_2: mid-point of the hinges.
        hinges_22: the two ends of the annulus.
        method: the rule that found it.
    """

    apex_2: NDArray[np.float64]
    base_2: NDArray[np.float64]
    hinges_22: NDArray[np.float64]
    method: AxisMethod

    @property
    def length(self) -> float:
        """Distance from apex to base."""
        return math.dist(self.apex_2, self.base_2)


def find_long_axis(
    outline_P2: NDArray[np.float64], neighbours_P: NDArray[np.intp] | None
) -> LongAxis:
    """Find the long axis by the surest rule that applies.

    Args:
        outline_P2: the ventricle.
        neighbours_P: what each point borders on, None where the network tells no other structure.

    Returns:
        The axis; the last rule always gives one.
    """
    axis = None if neighbours_P is None else class_interface_axis(outline_P2, neighbours_P)
    return (
        axis
        or flat_base_axis(outline_P2)
        or polar_peaks_axis(outline_P2)
        or principal_axis(outline_P2)
    )


def class_interface_axis(
    outline_P2: NDArray[np.float64], neighbours_P: NDArray[np.intp]
) -> LongAxis | None:
    """Rule 1: the hinges are the ends of the ventricle's border on the atrium."""
    steps_P = segment_lengths(outline_P2)
    arc = _longest_arc(neighbours_P[:-1] == ATRIUM, steps_P)
    if arc is None:
        return None
    first, last = arc
    ring_P2 = outline_P2[:-1]
    # The border changes half-way between two neighbouring points.
    hinges_22 = 0.5 * np.stack(
        [
            ring_P2[first] + ring_P2[first - 1],
            ring_P2[last] + ring_P2[(last + 1) % len(ring_P2)],
        ]
    )
    return _axis_from_hinges(outline_P2, hinges_22, "class_interface")


def flat_base_axis(outline_P2: NDArray[np.float64]) -> LongAxis | None:
    """Rule 2 (CAMUS): the base is the longest flat stretch within 45 degrees of horizontal."""
    ring_Q2 = _even_points(outline_P2, FLAT_POINTS)
    tolerance = FLAT_TOLERANCE * float(np.ptp(ring_Q2[:, 0]))
    start_S, span_S = np.meshgrid(
        np.arange(FLAT_POINTS), np.arange(3, FLAT_POINTS // 2), indexing="ij"
    )
    first_S2, last_S2 = ring_Q2[start_S], ring_Q2[(start_S + span_S) % FLAT_POINTS]
    chord_S2 = last_S2 - first_S2
    length_S = np.maximum(np.hypot(chord_S2[..., 0], chord_S2[..., 1]), 1e-9)
    inner_K = np.arange(1, FLAT_POINTS // 2)
    offset_SK2 = ring_Q2[(start_S[..., None] + inner_K) % FLAT_POINTS] - first_S2[:, :, None]
    cross_SK = (
        offset_SK2[..., 0] * chord_S2[..., None, 1] - offset_SK2[..., 1] * chord_S2[..., None, 0]
    )
    between_SK = inner_K < span_S[..., None]
    bulge_S = np.max(np.abs(cross_SK) * between_SK, axis=-1) / length_S
    level_S = np.abs(chord_S2[..., 0]) <= np.abs(chord_S2[..., 1])
    usable_S = np.where((bulge_S <= tolerance) & level_S, length_S, 0.0)
    best = np.unravel_index(int(np.argmax(usable_S)), usable_S.shape)
    if usable_S[best] == 0.0:
        return None
    return _axis_from_hinges(outline_P2, np.stack([first_S2[best], last_S2[best]]), "flat_base")


def polar_peaks_axis(outline_P2: NDArray[np.float64]) -> LongAxis | None:
    """Rule 3: seen from the centroid, one peak above is the apex and two below are the hinges."""
    ring_Q2 = _even_points(outline_P2, 4 * POLAR_ANGLES)
    away_Q2 = ring_Q2 - ring_Q2.mean(axis=0)
    # Angle 0 looks straight up, so that the apex is not cut in two by the wrap.
    angle_Q = np.arctan2(away_Q2[:, 1], -away_Q2[:, 0])
    order = np.argsort(angle_Q)
    radius_Q = np.hypot(away_Q2[:, 0], away_Q2[:, 1])
    grid_A = (np.arange(POLAR_ANGLES) + 0.5) * (2 * np.pi / POLAR_ANGLES) - np.pi
    radius_A = np.interp(grid_A, angle_Q[order], radius_Q[order], period=2 * np.pi)
    radius_A = (np.roll(radius_A, 1) + radius_A + np.roll(radius_A, -1)) / 3
    peaks = find_peaks(np.tile(radius_A, 3))
    peaks = peaks[(peaks >= POLAR_ANGLES) & (peaks < 2 * POLAR_ANGLES)] - POLAR_ANGLES
    low = peaks[np.abs(grid_A[peaks]) > np.pi / 2]
    if not np.any(np.abs(grid_A[peaks]) <= np.pi / 2) or len(low) < 2:
        return None
    low = low[np.argsort(radius_A[low])[-2:]]
    hinges_22 = ring_Q2.mean(axis=0) + radius_A[low, None] * np.stack(
        [-np.cos(grid_A[low]), np.sin(grid_A[low])], axis=1
    )
    return _axis_from_hinges(outline_P2, hinges_22, "polar_peaks")


def principal_axis(outline_P2: NDArray[np.float64]) -> LongAxis:
    """Rule 4: the long side of the smallest rectangle, its upper end the apex."""
    box = cv2.boxPoints(cv2.minAreaRect(outline_P2.astype(np.float32))).astype(np.float64)
    sides = np.hypot(*(box[1:3] - box[:2]).T)
    ends_222 = (
        np.stack([box[[0, 1]], box[[3, 2]]])
        if sides[1] >= sides[0]
        else np.stack([box[[1, 2]], box[[0, 3]]])
    )
    upper = int(np.argmin(ends_222.mean(axis=1)[:, 0]))
    apex_2, hinges_22 = ends_222[upper].mean(axis=0), ends_222[1 - upper]
    return LongAxis(apex_2, hinges_22.mean(axis=0), hinges_22, "principal_axis")


def _axis_from_hinges(
    outline_P2: NDArray[np.float64], hinges_22: NDArray[np.float64], method: AxisMethod
) -> LongAxis | None:
    """Take the outline's point farthest from the middle of the hinges as the apex, and check."""
    base_2 = 0.5 * (hinges_22[0] + hinges_22[1])
    away_P2 = outline_P2 - base_2
    apex_2 = outline_P2[int(np.hypot(away_P2[:, 0], away_P2[:, 1]).argmax())]
    axis = LongAxis(apex_2, base_2, hinges_22, method)
    low, high = HINGES_PER_LENGTH
    width, length = math.dist(*hinges_22.tolist()), axis.length
    return axis if low * length <= width <= high * length else None


def _longest_arc(
    is_inside_P: NDArray[np.bool_], steps_P: NDArray[np.float64]
) -> tuple[int, int] | None:
    """Find the longest run of a ring of points, bridging short breaks.

    Returns:
        Indices of its first and last point, None when no point or every point is inside.
    """
    count = len(is_inside_P)
    inside = np.count_nonzero(is_inside_P)
    if inside in (0, count):
        return None
    shift = int(is_inside_P.argmin())
    ring_P = np.concatenate([is_inside_P[shift:], is_inside_P[:shift], _END])
    # The ring starts outside, so the places where it changes are starts and ends in turn.
    (changes,) = (ring_P[1:] != ring_P[:-1]).nonzero()
    first_R, last_R = changes[::2] + 1, changes[1::2]
    along_P = np.zeros(count + 1)
    np.cumsum(np.concatenate([steps_P[shift:], steps_P[:shift]]), out=along_P[1:])
    if len(first_R) > 1:
        breaks = along_P[first_R[1:]] - along_P[last_R[:-1]] > BRIDGED_SHARE * along_P[-1]
        first_R = first_R[np.concatenate([[True], breaks])]
        last_R = last_R[np.concatenate([breaks, [True]])]
    best = int((along_P[last_R] - along_P[first_R]).argmax())
    return (int(first_R[best]) + shift) % count, (int(last_R[best]) + shift) % count


def _even_points(outline_P2: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Place points at equal distances along a closed outline."""
    along_P = np.concatenate([[0.0], np.cumsum(segment_lengths(outline_P2))])
    wanted = np.arange(count) * (along_P[-1] / count)
    return np.stack([np.interp(wanted, along_P, outline_P2[:, axis]) for axis in (0, 1)], axis=1)
