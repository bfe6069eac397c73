"""What the servers that this one is compared with do to a frame before and after the network."""

import cv2
import numpy as np
from numpy.typing import NDArray

Planes = NDArray[np.float32]


def to_input(jpeg: bytes, side_px: int) -> tuple[Planes, tuple[int, int]]:
    """image_11HW of a JPEG, and its size."""
    pixels_HW = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert pixels_HW is not None
    small_HW = cv2.resize(pixels_HW, (side_px, side_px), interpolation=cv2.INTER_AREA)
    return np.asarray(small_HW, np.float32)[None, None] / 255.0, pixels_HW.shape[:2]


def to_png(probabilities_NHW: Planes, size: tuple[int, int]) -> bytes:
    """The most probable structure at every pixel, as a PNG."""
    planes = np.concatenate([1.0 - probabilities_NHW.sum(axis=0, keepdims=True), probabilities_NHW])
    large = [cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR) for plane in planes]
    return cv2.imencode(".png", np.argmax(large, axis=0).astype(np.uint8))[1].tobytes()
