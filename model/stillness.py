"""Whether a stream shows the same image again and again, as after a scanner's freeze button.

Noise of a capture card and of a codec is finer than anything that moves: averaged over coarse cells
a frozen image changes by a few hundredths of its contrast, a beating one by tenths within 200 ms.
"""

import base64
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from model.frame import Frame

F = TypeVar("F", bound=np.floating[Any])

CELLS = 24
"""Of the network's input, along each side."""

STILL_SHARE = 0.04
"""Root mean square of what the cells change by, over their standard deviation.

Own choice: with noise of 8 grey levels in every pixel a frozen clip of 240 x 320 px stays below it;
real clips of hearts change by twice as much within five frames, wherever one looks.
"""

STILL_US = 1_000_000
STILL_FRAMES = 30
FEWEST_FRAMES = 5
"""An image stands still that changed by no more for so long; by frames where they have no times."""


@dataclass(frozen=True, slots=True, eq=False)
class StillWatch:
    """The last image that differed from the one before it.

    Attributes:
        cells_HW: means of its cells, None before the first frame.
        seq: of its frame.
        time_us: of its frame, None where unknown.
        frames: that showed the same since.
        is_still: whether they did for long enough.
    """

    cells_HW: NDArray[np.float32] | None = None
    seq: int = 0
    time_us: int | None = None
    frames: int = 0
    is_still: bool = False

    @property
    def since_seq(self) -> int | None:
        """The frame from which the image stands still, None while it moves."""
        return self.seq if self.is_still else None

    def after(self, frame: Frame, image_11HW: NDArray[np.float32]) -> "StillWatch":
        """Take in the next frame, as the network sees it."""
        cells_HW = cv2.resize(image_11HW[0, 0], (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        if self.cells_HW is None or _differ(cells_HW, self.cells_HW):
            return StillWatch(cells_HW, frame.seq, frame.time_us)
        frames = self.frames + 1
        if frame.time_us is None or self.time_us is None:
            is_long = frames >= STILL_FRAMES
        else:
            is_long = frames >= FEWEST_FRAMES and frame.time_us - self.time_us >= STILL_US
        return replace(self, frames=frames, is_still=is_long)

    def to_view(self) -> dict[str, Any]:
        """As values that JSON can hold."""
        return {
            "cells": None if self.cells_HW is None else cells_to_text(self.cells_HW),
            "seq": self.seq,
            "time_us": self.time_us,
            "frames": self.frames,
            "is_still": self.is_still,
        }

    @classmethod
    def from_view(cls, cells: str | None, **values: Any) -> Self:
        """Read what ``to_view`` gave.

        Raises:
            ValueError: the cells are not those of an image.
        """
        return cls(None if cells is None else cells_from(cells, np.float32), **values)


def _differ(cells_HW: NDArray[np.float32], before_HW: NDArray[np.float32]) -> bool:
    """Whether two images differ by more than noise."""
    contrast = cv2.meanStdDev(before_HW)[1].item()
    return cv2.norm(cells_HW, before_HW) / CELLS > STILL_SHARE * contrast


def cells_to_text(cells_HW: NDArray[F]) -> str:
    """Cells as text that JSON can hold."""
    as_stored = cells_HW.astype(cells_HW.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(as_stored.tobytes()).decode("ascii")


def cells_from(text: str, kind: type[F]) -> NDArray[F]:
    """Read what ``cells_to_text`` gave of cells of that kind.

    Raises:
        ValueError: the cells are not those of an image.
    """
    stored = np.frombuffer(base64.b64decode(text, validate=True), np.dtype(kind).newbyteorder("<"))
    return stored.astype(kind).reshape(CELLS, CELLS)
