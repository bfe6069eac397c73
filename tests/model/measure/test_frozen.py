"""A scanner's freeze button: the same image goes on coming, and nothing of it is a beat."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from model.measure import BeatTracker, EjectionFraction, Reading
from tests.model.measure.simulation import (
    EDV_ML,
    Followed,
    Heart,
    follow,
    frame_times_ms,
    reading_of,
)

RATE_BPM, EF_PERCENT = 65.0, 60.0


def follow_frozen(
    frozen_ms: tuple[float, float],
    seconds: float,
    fps: float = 30.0,
    tracker: BeatTracker | None = None,
) -> Followed:
    """A heart that an image holds from one time to another, and that goes on where it was."""
    times = frame_times_ms(seconds, fps)
    first, last = frozen_ms
    is_held_T = (times >= first) & (times < last)
    heart_ms = np.where(times < first, times, np.maximum(times - (last - first), first))
    volumes = Heart.regular(RATE_BPM, EF_PERCENT).volume_ml(heart_ms)
    volumes += np.where(
        is_held_T, 0.0, np.random.default_rng(0).normal(0, 0.01 * EDV_ML, len(times))
    )
    # The network comes to rest on the image that it sees again and again.
    volumes *= 1 + 0.002 * is_held_T * np.exp(-np.maximum(times - first, 0.0) / 700)
    return follow(times, [reading_of(float(each)) for each in volumes], tracker)


@pytest.mark.parametrize("moving_ms", [1_300.0, 1_600.0, 2_500.0, 4_000.0])
@pytest.mark.parametrize("frozen_ms", [700.0, 2_000.0, 4_000.0, 8_000.0])
def test_what_was_told_before_a_freeze_stands_at_the_end(
    moving_ms: float, frozen_ms: float
) -> None:
    end_ms = moving_ms + frozen_ms
    told = follow_frozen((moving_ms, end_ms), end_ms / 1000)
    said = [beat for _, beat in told.live]
    assert said
    assert not any(beat.reasons for beat in [*said, *told.final])
    assert told.live_ef.state == told.ef.state == "measured"
    assert told.ef.percent == pytest.approx(EF_PERCENT, abs=2)
    assert told.ef.heart_rate_bpm == pytest.approx(RATE_BPM, rel=0.03)


@pytest.mark.parametrize("frozen_ms", [700.0, 1_500.0, 4_000.0, 12_000.0])
@pytest.mark.parametrize("fps", [12, 30, 60, 120])
def test_beats_go_on_after_a_freeze_and_none_spans_it(frozen_ms: float, fps: float) -> None:
    last = 4_700.0 + frozen_ms
    told = follow_frozen((4_700.0, last), 9.7 + frozen_ms / 1000, fps)
    counted = [beat for beat in told.beats() if not beat.reasons]
    assert len(counted) >= 7
    for beat in counted:
        assert beat.ed_time_ms is not None
        assert beat.es_time_ms is not None
        assert 0 < beat.es_time_ms - beat.ed_time_ms < 60_000 / RATE_BPM
    assert told.ef.percent == pytest.approx(EF_PERCENT, abs=2.5)
    assert told.ef.heart_rate_bpm == pytest.approx(RATE_BPM, rel=0.03)
    assert "irregular_rhythm" not in told.ef.reasons
    assert "curve_interrupted" in told.ef.reasons


def follow_noisy_freeze(
    frozen_ms: tuple[float, float], seconds: float, noise_share: float, fps: float = 30.0
) -> tuple[Followed, list[EjectionFraction]]:
    """A held image whose noise moves its volume, told to be still once it has been for a second."""
    times = frame_times_ms(seconds, fps)
    first, last = frozen_ms
    held = np.flatnonzero((times >= first) & (times < last))
    heart_ms = np.where(times < first, times, np.maximum(times - (last - first), first))
    volumes = Heart.regular(RATE_BPM, EF_PERCENT).volume_ml(heart_ms)
    rng = np.random.default_rng(1)
    is_held_T = np.isin(np.arange(len(times)), held)
    share_T = np.where(is_held_T, noise_share, 0.01)
    volumes *= 1 + share_T * rng.normal(0, 1, len(times))
    readings = [
        replace(reading_of(float(volume)), still_since_seq=int(held[0]))
        if is_held_T[seq] and times[seq] - times[held[0]] >= 1_000
        else reading_of(float(volume))
        for seq, volume in enumerate(volumes)
    ]
    told, tracker = [], BeatTracker()
    for seq, (time_ms, reading) in enumerate(zip(times, readings, strict=True)):
        tracker.push(seq, round(time_ms * 1000), reading)
        told.append(tracker.ejection_fraction())
    return follow(times, readings), told


@pytest.mark.parametrize("noise_share", [0.006, 0.02, 0.06])
@pytest.mark.parametrize("first_ms", [4_100.0, 4_400.0, 4_700.0])
@pytest.mark.parametrize("fps", [20, 30, 60])
def test_the_noise_of_a_frozen_image_is_no_beat(
    noise_share: float, first_ms: float, fps: float
) -> None:
    # A beat of a second, which noise may pretend before the image is known to be still, goes again.
    followed, told = follow_noisy_freeze((first_ms, 24_000.0), 24.0, noise_share, fps)
    before = [beat for beat in followed.beats() if not beat.reasons]
    assert len(before) >= 3
    for beat in before:
        assert beat.ed_time_ms is not None
        assert beat.ed_time_ms < first_ms
    known = told[round((first_ms + 1_500) * fps / 1000) :]
    assert {ef.state for ef in known} == {"measured"}
    for ef in [*known, followed.ef]:
        assert ef.percent == pytest.approx(EF_PERCENT, abs=2.5)
        assert ef.heart_rate_bpm == pytest.approx(RATE_BPM, rel=0.04)


@pytest.mark.parametrize(("frozen_ms", "fewest"), [(4_000.0, 7), (13_000.0, 4)])
def test_beats_go_on_after_a_noisy_freeze(frozen_ms: float, fewest: int) -> None:
    last_ms = 5_000.0 + frozen_ms
    followed, _ = follow_noisy_freeze((5_000.0, last_ms), last_ms / 1000 + 6, 0.02)
    assert followed.ef.percent == pytest.approx(EF_PERCENT, abs=2)
    assert followed.ef.heart_rate_bpm == pytest.approx(RATE_BPM, rel=0.04)
    # 5 s hold four beats at least, 6 s five; those before a freeze of more than 10 s do not count.
    assert fewest <= followed.ef.beats <= fewest + 4


def two_patients(
    frozen_ms: float, fps: float, calipers_ms: tuple[float, ...], second: Heart
) -> tuple[NDArray[np.float64], list[Reading], float]:
    """One patient of RATE_BPM and EF_PERCENT for 8 s, his image held, and the second for 5 s."""
    first_ms, last_ms = 8_000.0, 8_000.0 + frozen_ms
    times = frame_times_ms(last_ms / 1000 + 5, fps)
    is_held_T = (times >= first_ms) & (times < last_ms)
    before = Heart.regular(RATE_BPM, EF_PERCENT).volume_ml(np.minimum(times, first_ms))
    volumes = np.where(times < last_ms, before, second.volume_ml(np.maximum(times - last_ms, 0.0)))
    for each in calipers_ms:
        # What is drawn on the image makes another outline of it.
        volumes *= np.where(is_held_T & (times >= first_ms + each), 1.03, 1.0)
    noise = np.random.default_rng(0).normal(0, 0.01 * EDV_ML, len(times))
    volumes += np.where(is_held_T, 0.0, noise)
    return times, [reading_of(float(each)) for each in volumes], last_ms


@pytest.mark.parametrize("calipers_ms", [(), (4_000.0,), (6_000.0, 11_000.0)])
@pytest.mark.parametrize("fps", [20, 30, 60])
@pytest.mark.parametrize("rate_bpm", [50.0, 75.0, 110.0])
def test_no_ef_from_before_a_long_freeze_stands_beside_the_next_patient(
    rate_bpm: float, fps: float, calipers_ms: tuple[float, ...]
) -> None:
    second = Heart.regular(rate_bpm, 45.0)
    times, readings, last_ms = two_patients(13_000.0, fps, calipers_ms, second)
    tracker = BeatTracker()
    for seq, (time_ms, reading) in enumerate(zip(times, readings, strict=True)):
        tracker.push(seq, round(time_ms * 1000), reading)
        ef = tracker.ejection_fraction()
        if 4_000.0 < time_ms < last_ms:
            assert ef.percent == pytest.approx(EF_PERCENT, abs=2)
        elif time_ms > last_ms + 1_100.0 and ef.percent is not None:
            assert ef.percent == pytest.approx(45.0, abs=4)
    tracker.finish()
    ef = tracker.ejection_fraction()
    assert ef.percent == pytest.approx(45.0, abs=2)
    assert ef.heart_rate_bpm == pytest.approx(rate_bpm, rel=0.05)


@pytest.mark.parametrize("fps", [60, 120])
def test_not_even_a_fast_beat_after_a_long_freeze_counts_with_those_before(fps: float) -> None:
    times, readings, last_ms = two_patients(13_000.0, fps, (), Heart.regular(170.0, 45.0))
    tracker, beats_before = BeatTracker(), 0
    for seq, (time_ms, reading) in enumerate(zip(times, readings, strict=True)):
        tracker.push(seq, round(time_ms * 1000), reading)
        ef = tracker.ejection_fraction()
        if time_ms < last_ms:
            beats_before = ef.beats
        elif time_ms < last_ms + 1_500:
            # Half-way between the two patients' figures; 1.5 s of the second hold four beats.
            is_of_first = ef.percent is not None and ef.percent > (EF_PERCENT + 45.0) / 2
            assert ef.beats <= (beats_before if is_of_first else 4)
    assert beats_before >= 7


def test_beats_from_before_a_short_freeze_count_on() -> None:
    # 8 s of 65 beats a minute hold eight beats whatever their beginning, 5 s five.
    times, readings, _ = two_patients(8_000.0, 30, (), Heart.regular(RATE_BPM, EF_PERCENT))
    assert follow(times, readings).ef.beats >= 11


@pytest.mark.parametrize("frozen_ms", [2_000.0, 12_000.0])
def test_a_frozen_stream_restored_from_bytes_goes_on_identically(frozen_ms: float) -> None:
    times = frame_times_ms(7.0 + frozen_ms / 1000, 30)
    heart_ms = np.where(times < 3_000, times, np.maximum(times - frozen_ms, 3_000))
    volumes = Heart.regular(RATE_BPM, EF_PERCENT).volume_ml(heart_ms)
    whole, parted = BeatTracker(), BeatTracker()
    for seq, volume in enumerate(volumes):
        if seq % 10 == 0:
            parted = BeatTracker.from_bytes(parted.to_bytes())
        time_us, reading = round(times[seq] * 1000), reading_of(float(volume))
        assert parted.push(seq, time_us, reading) == whole.push(seq, time_us, reading)
        assert parted.ejection_fraction() == whole.ejection_fraction()
    assert parted.to_bytes() == whole.to_bytes()
    assert whole.ejection_fraction().state == "measured"


@pytest.mark.parametrize("rate_bpm", [35.0, 60.0, 110.0])
@pytest.mark.parametrize("fps", [30, 120])
def test_a_weak_heart_is_not_taken_for_a_still_image(rate_bpm: float, fps: float) -> None:
    times = frame_times_ms(9.0, fps)
    # The least EF that counts, without any noise.
    volumes = Heart.regular(rate_bpm, 6.0).volume_ml(times)
    told = follow(times, [reading_of(float(each)) for each in volumes])
    assert "curve_interrupted" not in told.ef.reasons
    assert told.ef.percent == pytest.approx(6.0, abs=1)
