"""Which part of the image is the tissue, how large its pixels are, which view it shows.

Source:
    DICOM PS3.3 C.8.5.5 (US region calibration), PS3.16 CID 12226 (echocardiography image view).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model import Region
from server.ingest.elements import Header
from server.ingest.tags import Tag

_FORMAT_2D, _TYPE_TISSUE, _TYPE_COLOUR_FLOW = 1, 1, 2
_UNIT_CM = 3
_MOVES = 20
"""Difference of a pixel's greys among some frames from which it moves, and is no noise."""

_STILL_SHARE = 0.25
"""A region with less than this share of the liveliest one's moving pixels is a frozen image."""

MIN_SPACING_MM, MAX_SPACING_MM = 0.02, 2.0

_VIEW_OF_CODE = {
    "399214001": "A4C",
    "399232001": "A2C",
    "399339008": "A3C",
    "399139001": "PLAX",
    "399306005": "PSAX",
    "399271003": "PSAX",
    "399036006": "PSAX",
    "G-A19C": "A4C",
    "G-A19B": "A2C",
    "G-0395": "A3C",
    "G-0396": "PLAX",
    "G-0397": "PSAX",
    "G-039B": "PSAX",
    "G-039A": "PSAX",
}
_VIEW_OF_NAME = {
    "a4c": "A4C",
    "ap4": "A4C",
    "4ch": "A4C",
    "apical4chamber": "A4C",
    "apicalfourchamber": "A4C",
    "a2c": "A2C",
    "ap2": "A2C",
    "2ch": "A2C",
    "apical2chamber": "A2C",
    "apicaltwochamber": "A2C",
    "a3c": "A3C",
    "alax": "A3C",
    "apicallongaxis": "A3C",
    "plax": "PLAX",
    "psax": "PSAX",
}


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the regions of an image say.

    Attributes:
        region: the tissue, None where unknown.
        spacing_mm: row and column spacing, None where not calibrated.
        shows_flow: the chosen region is declared to hold colour flow.
        warnings: what was dropped, and why.
    """

    region: Region | None = None
    spacing_mm: tuple[float, float] | None = None
    shows_flow: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Box:
    """One item of SequenceOfUltrasoundRegions; its corners are inclusive."""

    item: Header
    spatial_format: int | None
    data_type: int | None
    left: int
    top: int
    right: int
    bottom: int

    @property
    def area_px(self) -> int:
        return (self.right - self.left + 1) * (self.bottom - self.top + 1)

    def is_inside(self, rows: int, columns: int) -> bool:
        """Whether it ends inside the image.

        Writers that take the corners for half open end one pixel too far, which is forgiven. A box
        further out comes from an image that was rescaled after its header was written, so that no
        box and no pixel size of this header holds for it.
        """
        ends_inside = self.right <= columns and self.bottom <= rows
        return ends_inside and self.left < columns - 1 and self.top < rows - 1

    def region(self, rows: int, columns: int) -> Region:
        right, bottom = min(self.right, columns - 1), min(self.bottom, rows - 1)
        return Region(self.top, self.left, bottom - self.top + 1, right - self.left + 1)

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return image[self.top : self.bottom + 1, self.left : self.right + 1]


def calibrate(
    header: Header, rows: int, columns: int, frames: Sequence[NDArray[np.uint8]] = ()
) -> Calibration:
    """Choose the tissue region: two-dimensional, tissue before colour flow, then by content.

    Of several one that moves is taken, since a scanner leaves a frozen image beside the live one;
    of several of those one with a pixel size; of several of those the largest.

    Args:
        header: the clip's header.
        rows: of an image.
        columns: of an image.
        frames: luma of a few frames.
    """
    boxes = [box for item in _items(header) if (box := _read_box(item)) is not None]
    flat = [box for box in boxes if box.spatial_format == _FORMAT_2D]
    tissue = [box for box in flat if box.data_type == _TYPE_TISSUE]
    flow = [box for box in flat if box.data_type == _TYPE_COLOUR_FLOW]
    candidates = tissue or flow
    if not candidates:
        return Calibration()
    warnings = () if len(candidates) == 1 else ("several_regions",)
    if any(not box.is_inside(rows, columns) for box in boxes):
        return Calibration(warnings=(*warnings, "region_outside_image"))
    chosen = _choose(candidates, frames)
    spacing_mm = _spacing_mm(chosen.item)
    if spacing_mm is None:
        warnings = (*warnings, "spacing_unusable")
    return Calibration(chosen.region(rows, columns), spacing_mm, not tissue, warnings)


def _choose(candidates: Sequence["_Box"], frames: Sequence[NDArray[np.uint8]]) -> "_Box":
    if len(candidates) == 1 or not frames:
        motions = [0.0 for _ in candidates]
    else:
        ranges_HW = np.ptp(np.stack(frames), axis=0)
        motions = [float(np.mean(box.crop(ranges_HW) > _MOVES)) for box in candidates]
    ranked = [
        (motion >= _STILL_SHARE * max(motions), _spacing_mm(box.item) is not None, box.area_px)
        for motion, box in zip(motions, candidates, strict=True)
    ]
    return candidates[ranked.index(max(ranked))]


def _items(header: Header) -> list[Header]:
    return header.sequences.get(Tag.SequenceOfUltrasoundRegions, [])


def _read_box(item: Header) -> _Box | None:
    """Read an item's box; None for items that have none, or an empty one."""
    corners = [
        item.integer(tag, "I")
        for tag in (
            Tag.RegionLocationMinX0,
            Tag.RegionLocationMinY0,
            Tag.RegionLocationMaxX1,
            Tag.RegionLocationMaxY1,
        )
    ]
    left, top, right, bottom = (-1 if corner is None else corner for corner in corners)
    if min(left, top) < 0 or right <= left or bottom <= top:
        return None
    spatial_format = item.integer(Tag.RegionSpatialFormat)
    return _Box(item, spatial_format, item.integer(Tag.RegionDataType), left, top, right, bottom)


def _spacing_mm(item: Header) -> tuple[float, float] | None:
    units = (item.integer(Tag.PhysicalUnitsXDirection), item.integer(Tag.PhysicalUnitsYDirection))
    deltas_cm = (*item.binary(Tag.PhysicalDeltaY, "d"), *item.binary(Tag.PhysicalDeltaX, "d"))
    if units != (_UNIT_CM, _UNIT_CM) or len(deltas_cm) != 2:
        return None
    row_mm, column_mm = (10 * abs(delta_cm) for delta_cm in deltas_cm)
    if not all(_is_plausible(spacing_mm) for spacing_mm in (row_mm, column_mm)):
        return None
    return row_mm, column_mm


def _is_plausible(spacing_mm: float) -> bool:
    return math.isfinite(spacing_mm) and MIN_SPACING_MM <= spacing_mm <= MAX_SPACING_MM


def view_of(header: Header) -> str | None:
    """Name the view by its code, else by ViewName or StageName, which are hints; else None."""
    for item in header.sequences.get(Tag.ViewCodeSequence, []):
        if (view := _VIEW_OF_CODE.get(item.text(Tag.CodeValue))) is not None:
            return view
    for tag in (Tag.ViewName, Tag.StageName):
        if (view := view_named(header.text(tag))) is not None:
            return view
    return None


def view_named(words: str) -> str | None:
    """Name the view that people call so, such as "4 Ch"; None where nobody does."""
    name = "".join(letter for letter in words.lower() if letter.isalnum())
    return _VIEW_OF_NAME.get(name)
