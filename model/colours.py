"""Whether colour lies over the heart of a stream: flow, the tissue's velocity, strain.

Under it the luma tells velocities, not echoes, and outlines follow the colour box. Flow is seen in
a part of each beat only, so that a colour that was seen counts for some time.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from model.frame import Frame, Mask
from model.pictures import COLOUR_LOOK_FRAMES, COLOURED_SHARE, coloured_share
from model.preprocess import network_box

HELD_LOOKS = 12
"""Looks without colour after which it is off: 96 frames, a beat and more at any frame rate."""


@dataclass(frozen=True, slots=True)
class ColourWatch:
    """What was seen of colours lately.

    Attributes:
        frames: since they were looked at.
        clean_looks: without colour since the last one that showed it, None while none did.
    """

    frames: int = COLOUR_LOOK_FRAMES - 1
    clean_looks: int | None = None

    @property
    def is_due(self) -> bool:
        """Whether the next frame is wanted with its colours."""
        return self.frames >= COLOUR_LOOK_FRAMES - 1

    @property
    def is_covered(self) -> bool:
        """Whether colour covers the heart."""
        return self.clean_looks is not None and self.clean_looks < HELD_LOOKS

    def after(self, frame: Frame, mask: Mask) -> "ColourWatch":
        """Take in the next frame and what the network says of it."""
        if not self.is_due:
            return replace(self, frames=self.frames + 1)
        if frame.colours_HW3 is not None and _covers_heart(frame.colours_HW3, mask):
            return ColourWatch(0, 0)
        clean = None if self.clean_looks is None else self.clean_looks + 1
        return ColourWatch(0, clean if clean is None or clean < HELD_LOOKS else None)

    def to_view(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_view(cls, frames: int, clean_looks: int | None) -> Self:
        """Read what ``to_view`` gave."""
        return cls(frames, clean_looks)


def _covers_heart(colours_HW3: NDArray[np.uint8], mask: Mask) -> bool:
    size = colours_HW3.shape[0], colours_HW3.shape[1]
    return coloured_share(colours_HW3, _heart(mask, size)) > COLOURED_SHARE


def _heart(mask: Mask, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The convex hull of all structures, or the whole region where there is none.

    Args:
        mask: of the frame.
        size: rows and columns that the hull is wanted in.
    """
    seen, box = mask.fit.region, network_box(mask.fit)
    tissue_HW = mask.probabilities_NHW.sum(axis=0)[
        box.top : box.top + box.height, box.left : box.left + box.width
    ]
    is_tissue_HW = (tissue_HW >= 0.5).astype(np.uint8)
    points = cv2.findNonZero(is_tissue_HW)
    if points is None:
        is_tissue_HW[:] = 1
    else:
        cv2.fillConvexPoly(is_tissue_HW, cv2.convexHull(points), 1)
    region = seen.scaled(mask.fit.source_size, size)
    inside_HW = np.zeros(size, np.uint8)
    inside_HW[region.top : region.top + region.height, region.left : region.left + region.width] = (
        cv2.resize(
            is_tissue_HW, (region.width, region.height), interpolation=cv2.INTER_NEAREST_EXACT
        )
    )
    return inside_HW > 0
