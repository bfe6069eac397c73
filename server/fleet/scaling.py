"""How many replicas a fleet should have: the rule alone, as a function of what replicas say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """What one replica says of itself.

    Attributes:
        sessions: live ones.
        late_share: of its frames since it was last asked, 0 to 1.
        capacity: sessions that it admits.
    """

    sessions: float
    late_share: float
    capacity: float


@dataclass(frozen=True, slots=True)
class Policy:
    """When a fleet grows and shrinks; the gap between the two is its hysteresis.

    Attributes:
        full: share of all places taken above which it grows.
        empty: share of places that would be taken after it shrank by one, below which it does.
        late: share of late frames above which it grows whatever is taken.
        calm: share of late frames above which it does not shrink.
        calm_s: how long it must have been wanted smaller before it shrinks.
        step_s: after a change upwards, how long nothing more is asked for because of late frames:
            a new replica must first take sessions to help.
    """

    full: float = 0.75
    empty: float = 0.5
    late: float = 0.05
    calm: float = 0.01
    calm_s: float = 120.0
    step_s: float = 30.0

    def wanted(
        self,
        loads: Sequence[Load],
        target: int,
        *,
        raised_s: float,
        quiet_s: float,
    ) -> int:
        """The number of replicas wanted now.

        Args:
            loads: of the replicas that run.
            target: how many there are to be already; some may be starting.
            raised_s: time since the target was last raised.
            quiet_s: how long fewer than the target have sufficed without a break.
        """
        taken = sum(load.sessions for load in loads)
        places = max((load.capacity for load in loads), default=1.0) or 1.0
        by_sessions = math.ceil(taken / (self.full * places)) if taken else 0
        frames_late = max((load.late_share for load in loads), default=0.0)
        if by_sessions > target:
            return by_sessions
        if frames_late > self.late and raised_s >= self.step_s and len(loads) >= target:
            return target + 1
        if self.suffices(loads, target - 1) and quiet_s >= self.calm_s:
            return target - 1
        return target

    def suffices(self, loads: Sequence[Load], count: int) -> bool:
        """Whether so many replicas would be roomy, and nothing is late now."""
        taken = sum(load.sessions for load in loads)
        places = max((load.capacity for load in loads), default=1.0)
        is_calm = all(load.late_share <= self.calm for load in loads)
        return count >= 1 and is_calm and taken <= self.empty * places * count
