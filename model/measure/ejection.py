"""The ejection fraction of a clip or of a stream so far, or why there is none."""

from dataclasses import dataclass
from typing import Literal

EjectionState = Literal["pending", "measured", "withheld"]


@dataclass(frozen=True, slots=True)
class EjectionFraction:
    """EF with its interval, or why there is none.

    Attributes:
        state: "pending" before the first complete beat, "withheld" when it must not be given.
        percent: 0 to 100, None unless measured.
        interval: (low, high) percent, the central 90 %; there whenever percent is.
        fac_percent: fractional area change of the same beats.
        method: how beats were brought together: "single_beat", "median_of_beats",
            "mean_of_beats", "index_beats" or "biplane"; "none" unless measured.
        beats: how many beats the figure rests on.
        heart_rate_bpm: None where unknown.
        edv_ml: None without calibrated pixels.
        esv_ml: None without calibrated pixels.
        reasons: machine-readable: warnings when measured, else what is missing or wrong.
    """

    state: EjectionState
    percent: float | None
    interval: tuple[float, float] | None
    fac_percent: float | None
    method: str
    beats: int
    heart_rate_bpm: float | None
    edv_ml: float | None
    esv_ml: float | None
    reasons: tuple[str, ...]
