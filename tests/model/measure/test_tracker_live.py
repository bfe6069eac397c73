"""What a live stream is told while it runs: frame by frame, not only at its end."""

from collections.abc import Iterable

import pytest

from model.measure import BeatTracker, EjectionFraction, Reading
from tests.model.measure.simulation import NOTHING, Heart, frame_times_ms, noisy_readings


def told_at_each_frame(
    tracker: BeatTracker, times_ms: Iterable[float], readings: Iterable[Reading], first_seq: int = 0
) -> list[EjectionFraction]:
    """The EF after every frame; a tracker restored from bytes tells the same."""
    told = []
    for seq, (time_ms, reading) in enumerate(zip(times_ms, readings, strict=True)):
        tracker.push(first_seq + seq, round(time_ms * 1000), reading)
        told.append(tracker.ejection_fraction())
        if seq % 9 == 0:
            assert BeatTracker.from_bytes(tracker.to_bytes()).ejection_fraction() == told[-1]
    return told


@pytest.mark.parametrize("held_ms", [10_000.0, 40.0])
def test_a_clock_that_does_not_rise_is_named_at_once(held_ms: float) -> None:
    times = frame_times_ms(7.0, 30)
    sent = [4_000.0 if 0 <= each - 4_000 < held_ms else each for each in times]
    told = told_at_each_frame(
        BeatTracker(), sent, noisy_readings(Heart.regular(65, 60), times, 0.01)
    )
    first = next(i for i in range(1, len(sent)) if sent[i] <= sent[i - 1])
    assert told[first - 1].state == "measured"
    assert "times_not_rising" not in told[first - 1].reasons
    for ef in told[first:]:
        assert ef.state == "measured"
        assert "times_not_rising" in ef.reasons


def paused_at_15_s() -> BeatTracker:
    """A tracker that saw five seconds of a heart, then nothing for ten and more."""
    tracker, times = BeatTracker(), frame_times_ms(5.0, 30)
    told_at_each_frame(tracker, times, noisy_readings(Heart.regular(65, 60), times, 0.01))
    return tracker


@pytest.mark.parametrize("is_first_view", [True, False])
def test_a_view_has_90_frames_to_show_a_beat_also_after_a_pause(is_first_view: bool) -> None:
    tracker = BeatTracker() if is_first_view else paused_at_15_s()
    times = 20_000 + frame_times_ms(5.0, 30)
    readings = noisy_readings(Heart.regular(65, 60), times, 0.01)
    # The probe finds the heart, loses it, and has it again.
    readings[1:6] = [NOTHING] * 5
    told = told_at_each_frame(tracker, times, readings, 1000)
    beat = next(place for place, ef in enumerate(told) if ef.state == "measured")
    assert 30 < beat < 90
    for ef in told[:beat]:
        assert (ef.state, ef.reasons) == ("pending", ("no_complete_beat",))


@pytest.mark.parametrize("is_first_view", [True, False])
def test_a_view_without_a_heart_is_told_so_after_90_frames_also_after_a_pause(
    is_first_view: bool,
) -> None:
    tracker = BeatTracker() if is_first_view else paused_at_15_s()
    times = 20_000 + frame_times_ms(5.0, 30)
    readings = noisy_readings(Heart.regular(65, 60), times, 0.01)[:1] + [NOTHING] * 149
    told = told_at_each_frame(tracker, times, readings, 1000)
    assert {ef.state for ef in told[:89]} == {"pending"}
    assert {ef.state for ef in told[89:]} == {"withheld"}
    assert "no_left_ventricle" in told[-1].reasons
