"""What a clip's result says beside masks, beats and EF: figures, disks, R waves, normal ranges."""

from typing import Any

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
    rows, columns = clip.size
    figures = derive_figures(
        seqs,
        readings,
        findings.beats,
        findings.ef,
        spacing_mm=clip.spacing_mm,
        region=clip.region or Region(0, 0, rows, columns),
    )
    disks = view_disks(seqs, readings, findings.beats, findings.ef)
    return {
        "figures": [figure_to_json(figure) for figure in figures],
        "disks": disks and disks.to_json(),
        "r_waves": _r_waves_to_json(compare_r_waves(clip.r_wave_times_ms, findings.beats)),
        "normal_ranges": normal_ranges(),
    }


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
