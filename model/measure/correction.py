"""Outlines drawn by a person, put over what the network says of a frame."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import MeasurementError
from model.frame import STRUCTURES, Fit, Mask
from model.measure.contour import LEVEL, MIN_OUTLINE_AREA_PX, signed_area

Drawn = Mapping[str, Sequence[NDArray[np.float64]]]
"""Per name of STRUCTURES its closed outlines, each P x 2 (row, column) source pixels.

What lies inside an odd number of a structure's outlines belongs to it, so that one within another
is a hole. A structure that is not named stays as it is; one without outlines is nowhere.
"""

_PRECEDENCE = ("lv", "atrium", "myocardium")
"""Whose place it is where drawn structures overlap."""

_REACH_PX = 1.0
"""Beyond this distance from an outline the map is 0 or 1."""


def correct_mask(mask: Mask, drawn: Drawn) -> Mask:
    """Put outlines over a frame's mask.

    A drawn structure gets a map whose 0.5 level is its outline. Where it gives way, what lies
    nearest moves in; where it grows, all else gives way. Where drawn structures overlap, the
    ventricle has the place, then the atrium: the wall may be drawn as what it encloses.

    Args:
        mask: what the network says.
        drawn: what is right instead.

    Returns:
        A new mask with the network's verdict on the view.

    Raises:
        MeasurementError: an outline leaves the part of the image that the network sees, is too
            small to be measured, or is of what this model does not tell.
    """
    maps_NHW = mask.probabilities_NHW.astype(np.float32)
    unknown = sorted(set(drawn) - set(STRUCTURES[: len(maps_NHW)]))
    if unknown:
        raise MeasurementError(f"this model does not tell {' and '.join(unknown)}")
    taken_HW = np.zeros(maps_NHW.shape[1:], np.float32)
    is_drawn_N = np.array([name in drawn for name in STRUCTURES[: len(maps_NHW)]])
    # What the rest of a pixel is shared by, before anything moved.
    rest_KHW = np.concatenate([maps_NHW, 1.0 - maps_NHW.sum(axis=0, keepdims=True)])
    rest_KHW[:-1][is_drawn_N] = 0.0
    shares_KHW = _shares(rest_KHW, maps_NHW[is_drawn_N].sum(axis=0))
    for name in (each for each in _PRECEDENCE if each in drawn):
        index = STRUCTURES.index(name)
        lines = [_on_network(line_P2, mask.fit) for line_P2 in drawn[name]]
        maps_NHW[index] = np.minimum(draw(lines, taken_HW.shape), 1.0 - taken_HW)
        taken_HW += maps_NHW[index]
    maps_NHW[~is_drawn_N] = (1.0 - taken_HW) * shares_KHW[:-1][~is_drawn_N]
    return replace(mask, probabilities_NHW=maps_NHW, drawn=mask.drawn | frozenset(drawn))


def _shares(rest_KHW: NDArray[np.float32], gone_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share every pixel among what was not drawn.

    Args:
        rest_KHW: probabilities of what was not drawn, the background last.
        gone_HW: probability of what is drawn anew; where it ruled, the nearest pixel where it did
            not says what is there instead.
    """
    total_HW = rest_KHW.sum(axis=0)
    rest_KHW[-1][total_HW <= 0] = 1.0
    shares_KHW = rest_KHW / rest_KHW.sum(axis=0)
    is_gone_HW = gone_HW >= LEVEL
    if not is_gone_HW.any() or is_gone_HW.all():
        return shares_KHW
    _, nearest_HW = cv2.distanceTransformWithLabels(
        is_gone_HW.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    kept = np.flatnonzero(~is_gone_HW)
    place = np.zeros(len(kept) + 1, np.intp)
    place[nearest_HW.ravel()[kept]] = kept
    flat_KQ = shares_KHW.reshape(len(shares_KHW), -1)
    return flat_KQ[:, place[nearest_HW.ravel()]].reshape(shares_KHW.shape)


def _on_network(line_P2: NDArray[np.float64], fit: Fit) -> NDArray[np.float64]:
    """Map an outline onto the network grid, checked."""
    region = fit.region
    first_2 = np.array([region.top, region.left]) - 0.5
    last_2 = first_2 + np.array([region.height, region.width])
    if (line_P2 < first_2).any() or (line_P2 > last_2).any():
        rows = f"rows {region.top} to {region.top + region.height - 1}"
        columns = f"columns {region.left} to {region.left + region.width - 1}"
        raise MeasurementError(
            f"an outline leaves the part of the image that is measured, {rows} and {columns}"
        )
    points_P2 = fit.to_network(line_P2)
    if abs(signed_area(points_P2)) < MIN_OUTLINE_AREA_PX:
        raise MeasurementError("an outline is too small to be measured")
    return points_P2


def draw(lines: Sequence[NDArray[np.float64]], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Draw closed outlines as a map whose 0.5 level they are.

    Near an outline the map falls by 1 a pixel, so that linear interpolation finds the outline
    again to a fraction of a pixel.
    """
    distance_HW = np.full(size, _REACH_PX)
    crossings_HW = np.zeros((size[0], size[1] + 1), np.int64)
    for line_P2 in lines:
        for first_2, last_2 in pairwise(line_P2):
            _near(distance_HW, first_2, last_2)
            _cross(crossings_HW, first_2, last_2)
    # How many outlines a pixel sees to its right.
    seen_HW = np.cumsum(crossings_HW[:, ::-1], axis=1)[:, ::-1][:, 1:]
    sign_HW = np.where(seen_HW % 2 == 1, 1.0, -1.0)
    return np.clip(LEVEL + sign_HW * distance_HW, 0.0, 1.0).astype(np.float32)


def _near(
    distance_HW: NDArray[np.float64], first_2: NDArray[np.float64], last_2: NDArray[np.float64]
) -> None:
    """Note the distance of every pixel about one side of an outline, in place."""
    low_2 = np.maximum(np.floor(np.minimum(first_2, last_2) - _REACH_PX), 0).astype(int)
    high_2 = np.maximum(np.ceil(np.maximum(first_2, last_2) + _REACH_PX) + 1, 0).astype(int)
    near_HW = distance_HW[low_2[0] : high_2[0], low_2[1] : high_2[1]]
    rows_HW, cols_HW = np.ogrid[
        low_2[0] : low_2[0] + near_HW.shape[0], low_2[1] : low_2[1] + near_HW.shape[1]
    ]
    side_2 = last_2 - first_2
    away_row, away_col = rows_HW - first_2[0], cols_HW - first_2[1]
    along_HW = (away_row * side_2[0] + away_col * side_2[1]) / max(float(side_2 @ side_2), 1e-12)
    along_HW = np.clip(along_HW, 0.0, 1.0)
    found_HW = np.hypot(away_row - along_HW * side_2[0], away_col - along_HW * side_2[1])
    np.minimum(near_HW, found_HW, out=near_HW)


def _cross(
    crossings_HW: NDArray[np.int64], first_2: NDArray[np.float64], last_2: NDArray[np.float64]
) -> None:
    """Count where one side of an outline crosses the rows of pixels, in place."""
    upper_2, lower_2 = (first_2, last_2) if first_2[0] <= last_2[0] else (last_2, first_2)
    rows = np.arange(max(0, int(np.ceil(upper_2[0]))), int(np.ceil(lower_2[0])))
    rows = rows[rows < len(crossings_HW)]
    if len(rows):
        slope = (lower_2[1] - upper_2[1]) / (lower_2[0] - upper_2[0])
        columns = np.ceil(upper_2[1] + (rows - upper_2[0]) * slope).astype(int)
        np.add.at(crossings_HW, (rows, columns.clip(0, crossings_HW.shape[1] - 1)), 1)
