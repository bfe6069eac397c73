"""Which part of the image is the tissue, how large its pixels are, which view it shows.

Source:
    DICOM PS3.3 C.8.5.5 (US region calibration), PS3.16 CID 12226 (echocardiography image view).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model import (
    PIXEL_SHAPES,
    Calibration,
    DeclaredRegion,
    Region,
    Sector,
    choose_region,
    declared_width,
    rescale_labels,
)
from server.ingest.elements import Header
from server.ingest.tags import Tag

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


def calibrate(
    header: Header, rows: int, columns: int, frames: Sequence[NDArray[np.uint8]] = ()
) -> Calibration:
    """Choose the tissue region of a header; see ``choose_region``."""
    items = header.sequences.get(Tag.SequenceOfUltrasoundRegions, [])
    return choose_region([_declared(item) for item in items], rows, columns, frames)


def pixel_width(header: Header, calibration: Calibration) -> float | None:
    """Width of a pixel over its height as it is to be shown, None where a header does not say.

    Where a pixel size is known, that tells the shape of pixels, and they are shown as stored.
    """
    if calibration.spacing_mm is not None:
        return 1.0
    return declared_width(header.values.get(Tag[name], b"") for name in PIXEL_SHAPES)


def tissue(
    sector: Sector | None, region: Region | None, size: tuple[int, int], stored: tuple[int, int]
) -> NDArray[np.bool_] | None:
    """Which pixels of a stored picture show tissue, None where that is not known.

    Args:
        sector: the fan, None where none was found.
        region: the declared region, None where there is none.
        size: rows and columns that both are of.
        stored: rows and columns of the picture.
    """
    if sector is not None:
        inside_HW = sector.inside.astype(np.uint8)
    elif region is not None:
        inside_HW = np.zeros(size, np.uint8)
        rows = slice(region.top, region.top + region.height)
        inside_HW[rows, region.left : region.left + region.width] = 1
    else:
        return None
    return rescale_labels(inside_HW, stored).astype(np.bool_)


def _declared(item: Header) -> DeclaredRegion:
    """Read an item; one that lacks a corner is no box."""
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
    deltas_cm = (*item.binary(Tag.PhysicalDeltaY, "d"), *item.binary(Tag.PhysicalDeltaX, "d"))
    return DeclaredRegion(
        left,
        top,
        right,
        bottom,
        item.integer(Tag.RegionSpatialFormat),
        item.integer(Tag.RegionDataType),
        (item.integer(Tag.PhysicalUnitsXDirection), item.integer(Tag.PhysicalUnitsYDirection)),
        (deltas_cm[0], deltas_cm[1]) if len(deltas_cm) == 2 else None,
    )


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
