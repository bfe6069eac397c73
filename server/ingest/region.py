"""Which part of the image is the tissue, how large its pixels are, which view it shows.

Source:
    DICOM PS3.3 C.8.5.5 (US region calibration), PS3.16 CID 12226 (echocardiography image view).
"""

import re
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

_CODES_OF_VIEW = {
    "A4C": "399214001 G-A19C",
    "A2C": "399232001 G-A19B",
    "A3C": "399339008 G-0395",
    "PLAX": "399139001 G-0396",
    "PSAX": "399306005 G-0397 399239005 G-0398 399371001 G-0399 399036006 G-039A 399271003 G-039B",
    "RV": "130681 130682 398998003 G-039C 399195005 G-039D 443082005 G-0577 443083000 G-0578",
    "SUBCOSTAL": "399310008 G-039E 399200001 G-039F 443499004 G-057B 443609003 G-057E "
    "443160001 G-0579 443500008 G-057C 443640005 R-40B0A 443100003 R-40AFF",
    "SUPRASTERNAL": "399106004 G-03A0 399145009 G-03A1 443562002 G-057D 443162009 R-40B00 "
    "443163004 R-40B01",
    "TEE": "443698002 R-40B0E",
}
_VIEW_OF_CODE = {code: view for view, codes in _CODES_OF_VIEW.items() for code in codes.split()}
_VIEW_OF_START = {
    "alax": "A3C",
    "apicallong": "A3C",
    "plax": "PLAX",
    "lax": "PLAX",
    "parasternallong": "PLAX",
    "psax": "PSAX",
    "sax": "PSAX",
    "parasternalshort": "PSAX",
    "subcostal": "SUBCOSTAL",
    "suprasternal": "SUPRASTERNAL",
}
_DIGITS = {"two": "2", "three": "3", "four": "4", "five": "5"}
_CHAMBERS = re.compile(r"(?:(?:ap|apical)([2-5])|(?:a|ap|apical)?([2-5])(?:c|ch|chamber))(?:view)?")


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
    for word, digit in _DIGITS.items():
        name = name.replace(word, digit)
    if (chambers := _CHAMBERS.fullmatch(name)) is not None:
        return f"A{chambers[1] or chambers[2]}C"
    return next((view for start, view in _VIEW_OF_START.items() if name.startswith(start)), None)
