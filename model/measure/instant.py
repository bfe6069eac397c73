"""From one mask to one reading."""

from dataclasses import replace
from math import nan

import cv2
import numpy as np
from numpy.typing import NDArray

from model.errors import MeasurementError
from model.frame import APICAL_PRESENCE, STRUCTURES, WHOLE, Fit, Mask
from model.measure.axis import LongAxis, find_long_axis
from model.measure.contour import (
    ELSEWHERE,
    LEVEL,
    MYOCARDIUM,
    neighbours,
    outlines,
    sample,
    segment_lengths,
)
from model.measure.quality import (
    COLOUR_OVERLAY,
    NO_VENTRICLE,
    SCALE_CHANGED,
    SEVERAL_SECTORS,
    FrameFacts,
    judge,
)
from model.measure.reading import Point, Quality, Reading, Ventricle
from model.measure.volume import disk_diameters, disk_volume

SOFT_BAND = 0.1
"""Half of the span of probabilities about LEVEL in which an outline may as well lie."""

BORDER_PX = 2.0
"""Source: ef-and-measurement.md section 1.7, sector edge."""

MEASURED = 2
"""Structures whose outlines are measured: ventricle and wall."""

Outlines = list[tuple[float, NDArray[np.float64]]]


def measure_frame(
    mask: Mask, spacing_mm: tuple[float, float] | None, *, keeps_outlines: bool = True
) -> Reading:
    """Measure one frame.

    Args:
        mask: what the network says of the frame. A mask of the ventricle alone is measured too,
            by weaker rules.
        spacing_mm: (row, column) size of a source pixel, None where it is not calibrated; left out
            of account where the image has changed its size since it was told.
        keeps_outlines: False leaves ``contours`` empty, which takes less time.

    Returns:
        The reading; a frame that cannot be measured has no ``lv`` and a reason.

    Raises:
        MeasurementError: the spacing is not positive.
    """
    if spacing_mm is not None and not min(spacing_mm) > 0:
        raise MeasurementError(f"pixel spacing is two lengths above 0 mm, got {spacing_mm}")
    warnings = (SEVERAL_SECTORS,) if mask.is_one_of_several else ()
    if mask.is_resized and spacing_mm is not None:
        spacing_mm, warnings = None, (*warnings, SCALE_CHANGED)
    traced_NHW = mask.probabilities_NHW if keeps_outlines else mask.probabilities_NHW[:MEASURED]
    found = [outlines(map_HW) for map_HW in traced_NHW]
    contours: dict[str, tuple[NDArray[np.float32], ...]] = dict.fromkeys(STRUCTURES, ())
    if keeps_outlines:
        contours |= {
            name: tuple(mask.fit.to_source(each).astype(np.float32) for _, each in lines)
            for name, lines in zip(STRUCTURES, _shown(mask, found), strict=False)
        }
    if not found[0] or found[0][0][0] <= 0:
        unsure = ("view_uncertain",) if mask.presence < APICAL_PRESENCE else ()
        quality = Quality("fail", (NO_VENTRICLE, *unsure))
        reading = Reading(None, contours, quality, mask.presence, mask.still_since_seq)
    else:
        reading = _measure_ventricle(mask, found, contours, spacing_mm)
    if warnings and reading.quality.state != "fail":
        quality = Quality("warn", (*reading.quality.reasons, *warnings))
        reading = replace(reading, quality=quality)
    if mask.is_coloured:
        quality = Quality("fail", (COLOUR_OVERLAY, *reading.quality.reasons))
        return replace(reading, quality=quality)
    return reading


def _shown(mask: Mask, found: list[Outlines]) -> list[Outlines]:
    """The outlines of the same pieces as ``to_source_labels`` shows."""
    return [
        lines[:1] if name in WHOLE and name not in mask.drawn else lines
        for name, lines in zip(STRUCTURES, found, strict=False)
    ]


def _measure_ventricle(
    mask: Mask,
    found: list[Outlines],
    contours: dict[str, tuple[NDArray[np.float32], ...]],
    spacing_mm: tuple[float, float] | None,
) -> Reading:
    """Measure the largest outline of the ventricle and judge what came of it."""
    area, outline_P2 = found[0][0]
    maps_NHW = mask.probabilities_NHW
    beside_P = neighbours(maps_NHW, outline_P2) if len(maps_NHW) == len(STRUCTURES) else None
    stretch_2, index_mm = _index_grid(spacing_mm)
    index_P2 = mask.fit.to_source(outline_P2) * stretch_2
    axis = find_long_axis(index_P2, beside_P)
    diameters = disk_diameters(index_P2, axis)
    soft_share = np.count_nonzero(np.abs(maps_NHW[0] - LEVEL) < SOFT_BAND) / area
    area_px = area / _network_per_source_area(mask.fit)
    lv = _ventricle(area_px, axis, diameters, soft_share, stretch_2, index_mm)
    steps_P = segment_lengths(index_P2)
    border_share = _border_share(outline_P2, steps_P, mask.fit)
    region = mask.fit.region
    facts = FrameFacts(
        presence=mask.presence,
        component_share=area / sum(each for each, _ in found[0] if each > 0),
        hole_share=-sum(each for each, _ in found[0] if each < 0) / area,
        region_share=area_px / (region.height * region.width),
        elongation=axis.length / max(float(diameters.max()), 1e-9),
        solidity=area / cv2.contourArea(cv2.convexHull(outline_P2.astype(np.float32))),
        soft_share=soft_share,
        border_share=border_share,
        **_wall_facts(mask, found, beside_P, steps_P, float(diameters.mean())),
    )
    quality = judge(facts, axis.method)
    return Reading(lv, contours, quality, mask.presence, mask.still_since_seq)


def _index_grid(
    spacing_mm: tuple[float, float] | None,
) -> tuple[NDArray[np.float64], float | None]:
    """Give the factors from source pixels to index units, and the millimetres of such a unit."""
    if spacing_mm is None:
        return np.ones(2), None
    index_mm = float(np.sqrt(spacing_mm[0] * spacing_mm[1]))
    return np.array(spacing_mm) / index_mm, index_mm


def _network_per_source_area(fit: Fit) -> float:
    """Network pixels per source pixel."""
    return fit.scale_row * fit.scale_col


def _ventricle(
    area_px: float,
    axis: LongAxis,
    diameters_D: NDArray[np.float64],
    soft_share: float,
    stretch_2: NDArray[np.float64],
    index_mm: float | None,
) -> Ventricle:
    """Put the figures together, with units where there is a calibration.

    An outline that is off by a share s of the area all around is off by about 2 s in volume
    (volume goes with area squared over length); half of the soft band lies on either side.
    """
    volume = disk_volume(diameters_D, diameters_D, axis.length)
    return Ventricle(
        area_px=area_px,
        area_cm2=None if index_mm is None else area_px * index_mm**2 / 100.0,
        length_cm=None if index_mm is None else axis.length * index_mm / 10.0,
        volume_ml=None if index_mm is None else volume * index_mm**3 / 1000.0,
        volume_index=volume,
        volume_index_sd=volume * soft_share,
        length_index=axis.length,
        diameters_index_20=diameters_D,
        index_mm=index_mm,
        apex=_point(axis.apex_2 / stretch_2),
        base=_point(axis.base_2 / stretch_2),
        hinges=(_point(axis.hinges_22[0] / stretch_2), _point(axis.hinges_22[1] / stretch_2)),
        axis_method=axis.method,
    )


def _point(point_2: NDArray[np.float64]) -> Point:
    """Make a plain (row, column) pair."""
    return float(point_2[0]), float(point_2[1])


def _border_share(outline_P2: NDArray[np.float64], steps_P: NDArray[np.float64], fit: Fit) -> float:
    """Tell which part of the outline runs along the edge of the image region."""
    region = fit.region
    first_2 = np.array([region.top, region.left]) + BORDER_PX
    last_2 = first_2 + np.array([region.height, region.width]) - 1.0 - 2.0 * BORDER_PX
    (top, left), (bottom, right) = fit.to_network(np.array([first_2, last_2])).tolist()
    rows_P, cols_P = outline_P2[:-1, 0], outline_P2[:-1, 1]
    is_near_P = (rows_P < top) | (rows_P > bottom) | (cols_P < left) | (cols_P > right)
    return float(steps_P[is_near_P].sum() / steps_P.sum())


def _wall_facts(
    mask: Mask,
    found: list[Outlines],
    beside_P: NDArray[np.intp] | None,
    steps_P: NDArray[np.float64],
    mean_diameter: float,
) -> dict[str, float]:
    """Relate the ventricle to its wall and to the atrium; NaN where the network tells neither."""
    if beside_P is None:
        names = ("elsewhere_share", "myocardium_share", "atrium_contact_share", "width_per_wall")
        return dict.fromkeys(names, nan)
    along_K = np.bincount(beside_P[:-1], steps_P, 3)
    total = along_K.sum()
    wall_area = sum(area for area, _ in found[1]) / _network_per_source_area(mask.fit)
    return {
        "elsewhere_share": float(along_K[ELSEWHERE] / total),
        "myocardium_share": float(along_K[MYOCARDIUM] / total),
        "atrium_contact_share": _atrium_contact_share(mask, found[1]),
        "width_per_wall": float(mean_diameter * along_K[MYOCARDIUM] / max(wall_area, 1e-9)),
    }


def _atrium_contact_share(mask: Mask, walls: Outlines) -> float:
    """Tell which part of the wall's outline borders on the atrium."""
    if not walls:
        return nan
    outline_P2 = walls[0][1]
    ventricle_P = sample(mask.probabilities_NHW[0], outline_P2)
    atrium_P = sample(mask.probabilities_NHW[2], outline_P2)
    is_atrium_P = atrium_P > np.maximum(ventricle_P, 1.0 - LEVEL - ventricle_P - atrium_P)
    steps_P = segment_lengths(outline_P2)
    return float(steps_P[is_atrium_P[:-1]].sum() / steps_P.sum())
