"""Pictures that are shown several times each, as beside a Doppler trace that a scanner updates."""

import numpy as np
import pytest

from model.measure import EjectionFraction
from tests.model.measure.simulation import EDV_ML, Heart, follow, frame_times_ms, reading_of

EF_PERCENT = 60.0


def ef_of(rate_bpm: float, fps: float, held: int, noise: float) -> EjectionFraction:
    """What is said of a heart of which each picture is shown so many times."""
    times = frame_times_ms(10.0, fps)
    taken = times[np.arange(len(times)) // held * held]
    volumes = Heart.regular(rate_bpm, EF_PERCENT).volume_ml(taken)
    volumes += np.random.default_rng(1).normal(0, noise * EDV_ML, len(times))
    return follow(times, [reading_of(float(each)) for each in volumes]).ef


@pytest.mark.parametrize("noise", [0.0, 0.01])
@pytest.mark.parametrize("held", [1, 3, 4, 6, 10, 15, 30])
@pytest.mark.parametrize("fps", [30, 60])
@pytest.mark.parametrize("rate_bpm", [50.0, 90.0])
def test_no_wrong_ef_is_told_of_pictures_that_are_held(
    rate_bpm: float, fps: float, held: int, noise: float
) -> None:
    ef = ef_of(rate_bpm, fps, held, noise)
    if ef.percent is not None:
        assert ef.percent == pytest.approx(EF_PERCENT, abs=4)
    pictures_per_beat = 60 / rate_bpm * fps / held
    if pictures_per_beat >= 12:
        assert ef.state == "measured"
    if pictures_per_beat < 5:
        assert ef.percent is None
