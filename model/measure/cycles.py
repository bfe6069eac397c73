"""Cycles: the beats of a stretch of measurements, each with its figures and what they are worth."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import nan

import numpy as np
from numpy.typing import NDArray

from model.measure.curve import GRID_MS, Curve, build_curve, find_turns, read_extremes
from model.measure.quality import BeatFacts, judge_beat
from model.measure.samples import Samples

SMOOTHED_RESIDUAL = 0.72
"""SD of unit white noise left over by a five-point quadratic fit: sqrt(1 - 17/35)."""

SD_PER_MEDIAN = 1.4826
"""SD of a normal distribution over the median of its absolute values."""

AREA_JUMP_SHARE = 0.12
AREA_JUMP_MS = 20.0
"""Source: ef-and-measurement.md section 1.7, area rate."""

MIN_FAC_PERCENT = 10.0
"""Below such a fractional area change its ratio to EF is noise."""

FAST_RATE_BPM = 120.0
"""Source: section 1.5 step 8."""

SAME_BEAT_MS = 150.0
"""Ends of systole this near are the same."""

FRAMES_PER_READ = 5

BURST_FRAMES = 2.5
"""From so many frames to a burst on, only the time between bursts tells the shape of a turn."""

MOVING_SHARE = 0.17
"""Share of a beat's frames in which its curve moves, below which pictures are shown several times.

Own choice: simulated hearts have 0.39 and more without noise, 0.09 and more with 2 % of it, while
three times each picture leaves 0.15. Together with the gate of 3.1 it takes next to no beat of a
smooth curve with 1 % of noise, and those whose pictures are too few for an EF within 6 points.
"""

UNKNOWN_PERIOD_MS = 900.0
"""A usual beat, where only one was seen."""


@dataclass(frozen=True, slots=True)
class Cycle:
    """One beat as found on the curve.

    Attributes:
        ed_ms: end of diastole on the clock of the samples; so are the next three.
        es_ms: end of systole.
        end_ms: the next end of diastole, None where the curve does not reach it.
        onset_ms: half of the stroke ejected, the surest mark of a beat; None without its start.
        ed_seq: nearest frame; so is es_seq.
        edv_ml: None without calibrated pixels; so is esv_ml.
        ef_sd_points: what the soft edges of the masks make of the EF, one SD.
        reasons: why it does not count; empty when it does.
        warnings: what to know of it when it counts.
    """

    ed_ms: float
    es_ms: float
    end_ms: float | None
    onset_ms: float | None
    ed_seq: int
    es_seq: int
    edv_ml: float | None
    esv_ml: float | None
    ef_percent: float
    fac_percent: float
    ef_sd_points: float
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Both of its ends of diastole were seen."""
        return self.onset_ms is not None and self.end_ms is not None

    @property
    def last_ms(self) -> float:
        """When the beat was over as far as it was seen."""
        return self.es_ms if self.end_ms is None else self.end_ms


def find_cycles(
    samples: Samples,
    *,
    is_timed: bool,
    takes_halves: bool,
    after_ms: float,
    known_ms: tuple[float, ...] = (),
) -> list[Cycle]:
    """Find the beats in a stretch of measurements without long gaps.

    Args:
        samples: all frames; those that may not be measured are left out of the curve.
        is_timed: False where the times are made up.
        takes_halves: also give beats of which only one end of diastole was seen.
        after_ms: leave out beats whose systole ends before.
        known_ms: ends of systole; where there is none beside them, nothing is read.

    Returns:
        Beats in order of time; empty where all are known.
    """
    usable = samples.usable()
    curve = build_curve(usable.time_ms_T, usable.volume_T)
    if curve is None:
        return []
    turns = find_turns(curve)
    beats = [
        (start, minimum, end)
        for minimum, (start, end) in zip(turns.minima, pairwise(turns.maxima), strict=True)
        if (start is not None) + (end is not None) >= (1 if takes_halves else 2)
        and curve.time_ms(minimum) > after_ms
    ]
    if all(_is_among(known_ms, curve.time_ms(minimum)) for _, minimum, _ in beats):
        return []
    found = [_read_cycle(usable, curve, *beat) for beat in beats]
    return [_judged(cycle, samples, usable, curve, is_timed) for cycle in found]


def _is_among(known_ms: tuple[float, ...], es_ms: float) -> bool:
    """Tell whether an end of systole is one of those known."""
    return any(abs(es_ms - each) <= SAME_BEAT_MS for each in known_ms)


def _read_cycle(
    usable: Samples, curve: Curve, start: int | None, minimum: int, end: int | None
) -> Cycle:
    """Read one beat's figures from quadratic fits about its turns."""
    diastole = start if start is not None else end
    assert diastole is not None
    times_T = usable.time_ms_T
    values_TK = np.stack([usable.volume_T, usable.area_T], axis=1)
    period_ms = curve.period_ms or UNKNOWN_PERIOD_MS
    ed_ms, (edv, ed_area) = read_extremes(
        times_T, values_TK, curve.time_ms(diastole), -1, period_ms
    )
    es_ms, (esv, es_area) = read_extremes(times_T, values_TK, curve.time_ms(minimum), 1, period_ms)
    ed, es = _nearest(times_T, ed_ms), _nearest(times_T, es_ms)
    relative_sd_T = usable.volume_sd_T / usable.volume_T
    spread = np.hypot(_median_about(relative_sd_T, ed), _median_about(relative_sd_T, es))
    return Cycle(
        ed_ms=ed_ms,
        es_ms=es_ms,
        end_ms=None if end is None else curve.time_ms(end),
        onset_ms=None if start is None else _onset_ms(curve, start, minimum),
        ed_seq=int(usable.seq_T[ed]),
        es_seq=int(usable.seq_T[es]),
        edv_ml=_millilitres(edv, usable.index_mm_T[ed]),
        esv_ml=_millilitres(esv, usable.index_mm_T[es]),
        ef_percent=float(100 * (edv - esv) / edv),
        fac_percent=float(100 * (ed_area - es_area) / ed_area),
        ef_sd_points=float(100 * esv / edv * spread),
    )


def _judged(cycle: Cycle, samples: Samples, usable: Samples, curve: Curve, is_timed: bool) -> Cycle:
    """Say what a beat's figures are worth."""
    span = (min(cycle.ed_ms, cycle.es_ms), max(cycle.es_ms, cycle.last_ms))
    frames, measured = samples.between(*span), usable.between(*span)
    period_ms = _period_ms(cycle, curve)
    rate_bpm, fps = 60_000 / period_ms, 1000 / curve.frame_ms
    noise = _frame_noise(usable, curve)
    is_half = not cycle.is_complete and span[1] - span[0] < UNKNOWN_PERIOD_MS
    facts = BeatFacts(
        usable_share=len(measured.time_ms_T) / max(len(frames.time_ms_T), 1),
        ef_percent=cycle.ef_percent,
        ef_per_fac=(
            cycle.ef_percent / cycle.fac_percent if cycle.fac_percent >= MIN_FAC_PERCENT else nan
        ),
        length_ratio=_length_ratio(usable, cycle),
        jumps_share=_jumps_share(measured),
        stroke_per_noise=curve.stroke / noise,
        frames_per_beat=period_ms / curve.frame_ms,
        bursts_per_beat=_bursts_per_beat(measured.time_ms_T, period_ms),
        moves_per_beat=_moves(measured.volume_T) * (2 if is_half else 1),
        fps=fps if is_timed else nan,
        fps_when_fast=fps if is_timed and rate_bpm > FAST_RATE_BPM else nan,
        heart_rate_bpm=rate_bpm if is_timed and cycle.is_complete else nan,
    )
    reasons, warnings = judge_beat(facts, frames.reason_shares())
    return replace(cycle, reasons=reasons, warnings=warnings)


def _period_ms(cycle: Cycle, curve: Curve) -> float:
    """Take the beat's own length, else the curve's period, else twice the half that was seen."""
    if cycle.end_ms is not None and cycle.end_ms > cycle.es_ms and cycle.onset_ms is not None:
        return cycle.end_ms - cycle.ed_ms
    return curve.period_ms or 2 * abs(cycle.es_ms - cycle.ed_ms)


def _bursts_per_beat(times_ms_T: NDArray[np.float64], period_ms: float) -> float:
    """Count the bursts in which frames are stamped; NaN where that is one by one, or in pairs."""
    if len(times_ms_T) < 2:
        return nan
    mean_ms = float(times_ms_T[-1] - times_ms_T[0]) / (len(times_ms_T) - 1)
    bursts = 1 + np.count_nonzero(np.diff(times_ms_T) > 0.5 * mean_ms)
    if len(times_ms_T) < BURST_FRAMES * bursts:
        return nan
    return float(bursts * period_ms / (len(times_ms_T) * mean_ms))


def _moves(volume_T: NDArray[np.float64]) -> float:
    """Count the frames in which the curve moves; NaN where it does so in many of them.

    Source:
        The participation ratio of its squared steps, (sum d^2)^2 / sum d^4: n where n steps are
        equal and all others nothing. Single frames that stand out are taken away before.
    """
    if len(volume_T) < 3:
        return nan
    three_T3 = np.lib.stride_tricks.sliding_window_view(np.pad(volume_T, 1, mode="edge"), 3)
    square_T = np.square(np.diff(np.median(three_T3, axis=-1)))
    fourth = float(np.square(square_T).sum())
    moves = float(square_T.sum()) ** 2 / fourth if fourth else 0.0
    return moves if moves < MOVING_SHARE * len(square_T) else nan


def _onset_ms(curve: Curve, start: int, minimum: int) -> float:
    """Find when half of the stroke was ejected."""
    fall_G = curve.smooth_G[start : minimum + 1]
    half = 0.5 * (fall_G[0] + fall_G[-1])
    after = int(np.argmax(fall_G < half))
    before, beyond = fall_G[after - 1], fall_G[after]
    steps = after - 1 + float((before - half) / (before - beyond))
    return curve.time_ms(start) + steps * GRID_MS


def _nearest(times_ms_T: NDArray[np.float64], at_ms: float) -> int:
    """Find the frame nearest to a time."""
    return int(np.argmin(np.abs(times_ms_T - at_ms)))


def _median_about(values_T: NDArray[np.float64], at: int) -> float:
    """Take the median of the few frames about one."""
    half = FRAMES_PER_READ // 2
    return float(np.median(values_T[max(at - half, 0) : at + half + 1]))


def _millilitres(volume_index: float, index_mm: float) -> float | None:
    """Give a volume its unit where pixels are calibrated."""
    return float(volume_index * index_mm**3 / 1000) if np.isfinite(index_mm) else None


def _length_ratio(usable: Samples, cycle: Cycle) -> float:
    """Long axis at ES over that at ED."""
    ed, es = (_nearest(usable.time_ms_T, at) for at in (cycle.ed_ms, cycle.es_ms))
    return _median_about(usable.length_T, es) / _median_about(usable.length_T, ed)


def _frame_noise(usable: Samples, curve: Curve) -> float:
    """Estimate the standard deviation of a single frame's volume from what smoothing took off."""
    grid_ms = curve.start_ms + np.arange(len(curve.smooth_G)) * GRID_MS
    rest_T = usable.volume_T - np.interp(usable.time_ms_T, grid_ms, curve.smooth_G)
    return max(SD_PER_MEDIAN * float(np.median(np.abs(rest_T))) / SMOOTHED_RESIDUAL, 1e-12)


def _jumps_share(measured: Samples) -> float:
    """Tell on which share of the frames the area had changed faster than a ventricle can."""
    if len(measured.area_T) < 2:
        return 0.0
    step_T = np.abs(np.diff(measured.area_T)) / measured.area_T.max()
    per_T = np.maximum(np.diff(measured.time_ms_T) / AREA_JUMP_MS, 1.0)
    return float(np.mean(step_T / per_T > AREA_JUMP_SHARE))
