"""When beats are looked for: often enough to tell each, and not when none can be over."""

from typing import Any

import pytest

from model.measure import tracker
from model.measure.cycles import Cycle, find_cycles
from model.measure.samples import Samples
from tests.model.measure.simulation import Heart, follow, frame_times_ms, noisy_readings


def test_short_beats_after_a_pause_are_all_told() -> None:
    lengths = [1700.0, 600.0, 600.0, 640.0, 1500.0, 600.0, 620.0, 600.0, 1000.0]
    heart = Heart(lengths, 55.0, start_ms=200.0)
    times = frame_times_ms(9.0, 30)
    told = follow(times, noisy_readings(heart, times, noise=0.005))
    starts = [beat.ed_time_ms for beat in told.beats()]
    onsets = heart.onsets_ms(times[-1])[: len(lengths)]
    assert [min(abs(at - each) for each in starts if each) < 100 for at in onsets] == [True] * 9


def test_right_after_a_beat_nobody_looks_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_ms = []

    def look(samples: Samples, **asked: Any) -> list[Cycle]:
        looked_ms.append(float(samples.time_ms_T[-1]))
        return find_cycles(samples, **asked)

    monkeypatch.setattr(tracker, "find_cycles", look)
    heart = Heart.regular(60, 60)
    times = frame_times_ms(10.0, 30)
    told = follow(times, noisy_readings(heart, times, noise=0.005))
    first_told = [at_ms for at_ms, beat in told.live if beat.revision == 0]
    assert len(first_told) >= 7
    # Beats end at whole seconds, are told within 0.4 s, and the next cannot end within 0.6 of one.
    for at_ms in first_told:
        rested_ms = 1000 * (at_ms // 1000) + 500
        assert not [each for each in looked_ms if at_ms + 1 < each < rested_ms]
