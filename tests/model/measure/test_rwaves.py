"""R waves against the ends of diastole in the image."""

from model import compare_r_waves
from tests.model.measure.simulation import Heart, follow, frame_times_ms, noisy_readings


def test_r_waves_before_each_end_of_diastole_agree_and_tell_the_rate() -> None:
    heart = Heart.regular(75, 55, start_ms=200.0)
    times = frame_times_ms(5.0, 50)
    beats = follow(times, noisy_readings(heart, times)).beats()
    r_waves = [float(each) - 40.0 for each in heart.onsets_ms(5000.0) if each < 5000]
    found = compare_r_waves(r_waves, beats)
    assert found is not None
    assert found.count == len(r_waves)
    assert found.heart_rate_bpm is not None
    assert abs(found.heart_rate_bpm - 75) < 0.1
    assert found.offset_ms is not None
    assert 10 < found.offset_ms < 70
    assert (found.unmatched, found.agrees) == (0, True)


def test_r_waves_in_the_middle_of_beats_disagree() -> None:
    heart = Heart.regular(60, 55, start_ms=200.0)
    times = frame_times_ms(5.0, 50)
    beats = follow(times, noisy_readings(heart, times)).beats()
    found = compare_r_waves([float(each) - 350.0 for each in heart.onsets_ms(5000.0)], beats)
    assert found is not None
    assert found.agrees is False
    assert found.farthest_ms is not None
    assert abs(found.farthest_ms - 350) < 60


def test_without_r_waves_nothing_is_said_and_without_beats_nothing_is_judged() -> None:
    assert compare_r_waves((), ()) is None
    found = compare_r_waves((100.0, 900.0), ())
    assert found is not None
    assert (found.compared, found.offset_ms, found.agrees) == (0, None, None)
