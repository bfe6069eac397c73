"""Masks on the source pixel grid."""

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
    scaled_HWN = cv2.resize(
        np.ascontiguousarray(seen_NHW.transpose(1, 2, 0)),
        (region.width, region.height),
        interpolation=cv2.INTER_LINEAR,
    )
    background_HW = 1.0 - scaled_HWN.sum(axis=2)
    best_HW = scaled_HWN.argmax(axis=2)
    inside_HW = scaled_HWN.max(axis=2) > background_HW
    labels_HW = np.zeros(mask.fit.source_size, np.uint8)
    labels_HW[
        region.top : region.top + region.height, region.left : region.left + region.width
    ] = np.where(inside_HW, best_HW + 1, 0)
    return labels_HW
