"""Drawn hearts that beat in a fan."""

import numpy as np
from numpy.typing import NDArray

from model.frame import Region
from model.preprocess import make_fit

SIDE = 192
FIT = make_fit(Region(0, 0, SIDE, SIDE), (SIDE, SIDE), 144)
FPS = 30
Picture = NDArray[np.uint8]


def beating(seconds: float, fps: int = FPS, zoom: float = 1.0) -> list[Picture]:
    """A heart that contracts and fills once a second."""
    shares = [0.5 - 0.5 * np.cos(2 * np.pi * k / fps) for k in range(round(seconds * fps))]
    return [heart(40 - 9 * share, zoom) for share in shares]


def heart(wide: float, zoom: float = 1.0) -> Picture:
    """A bright wall around a dark ellipse of that half axis, in a fan of speckle.

    Args:
        wide: half axis in pixels.
        zoom: pixels for one, from the tip of the fan, as where a scanner's depth is changed.
    """
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    is_fan = np.abs(cols - 96.0) < 0.8 * (rows + 4.0)
    rows, cols = (rows + 4.0) / zoom - 4.0, (cols - 96.0) / zoom + 96.0
    radius = np.hypot((rows - 85.0) / (1.5 * wide), (cols - 100.0) / wide)
    image = np.where(radius < 1.0, 30.0, np.where(radius < 1.3, 150.0, 80.0))
    speckle = 1.0 + 0.25 * np.sin(1.7 * rows) * np.cos(2.3 * cols)
    return (image * speckle * is_fan).astype(np.uint8)
