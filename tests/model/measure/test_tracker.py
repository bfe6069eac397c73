"""Streams of simulated hearts: which beats are told, when, and what the EF says of them."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.measure import BeatTracker, Quality, Reading
from tests.model.measure.simulation import (
    EDV_ML,
    NOTHING,
    Heart,
    follow,
    frame_times_ms,
    noisy_readings,
    reading_of,
)

FAILED = Quality("fail", ("ragged_outline",))


@pytest.mark.parametrize("fps", [20, 30, 60, 120])
@pytest.mark.parametrize("rate", [40, 75, 110])
@pytest.mark.parametrize("ef_percent", [20, 40, 65])
def test_every_beat_is_found_and_its_ef_is_the_true_one(
    rate: float, fps: float, ef_percent: float
) -> None:
    heart = Heart.regular(rate, ef_percent, start_ms=150.0)
    times = frame_times_ms(5.0, fps)
    told = follow(times, noisy_readings(heart, times, noise=0.01))
    onsets = heart.onsets_ms(times[-1])
    whole = [(a, b) for a, b in pairwise(onsets) if b < times[-1] - 300]
    beats = [beat for beat in told.beats() if not beat.reasons]
    assert len(whole) <= len(beats) <= len(whole) + 2
    for (start, end), beat in zip(whole, beats[-len(beats) :], strict=False):
        assert beat.is_complete
        assert beat.ed_time_ms == pytest.approx(start, abs=0.06 * (end - start) + 35)
        # Contraction is full from 0.35 to 0.40 of the beat.
        assert beat.es_time_ms is not None
        in_beat = (beat.es_time_ms - start) / (end - start)
        slack = 60 / (end - start)
        assert 0.35 - slack < in_beat < 0.40 + slack
        assert beat.ef_percent == pytest.approx(ef_percent, abs=5)
    assert told.ef.state == "measured"
    assert told.ef.percent == pytest.approx(ef_percent, abs=1.5 if fps >= 30 else 2.0)
    assert told.ef.heart_rate_bpm == pytest.approx(rate, rel=0.02)
    assert told.ef.edv_ml == pytest.approx(EDV_ML, rel=0.03)
    assert told.ef.interval is not None
    assert told.ef.interval[0] < ef_percent < told.ef.interval[1]


@pytest.mark.parametrize("rate", [130, 160])
@pytest.mark.parametrize("fps", [30, 60, 120])
def test_fast_hearts_are_followed_from_30_frames_a_second(rate: float, fps: float) -> None:
    times = frame_times_ms(5.0, fps)
    told = follow(times, noisy_readings(Heart.regular(rate, 55), times, noise=0.01))
    assert told.ef.percent == pytest.approx(55, abs=2)
    assert told.ef.heart_rate_bpm == pytest.approx(rate, rel=0.02)
    assert told.ef.beats >= 5 * rate / 60 - 2


@pytest.mark.parametrize(
    ("fps", "rate", "state", "reason"),
    [
        (15, 60, "measured", "low_frame_rate"),
        (10, 55, "measured", "low_frame_rate"),
        (10, 90, "withheld", "frame_rate_too_low"),
        (24, 130, "withheld", "frame_rate_too_low"),
    ],
)
def test_a_low_frame_rate_is_told_and_too_low_a_one_gives_nothing(
    fps: float, rate: float, state: str, reason: str
) -> None:
    times = frame_times_ms(7.0, fps)
    ef = follow(times, noisy_readings(Heart.regular(rate, 60), times)).ef
    assert ef.state == state
    assert reason in ef.reasons
    if state == "measured":
        assert ef.percent == pytest.approx(60, abs=2.5)


@pytest.mark.parametrize("noise", [0.02, 0.04])
def test_noise_does_not_inflate_the_ef_as_raw_extremes_do(noise: float) -> None:
    errors, raw_errors = [], []
    for seed in range(8):
        heart = Heart.regular(65 + 3 * seed, 60, start_ms=70.0 * seed)
        times = frame_times_ms(5.0, 30)
        readings = noisy_readings(heart, times, noise, seed)
        ef = follow(times, readings).ef
        assert ef.percent is not None
        errors.append(ef.percent - 60)
        volumes = [reading.lv.volume_index for reading in readings if reading.lv]
        raw_errors.append(100 * (1 - min(volumes) / max(volumes)) - 60)
    # ef-and-measurement.md section 1.2: raw extremes over 3 s are 3.6 to 5.3 and 7 to 11 too high.
    assert np.mean(raw_errors) > (3.6 if noise == 0.02 else 7.0)
    assert abs(np.mean(errors)) < (0.8 if noise == 0.02 else 1.8)


@pytest.mark.parametrize("start_phase", [0.0, 0.2, 0.35, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("is_timed", [True, False])
def test_a_clip_of_one_second_gives_an_ef(start_phase: float, is_timed: bool) -> None:
    times = frame_times_ms(1.0, 30)
    heart = Heart.regular(64, 60, start_ms=-start_phase * 60_000 / 64)
    told = follow(times if is_timed else [None] * 30, noisy_readings(heart, times, 0.01))
    assert len(times) == 30
    assert told.ef.state == "measured"
    assert told.ef.method == "single_beat"
    assert told.ef.percent == pytest.approx(60, abs=4)
    assert "single_beat" in told.ef.reasons
    assert ("time_base_unknown" in told.ef.reasons) != is_timed


def test_half_a_beat_from_diastole_to_systole_gives_an_ef_that_says_so() -> None:
    times = frame_times_ms(0.4, 60)
    told = follow(times, noisy_readings(Heart.regular(60, 50), times))
    assert told.ef.percent == pytest.approx(50, abs=2)
    assert {"single_beat", "incomplete_beat"} <= set(told.ef.reasons)
    assert not told.beats()[0].is_complete
    assert told.ef.heart_rate_bpm is None


@pytest.mark.parametrize("fps", [15, 30, 60])
def test_without_times_there_is_an_ef_but_no_heart_rate(fps: float) -> None:
    times = frame_times_ms(6.0, fps)
    told = follow([None] * len(times), noisy_readings(Heart.regular(65, 60), times, 0.01))
    assert told.ef.percent == pytest.approx(60, abs=2.5)
    assert told.ef.heart_rate_bpm is None
    assert "time_base_unknown" in told.ef.reasons
    assert {beat.ed_time_ms for beat in told.beats()} == {None}


@pytest.mark.parametrize("rate", [45, 60, 75, 100, 150])
@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_beat_is_told_within_300_ms_of_its_end(rate: float, noise: float) -> None:
    heart = Heart.regular(rate, 60, start_ms=100.0)
    times = frame_times_ms(9.0, 30)
    told = follow(times, noisy_readings(heart, times, noise, seed=3))
    onsets = heart.onsets_ms(times[-1])
    first_told = [(at_ms, beat) for at_ms, beat in told.live if beat.revision == 0]
    delays = []
    for at_ms, beat in first_told:
        assert beat.ed_time_ms is not None
        start = int(np.argmin(np.abs(onsets - beat.ed_time_ms)))
        delays.append(at_ms - onsets[start + 1])
    assert len(delays) >= 9 * rate / 60 - 3
    assert np.median(delays) <= 300
    assert max(delays) <= 400


@given(
    rate=st.floats(45, 120),
    ef_percent=st.floats(15, 75),
    noise=st.floats(0, 0.04),
    seed=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
def test_a_beat_is_revised_at_most_once_and_numbers_rise(
    rate: float, ef_percent: float, noise: float, seed: int
) -> None:
    times = frame_times_ms(6.0, 30)
    told = follow(times, noisy_readings(Heart.regular(rate, ef_percent), times, noise, seed))
    said = [beat for _, beat in told.live] + list(told.final)
    per_beat: dict[int, list[int]] = {}
    for beat in said:
        per_beat.setdefault(beat.number, []).append(beat.revision)
    assert list(per_beat) == list(range(len(per_beat)))
    assert all(revisions in ([0], [0, 1]) for revisions in per_beat.values())


@pytest.mark.parametrize("seed", range(4))
def test_the_live_ef_of_a_clip_is_that_of_the_whole_clip(seed: int) -> None:
    heart = Heart.regular(55 + 10 * seed, 30 + 10 * seed)
    times = frame_times_ms(8.0, 30)
    told = follow(times, noisy_readings(heart, times, 0.02, seed))
    assert told.live_ef.percent is not None
    assert told.ef.percent == pytest.approx(told.live_ef.percent, abs=0.5)


def test_uneven_frame_times_change_nothing() -> None:
    # The steps of a real file: 33 and 50 ms in turn.
    times = np.cumsum([0.0, *([33.0, 50.0, 33.0] * 60)])
    told = follow(times, noisy_readings(Heart.regular(70, 58), times, 0.01))
    assert told.ef.percent == pytest.approx(58, abs=1.5)
    assert told.ef.heart_rate_bpm == pytest.approx(70, rel=0.02)


def test_single_frames_lost_or_rejected_change_nothing() -> None:
    rng = np.random.default_rng(5)
    times = frame_times_ms(8.0, 30)
    readings = noisy_readings(Heart.regular(62, 55), times, 0.01)
    kept = rng.random(len(times)) > 0.12
    readings = [
        reading if rng.random() > 0.06 else Reading(reading.lv, {}, FAILED, 0.99)
        for reading in readings
    ]
    told = follow(times[kept], [each for each, keep in zip(readings, kept, strict=True) if keep])
    assert told.ef.percent == pytest.approx(55, abs=2)
    assert told.ef.beats >= 3


def test_a_lifted_probe_breaks_the_curve_and_beats_go_on_after_it() -> None:
    times = frame_times_ms(12.0, 30)
    readings = noisy_readings(Heart.regular(60, 60), times, 0.01)
    lifted = (times > 4_400) & (times < 7_000)
    readings = [NOTHING if gone else each for each, gone in zip(readings, lifted, strict=True)]
    told = follow(times, readings)
    for beat in told.beats():
        assert beat.ed_time_ms is not None
        assert beat.es_time_ms is not None
        assert not 4_400 < beat.es_time_ms < 7_000
    assert told.ef.percent == pytest.approx(60, abs=1.5)
    assert "curve_interrupted" in told.ef.reasons
    assert any(beat.ed_time_ms and beat.ed_time_ms < 4_400 for beat in told.beats())
    assert any(beat.ed_time_ms and beat.ed_time_ms > 7_000 for beat in told.beats())


def test_after_a_long_pause_the_beats_before_it_no_longer_count() -> None:
    times = np.concatenate([frame_times_ms(5.0, 30), 20_000 + frame_times_ms(5.0, 30)])
    first = noisy_readings(Heart.regular(60, 65), times[:150], 0.01)
    second = noisy_readings(Heart.regular(60, 30), times[:150], 0.01)
    tracker = BeatTracker()
    before = follow(times[:150], first, tracker)
    assert before.ef.percent == pytest.approx(65, abs=2)
    for seq, time_ms in enumerate(range(5_100, 19_900, 100)):
        tracker.push(1000 + seq, round(time_ms * 1000), NOTHING)
    assert tracker.ejection_fraction().percent == before.ef.percent, "nobody else is seen yet"
    for seq, (time_ms, reading) in enumerate(zip(times[150:], second, strict=True)):
        tracker.push(2000 + seq, round(time_ms * 1000), reading)
        if seq < 15:
            # Half a second of what may be another patient: no EF, and not the one before.
            ef = tracker.ejection_fraction()
            assert (ef.state, ef.percent, ef.reasons) == ("pending", None, ("no_complete_beat",))
            resumed = BeatTracker.from_bytes(tracker.to_bytes())
            assert resumed.ejection_fraction() == ef
    tracker.finish()
    assert tracker.ejection_fraction().percent == pytest.approx(30, abs=2)


def test_a_stream_that_ends_before_a_new_view_has_a_beat_tells_the_ef_of_the_one_before() -> None:
    times = frame_times_ms(5.0, 30)
    readings = noisy_readings(Heart.regular(60, 65), times, 0.01)
    tracker = BeatTracker()
    follow(times, readings, tracker)
    tracker.push(1000, 20_000_000, readings[0])
    assert tracker.ejection_fraction().state == "pending"
    tracker.finish()
    assert tracker.ejection_fraction().percent == pytest.approx(65, abs=2)


def test_a_slow_drift_of_the_volume_does_not_hide_the_beats() -> None:
    heart, times = Heart.regular(66, 50), frame_times_ms(9.0, 30)
    breath = 1 + 0.08 * np.sin(2 * np.pi * times / 4000.0)
    volumes = heart.volume_ml(times) * breath
    told = follow(times, [reading_of(float(volume)) for volume in volumes])
    assert told.ef.percent == pytest.approx(50, abs=2)
    assert told.ef.beats >= 8


def test_an_axis_that_flips_for_a_moment_does_not_count() -> None:
    times = frame_times_ms(6.0, 30)
    readings = noisy_readings(Heart.regular(60, 60), times)
    for place in range(20, len(readings), 25):
        lv = readings[place].lv
        assert lv is not None
        sideways = {"apex": (60.0, 20.0), "base": (60.0, 110.0), "volume_index": 2e5}
        changed = type(lv)(**{name: getattr(lv, name) for name in lv.__slots__} | sideways)
        readings[place] = Reading(changed, {}, Quality("pass", ()), 0.99)
    told = follow(times, readings)
    assert told.ef.percent == pytest.approx(60, abs=1.5)


def test_noise_alone_gives_no_ef() -> None:
    rng = np.random.default_rng(0)
    for seed in range(6):
        times = frame_times_ms(8.0, 30)
        level = 100 + 6 * rng.normal(size=len(times))
        ef = follow(times, [reading_of(float(each)) for each in level]).ef
        assert ef.state == "withheld", seed


def test_a_still_image_sent_as_a_stream_gives_no_ef() -> None:
    times = frame_times_ms(6.0, 30)
    told = follow(times, [reading_of(100.0)] * len(times))
    assert told.beats() == []
    assert (told.ef.state, told.ef.reasons) == ("withheld", ("no_complete_beat",))


def test_before_the_first_frame_and_the_first_beat_the_ef_is_pending() -> None:
    tracker = BeatTracker()
    assert tracker.ejection_fraction().reasons == ("no_frames",)
    tracker.push(0, 0, reading_of(100.0))
    ef = tracker.ejection_fraction()
    assert (ef.state, ef.percent, ef.reasons) == ("pending", None, ("no_complete_beat",))


def test_a_stream_without_a_heart_is_told_why_while_it_runs() -> None:
    tracker = BeatTracker()
    for seq in range(100):
        tracker.push(seq, seq * 33_333, NOTHING)
    ef = tracker.ejection_fraction()
    assert ef.state == "withheld"
    assert ef.reasons == ("no_left_ventricle", "no_complete_beat")


def test_a_clip_of_two_frames_is_too_short() -> None:
    told = follow([0.0, 33.3], [reading_of(100.0)] * 2)
    assert told.ef.state == "withheld"
    assert "too_few_frames" in told.ef.reasons


@given(
    times=st.lists(
        st.one_of(
            st.none(),
            st.integers(-(2**70), 2**70),
            st.integers(0, 3_000_000),
            st.sampled_from([0, 10**15, -1]),
        ),
        max_size=60,
    ),
    volumes=st.lists(st.floats(1, 300), min_size=60, max_size=60),
    bad=st.sets(st.integers(0, 59)),
)
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_no_times_however_odd_break_a_stream(
    times: Sequence[int | None], volumes: list[float], bad: set[int]
) -> None:
    tracker = BeatTracker()
    for seq, time_us in enumerate(times):
        tracker.push(seq, time_us, NOTHING if seq in bad else reading_of(volumes[seq]))
        tracker.ejection_fraction()
    tracker.finish()
    assert tracker.ejection_fraction().state in ("pending", "measured", "withheld")
    restored = BeatTracker.from_bytes(tracker.to_bytes())
    assert restored.ejection_fraction() == tracker.ejection_fraction()


def test_a_clock_that_stands_still_is_named() -> None:
    times = frame_times_ms(5.0, 30)
    readings = noisy_readings(Heart.regular(60, 60), times)
    told = follow([0.0] * len(times), readings)
    assert told.ef.state == "withheld"
    assert "times_not_rising" in told.ef.reasons


def test_a_frame_that_comes_late_is_left_out_and_the_rest_counts() -> None:
    times = frame_times_ms(6.0, 30)
    swapped = times.copy()
    swapped[50], swapped[51] = times[51], times[50]
    told = follow(swapped, noisy_readings(Heart.regular(60, 60), times))
    assert told.ef.percent == pytest.approx(60, abs=1.5)
    assert "times_not_rising" in told.ef.reasons


def test_a_clock_that_starts_again_loses_one_beat_only() -> None:
    times = frame_times_ms(5.0, 30)
    readings = noisy_readings(Heart.regular(60, 60), times)
    told = follow([*times, *times], readings * 2)
    assert told.ef.percent == pytest.approx(60, abs=1.5)
    assert told.ef.beats >= 7


def test_uncalibrated_pixels_give_a_ratio_and_no_millilitres() -> None:
    heart, times = Heart.regular(60, 60), frame_times_ms(5.0, 30)
    readings = [reading_of(float(each), index_mm=None) for each in heart.volume_ml(times)]
    ef = follow(times, readings).ef
    assert ef.percent == pytest.approx(60, abs=1.5)
    assert (ef.edv_ml, ef.esv_ml) == (None, None)
    assert "no_spacing" in ef.reasons


def test_a_warning_that_stands_on_most_frames_stands_on_the_ef() -> None:
    heart, times = Heart.regular(60, 60), frame_times_ms(5.0, 30)
    quality = Quality("warn", ("annulus_not_seen",))
    readings = [reading_of(float(each), quality=quality) for each in heart.volume_ml(times)]
    assert "annulus_not_seen" in follow(times, readings).ef.reasons
