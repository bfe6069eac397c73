"""Irregular hearts: how their beats are told apart and brought together."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.measure.cycles import Cycle
from model.measure.rhythm import (
    ClosedBeat,
    heart_rate_bpm,
    index_beats,
    intervals_ms,
    is_irregular,
)
from tests.model.measure.simulation import Followed, Heart, follow, frame_times_ms, noisy_readings


def beats_of(rr_ms: Sequence[float], run: int = 0, start_ms: float = 0.0) -> list[ClosedBeat]:
    """Contiguous beats of these lengths."""
    starts = start_ms + np.concatenate([[0.0], np.cumsum(rr_ms)])
    found = []
    for number, (start, length) in enumerate(zip(starts, rr_ms, strict=False)):
        cycle = Cycle(
            ed_ms=float(start), es_ms=float(start + 300), end_ms=float(start + length),
            onset_ms=float(start + 180), ed_seq=number * 30, es_seq=number * 30 + 9,
            edv_ml=None, esv_ml=None, ef_percent=60.0, fac_percent=42.0, ef_sd_points=2.0,
        )  # fmt: skip
        found.append(ClosedBeat(number, 0, True, run, 0, True, cycle))
    return found


def test_an_interval_needs_the_beat_before() -> None:
    beats = beats_of([800, 900, 1000])
    assert intervals_ms(beats) == [None, 800, 900]
    apart = [beats[0], replace(beats[1], run=1), replace(beats[2], run=1)]
    assert intervals_ms(apart) == [None, None, 900]
    assert intervals_ms([beats[0], beats[2]]) == [None, None]
    assert intervals_ms([]) == []


@pytest.mark.parametrize(
    ("rr_ms", "irregular"),
    [
        ([800] * 6, False),
        ([800, 830, 790, 810, 825, 800], False),
        ([800, 1100, 700, 950, 620, 1000], True),
        ([800, 800, 500, 1100, 800, 800], True),
        ([800, 1200], False),
    ],
)
def test_a_rhythm_is_irregular_where_successive_beats_differ(
    rr_ms: list[float], irregular: bool
) -> None:
    # RMSSD over the mean interval, 0.12 (ef-and-measurement.md section 1.5, step 7).
    steps = np.diff(rr_ms[:-1])
    expected = len(rr_ms) > 3 and np.sqrt(np.mean(steps**2)) / np.mean(rr_ms[:-1]) > 0.12
    assert expected == irregular
    assert is_irregular(beats_of(rr_ms)) == irregular


def test_index_beats_follow_two_like_intervals_that_are_not_short() -> None:
    #          0    1    2    3     4    5    6    7    8
    rr_ms = [800, 850, 700, 720, 1100, 480, 490, 900, 930]
    chosen = [beat.number for beat in index_beats(beats_of(rr_ms))]
    # Preceding and pre-preceding intervals: 2 follows 850 and 800, 4 follows 720 and 700; 7 follows
    # 490 and 480, which are too short.
    assert chosen == [2, 4]


def test_heart_rate_is_that_of_the_mean_interval() -> None:
    assert heart_rate_bpm(beats_of([800, 1000])) == pytest.approx(60_000 / 900)
    untimed = [replace(beat, is_timed=False) for beat in beats_of([800, 1000])]
    assert heart_rate_bpm(untimed) is None


def irregular_heart(seed: int, count: int) -> tuple[Heart, NDArray[np.float64]]:
    """Atrial fibrillation: intervals vary by a quarter, and so does what each beat ejects.

    A beat after a long interval fills more and ejects more.
    """
    rng = np.random.default_rng(seed)
    rr_ms = np.clip(rng.normal(850, 210, count), 520, 1500)
    before = np.concatenate([[850.0], rr_ms[:-1]])
    efs = np.clip(50 + 0.012 * (before - 850), 30, 65)
    return Heart([*rr_ms.tolist()], [*efs.tolist()]), efs


def follow_irregular(seed: int, count: int) -> tuple[Followed, Heart, NDArray[np.float64]]:
    heart, efs = irregular_heart(seed, count)
    times = frame_times_ms(sum(heart.rr_ms) / 1000, 40)
    return follow(times, noisy_readings(heart, times, 0.01, seed)), heart, efs


@pytest.mark.parametrize("seed", range(4))
def test_fibrillation_is_named_and_its_beats_are_found(seed: int) -> None:
    told, heart, efs = follow_irregular(seed, 16)
    onsets = heart.onsets_ms(sum(heart.rr_ms))[1:15]
    found = np.array([beat.ed_time_ms for beat in told.beats() if not beat.reasons], float)
    missed = [onset for onset in onsets if np.abs(found - onset).min() > 100]
    invented = [each for each in found[1:-1] if np.abs(onsets - each).min() > 150]
    assert len(missed) <= 1
    assert len(invented) <= 1
    assert told.ef.state == "measured"
    assert "irregular_rhythm" in told.ef.reasons
    assert told.ef.method in ("index_beats", "mean_of_beats")
    assert told.ef.percent == pytest.approx(float(efs.mean()), abs=3)
    assert told.ef.heart_rate_bpm == pytest.approx(60_000 / np.mean(heart.rr_ms), rel=0.05)


def test_few_beats_of_an_irregular_heart_say_that_they_are_few() -> None:
    heart = Heart([800, 1150, 650, 1000, 800], 55)
    times = frame_times_ms(4.2, 40)
    ef = follow(times, noisy_readings(heart, times)).ef
    assert {"irregular_rhythm", "too_few_beats"} <= set(ef.reasons)
    assert ef.percent == pytest.approx(55, abs=2)


def test_an_extra_beat_does_not_pull_the_ef() -> None:
    rr_ms = [850.0] * 4 + [520.0, 1180.0] + [850.0] * 5
    efs = [58.0] * 5 + [35.0, 68.0] + [58.0] * 4
    heart = Heart(rr_ms, efs)
    times = frame_times_ms(sum(rr_ms) / 1000, 40)
    ef = follow(times, noisy_readings(heart, times, 0.01)).ef
    assert ef.percent == pytest.approx(58, abs=2)


@pytest.mark.parametrize("fps", [20, 60])
def test_frames_without_a_time_tell_no_heart_rate_and_leave_the_earlier_beats_theirs(
    fps: float,
) -> None:
    # The made-up clock runs at 30 frames a second whatever the true rate is.
    times = frame_times_ms(14.0, fps)
    sent = [None if at_ms > 5_000 else float(at_ms) for at_ms in times]
    told = follow(sent, noisy_readings(Heart.regular(65, 60), times, 0.01))
    untimed = [beat for beat in told.beats() if beat.ed_time_ms is None]
    assert len(untimed) > 4
    assert "time_base_unknown" in told.ef.reasons
    assert told.ef.heart_rate_bpm == pytest.approx(65, rel=0.02)
