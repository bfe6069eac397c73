"""What a clip's result says beside masks, beats and EF: figures, disks, R waves, normal ranges."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model import (
    Figure,
    Region,
    RWaves,
    compare_r_waves,
    derive_figures,
    normal_ranges,
    view_disks,
)
from server.export.overlay import Findings
from server.ingest import Clip


def measures_of(clip: Clip, findings: Findings) -> dict[str, Any]:
    """The parts ``figures``, ``disks``, ``r_waves`` and ``normal_ranges`` of a clip's result."""
    seqs = [frame.seq for frame in findings.frames]
    readings = [frame.reading for frame in findings.frames]
    figures = derive_figures(
        seqs,
        readings,
        findings.beats,
        findings.ef,
        spacing_mm=clip.spacing_mm,
        edge_px_HW=edge_px(clip),
    )
    disks = view_disks(seqs, readings, findings.beats, findings.ef)
    return {
        "figures": [figure_to_json(figure) for figure in figures],
        "disks": disks and disks.to_json(),
        "r_waves": _r_waves_to_json(compare_r_waves(clip.r_wave_times_ms, findings.beats)),
        "normal_ranges": normal_ranges(),
    }


def edge_px(clip: Clip) -> NDArray[np.float32]:
    """How far each pixel is from the edge of the fan, of the region, or of the image: H W.

    The outermost pixels are 0 px from it; of what is drawn around a fan they are further out.
    """
    inside_HW = np.zeros(clip.size, np.uint8)
    if clip.sector is not None:
        inside_HW[clip.sector.inside] = 1
    else:
        box = clip.region or Region(0, 0, *clip.size)
        inside_HW[box.top : box.top + box.height, box.left : box.left + box.width] = 1
    beyond_HW = cv2.copyMakeBorder(inside_HW, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance_HW = cv2.distanceTransform(beyond_HW, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    margin_px = 0.0 if clip.sector is None else clip.sector.margin_px
    return np.asarray(distance_HW - np.float32(1.0 + margin_px), np.float32)


def figure_to_json(figure: Figure) -> dict[str, Any]:
    """One figure with its unit and method, or why it is missing."""
    return {
        "name": figure.name,
        "value": None if figure.value is None else round(figure.value, 2),
        "unit": figure.unit,
        "method": figure.method,
        "beats": figure.beats,
        "reason": figure.reason,
    }


def _r_waves_to_json(waves: RWaves | None) -> dict[str, Any] | None:
    if waves is None:
        return None
    return {
        "count": waves.count,
        "heart_rate_bpm": _rounded(waves.heart_rate_bpm),
        "compared": waves.compared,
        "ed_after_r_ms": _rounded(waves.offset_ms),
        "farthest_ms": _rounded(waves.farthest_ms),
        "unmatched": waves.unmatched,
        "agrees": waves.agrees,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
