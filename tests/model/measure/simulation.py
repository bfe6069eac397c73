"""Hearts of known ejection fraction, drawn and timed by closed forms.

The course of a beat is that of ef-and-measurement.md section 8.2, step 3.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from model.frame import Fit, Mask, Region
from model.measure import Beat, BeatTracker, EjectionFraction, Quality, Reading, Ventricle

EDV_ML = 120.0
LENGTH_MM = 90.0

CONTRACTION = PchipInterpolator(
    [0.0, 0.05, 0.35, 0.40, 0.60, 0.82, 0.95, 1.0], [0.0, 0.02, 1.0, 1.0, 0.30, 0.22, 0.02, 0.0]
)

PASS = Quality("pass", ())


@dataclass(frozen=True)
class Heart:
    """Beats one after another, the first from ``start_ms`` on.

    Attributes:
        ef_percent: of each beat, or of all.
        rr_ms: length of each beat; the last one goes on for ever.
    """

    rr_ms: Sequence[float]
    ef_percent: float | Sequence[float] = 60.0
    start_ms: float = 0.0

    @classmethod
    def regular(cls, rate_bpm: float, ef_percent: float, start_ms: float = 0.0) -> "Heart":
        return cls([60_000.0 / rate_bpm], ef_percent, start_ms)

    def onsets_ms(self, until_ms: float) -> NDArray[np.float64]:
        """Ends of diastole up to a time."""
        lengths = list(self.rr_ms)
        while self.start_ms + sum(lengths) < until_ms:
            lengths.append(lengths[-1])
        return self.start_ms + np.concatenate([[0.0], np.cumsum(lengths)])

    def volume_ml(self, times_ms_T: NDArray[np.float64]) -> NDArray[np.float64]:
        """True volume at each time."""
        early = self.rr_ms[0] * np.ceil(max(self.start_ms, 0.0) / self.rr_ms[0])
        onsets = self.onsets_ms(float(times_ms_T[-1]) + 1.0)
        onsets = np.concatenate(
            [np.arange(onsets[0] - early, onsets[0] - 1e-6, self.rr_ms[0]), onsets]
        )
        beat_T = np.searchsorted(onsets, times_ms_T, side="right") - 1
        phase_T = (times_ms_T - onsets[beat_T]) / np.diff(onsets)[beat_T]
        efs = np.broadcast_to(
            np.atleast_1d(self.ef_percent), (len(np.atleast_1d(self.ef_percent)),)
        )
        return EDV_ML * (1 - efs[np.minimum(beat_T, len(efs) - 1)] / 100 * CONTRACTION(phase_T))


def reading_of(
    volume_ml: float,
    *,
    quality: Quality = PASS,
    index_mm: float | None = 1.0,
    soft_share: float = 0.05,
) -> Reading:
    """What measurement says of a half ellipsoid of revolution that keeps W^2 L = volume."""
    volume = volume_ml * 1000.0
    length = LENGTH_MM * (0.75 + 0.25 * volume_ml / EDV_ML)
    width = np.sqrt(6 * volume / (np.pi * length))
    area = np.pi * width * length / 4
    lv = Ventricle(
        area_px=area,
        area_cm2=None if index_mm is None else area / 100,
        length_cm=None if index_mm is None else length / 10,
        volume_ml=None if index_mm is None else volume_ml,
        volume_index=volume,
        volume_index_sd=volume * soft_share,
        length_index=length,
        diameters_index_20=np.full(20, width),
        index_mm=index_mm,
        apex=(10.0, 80.0),
        base=(10.0 + length, 80.0),
        hinges=((10.0 + length, 80.0 - width / 2), (10.0 + length, 80.0 + width / 2)),
        axis_method="class_interface",
    )
    return Reading(lv, {}, quality, 0.99)


NOTHING = Reading(None, {}, Quality("fail", ("no_left_ventricle",)), 0.1)


@dataclass(frozen=True)
class Followed:
    """What a tracker said of a clip.

    Attributes:
        live: beats that it announced or revised while frames came, each with the frame's time.
        final: beats that came with the end.
        live_ef: EF before the end was known.
        ef: EF after it.
    """

    live: list[tuple[float, Beat]]
    final: tuple[Beat, ...]
    live_ef: EjectionFraction
    ef: EjectionFraction

    def beats(self) -> list[Beat]:
        """Each beat as it was said last, in order of their numbers."""
        latest = {beat.number: beat for _, beat in self.live}
        latest |= {beat.number: beat for beat in self.final}
        return [latest[number] for number in sorted(latest)]


def follow(
    times_ms: Iterable[float | None],
    readings: Iterable[Reading],
    tracker: BeatTracker | None = None,
) -> Followed:
    """Push a clip through a tracker, frame by frame."""
    tracker = tracker or BeatTracker()
    live = []
    for seq, (time_ms, reading) in enumerate(zip(times_ms, readings, strict=True)):
        time_us = None if time_ms is None else round(time_ms * 1000)
        live += [(time_ms or 0.0, beat) for beat in tracker.push(seq, time_us, reading)]
    live_ef = tracker.ejection_fraction()
    final = tracker.finish()
    return Followed(live, final, live_ef, tracker.ejection_fraction())


def frame_times_ms(seconds: float, fps: float) -> NDArray[np.float64]:
    """Even times from 0 on."""
    return np.asarray(np.arange(int(seconds * fps)) * (1000.0 / fps), np.float64)


def noisy_readings(
    heart: Heart, times_ms_T: NDArray[np.float64], noise: float = 0.0, seed: int = 0
) -> list[Reading]:
    """One reading per time, the volume off by ``noise`` of the EDV (SD)."""
    rng = np.random.default_rng(seed)
    volumes = heart.volume_ml(times_ms_T) + rng.normal(0, noise * EDV_ML, len(times_ms_T))
    return [reading_of(float(volume)) for volume in volumes]


def half_ellipse_mask(
    size: int,
    length: float,
    width: float,
    *,
    tilt_degrees: float = 0.0,
    wall: float = 6.0,
    scale: tuple[float, float] = (1.0, 1.0),
) -> Mask:
    """Draw an apical view: half an ellipse, its wall, and an atrium under it.

    Args:
        size: side of the square grid.
        length: apex to annulus, in pixels before scaling; so are the next two.
        width: of the annulus.
        tilt_degrees: about the middle of the ventricle, clockwise on the screen.
        wall: thickness of the myocardium.
        scale: network pixels per source pixel, rows and columns.
    """
    rows, cols = np.mgrid[0:size, 0:size].astype(np.float64)
    angle = np.deg2rad(tilt_degrees)
    down, right = (rows - 0.45 * size) / scale[0], (cols - 0.5 * size) / scale[1]
    along = down * np.cos(angle) + right * np.sin(angle) + length / 2
    across = right * np.cos(angle) - down * np.sin(angle)
    from_base = length - along
    inner = np.hypot(from_base / length, across / (width / 2))
    outer = np.hypot(from_base / (length + wall), across / (width / 2 + wall))
    steep = min(length, width / 2)
    lv = np.minimum(_soft((1 - inner) * steep), _soft(from_base))
    whole = np.minimum(_soft((1 - outer) * steep), _soft(from_base))
    disc = np.hypot((from_base + width / 2) / (width / 2), across / (width / 2))
    atrium = np.minimum(_soft((1 - disc) * width / 2), 1 - _soft(from_base))
    below = np.minimum(1 - _soft(from_base), _soft(width / 2 - np.abs(across)))
    atrium = np.maximum(atrium, np.minimum(below, _soft(width / 2 + from_base)))
    maps_NHW = np.stack([lv, np.clip(whole - lv, 0, 1), atrium]).astype(np.float32)
    source = (round(size / scale[0]), round(size / scale[1]))
    fit = Fit(scale[0], scale[1], 0.0, 0.0, Region(0, 0, *source), source, size)
    return Mask(maps_NHW, fit, 0.99)


def _soft(inside_px: NDArray[np.float64]) -> NDArray[np.float64]:
    """A probability that falls from 1 to 0 within two pixels about an edge."""
    return np.clip(0.5 + inside_px / 2, 0.0, 1.0)
