"""The simulation that docs/scaling.md rests on: what is known beforehand must come out of it."""

import pytest

from benchmarks.scaling.frames import AROUND_MS, FRAME_MS, late_share
from benchmarks.scaling.morning import HOUR_S, Morning
from server.fleet.scaling import Policy


def test_frames_are_late_where_they_are_more_than_the_processors_can_do_and_not_before() -> None:
    whole_ms = AROUND_MS + sum(FRAME_MS) / len(FRAME_MS)
    # So many sessions' frames fill one period of one processor.
    full = int(1000 / 30 / whole_ms)
    assert late_share(full, 1, seconds=5) < 0.05
    assert late_share(full + 1, 1, seconds=5) > 0.1
    assert late_share(2 * full, 2, seconds=5) < 0.05


@pytest.mark.parametrize("loss", [None, (3 * HOUR_S, 0.25)])
def test_a_morning_ends_with_every_session_served_refused_or_lost(
    loss: tuple[float, float] | None,
) -> None:
    late = [0.0] * 7
    found = Morning(Policy(), late, peak_sessions=60, start_s=15, loss=loss).run()
    # Little's law: the rate of the peak times the mean duration, less what was refused.
    assert found.peak == pytest.approx(60, rel=0.5)
    assert found.refused < 0.1 * found.began
    assert found.lost == 0
    assert found.moved_s or loss is None
    assert found.most * 6 >= found.peak
