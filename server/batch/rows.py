"""What is kept of a clip: one row for it, one for each of its beats; a refusal is a row too."""

import hashlib
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from model import Beat, EchoError
from server.study import Study

Row = dict[str, Any]

_TEXTS = pa.list_(pa.string())

CLIPS = pa.schema(
    [
        ("input", pa.string()),
        ("code", pa.string()),
        ("reason", pa.string()),
        ("view", pa.string()),
        ("frames", pa.int32()),
        ("rows", pa.int32()),
        ("columns", pa.int32()),
        ("row_spacing_mm", pa.float64()),
        ("column_spacing_mm", pa.float64()),
        ("time_source", pa.string()),
        ("duration_ms", pa.float64()),
        ("warnings", _TEXTS),
        ("ef_state", pa.string()),
        ("ef_percent", pa.float64()),
        ("ef_low_percent", pa.float64()),
        ("ef_high_percent", pa.float64()),
        ("ef_method", pa.string()),
        ("ef_beats", pa.int32()),
        ("ef_reasons", _TEXTS),
        ("heart_rate_bpm", pa.float64()),
        ("edv_ml", pa.float64()),
        ("esv_ml", pa.float64()),
        ("usable_frames", pa.int32()),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("model_sha256", pa.string()),
        ("model_precision", pa.string()),
        ("masks", pa.string()),
    ]
)
"""A row a clip.

``code`` and ``reason`` are null unless it could not be worked on; ``masks`` names its file in the
folder of masks, where they are kept.
"""

BEATS = pa.schema(
    [
        ("input", pa.string()),
        ("number", pa.int32()),
        ("ed_seq", pa.int32()),
        ("es_seq", pa.int32()),
        ("ed_time_ms", pa.float64()),
        ("es_time_ms", pa.float64()),
        ("edv_ml", pa.float64()),
        ("esv_ml", pa.float64()),
        ("ef_percent", pa.float64()),
        ("fac_percent", pa.float64()),
        ("is_complete", pa.bool_()),
        ("reasons", _TEXTS),
    ]
)
"""A row a beat."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one clip.

    Attributes:
        clip: its row of CLIPS.
        beats: its rows of BEATS.
        masks: ``masks.npz``, None where not wanted or there are none.
    """

    clip: Row
    beats: tuple[Row, ...] = ()
    masks: bytes | None = None


def masks_name(place: str) -> str:
    """The file of a clip's masks: its input's name may not be fit for a file."""
    return hashlib.sha256(place.encode()).hexdigest()[:32] + ".npz"


def found(place: str, study: Study, masks: bytes | None = None) -> Outcome:
    """The rows of a clip that was worked on."""
    document = study.document
    clip, ef, model = document["clip"], document["ef"], document["model"]
    low, high = ef["interval"] or (None, None)
    rows, columns = clip["size"]
    row_spacing_mm, column_spacing_mm = clip["spacing_mm"] or (None, None)
    usable = [frame for frame in document["frames"] if frame["quality"]["state"] != "fail"]
    row = {
        "input": place,
        "code": None,
        "reason": None,
        "view": clip["view"],
        "frames": clip["frames"],
        "rows": rows,
        "columns": columns,
        "row_spacing_mm": row_spacing_mm,
        "column_spacing_mm": column_spacing_mm,
        "time_source": clip["time_base"]["source"],
        "duration_ms": clip["time_base"]["duration_ms"],
        "warnings": clip["warnings"],
        "ef_state": ef["state"],
        "ef_percent": ef["percent"],
        "ef_low_percent": low,
        "ef_high_percent": high,
        "ef_method": ef["method"],
        "ef_beats": ef["beats"],
        "ef_reasons": list(ef["reasons"]),
        "heart_rate_bpm": ef["heart_rate_bpm"],
        "edv_ml": ef["edv_ml"],
        "esv_ml": ef["esv_ml"],
        "usable_frames": len(usable),
        "model": model["name"],
        "model_version": model["version"],
        "model_sha256": model["sha256"],
        "model_precision": model["precision"],
        "masks": masks and masks_name(place),
    }
    return Outcome(row, tuple(_beat(place, beat) for beat in study.findings.beats), masks)


def refused(place: str, error: EchoError) -> Outcome:
    """The row of a clip that could not be worked on."""
    row: Row = dict.fromkeys(CLIPS.names)
    return Outcome(row | {"input": place, "code": error.code, "reason": error.message})


def _beat(place: str, beat: Beat) -> Row:
    return {
        "input": place,
        "number": beat.number,
        "ed_seq": beat.ed_seq,
        "es_seq": beat.es_seq,
        "ed_time_ms": beat.ed_time_ms,
        "es_time_ms": beat.es_time_ms,
        "edv_ml": beat.ed_volume_ml,
        "esv_ml": beat.es_volume_ml,
        "ef_percent": beat.ef_percent,
        "fac_percent": beat.fac_percent,
        "is_complete": beat.is_complete,
        "reasons": list(beat.reasons),
    }
