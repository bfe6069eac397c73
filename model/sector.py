"""The fan of a sector probe, found in the picture, so that text and ECG strips stay out of sight.

Nothing a header declares is needed. A fan is believed only where it explains the picture: two
straight sides that most of the outline lies on, an arc below, and next to nothing bright outside.
Where there is none (a linear probe, a zoomed picture, a black screen) nothing is cut away.

Source:
    The geometry of phased and curved arrays; levels and shares are our own, checked by eye on
    published clips.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from model.frame import Region
from model.preprocess import apart_from, background_of, is_flat, on_black

T = TypeVar("T", bound=np.generic)

_PROBES = 5
"""Frames of a clip that are looked at: what one of them leaves dark, another one shows."""

_FILM_PROBES = 30
"""Frames of a film that are looked at before the first is given: a beat, or most of one, since
parts of a fan are dark in some of it."""

_FILM_PROBES_BYTES = 64 << 20
"""No more of them than this, where pictures are large."""

_SEARCH_PX = 256
_LEVEL, _CAP = 6, 24
"""Grey from which a smoothed pixel counts as insonified, and what brighter ones count as."""

_OPENING_PX = 7
_LINE_PX, _FRAYED_SHARE = 1.5, 0.011
"""How far from a side a point of the outline may lie, on the copy of _SEARCH_PX, in pixels; and as
a share of the longer side, where video coding frayed the outline and the first finds nothing."""

_MAX_SKEW_RAD = math.radians(5.0)
"""How far the sides' angles may differ where the outline is frayed: a fan looks straight down."""

_HALF_ANGLES_RAD = np.radians(np.arange(15.0, 66.0, 0.5))
_MIN_SIDE_SHARE = 0.25
"""Share of the sector's rows that must lie on each side."""

_MIN_ARC_SHARE = 0.25
"""Share of the sector's columns whose lowest point must lie on the far arc."""

_MIN_INSIDE, _MIN_FILLED = 0.97, 0.5
"""Share of the bright area that lies inside the fan, and of the fan that is bright."""

_MIN_SHARE = 0.06
_MARGIN_SHARE = 0.02
"""Added around a fan, as a share of its depth."""


@dataclass(frozen=True)
class Sector:
    """A fan: everything between two angles at an apex, no further than a radius.

    Attributes:
        apex_row: may lie above the image, where the probe's surface is curved.
        apex_col: column of the apex.
        left_rad: angle of the left side from straight down, positive to the left.
        right_rad: angle of the right side, positive to the right.
        depth_px: distance of the far arc from the apex.
        size: rows and columns of the image.
        bounds: the part of the image that it ends with, the whole image where None.
        background: grey of the screen around it, 0 where that is black.
    """

    apex_row: float
    apex_col: float
    left_rad: float
    right_rad: float
    depth_px: float
    size: tuple[int, int]
    bounds: Region | None = None
    background: int = 0

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """Whether a pixel lies inside: H W."""
        row_H1, col_1W = np.ogrid[: self.size[0], : self.size[1]]
        down_H1, right_1W = row_H1 - self.apex_row, col_1W - self.apex_col
        within = (
            (-right_1W <= math.tan(self.left_rad) * down_H1)
            & (right_1W <= math.tan(self.right_rad) * down_H1)
            & (down_H1**2 + right_1W**2 <= self.depth_px**2)
        )
        if self.bounds is not None:
            box = np.zeros(self.size, np.bool_)
            _crop(box, self.bounds)[...] = True
            within &= box
        return np.asarray(within, np.bool_)

    def seen(self, pixels_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture as the network is to see it: black outside the fan."""
        return np.where(self.inside, on_black(pixels_HW, self.background), np.uint8(0))

    @property
    def margin_px(self) -> float:
        """How far it may reach beyond what the probe saw.

        This is what was added around it, and one pixel of the copy that it was found on.
        """
        higher = 1 / math.sin((self.left_rad + self.right_rad) / 2)
        depth_px = self.depth_px / (1 + _MARGIN_SHARE * (1 + higher))
        return _MARGIN_SHARE * depth_px + max(1.0, max(self.size) / _SEARCH_PX)

    @cached_property
    def box(self) -> Region:
        """The smallest box around it."""
        rows = np.flatnonzero(self.inside.any(1))
        cols = np.flatnonzero(self.inside.any(0))
        top, left = int(rows[0]), int(cols[0])
        return Region(top, left, int(rows[-1]) - top + 1, int(cols[-1]) - left + 1)


def fan_probes(count: int) -> list[int]:
    """Which frames of a clip of so many are looked at: from all over it, rising."""
    return sorted({index * count // _PROBES for index in range(_PROBES)})


def film_probes(rows: int, columns: int) -> int:
    """How many of a film's first frames are looked at, since its length shows at its end."""
    return min(_FILM_PROBES, max(1, _FILM_PROBES_BYTES // (rows * columns)))


def find_fan(frames: Sequence[NDArray[np.uint8]], region: Region | None) -> Sector | None:
    """Fit a fan to what is bright in any of some frames.

    Args:
        frames: luma of a few frames of one clip, all of one size.
        region: where to look, the whole image where None.

    Returns:
        The fan, None where the picture shows none.
    """
    if not frames:
        return None
    size = frames[0].shape
    box = region or Region(0, 0, *size)
    stacked = np.max(np.stack([_crop(frame, box) for frame in frames]), axis=0)
    shrink = max(1, round(max(stacked.shape) / _SEARCH_PX))
    background = min(background_of(_crop(frame, box)) for frame in (frames[0], frames[-1]))
    bright_HW = _largest_bright(stacked, background, shrink)
    if bright_HW is None:
        return None
    fan = _fit(bright_HW, _LINE_PX)
    if fan is None:
        fan = _fit(bright_HW, max(_LINE_PX, _FRAYED_SHARE * max(bright_HW.shape)))
        if fan is None or abs(fan.left_rad - fan.right_rad) > _MAX_SKEW_RAD:
            return None
    return Sector(
        apex_row=fan.apex_row * shrink + box.top,
        apex_col=fan.apex_col * shrink + box.left,
        left_rad=fan.left_rad,
        right_rad=fan.right_rad,
        depth_px=fan.depth_px * shrink,
        size=(size[0], size[1]),
        bounds=region,
        background=background,
    )


def _crop(image: NDArray[T], box: Region) -> NDArray[T]:
    return image[box.top : box.top + box.height, box.left : box.left + box.width]


def _largest_bright(
    luma: NDArray[np.uint8], background: int, shrink: int
) -> NDArray[np.bool_] | None:
    """The largest connected bright area on a smaller copy that is no panel, None without one."""
    size = max(1, luma.shape[1] // shrink), max(1, luma.shape[0] // shrink)
    lit = np.minimum(apart_from(luma, background), _CAP)
    small = cv2.resize(lit, size, interpolation=cv2.INTER_AREA)
    greys = np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)
    bright = np.asarray(cv2.GaussianBlur(small, (0, 0), 1.0) > _LEVEL, np.uint8)
    opened = cv2.morphologyEx(bright, cv2.MORPH_OPEN, np.ones((_OPENING_PX,) * 2, np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    largest_first = 1 + np.argsort(-stats[1:, cv2.CC_STAT_AREA], kind="stable")
    for label in largest_first:
        if stats[label, cv2.CC_STAT_AREA] < _MIN_SHARE * small.size:
            break
        area_HW = np.asarray(labels == label, np.bool_)
        if not is_flat(greys[area_HW]):
            return area_HW
    return None


def _fit(bright_HW: NDArray[np.bool_], line_px: float) -> Sector | None:
    """Fit sides and arc to the outline of one area; None where they do not explain it."""
    rows = np.flatnonzero(bright_HW.any(1))
    first, last = bright_HW[rows].argmax(1), bright_HW.shape[1] - 1
    lefts, rights = first, last - bright_HW[rows][:, ::-1].argmax(1)
    left = _side(rows, lefts.astype(float), line_px)
    right = _side(rows, -rights.astype(float), line_px)
    if left is None or right is None:
        return None
    (left_rad, left_at), (right_rad, right_at) = left, right
    slopes = math.tan(left_rad) + math.tan(right_rad)
    apex_row = (left_at + right_at) / slopes  # where both sides have one column
    apex_col = left_at - math.tan(left_rad) * apex_row
    depth_px = _far_arc(bright_HW, apex_row, apex_col)
    if depth_px is None:
        return None
    margin_px = _MARGIN_SHARE * depth_px
    higher = margin_px / math.sin((left_rad + right_rad) / 2)  # shifts both sides by the margin
    fan = Sector(
        apex_row - higher, apex_col, left_rad, right_rad, depth_px + margin_px + higher,
        (bright_HW.shape[0], bright_HW.shape[1]),
    )  # fmt: skip
    inside_HW = fan.inside
    shared = np.count_nonzero(inside_HW & bright_HW)
    is_explained = shared >= _MIN_INSIDE * np.count_nonzero(bright_HW)
    is_filled = shared >= _MIN_FILLED * np.count_nonzero(inside_HW)
    return fan if is_explained and is_filled else None


def _side(
    rows: NDArray[np.intp], edges: NDArray[np.float64], line_px: float
) -> tuple[float, float] | None:
    """Find the line that touches an outline from the left and has most of it close by.

    Args:
        rows: the outline's rows.
        edges: its columns.
        line_px: how far from the line a point of it may lie.

    Returns:
        The angle from straight down, positive to the left, and the column where the line meets row
        0; None where too little of the outline is straight.
    """
    slopes_A1 = np.tan(_HALF_ANGLES_RAD)[:, None]
    starts_AP = edges + slopes_A1 * rows
    # the outermost hundredth may stick out: a marker, a stroke of text
    at_A1 = np.quantile(starts_AP, 0.01, axis=1, keepdims=True)
    away_AP = np.abs(starts_AP - at_A1) * np.cos(_HALF_ANGLES_RAD)[:, None]
    counts_A = np.count_nonzero(away_AP <= line_px, axis=1)
    best = int(np.argmax(counts_A))
    if counts_A[best] < _MIN_SIDE_SHARE * len(rows):
        return None
    return float(_HALF_ANGLES_RAD[best]), float(at_A1[best, 0])


def _far_arc(bright_HW: NDArray[np.bool_], apex_row: float, apex_col: float) -> float | None:
    """The radius on which the lowest points of most columns lie, None where there is none."""
    cols = np.flatnonzero(bright_HW.any(0))
    lowest = bright_HW.shape[0] - 1 - bright_HW[::-1, cols].argmax(0)
    radii = np.hypot(lowest - apex_row, cols - apex_col)
    depth_px = float(np.quantile(radii, 0.98))
    on_arc = np.count_nonzero(radii >= 0.97 * depth_px)
    return depth_px if on_arc >= _MIN_ARC_SHARE * len(cols) else None
