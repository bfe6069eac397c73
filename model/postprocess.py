"""Masks on the source pixel grid."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from model.frame import STRUCTURES, WHOLE, Mask
from model.preprocess import network_box


def to_source_labels(mask: Mask) -> NDArray[np.uint8]:
    """The most probable structure at every source pixel.

    Of the ventricle and of the atrium that is what is measured of them: the largest piece, with
    what lies within it. What a person drew stays as it was drawn.

    Returns:
        labels_HW on the source grid: 0 background, then 1 + the index in STRUCTURES. Outside the
        region that the network saw everything is background.
    """
    region, box = mask.fit.region, network_box(mask.fit)
    seen_NHW = mask.probabilities_NHW[
        :, box.top : box.top + box.height, box.left : box.left + box.width
    ]
    labels_HW = np.zeros(mask.fit.source_size, np.uint8)
    inside_HW = labels_HW[
        region.top : region.top + region.height, region.left : region.left + region.width
    ]
    tissue_HW = seen_NHW.sum(axis=0)
    # A structure beats the background only where all structures together reach one half.
    left, top, width, height = cv2.boundingRect((tissue_HW >= 0.5).view(np.uint8))
    if width > 0:
        span = (
            _source_span(top, height, box.height, region.height),
            _source_span(left, width, box.width, region.width),
        )
        maps_KHW = [*seen_NHW, 1.0 - tissue_HW]
        for name in WHOLE:
            index = STRUCTURES.index(name)
            if index < len(seen_NHW) and name not in mask.drawn:
                _make_whole(maps_KHW, index, (slice(top, top + height), slice(left, left + width)))
        _write_labels(maps_KHW, inside_HW, span)
    return labels_HW


def _make_whole(maps_KHW: list[NDArray[np.float32]], index: int, seat: tuple[slice, slice]) -> None:
    """Give a structure's holes to it, and all but its largest piece to what is next in likelihood.

    Args:
        maps_KHW: the structures and the background. Maps that change are replaced.
        index: of the structure.
        seat: rows and columns outside of which the background rules.
    """
    own_HW = maps_KHW[index][seat]
    rival_HW, *others = (each[seat] for other, each in enumerate(maps_KHW) if other != index)
    for other_HW in others:
        rival_HW = np.maximum(rival_HW, other_HW)
    is_own_HW = cv2.compare(own_HW, rival_HW, cv2.CMP_GT)
    lines, _ = cv2.findContours(is_own_HW, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(lines) < 2:
        return
    largest = max(lines, key=cv2.contourArea)
    is_whole_HW = cv2.drawContours(np.zeros_like(is_own_HW), [largest], -1, 255, cv2.FILLED) > 0
    for other, map_HW in enumerate(maps_KHW):
        maps_KHW[other] = changed_HW = map_HW.copy()
        changed_HW[seat][is_whole_HW & (is_own_HW == 0)] = float(other == index)
    maps_KHW[index][seat][~is_whole_HW & (is_own_HW > 0)] = 0.0


def _source_span(first: int, count: int, network_px: int, source_px: int) -> slice:
    """Where labels can be along one axis of the region.

    Linear interpolation reaches no further than the next network pixel.

    Args:
        first: network pixel that shows a structure.
        count: network pixels up to the last that does.
        network_px: length of the axis in network pixels.
        source_px: its length in source pixels.
    """
    scale = source_px / network_px
    start, stop = (first - 0.5) * scale - 0.5, (first + count + 0.5) * scale - 0.5
    return slice(max(0, int(start)), min(source_px, math.ceil(stop) + 1))


def _write_labels(
    maps_KHW: Sequence[NDArray[np.float32]],
    inside_HW: NDArray[np.uint8],
    span: tuple[slice, slice],
) -> None:
    """Fill the span of ``inside_HW`` with the label of the greatest probability, in place.

    Args:
        maps_KHW: the structures, then the background.
        inside_HW: labels of the region.
        span: rows and columns of it that are written.
    """
    size = (inside_HW.shape[1], inside_HW.shape[0])
    scaled_KHW = [cv2.resize(each, size, interpolation=cv2.INTER_LINEAR)[span] for each in maps_KHW]
    best_HW = scaled_KHW.pop()
    found_HW = np.zeros(best_HW.shape, np.uint8)
    for index, scaled_HW in enumerate(scaled_KHW):
        # 255 where it wins; a later structure's label is greater than those that it replaces.
        wins_HW = np.asarray(cv2.compare(scaled_HW, best_HW, cv2.CMP_GT), np.uint8)
        np.maximum(found_HW, wins_HW & np.uint8(index + 1), out=found_HW)
        best_HW = cv2.max(best_HW, scaled_HW)
    inside_HW[span] = found_HW
