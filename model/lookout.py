"""Whether a stream's sector still lies where the network looks.

A session may begin before the probe touches the patient, and scanners change depth, zoom and layout
in its midst. So the sector is looked for again and again; where it was found lately decides.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median_low
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.frame import Region
from model.preprocess import find_sectors

LOOK_FRAMES = 8
"""Every so many frames the sector is looked for."""

GROWN_LOOKS = 3
SHRUNK_LOOKS = 23
"""Looks whose median counts: few where something lies outside of what the network sees; many where
it sees too much, which costs less, and is often but a lost contact or a breath."""

SEVERAL_LOOKS = 2
"""Looks more with several sectors than with one of late from which a screen shows several."""

MOST_OUTSIDE_SHARE = 0.2
LEAST_FILLED_SHARE = 0.6
"""Own choice: shares of the found box, and of the region. Speckle and breath move a real clip's box
by less than a tenth."""


@dataclass(frozen=True, slots=True)
class Lookout:
    """What was seen of the sector lately.

    Attributes:
        frames: since it was looked for.
        boxes: where it was found in the last SHRUNK_LOOKS looks that found it, the latest last.
        several_looks: looks of late that found other sectors of its size on the screen, less those
            that found it alone; 0 to 3.
    """

    frames: int = 0
    boxes: tuple[Region, ...] = ()
    several_looks: int = 0

    @property
    def shows_several(self) -> bool:
        """Whether the screen shows other sectors beside this one."""
        return self.several_looks >= SEVERAL_LOOKS

    def after(self, pixels_HW: NDArray[np.uint8], region: Region) -> "Lookout":
        """Take in a stream's next frame.

        Args:
            pixels_HW: its luma.
            region: where the network looks; of several sectors the one that lies there counts.
        """
        if self.frames + 1 < LOOK_FRAMES:
            return replace(self, frames=self.frames + 1)
        sectors = find_sectors(pixels_HW)
        if not sectors:
            return replace(self, frames=0)
        box = max(sectors, key=lambda each: _common_px(each, region))
        step = 1 if len(sectors) > 1 else -1
        several = min(max(self.several_looks + step, 0), SEVERAL_LOOKS + 1)
        return Lookout(0, (*self.boxes, box)[-SHRUNK_LOOKS:], several)

    def moved_to(self, region: Region) -> "Move | None":
        """Where the last look found the sector gone to, None while it fills a region."""
        if self.frames:
            return None  # nothing new since the last look
        if len(self.boxes) >= GROWN_LOOKS:
            box = _usual(self.boxes[-GROWN_LOOKS:])
            if _common_px(box, region) < (1 - MOST_OUTSIDE_SHARE) * _px(box):
                return Move(box, _misled(GROWN_LOOKS))
        if len(self.boxes) == SHRUNK_LOOKS:
            box = _usual(self.boxes)
            if _common_px(box, region) < LEAST_FILLED_SHARE * _px(region):
                return Move(box, _misled(SHRUNK_LOOKS))
        return None

    def to_view(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_view(cls, frames: int, boxes: list[dict[str, int]], several_looks: int = 0) -> Self:
        """Read what ``to_view`` gave.

        Raises:
            FrameError: a box is none.
        """
        return cls(frames, tuple(Region(**box) for box in boxes), several_looks)


@dataclass(frozen=True, slots=True)
class Move:
    """The sector lies elsewhere.

    Attributes:
        region: where it lies now.
        frames: about so many before this one were looked at in the wrong place.
    """

    region: Region
    frames: int


def _misled(looks: int) -> int:
    """Frames from when the sector moved until it shows in the median of so many looks."""
    majority = looks // 2 + 1
    return (majority + 1) * LOOK_FRAMES


def _usual(boxes: Sequence[Region]) -> Region:
    """The box whose edges are the medians of all boxes' edges."""
    top, left, bottom, right = (
        median_low(edges)
        for edges in zip(
            *((b.top, b.left, b.top + b.height, b.left + b.width) for b in boxes), strict=True
        )
    )
    return Region(top, left, bottom - top, right - left)


def _px(region: Region) -> int:
    return region.height * region.width


def _common_px(one: Region, other: Region) -> int:
    rows = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    columns = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    return max(rows, 0) * max(columns, 0)
