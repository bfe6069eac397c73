"""Figures beside the ejection fraction, each with its unit and method, or why it is missing.

Source: ef-and-measurement.md section 1.1.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import pi
from statistics import median

import numpy as np
from numpy.typing import NDArray

from model.measure.beats import Beat
from model.measure.biplane import FRAMES_AROUND, counted_beats, ventricles_about
from model.measure.contour import segment_lengths, signed_area
from model.measure.ejection import EjectionFraction
from model.measure.reading import Reading, Ventricle

DISKS_METHOD = "single_plane_disks"
BORDER_PX = 3.0
BORDER_SHARE = 0.05
"""An atrium of which more than this runs along the edge of what the image shows is cut off."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure.

    Attributes:
        value: None where it cannot be told; then there is a reason.
        unit: UCUM code.
        method: how it was found.
        beats: that it rests on.
        reason: machine-readable; None where there is a value.
    """

    name: str
    value: float | None
    unit: str
    method: str
    beats: int
    reason: str | None = None


def derive_figures(
    seqs: Sequence[int],
    readings: Sequence[Reading],
    beats: Sequence[Beat],
    ef: EjectionFraction,
    *,
    spacing_mm: tuple[float, float] | None,
    edge_px_HW: NDArray[np.float32],
) -> tuple[Figure, ...]:
    """Tell what follows from the beats that count.

    Args:
        seqs: number of each frame.
        readings: what each frame's mask says.
        beats: of the clip.
        ef: of the clip; without one, all figures are missing for its reasons.
        spacing_mm: (row, column) size of a pixel, None where unknown.
        edge_px_HW: how far each pixel is from the edge of what the image shows of the body.
    """
    counted = counted_beats(beats)
    if ef.percent is None or not counted:
        missing = (ef.reasons or ("no_complete_beat",))[0]
        return tuple(Figure(*each, None, *rest, 0, missing) for each, rest in _EMPTY)
    place = {seq: index for index, seq in enumerate(seqs)}
    ed, es = ([place[seq] for seq in found] for found in _instants(counted))
    lengths = [_over_beats(readings, at, lambda lv: lv.length_index) for at in (ed, es)]
    count, no_spacing = len(counted), None if ef.edv_ml is not None else "no_spacing"
    shortening = None
    if lengths[0] is not None and lengths[1] is not None:
        shortening = 100 * (1 - lengths[1] / lengths[0])
    stroke = None if ef.edv_ml is None or ef.esv_ml is None else ef.edv_ml - ef.esv_ml
    output = None
    if stroke is not None and ef.heart_rate_bpm is not None:
        output = stroke * ef.heart_rate_bpm / 1000
    figures = [
        Figure("fractional_area_change", ef.fac_percent, "%", "area", ef.beats),
        Figure("longitudinal_shortening", shortening, "%", "long_axis", count),
        Figure("stroke_volume", stroke, "ml", DISKS_METHOD, ef.beats, no_spacing),
        Figure(
            "cardiac_output", output, "l/min", DISKS_METHOD, ef.beats,
            None if output is not None else no_spacing or "time_base_unknown",
        ),
    ]  # fmt: skip
    for name, at in (("ed", ed), ("es", es)):
        for what, unit, read in _LENGTH_AND_AREA:
            value = _over_beats(readings, at, read)
            figures.append(
                Figure(
                    f"lv_{what}_{name}", value, unit, "outline", count,
                    None if value is not None else "no_spacing",
                )
            )  # fmt: skip
    return (*figures, _atrial_volume(readings, es, spacing_mm, edge_px_HW))


_LENGTH_AND_AREA: tuple[tuple[str, str, Callable[[Ventricle], float | None]], ...] = (
    ("length", "cm", lambda lv: lv.length_cm),
    ("area", "cm2", lambda lv: lv.area_cm2),
)

_EMPTY = tuple(
    ((name,), (unit, method))
    for name, unit, method in (
        ("fractional_area_change", "%", "area"),
        ("longitudinal_shortening", "%", "long_axis"),
        ("stroke_volume", "ml", DISKS_METHOD),
        ("cardiac_output", "l/min", DISKS_METHOD),
        ("lv_length_ed", "cm", "outline"),
        ("lv_area_ed", "cm2", "outline"),
        ("lv_length_es", "cm", "outline"),
        ("lv_area_es", "cm2", "outline"),
        ("la_volume_es", "ml", "single_plane_area_length"),
    )
)


def _instants(beats: Sequence[Beat]) -> tuple[list[int], list[int]]:
    return [beat.ed_seq for beat in beats], [beat.es_seq for beat in beats]


def _over_beats(
    readings: Sequence[Reading], places: Sequence[int], read: Callable[[Ventricle], float | None]
) -> float | None:
    """Median over beats of the mean over a few frames; None where one of them does not tell."""
    found = []
    for place in places:
        values = [read(lv) for lv in ventricles_about(readings, place)]
        known = [value for value in values if value is not None]
        if not known:
            return None
        found.append(float(np.mean(known)))
    return median(found) if found else None


def _atrial_volume(
    readings: Sequence[Reading],
    places: Sequence[int],
    spacing_mm: tuple[float, float] | None,
    edge_px_HW: NDArray[np.float32],
) -> Figure:
    """Volume of the left atrium when it is largest, by area and length of one plane."""
    name, unit, method = "la_volume_es", "ml", "single_plane_area_length"
    if spacing_mm is None:
        return Figure(name, None, unit, method, 0, "no_spacing")
    found, reason = [], "atrium_not_seen"
    for place in places:
        near = readings[max(place - FRAMES_AROUND, 0) : place + FRAMES_AROUND + 1]
        told = [_atrium_ml(reading, spacing_mm, edge_px_HW) for reading in near]
        values = [each for each in told if isinstance(each, float)]
        if values:
            found.append(median(values))
        elif "atrium_cut_off" in told:
            reason = "atrium_cut_off"
    if not found:
        return Figure(name, None, unit, method, 0, reason)
    return Figure(name, float(median(found)), unit, method, len(found))


def _atrium_ml(
    reading: Reading, spacing_mm: tuple[float, float], edge_px_HW: NDArray[np.float32]
) -> float | str | None:
    """Volume of one frame's atrium, or why there is none."""
    outlines = reading.contours.get("atrium", ())
    if reading.lv is None or not outlines or reading.lv.axis_method != "class_interface":
        return None
    outline_P2 = outlines[0].astype(np.float64)
    last_2 = np.array(edge_px_HW.shape) - 1
    rows_P, cols_P = np.clip(np.rint(outline_P2[:-1]), 0, last_2).astype(np.intp).T
    is_near_P = edge_px_HW[rows_P, cols_P] < BORDER_PX
    steps_P = segment_lengths(outline_P2)
    if steps_P[is_near_P].sum() > BORDER_SHARE * steps_P.sum():
        return "atrium_cut_off"
    outline_mm_P2 = outline_P2 * np.array(spacing_mm)
    base_mm_2 = np.array(reading.lv.base) * np.array(spacing_mm)
    length_mm = float(np.hypot(*(outline_mm_P2 - base_mm_2).T).max())
    area_mm2 = abs(signed_area(outline_mm_P2))
    return 8 * area_mm2**2 / (3 * pi * length_mm) / 1000 if length_mm > 0 else None
