"""Frames that are stamped when they arrive, several at once, as behind a slow link."""

import numpy as np
import pytest

from model.measure import EjectionFraction
from tests.model.measure.simulation import EDV_ML, Heart, follow, frame_times_ms, reading_of

EF_PERCENT = 60.0


def ef_of(rate_bpm: float, fps: float, burst: int, within_ms: float) -> EjectionFraction:
    """What is said of a heart whose frames come in bursts, so far apart within one."""
    times = frame_times_ms(10.0, fps)
    volumes = Heart.regular(rate_bpm, EF_PERCENT).volume_ml(times)
    volumes += np.random.default_rng(1).normal(0, 0.01 * EDV_ML, len(times))
    place = np.arange(len(times))
    stamps = times[place - place % burst] + place % burst * within_ms
    return follow(stamps, [reading_of(float(each)) for each in volumes]).ef


@pytest.mark.parametrize("within_ms", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("burst", [2, 3, 5, 8])
@pytest.mark.parametrize("fps", [30, 60, 120])
@pytest.mark.parametrize("rate_bpm", [50.0, 65.0, 90.0, 120.0])
def test_no_wrong_ef_is_told_of_frames_stamped_in_bursts(
    rate_bpm: float, fps: float, burst: int, within_ms: float
) -> None:
    ef = ef_of(rate_bpm, fps, burst, within_ms)
    if ef.percent is not None:
        assert ef.percent == pytest.approx(EF_PERCENT, abs=3)
    # The gate lies at fourteen, and a beat may begin anywhere in a burst.
    bursts_per_beat = 60 / rate_bpm * fps / burst
    if bursts_per_beat >= 15:
        assert ef.state == "measured"
    elif burst > 2 and bursts_per_beat < 13:
        assert ef.state == "withheld"
