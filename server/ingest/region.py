"""Which part of the image is the tissue, how large its pixels are, which view it shows.

Source:
    DICOM PS3.3 C.8.5.5 (US region calibration), PS3.16 CID 12226 (echocardiography image view).
"""

import math
from dataclasses import dataclass

from model import Region
from server.ingest.elements import Header
from server.ingest.tags import Tag

_FORMAT_2D, _TYPE_TISSUE, _TYPE_COLOUR_FLOW = 1, 1, 2
_UNIT_CM = 3
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
    """One item of SequenceOfUltrasoundRegions."""

    item: Header
    data_type: int
    left: int
    top: int
    right: int
    bottom: int

    @property
    def area_px(self) -> int:
        return max(0, self.right - self.left + 1) * max(0, self.bottom - self.top + 1)


def calibrate(header: Header, rows: int, columns: int) -> Calibration:
    """Choose the tissue region: two-dimensional, tissue before colour flow, the largest."""
    boxes = [box for item in _items(header) if (box := _two_dimensional(item)) is not None]
    tissue = [box for box in boxes if box.data_type == _TYPE_TISSUE]
    flow = [box for box in boxes if box.data_type == _TYPE_COLOUR_FLOW]
    candidates = tissue or flow
    if not candidates:
        return Calibration()
    box = max(candidates, key=lambda box: box.area_px)
    warnings = () if len(candidates) == 1 else ("several_regions",)
    region = _inside(box, rows, columns)
    if region is None:
        return Calibration(warnings=(*warnings, "region_outside_image"))
    spacing_mm = _spacing_mm(box.item)
    if spacing_mm is None:
        warnings = (*warnings, "spacing_unusable")
    return Calibration(region, spacing_mm, not tissue, warnings)


def _items(header: Header) -> list[Header]:
    return header.sequences.get(Tag.SequenceOfUltrasoundRegions, [])


def _two_dimensional(item: Header) -> _Box | None:
    """Read a 2-D region; None for other kinds and for items without a box."""
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
    if item.integer(Tag.RegionSpatialFormat) != _FORMAT_2D or min(left, top, right, bottom) < 0:
        return None
    return _Box(item, item.integer(Tag.RegionDataType) or 0, left, top, right, bottom)


def _inside(box: _Box, rows: int, columns: int) -> Region | None:
    """Turn a box into a Region, None where it runs outside the image.

    Both corners are inclusive; writers that take them for half open end one pixel too far, which
    is forgiven. A box further out comes from an image that was rescaled after its header was
    written, so its pixel size is wrong too.
    """
    if box.right > columns or box.bottom > rows:
        return None
    right, bottom = min(box.right, columns - 1), min(box.bottom, rows - 1)
    if right <= box.left or bottom <= box.top:
        return None
    return Region(box.top, box.left, bottom - box.top + 1, right - box.left + 1)


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
        name = "".join(letter for letter in header.text(tag).lower() if letter.isalnum())
        if name in _VIEW_OF_NAME:
            return _VIEW_OF_NAME[name]
    return None
