"""How hard a replica is pressed: its live sessions, and the share of frames that come too late."""

from server.metrics import Metrics
from server.roster import Roster

SESSIONS, LATE_SHARE, CAPACITY = "live_sessions", "late_share", "capacity_sessions"
"""Names of what the autoscaler is told."""

LATE_EDGE_S = 0.0333
"""A frame later than its period at 30 frames a second is late."""

FEWEST_FRAMES = 30
"""Of fewer frames a share says nothing."""


class Pressure:
    """Reads a replica's own metrics, from one question to the next."""

    def __init__(self, roster: Roster, metrics: Metrics) -> None:
        self._roster = roster
        self._metrics = metrics
        self._before = (0.0, 0.0)

    def read(self) -> dict[str, float]:
        """What the replica is doing since the last question."""
        answered, in_time = self._metrics.answered(LATE_EDGE_S)
        frames, good = answered - self._before[0], in_time - self._before[1]
        self._before = (answered, in_time)
        late = 1 - good / frames if frames >= FEWEST_FRAMES else 0.0
        return {
            SESSIONS: float(self._roster.live),
            LATE_SHARE: late,
            CAPACITY: float(self._roster.places),
        }
