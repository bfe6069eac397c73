"""The stream's clock: acquisition times as they come, or made-up ones where there are none."""

from dataclasses import dataclass

UNTIMED_FRAME_MS = 100.0 / 3.0
"""Step of the made-up clock. It only scales the search for turns; no rate is told from it."""

JITTER_MS = 100.0
"""A time this little before the last one is a frame out of order, a larger step a new clock."""

MAX_TIME_US = 2**62


@dataclass(slots=True)
class Clock:
    """Tells each frame's time, and whether it goes on from the last one.

    Attributes:
        is_timed: False from the first frame without an acquisition time on.
        last_ms: time of the last frame taken, None before the first.
        last_seq: number of the last frame taken.
        refused: frames whose time did not rise.
        restarts: how often time jumped back, or ceased to be known.
    """

    is_timed: bool = True
    last_ms: float | None = None
    last_seq: int = -1
    refused: int = 0
    restarts: int = 0

    def read(self, seq: int, time_us: int | None) -> float | None:
        """Give the frame's time in milliseconds, None for a frame out of order."""
        if time_us is None or not self.is_timed:
            time_ms = self._made_up_ms(seq)
        elif abs(time_us) > MAX_TIME_US:
            self.refused += 1
            return None
        else:
            time_ms = time_us / 1000.0
        if self.last_ms is not None and time_ms <= self.last_ms:
            if self.last_ms - time_ms <= JITTER_MS:
                self.refused += 1
                return None
            self.restarts += 1
        self.last_ms, self.last_seq = time_ms, seq
        return time_ms

    def _made_up_ms(self, seq: int) -> float:
        """Count frames; a number left out is a frame dropped."""
        if self.is_timed:
            self.restarts += self.last_ms is not None
            self.is_timed, self.last_ms = False, None
        if self.last_ms is None:
            return 0.0
        return self.last_ms + max(seq - self.last_seq, 1) * UNTIMED_FRAME_MS
