"""A scanner's freeze button: the same image goes on coming, and nothing of it is a beat."""

import numpy as np
import pytest

from model.measure import BeatTracker
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


def test_a_frozen_stream_restored_from_bytes_goes_on_identically() -> None:
    times = frame_times_ms(9.0, 30)
    heart_ms = np.where(times < 3_000, times, np.maximum(times - 2_000, 3_000))
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
