"""What can be promised follows from frames under full load, by a clock that the test turns."""

import math

import pytest

import server.pace
from server.pace import OWN_S, PROMISED_SHARE, STALE_S, Pace, expected_fps


class Clock:
    """Stands still unless it is turned."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def perf_counter(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(server.pace, "time", clock)
    return clock


def work(pace: Pace, clock: Clock, spent_s: float, frames: int, at_once: int = 2) -> None:
    """Frames of so many workers side by side, the last to begin the first to end."""
    for _ in range(frames):
        under_way = [pace.frame() for _ in range(at_once)]
        for each in under_way:
            each.__enter__()
        clock.now_s += spent_s
        for each in reversed(under_way):
            each.__exit__(None, None, None)


def test_until_all_workers_are_busy_the_figure_of_the_start_stands(clock: Clock) -> None:
    pace = Pace(2, 100.0)
    work(pace, clock, 1.0, frames=50, at_once=1)
    assert pace.capacity_fps == 100.0
    assert pace.promised_fps == pytest.approx(PROMISED_SHARE * 100.0)


def test_full_load_moves_the_figure_to_workers_over_time_a_frame(clock: Clock) -> None:
    pace = Pace(2, 100.0)
    work(pace, clock, 0.01, frames=2000)
    assert pace.capacity_fps == pytest.approx(2 / 0.01, rel=0.01)


def test_without_a_figure_of_the_start_the_first_full_load_gives_one(clock: Clock) -> None:
    pace = Pace(2, math.inf)
    assert pace.promised_fps == math.inf
    work(pace, clock, 0.05, frames=1)
    assert pace.capacity_fps == pytest.approx(40.0)


def test_one_stall_does_not_halve_what_is_promised(clock: Clock) -> None:
    pace = Pace(2, 100.0)
    work(pace, clock, 0.02, frames=100)
    work(pace, clock, 20.0, frames=1)
    assert pace.capacity_fps > 90.0


def test_after_a_quiet_time_the_figure_of_the_start_stands_again(clock: Clock) -> None:
    pace = Pace(2, 100.0)
    work(pace, clock, 0.2, frames=500)
    assert pace.capacity_fps < 20.0
    clock.now_s += STALE_S + 1.0
    assert pace.capacity_fps == 100.0


@pytest.mark.parametrize(
    ("network_fps", "streams", "workers", "fps"),
    [
        # Two workers, each 10 ms for the network: the rest of a frame lasts besides.
        (200.0, 2, 2, 2 / (0.010 + OWN_S)),
        # One frame at a time in the network, while the other worker decodes and measures.
        (100.0, 1, 2, 100.0),
        (1000.0, 1, 2, 2 / (0.001 + OWN_S)),
    ],
)
def test_what_is_expected_at_first_leaves_time_for_all_but_the_network(
    network_fps: float, streams: int, workers: int, fps: float
) -> None:
    assert expected_fps(network_fps, streams, workers) == pytest.approx(fps)
