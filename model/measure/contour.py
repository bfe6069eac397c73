"""Outlines of a probability map at sub-pixel precision, and what lies beside them."""

from functools import lru_cache

import cv2
import numpy as np
from contourpy import FillType, LineType, SerialContourGenerator, ZInterp
from numpy.typing import NDArray

LEVEL = 0.5
"""Where a structure ends. Against one neighbour this is where the two are equally likely.

Source: ef-and-measurement.md section 1.2, last paragraph (probability map, linear interpolation).
"""

MIN_OUTLINE_AREA_PX = 4.0
"""Smaller islands of the network grid are grain, not structures."""

MYOCARDIUM, ATRIUM, ELSEWHERE = 0, 1, 2
"""Values of ``neighbours``: what a point of the ventricle's outline borders on."""


def signed_area(outline_P2: NDArray[np.float64]) -> float:
    """Area inside a closed outline, negative when it runs the other way round (a hole)."""
    rows, cols = outline_P2[:, 0], outline_P2[:, 1]
    return 0.5 * float(np.dot(cols[:-1], rows[1:]) - np.dot(cols[1:], rows[:-1]))


def outlines(probability_HW: NDArray[np.float32]) -> list[tuple[float, NDArray[np.float64]]]:
    """Trace a map at LEVEL, as if it were surrounded by zeros.

    Args:
        probability_HW: one structure's map.

    Returns:
        Signed area and closed outline, P x 2 (row, column), largest area first. Outer borders have
        positive areas, borders of holes negative ones.
    """
    inside_HW = probability_HW >= LEVEL
    left, top, width, height = cv2.boundingRect(inside_HW.view(np.uint8))
    if width == 0:
        return []
    # One pixel beyond the box, or a zero beyond the map, closes every outline.
    padded_HW = np.zeros((height + 2, width + 2))
    first_row, first_col = max(top - 1, 0), max(left - 1, 0)
    seen_HW = probability_HW[first_row : top + height + 1, first_col : left + width + 1]
    row, col = first_row - top + 1, first_col - left + 1
    padded_HW[row : row + seen_HW.shape[0], col : col + seen_HW.shape[1]] = seen_HW
    origin_2 = np.array([top - 1.0, left - 1.0])
    found = [line[:, ::-1] + origin_2 for line in _level_lines(padded_HW)]
    measured = [(signed_area(outline), outline) for outline in found]
    large = [each for each in measured if abs(each[0]) >= MIN_OUTLINE_AREA_PX]
    return sorted(large, key=lambda each: -each[0])


def _level_lines(padded_HW: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Run contourpy without its argument checks, which cost three times the contouring.

    Returns:
        Closed lines of (x, y) points.
    """
    rows, cols = padded_HW.shape
    x_HW, y_HW = _pixel_grid(1 << (max(rows, cols) - 1).bit_length())
    generator = SerialContourGenerator(
        x_HW[:rows, :cols],
        y_HW[:rows, :cols],
        padded_HW,
        np.zeros(padded_HW.shape, np.bool_),
        corner_mask=False,
        line_type=LineType.Separate,
        fill_type=FillType.OuterOffset,
        quad_as_tri=False,
        z_interp=ZInterp.Linear,
    )
    return [np.asarray(line, np.float64) for line in generator.lines(LEVEL)]


@lru_cache(maxsize=8)
def _pixel_grid(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Column and row number of every pixel of a square."""
    columns, rows = np.meshgrid(
        np.arange(size, dtype=np.float64), np.arange(size, dtype=np.float64)
    )
    return columns, rows


def sample(
    probability_HW: NDArray[np.float32], points_P2: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Read a map at (row, column) points by linear interpolation, 0 beyond its edge."""
    points = points_P2.astype(np.float32)
    values = cv2.remap(probability_HW, points[:, 1], points[:, 0], cv2.INTER_LINEAR)
    return np.asarray(values, np.float32).reshape(-1)


def neighbours(
    probabilities_NHW: NDArray[np.float32], outline_P2: NDArray[np.float64]
) -> NDArray[np.intp]:
    """Name what each point of the ventricle's outline borders on.

    On the outline the ventricle has half of the probability; the largest share of the other half
    is the neighbour.

    Returns:
        MYOCARDIUM, ATRIUM or ELSEWHERE per point.
    """
    myocardium_P = sample(probabilities_NHW[1], outline_P2)
    atrium_P = sample(probabilities_NHW[2], outline_P2)
    elsewhere_P = 1.0 - LEVEL - myocardium_P - atrium_P
    border_KP = np.stack([myocardium_P, atrium_P, elsewhere_P])
    return np.asarray(np.argmax(border_KP, axis=0), np.intp)


def segment_lengths(outline_P2: NDArray[np.float64]) -> NDArray[np.float64]:
    """Length of each side of a closed outline, one fewer than its points."""
    steps = outline_P2[1:] - outline_P2[:-1]
    return np.hypot(steps[:, 0], steps[:, 1])
