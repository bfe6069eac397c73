"""Simulated hearts of known volume at every instant, in four rhythms.

Source: ef-and-measurement.md section 8.2, steps 1 to 3: the knots of a beat, the length of systole
(0.35 s times the root of the interval in seconds), a long axis that shortens with the contraction,
and a width that keeps width squared times length in step with the volume.
"""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from model import Quality, Reading, Ventricle

KNOTS = (
    (0.0, 0.05, 0.35, 0.40, 0.60, 0.82, 0.95, 1.0),
    (0.0, 0.02, 1.0, 1.0, 0.30, 0.22, 0.02, 0.0),
)
"""Fraction of a beat of one second, and contraction there."""

SYSTOLE_END = 0.40
LONGEST_SYSTOLE = 0.65
"""Share of a beat that is left for systole, however short the beat."""

EDV_ML = 120.0
LENGTH_MM = 90.0
FASTEST_BPM = {"regular": 180.0, "drifting": 160.0, "fibrillation": 108.0, "ectopy": 115.0}
"""Per rhythm the highest mean rate at which no interval is shorter than one of 180 a minute."""

RHYTHMS = tuple(FASTEST_BPM)

PASS = Quality("pass", ())


@dataclass(frozen=True, slots=True, eq=False)
class Heart:
    """Beats one after another.

    Attributes:
        onset_ms_K: ends of diastole, one more than beats.
        edv_ml_K: volume there.
        ef_percent_B: of each beat.
    """

    onset_ms_K: NDArray[np.float64]
    edv_ml_K: NDArray[np.float64]
    ef_percent_B: NDArray[np.float64]

    @property
    def es_ms(self) -> NDArray[np.float64]:
        """First and last instant of each beat's smallest volume, one row a beat."""
        rr_ms_B = np.diff(self.onset_ms_K)
        share_B = np.array([systole_share(rr_ms) for rr_ms in rr_ms_B])
        ends_B2 = np.stack([share_B * 0.35 / SYSTOLE_END, share_B], axis=1)
        return np.asarray(self.onset_ms_K[:-1, None] + ends_B2 * rr_ms_B[:, None], np.float64)

    def contraction(
        self, times_ms_T: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.float64]]:
        """Per time, which must lie within the beats: the beat, whether in systole, contraction."""
        beat_T = np.searchsorted(self.onset_ms_K, times_ms_T, side="right") - 1
        is_systole_T = np.zeros(len(times_ms_T), bool)
        contraction_T = np.empty(len(times_ms_T))
        for beat in np.unique(beat_T):
            here = beat_T == beat
            rr_ms = self.onset_ms_K[beat + 1] - self.onset_ms_K[beat]
            phase_T = (times_ms_T[here] - self.onset_ms_K[beat]) / rr_ms
            share = systole_share(rr_ms)
            is_systole_T[here] = phase_T < share
            contraction_T[here] = course(share)(phase_T)
        return np.asarray(beat_T, np.intp), is_systole_T, contraction_T

    def volume_ml(self, times_ms_T: NDArray[np.float64]) -> NDArray[np.float64]:
        """True volume at each time, which must lie within the beats."""
        beat_T, is_systole_T, contraction_T = self.contraction(times_ms_T)
        # What is filled up to is the next beat's end of diastole.
        full_T = np.where(is_systole_T, self.edv_ml_K[beat_T], self.edv_ml_K[beat_T + 1])
        empty_T = self.edv_ml_K[beat_T] * (1 - self.ef_percent_B[beat_T] / 100)
        return np.asarray(full_T - contraction_T * (full_T - empty_T), np.float64)


def systole_share(rr_ms: float) -> float:
    """Share of a beat from its beginning to the end of systole's pause."""
    return min(SYSTOLE_END / float(np.sqrt(rr_ms / 1000.0)), LONGEST_SYSTOLE)


def course(share: float) -> PchipInterpolator:
    """Contraction over the phase of a beat whose systole takes that share."""
    phases, contractions = np.array(KNOTS[0]), np.array(KNOTS[1])
    late = (phases - SYSTOLE_END) / (1 - SYSTOLE_END) * (1 - share) + share
    stretched = np.where(phases <= SYSTOLE_END, phases * share / SYSTOLE_END, late)
    return PchipInterpolator(stretched, contractions)


def make_heart(
    rhythm: str, rate_bpm: float, ef_percent: float, seconds: float, rng: Generator
) -> Heart:
    """Draw a heart that is somewhere in a beat at time 0 and beats beyond the end.

    Args:
        rhythm: one of RHYTHMS. In fibrillation intervals vary by 22 %, and a beat after a short
            one empties less; in ectopy every fifth beat comes early and is followed by a pause;
            a drifting rate rises by a fifth over the stream.
        rate_bpm: mean rate.
        ef_percent: of an undisturbed beat.
        seconds: length of the stream.
        rng: drawn from.
    """
    mean_ms = 60_000.0 / rate_bpm
    count = int(1.6 * seconds * 1000 / mean_ms) + 8
    rr_ms_B, ef_B = _regular(count, mean_ms, ef_percent, rng)
    if rhythm == "fibrillation":
        rr_ms_B = mean_ms * rng.normal(1.0, 0.22, count).clip(0.6, 1.7)
        before_B = np.roll(rr_ms_B, 1) / mean_ms
        ef_B = ef_percent * (1 + 0.25 * (before_B - 1)).clip(0.8, 1.1)
    elif rhythm == "ectopy":
        early = np.arange(2, count - 1, 5)
        rr_ms_B[early - 1] *= 0.65
        rr_ms_B[early] *= 1.35
        ef_B[early] *= 0.65
        ef_B[early + 1] *= 1.05
    elif rhythm == "drifting":
        rr_ms_B *= np.linspace(1.1, 0.9, count)
    edv_ml_K = EDV_ML * np.ones(count + 1)
    # A beat that follows a short filling begins with less.
    edv_ml_K[1:] *= 1 - 0.12 * np.clip(1 - rr_ms_B / mean_ms, 0, 1)
    start_ms = -rng.uniform(1.0, 2.0) * rr_ms_B[0]
    onsets = start_ms + np.concatenate([[0.0], np.cumsum(rr_ms_B)])
    return Heart(onsets, edv_ml_K, ef_B)


def _regular(
    count: int, mean_ms: float, ef_percent: float, rng: Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals that vary by 2.5 % and EFs that vary by 2 %, as at rest."""
    return (
        mean_ms * rng.normal(1.0, 0.025, count),
        ef_percent * rng.normal(1.0, 0.02, count),
    )


def reading_of(volume_ml: float) -> Reading:
    """What measurement says of a half ellipsoid of that volume."""
    volume = 1000.0 * volume_ml
    length = LENGTH_MM * (0.75 + 0.25 * volume_ml / EDV_ML)
    width = float(np.sqrt(6 * volume / (np.pi * length)))
    area = np.pi * width * length / 4
    lv = Ventricle(
        area_px=area,
        area_cm2=area / 100,
        length_cm=length / 10,
        volume_ml=volume_ml,
        volume_index=volume,
        volume_index_sd=0.05 * volume,
        length_index=length,
        diameters_index_20=np.full(20, width),
        index_mm=1.0,
        apex=(10.0, 80.0),
        base=(10.0 + length, 80.0),
        hinges=((10.0 + length, 80.0 - width / 2), (10.0 + length, 80.0 + width / 2)),
        axis_method="class_interface",
    )
    return Reading(lv, {}, PASS, 0.99)


def frame_times_ms(kind: str, seconds: float, fps: float, rng: Generator) -> NDArray[np.float64]:
    """Acquisition times of a stream.

    Args:
        kind: "even", "uneven" (intervals vary by a quarter) or "dropped" (one frame in ten is
            lost, and once a second a run that leaves a gap of up to 100 ms).
        seconds: length.
        fps: frames a second.
        rng: drawn from.
    """
    times = np.arange(int(seconds * fps)) * (1000.0 / fps)
    if kind == "uneven":
        steps = (1000.0 / fps) * rng.normal(1.0, 0.25, len(times)).clip(0.4, 1.8)
        return np.cumsum(steps) - steps[0]
    if kind == "dropped":
        keeps = rng.random(len(times)) > 0.1
        lost = max(int(0.1 * fps) - 1, 0)
        for start in rng.integers(0, len(times), int(seconds)):
            keeps[start : start + lost] = False
        return np.asarray(times[keeps], np.float64)
    return np.asarray(times, np.float64)
