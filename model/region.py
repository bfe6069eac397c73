"""Which part of an ultrasound image is the tissue, and how large its pixels are, as declared.

Source:
    DICOM PS3.3 C.8.5.5 (US region calibration), C.7.6.3.1.7 (pixel aspect ratio).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.frame import Region
from model.preprocess import find_sectors

_FORMAT_2D, _TYPE_TISSUE, _TYPE_COLOUR_FLOW = 1, 1, 2
_UNIT_CM = 3
_MOVES = 20
"""Difference of a pixel's greys among some frames from which it moves, and is no noise."""

_STILL_SHARE = 0.25
"""A region with less than this share of the liveliest one's moving pixels is a frozen image."""

MIN_SPACING_MM, MAX_SPACING_MM = 0.02, 2.0

PIXEL_SHAPES = (
    "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio",
)  # fmt: skip
"""Keywords of what tells height and width of a pixel, the last one only where no other does."""


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
class DeclaredRegion:
    """One item of SequenceOfUltrasoundRegions that has a box.

    Attributes:
        left: RegionLocationMinX0; all corners are inclusive.
        top: RegionLocationMinY0.
        right: RegionLocationMaxX1.
        bottom: RegionLocationMaxY1.
        spatial_format: RegionSpatialFormat, None where absent.
        data_type: RegionDataType, None where absent.
        units: PhysicalUnitsXDirection and PhysicalUnitsYDirection.
        deltas_cm: PhysicalDeltaY and PhysicalDeltaX, None where one is absent.
    """

    left: int
    top: int
    right: int
    bottom: int
    spatial_format: int | None
    data_type: int | None
    units: tuple[int | None, int | None]
    deltas_cm: tuple[float, float] | None

    @property
    def is_box(self) -> bool:
        """Whether its corners are those of a box."""
        return min(self.left, self.top) >= 0 and self.right > self.left and self.bottom > self.top

    @property
    def area_px(self) -> int:
        """Pixels in it."""
        return (self.right - self.left + 1) * (self.bottom - self.top + 1)

    @property
    def spacing_mm(self) -> tuple[float, float] | None:
        """Row and column spacing, None where none is declared that can be."""
        if self.units != (_UNIT_CM, _UNIT_CM) or self.deltas_cm is None:
            return None
        row_mm, column_mm = (10 * abs(delta_cm) for delta_cm in self.deltas_cm)
        if not all(_is_plausible(spacing_mm) for spacing_mm in (row_mm, column_mm)):
            return None
        return row_mm, column_mm

    def is_inside(self, rows: int, columns: int) -> bool:
        """Whether it ends inside the image.

        Writers that take the corners for half open end one pixel too far, which is forgiven. A box
        further out comes from an image that was rescaled after its header was written, so that no
        box and no pixel size of this header holds for it.
        """
        ends_inside = self.right <= columns and self.bottom <= rows
        return ends_inside and self.left < columns - 1 and self.top < rows - 1

    def region(self, rows: int, columns: int) -> Region:
        """The box in an image of that size."""
        right, bottom = min(self.right, columns - 1), min(self.bottom, rows - 1)
        return Region(self.top, self.left, bottom - self.top + 1, right - self.left + 1)

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of an image that lies in it."""
        return image[self.top : self.bottom + 1, self.left : self.right + 1]


def _is_plausible(spacing_mm: float) -> bool:
    return math.isfinite(spacing_mm) and MIN_SPACING_MM <= spacing_mm <= MAX_SPACING_MM


def declared_width(shapes: Iterable[bytes]) -> float | None:
    """Width of a pixel over its height, None where a header does not tell it.

    Args:
        shapes: the values of PIXEL_SHAPES; the first that can be a height and a width counts.
    """
    for shape in shapes:
        try:
            height, width = (
                float(part) for part in shape.decode("latin-1").strip("\0").split("\\")
            )
        except ValueError:
            continue
        if min(height, width) > 0:
            return width / height
    return None


def choose_region(
    declared: Sequence[DeclaredRegion],
    rows: int,
    columns: int,
    frames: Sequence[NDArray[np.uint8]] = (),
) -> Calibration:
    """Choose the tissue region: two-dimensional, tissue before colour flow, then by content.

    Of several one that moves is taken, since a scanner leaves a frozen image beside the live one;
    of several of those one with a pixel size; of several of those the largest.

    Args:
        declared: what the header says.
        rows: of an image.
        columns: of an image.
        frames: luma of a few frames.
    """
    boxes = [each for each in declared if each.is_box]
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
    if chosen.spacing_mm is None:
        warnings = (*warnings, "spacing_unusable")
    return Calibration(chosen.region(rows, columns), chosen.spacing_mm, not tissue, warnings)


def choose_sector(frames: Sequence[NDArray[np.uint8]]) -> Region | None:
    """Of several sectors on a screen the largest of those that move; None where it shows one.

    Args:
        frames: luma of a few frames of one size.
    """
    sectors = find_sectors(np.max(np.stack(frames), axis=0)) if frames else ()
    if len(sectors) < 2:
        return None
    ranges_HW = np.ptp(np.stack(frames), axis=0)
    motions = [
        float(np.mean(ranges_HW[s.top : s.top + s.height, s.left : s.left + s.width] > _MOVES))
        for s in sectors
    ]
    return next(
        sector
        for sector, motion in zip(sectors, motions, strict=True)
        if motion >= _STILL_SHARE * max(motions)
    )


def _choose(
    candidates: Sequence[DeclaredRegion], frames: Sequence[NDArray[np.uint8]]
) -> DeclaredRegion:
    if len(candidates) == 1 or not frames:
        motions = [0.0 for _ in candidates]
    else:
        ranges_HW = np.ptp(np.stack(frames), axis=0)
        motions = [float(np.mean(box.crop(ranges_HW) > _MOVES)) for box in candidates]
    ranked = [
        (motion >= _STILL_SHARE * max(motions), box.spacing_mm is not None, box.area_px)
        for motion, box in zip(motions, candidates, strict=True)
    ]
    return candidates[ranked.index(max(ranked))]
