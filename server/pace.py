"""How many frames a second the workers answer: measured before the first one, then on full load."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PROMISED_SHARE = 0.8
"""Of the capacity; nearer to it frames queue behind each other, and few are answered in time."""

OWN_S = 0.0015
"""What a worker spends on a frame beside the network: decoding, measuring, writing the answer.

Source: the bar of docs/performance.md; what it really is shows on full load.
"""

SMOOTHED_FRAMES = 64
OUTLIER = 4.0
"""A frame that took longer than so many others counts as so many: the machine was away."""

STALE_S = 30.0
"""So long after the last full load what was measured at start is the better guess."""


def expected_fps(network_fps: float, streams: int, workers: int) -> float:
    """How many frames a second to expect before the first one.

    Args:
        network_fps: of the network alone, all streams together.
        streams: frames that it takes at once.
        workers: frames under way at most.
    """
    return min(network_fps, workers / (streams / network_fps + OWN_S))


class Pace:
    """Counts the workers at work and times their frames; safe to use from all of them."""

    def __init__(self, workers: int, capacity_fps: float) -> None:
        """Begin with what was measured at start.

        Args:
            workers: frames under way at most.
            capacity_fps: frames a second of all workers together; infinite where unknown.
        """
        self._workers = workers
        self._first_fps = capacity_fps
        self._frame_s = 0.0
        self._full_s = -math.inf
        self._under_way = 0
        self._lock = threading.Lock()

    @property
    def capacity_fps(self) -> float:
        """Frames a second that all workers together answer."""
        if self._is_stale(time.perf_counter()):
            return self._first_fps
        return self._workers / self._frame_s

    @property
    def promised_fps(self) -> float:
        """Frames a second that sessions may declare in all."""
        return PROMISED_SHARE * self.capacity_fps

    @contextmanager
    def frame(self) -> Iterator[None]:
        """Time one frame; it counts where all workers had one when it began and when it ended."""
        started_s = time.perf_counter()
        with self._lock:
            self._under_way += 1
            was_full = self._under_way == self._workers
        try:
            yield
        finally:
            ended_s = time.perf_counter()
            with self._lock:
                if was_full and self._under_way == self._workers:
                    self._take(ended_s - started_s, ended_s)
                self._under_way -= 1

    def _take(self, spent_s: float, now_s: float) -> None:
        if self._is_stale(now_s):
            known = math.isfinite(self._first_fps)
            self._frame_s = self._workers / self._first_fps if known else spent_s
        usual_s = self._frame_s
        self._frame_s += (min(spent_s, OUTLIER * usual_s) - usual_s) / SMOOTHED_FRAMES
        self._full_s = now_s

    def _is_stale(self, now_s: float) -> bool:
        return now_s - self._full_s > STALE_S
