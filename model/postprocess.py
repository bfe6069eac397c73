"""Masks on the source pixel grid."""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from model.frame import Mask
from model.preprocess import network_box


def to_source_labels(mask: Mask) -> NDArray[np.uint8]:
    """The most probable structure at every source pixel.

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
        _write_labels(seen_NHW, 1.0 - tissue_HW, inside_HW, span)
    return labels_HW


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
    seen_NHW: NDArray[np.float32],
    background_HW: NDArray[np.float32],
    inside_HW: NDArray[np.uint8],
    span: tuple[slice, slice],
) -> None:
    """Fill the span of ``inside_HW`` with the label of the greatest probability, in place."""
    size = (inside_HW.shape[1], inside_HW.shape[0])
    best_HW = cv2.resize(background_HW, size, interpolation=cv2.INTER_LINEAR)[span]
    seat_HW = inside_HW[span]
    for index, probability_HW in enumerate(seen_NHW):
        scaled_HW = cv2.resize(
            np.ascontiguousarray(probability_HW), size, interpolation=cv2.INTER_LINEAR
        )[span]
        # 255 where it wins; a later structure's label is greater than those that it replaces.
        wins_HW = cv2.compare(scaled_HW, best_HW, cv2.CMP_GT)
        np.maximum(seat_HW, np.minimum(wins_HW, np.uint8(index + 1)), out=seat_HW)
        best_HW = cv2.max(best_HW, scaled_HW)
