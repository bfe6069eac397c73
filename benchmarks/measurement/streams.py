"""Streams of simulated hearts through the beat tracker, and what it got right."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measurement.hearts import (
    EDV_ML,
    FASTEST_BPM,
    RHYTHMS,
    Heart,
    frame_times_ms,
    make_heart,
    reading_of,
)
from model import Beat, BeatTracker, EjectionFraction, Reading

SLOWEST_BPM = 35.0
FRAMES_PER_S = (15, 20, 25, 30, 50, 80, 120)
EFS_PERCENT = (15, 75)
TIMES = ("even", "uneven", "dropped")
SECONDS = 10.0
NOISE = 0.02
"""SD of one frame's volume over the EDV."""

SAME_BEAT_PERIODS = 0.25
CLOSING_MS = 300.0
"""A beat that ended this near to the stream's end cannot have been announced."""

GAP_MS = 100.0
"""A longer time without a frame breaks the curve by rule: no beat is asked for across it."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a tracker said of a stream.

    Attributes:
        announced_ms: per number of a beat, when it was first told; None if by the end.
        beats: each in its last revision.
        live_ef: before the end was known.
        ef: after it.
    """

    announced_ms: dict[int, float | None]
    beats: list[Beat]
    live_ef: EjectionFraction
    ef: EjectionFraction


def follow(times_ms: Iterable[float], readings: Iterable[Reading]) -> Told:
    """Push a stream through a tracker, frame by frame."""
    tracker = BeatTracker()
    latest: dict[int, Beat] = {}
    announced: dict[int, float | None] = {}
    for seq, (time_ms, reading) in enumerate(zip(times_ms, readings, strict=True)):
        for beat in tracker.push(seq, round(1000 * time_ms), reading):
            latest[beat.number] = beat
            announced.setdefault(beat.number, time_ms)
    live_ef = tracker.ejection_fraction()
    for beat in tracker.finish():
        latest[beat.number] = beat
        announced.setdefault(beat.number, None)
    return Told(announced, list(latest.values()), live_ef, tracker.ejection_fraction())


def score(told: Told, heart: Heart, times_ms_T: NDArray[np.float64]) -> dict[str, Any]:
    """Compare what was told with the truth.

    Args:
        told: by the tracker.
        heart: the truth.
        times_ms_T: of the stream's frames.

    Returns:
        Errors in ms and EF points, and counts of beats.
    """
    onsets, es_B2 = heart.onset_ms_K, heart.es_ms
    inside = [
        beat
        for beat, (start, end) in enumerate(pairwise(onsets))
        if start >= times_ms_T[0] and end <= times_ms_T[-1] - CLOSING_MS
    ]
    whole = [beat for beat in inside if not _is_broken(onsets, beat, times_ms_T)]
    seen = [beat for beat in told.beats if "beat_not_confirmed" not in beat.reasons]
    partner = {beat.number: _true_beat(beat, heart) for beat in seen}
    matched = {place for place in partner.values() if place is not None}
    row: dict[str, Any] = {
        "whole": len(whole),
        "broken": len(inside) - len(whole),
        "missed": sum(place not in matched for place in whole),
        "told": len(seen),
        "invented": sum(place is None for place in partner.values()),
        "twice": sum(place is not None for place in partner.values()) - len(matched),
        "ed_error_ms": [], "es_error_ms": [], "beat_ef_error": [], "delay_ms": [],
    }  # fmt: skip
    for beat in seen:
        place = partner[beat.number]
        if place is None or beat.ed_time_ms is None or beat.es_time_ms is None:
            continue
        begins = onsets[place] if beat.ed_time_ms <= beat.es_time_ms else onsets[place + 1]
        row["ed_error_ms"].append(beat.ed_time_ms - begins)
        row["es_error_ms"].append(beat.es_time_ms - es_B2[place].mean())
        if not beat.reasons:
            row["beat_ef_error"].append(beat.ef_percent - heart.ef_percent_B[place])
        when = told.announced_ms[beat.number]
        if when is not None and beat.is_complete:
            row["delay_ms"].append(when - onsets[place + 1])
    row["true_ef"] = float(np.median(heart.ef_percent_B[inside])) if inside else None
    return row | _ef_facts(told, row["true_ef"])


def _is_broken(onsets: NDArray[np.float64], beat: int, times_ms_T: NDArray[np.float64]) -> bool:
    """Tell whether a gap lies in a beat, its beginning or its closing."""
    span = (onsets[beat] - GAP_MS, onsets[beat + 1] + CLOSING_MS)
    near_T = times_ms_T[(times_ms_T >= span[0]) & (times_ms_T <= span[1])]
    return bool(np.diff(near_T).max(initial=0.0) > GAP_MS)


def _true_beat(beat: Beat, heart: Heart) -> int | None:
    """Find the true beat whose end of systole is near."""
    if beat.es_time_ms is None:
        return None
    middle_B = heart.es_ms.mean(axis=1)
    nearest = int(np.argmin(np.abs(middle_B - beat.es_time_ms)))
    allowed_ms = SAME_BEAT_PERIODS * float(np.diff(heart.onset_ms_K)[nearest])
    return nearest if abs(middle_B[nearest] - beat.es_time_ms) <= allowed_ms else None


def _ef_facts(told: Told, true_ef: float | None) -> dict[str, Any]:
    ef, live = told.ef, told.live_ef
    known = ef.percent is not None and live.percent is not None
    return {
        "state": ef.state,
        "reasons": list(ef.reasons),
        "method": ef.method,
        "ef": ef.percent,
        "ef_error": None if ef.percent is None or true_ef is None else ef.percent - true_ef,
        "live_minus_offline": live.percent - ef.percent if known else None,  # type: ignore[operator]
        "interval": ef.interval,
        "beats": ef.beats,
    }


def raw_ef(volumes_T: NDArray[np.float64]) -> float:
    """EF of the single largest and smallest frame of a stream."""
    return float(100 * (volumes_T.max() - volumes_T.min()) / volumes_T.max())


def run_streams(count: int, show: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """Draw streams over the whole range of rates, frame rates, rhythms and times, and score them.

    A stream that no rule promises anything for (fewer than 10 frames a beat; fewer than 29 frames
    a second above 120 beats a minute) is kept, to see that it is refused, and marked.
    """
    rows = []
    for number in range(count):
        rng = np.random.default_rng((20, number))
        rhythm = RHYTHMS[number % len(RHYTHMS)]
        rate = float(rng.uniform(SLOWEST_BPM, FASTEST_BPM[rhythm]))
        fps = float(rng.choice(FRAMES_PER_S))
        facts: dict[str, Any] = {
            "rhythm": rhythm,
            "times": TIMES[number // len(RHYTHMS) % len(TIMES)],
            "rate_bpm": rate,
            "fps": fps,
            "ef_percent": float(rng.uniform(*EFS_PERCENT)),
        }
        heart = make_heart(rhythm, rate, facts["ef_percent"], SECONDS, rng)
        times = frame_times_ms(facts["times"], SECONDS, fps, rng)
        volumes = heart.volume_ml(times) + rng.normal(0, NOISE * EDV_ML, len(times))
        told = follow(times, [reading_of(float(max(each, 1.0))) for each in volumes])
        # 29.97 and jitter are allowed for by the gates themselves; the margin keeps clear of both.
        is_promised = fps / (rate / 60) >= 14 and (rate < 105 or fps >= 30)
        rows.append(
            facts | score(told, heart, times) | {"raw_ef": raw_ef(volumes), "promised": is_promised}
        )
        show(number + 1, count)
    return rows


def run_one_beat_clips(show: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """Clips of a little more than one beat, begun anywhere in it: halves at both ends."""
    rows = []
    plan = [(rate, fps, part) for rate in (50, 75, 110) for fps in (30, 60) for part in range(8)]
    for number, (rate, fps, part) in enumerate(plan):
        rng = np.random.default_rng((21, number))
        ef = float(rng.uniform(25, 70))
        heart = make_heart("regular", rate, ef, 4.0, rng)
        first_ms = float(heart.onset_ms_K[2] + part / 8 * np.diff(heart.onset_ms_K)[2])
        length_s = 1.3 * 60 / rate
        times = first_ms + frame_times_ms("even", length_s, fps, rng)
        volumes = heart.volume_ml(times) + rng.normal(0, 0.01 * EDV_ML, len(times))
        told = follow(times, [reading_of(float(each)) for each in volumes])
        rows.append(
            {"rate_bpm": rate, "fps": fps, "begins_at": part / 8} | score(told, heart, times)
        )
        rows[-1]["ef_error"] = None if told.ef.percent is None else told.ef.percent - ef
        show(number + 1, len(plan))
    return rows


def run_inflation(show: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """EF of single extreme frames against ours, by the noise of a frame; streams of 3 s."""
    rows: list[dict[str, Any]] = []
    noises, efs, seeds = (0.0, 0.01, 0.02, 0.04), (25.0, 45.0, 65.0), range(12)
    plan = [(noise, ef, seed) for noise in noises for ef in efs for seed in seeds]
    for number, (noise, ef, seed) in enumerate(plan):
        rng = np.random.default_rng((22, seed, round(ef)))
        heart = make_heart("regular", float(rng.uniform(55, 95)), ef, 3.0, rng)
        times = frame_times_ms("even", 3.0, float(rng.choice((25, 30, 50))), rng)
        volumes = heart.volume_ml(times) + rng.normal(0, noise * EDV_ML, len(times))
        told = follow(times, [reading_of(float(each)) for each in volumes])
        rows.append({"noise": noise, "ef": ef, "raw_error": raw_ef(volumes) - ef})
        rows[-1]["our_error"] = None if told.ef.percent is None else told.ef.percent - ef
        show(number + 1, len(plan))
    return rows
