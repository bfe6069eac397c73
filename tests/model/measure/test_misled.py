"""Frames that turn out not to show the heart as it lies: their beats count no longer."""

import pytest

from model.measure import Beat, BeatTracker
from tests.model.measure.simulation import Heart, frame_times_ms, noisy_readings

FPS = 30
MOVED_FRAME, NOTICED_FRAME = 150, 222


def stream(misled_ef: float, forgets: bool) -> tuple[BeatTracker, dict[int, Beat], list[Beat]]:
    """A heart of EF 60 whose image moves, and is looked at in the wrong place for a while.

    Returns:
        The tracker at the end of the stream, each beat as it was said last, and all that was said.
    """
    times = frame_times_ms(12.0, FPS)
    right = noisy_readings(Heart.regular(75, 60), times, 0.01)
    wrong = noisy_readings(Heart.regular(75, misled_ef), times, 0.01)
    tracker = BeatTracker()
    said: list[Beat] = []
    for seq, time_ms in enumerate(times):
        if forgets and seq == NOTICED_FRAME:
            said += tracker.forget_last(NOTICED_FRAME - MOVED_FRAME)
        is_misled = MOVED_FRAME <= seq < NOTICED_FRAME
        said += tracker.push(seq, round(time_ms * 1000), (wrong if is_misled else right)[seq])
    said += tracker.finish()
    return tracker, {beat.number: beat for beat in said}, said


@pytest.mark.parametrize("misled_ef", [20, 40])
def test_beats_of_misled_frames_count_no_longer(misled_ef: float) -> None:
    tracker, latest, said = stream(misled_ef, forgets=True)
    first_ms, last_ms = (1000 * frame / FPS for frame in (MOVED_FRAME, NOTICED_FRAME))
    counted = [beat for beat in latest.values() if not beat.reasons]
    for beat in counted:
        assert beat.ef_percent == pytest.approx(60, abs=4)
        assert beat.es_time_ms is not None
        assert not first_ms <= beat.es_time_ms < last_ms
    # Of 15 beats 3 were not well seen, and one at either end of them is not whole.
    assert len(counted) >= 9
    assert tracker.ejection_fraction().percent == pytest.approx(60, abs=1.5)
    assert "curve_interrupted" in tracker.ejection_fraction().reasons
    taken_back = [beat for beat in latest.values() if "beat_not_confirmed" in beat.reasons]
    assert any(beat.es_time_ms and beat.es_time_ms >= first_ms for beat in taken_back)
    # Each revision of a beat is a higher one, and whoever was told of a beat is told of its end.
    revisions: dict[int, list[int]] = {}
    for beat in said:
        revisions.setdefault(beat.number, []).append(beat.revision)
    assert all(each == list(range(len(each))) for each in revisions.values())


def test_they_would_count_if_nobody_noticed() -> None:
    tracker, latest, _ = stream(20, forgets=False)
    assert any(beat.ef_percent < 45 and not beat.reasons for beat in latest.values())
    assert "beats_disagree" in tracker.ejection_fraction().reasons


def test_after_a_cut_the_ef_is_that_of_the_next_heart() -> None:
    times = frame_times_ms(12.0, FPS)
    first = noisy_readings(Heart.regular(75, 60), times, 0.01)
    second = noisy_readings(Heart.regular(90, 35), times, 0.01)
    tracker, told = BeatTracker(), []
    for seq, time_ms in enumerate(times):
        if seq == MOVED_FRAME + 2:
            tracker.begin_picture(MOVED_FRAME - 1)
            tracker = BeatTracker.from_bytes(tracker.to_bytes())
            assert tracker.ejection_fraction().state == "pending"
        reading = first[seq] if seq < MOVED_FRAME else second[seq]
        tracker.push(seq, round(time_ms * 1000), reading)
        told.append(tracker.ejection_fraction().percent)
    assert told[MOVED_FRAME - 1] == pytest.approx(60, abs=1.5)
    shown = [each for each in told[MOVED_FRAME + 2 :] if each is not None]
    assert shown == pytest.approx(len(shown) * [35], abs=3)
    assert len(shown) > 150
    assert "picture_changed" not in tracker.ejection_fraction().reasons
    tracker.finish()
    ef = tracker.ejection_fraction()
    assert ef.percent == pytest.approx(35, abs=1.5)
    assert ef.heart_rate_bpm == pytest.approx(90, abs=2)
    assert "picture_changed" in ef.reasons


def test_a_cut_after_which_nothing_beats_leaves_the_ef_of_what_did() -> None:
    times = frame_times_ms(6.0, FPS)
    readings = noisy_readings(Heart.regular(75, 60), times, 0.01)
    tracker = BeatTracker()
    for seq, time_ms in enumerate(times):
        if seq == 170:
            tracker.begin_picture(165)
        tracker.push(seq, round(time_ms * 1000), readings[seq])
    tracker.finish()
    assert tracker.ejection_fraction().percent == pytest.approx(60, abs=1.5)


def test_nothing_but_misled_frames_leaves_nothing() -> None:
    times = frame_times_ms(2.0, FPS)
    readings = noisy_readings(Heart.regular(75, 60), times, 0.01)
    tracker = BeatTracker()
    for seq, (time_ms, reading) in enumerate(zip(times, readings, strict=True)):
        tracker.push(seq, round(time_ms * 1000), reading)
    told = tracker.forget_last(10 * len(times))
    assert all(beat.reasons[0] == "beat_not_confirmed" for beat in told)
    assert tracker.ejection_fraction().percent is None
    resumed = BeatTracker.from_bytes(tracker.to_bytes())
    assert resumed.ejection_fraction() == tracker.ejection_fraction()
