"""R waves of an electrocardiogram against the ends of diastole that the image shows.

Source: ef-and-measurement.md section 1.5, step 4 (report the discrepancy).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from model.measure.beats import Beat

FARTHEST_MS = 150.0
"""How far the image may be from the electrocardiogram; our judgement.

The largest ventricle comes with the closing of the mitral valve, some 20 to 60 ms after R.
"""


@dataclass(frozen=True, slots=True)
class RWaves:
    """How beats and R waves fit.

    Attributes:
        count: R waves.
        heart_rate_bpm: by them, None for fewer than two.
        compared: ends of diastole with an R wave within half an interval.
        offset_ms: median of ED less R over those, None without any.
        farthest_ms: the largest of them, by size.
        unmatched: ends of diastole without one.
        agrees: False where more than half are unmatched or farther than FARTHEST_MS; None where
            there is nothing to compare.
    """

    count: int
    heart_rate_bpm: float | None
    compared: int
    offset_ms: float | None
    farthest_ms: float | None
    unmatched: int
    agrees: bool | None


def compare_r_waves(r_wave_times_ms: Sequence[float], beats: Sequence[Beat]) -> RWaves | None:
    """Compare each beat's end of diastole with the R wave nearest to it.

    Args:
        r_wave_times_ms: rising, on the clock of the frames.
        beats: of the clip.

    Returns:
        None without R waves.
    """
    if not r_wave_times_ms:
        return None
    intervals = [later - earlier for earlier, later in pairwise(r_wave_times_ms)]
    near_ms = 0.5 * median(intervals) if intervals else 2 * FARTHEST_MS
    told = [beat.ed_time_ms for beat in beats if beat.ed_time_ms is not None]
    offsets = []
    for ed_ms in told:
        nearest = min(r_wave_times_ms, key=lambda r_ms: abs(ed_ms - r_ms))
        if abs(ed_ms - nearest) <= near_ms:
            offsets.append(ed_ms - nearest)
    fitting = sum(abs(offset) <= FARTHEST_MS for offset in offsets)
    return RWaves(
        count=len(r_wave_times_ms),
        heart_rate_bpm=60_000.0 / median(intervals) if intervals else None,
        compared=len(offsets),
        offset_ms=median(offsets) if offsets else None,
        farthest_ms=max(offsets, key=abs) if offsets else None,
        unmatched=len(told) - len(offsets),
        agrees=2 * fitting >= len(told) if told else None,
    )
