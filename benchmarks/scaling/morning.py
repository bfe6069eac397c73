"""A morning of a hospital group and the loss of a rack, against the fleet's own policy."""

import itertools
import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from server.fleet.scaling import Load, Policy

HOUR_S = 3600.0
RAMP = ((0.0, 0.0), (0.5 * HOUR_S, 0.1), (2 * HOUR_S, 1.0), (5 * HOUR_S, 1.0), (6 * HOUR_S, 0.3))
"""Time of day from 7:00, and the rate of arrivals as a share of the peak's; assumed."""

MEAN_S, SPREAD = 720.0, 0.6
"""How long a session lasts: log-normal, twelve minutes on average; assumed."""

RESUME_S, FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 0.1, 2.0
"""How long, and how often, a client tries to go on."""


@dataclass(eq=False)
class Server:
    """A replica."""

    places: int
    sessions: int = 0
    is_up: bool = True
    lost: list["simpy.Event"] = field(default_factory=list)


@dataclass
class Outcome:
    """What came of a morning.

    Attributes:
        began: sessions.
        refused: of them, full at their first try.
        lost: cut off and not taken over in time.
        moved_s: times from a cut to going on.
        late_s: session-seconds weighted with the share of late frames; ``live_s`` is all.
        replica_s: seconds of all replicas, starting ones too.
        changes: how often the target changed.
        most: replicas at once.
        peak: live sessions at once.
    """

    began: int = 0
    refused: int = 0
    lost: int = 0
    moved_s: list[float] = field(default_factory=list)
    late_s: float = 0.0
    live_s: float = 0.0
    replica_s: float = 0.0
    changes: int = 0
    most: int = 0
    peak: int = 0


class Morning:
    """Sessions come and go; once a second the policy is asked."""

    def __init__(
        self,
        policy: Policy,
        late: Sequence[float],
        *,
        peak_sessions: int,
        start_s: float,
        loss: tuple[float, float] | None = None,
        seed: int = 1,
    ) -> None:
        """Put a morning together.

        Args:
            policy: of the fleet.
            late: share of late frames by the sessions on a replica; its length bounds them.
            peak_sessions: live at once in the busiest hours, on average.
            start_s: from wanting a replica to its first session.
            loss: when a rack is lost, and its share of all replicas.
            seed: of what is drawn.
        """
        self.outcome = Outcome()
        self._policy, self._late = policy, late
        self._rate = peak_sessions / MEAN_S
        self._start_s = start_s
        self._loss = loss
        self._chance = random.Random(seed)
        self._env = simpy.Environment()
        self._servers = [Server(len(late) - 1)]
        self._starting = 0
        self._target = 1

    def run(self) -> Outcome:
        """Simulate until the last hour ends."""
        for process in (self._arrivals(), self._autoscaler(), self._rack()):
            self._env.process(process)
        self._env.run(until=RAMP[-1][0])
        return self.outcome

    def _arrivals(self) -> Generator[Any, Any, None]:
        while True:
            yield self._env.timeout(self._chance.expovariate(self._rate))
            if self._chance.random() < _share(self._env.now):
                self._env.process(self._session())

    def _session(self) -> Generator[Any, Any, None]:
        self.outcome.began += 1
        sigma = SPREAD
        left_s = self._chance.lognormvariate(0, sigma) * MEAN_S / 2.718281828 ** (sigma**2 / 2)
        server = self._place()
        if server is None:
            self.outcome.refused += 1
            return
        while True:
            began_s = self._env.now
            cut = self._env.event()
            server.lost.append(cut)
            if not server.is_up:
                cut.succeed()
            yield self._env.timeout(left_s) | cut
            server.lost.remove(cut)
            server.sessions -= 1
            if not cut.triggered:
                return
            left_s -= self._env.now - began_s
            found = yield self._env.process(self._resume())
            if found is None:
                self.outcome.lost += 1
                return
            server = found

    def _resume(self) -> Generator[Any, Any, Server | None]:
        cut_s, pause_s = self._env.now, FIRST_PAUSE_S
        while self._env.now - cut_s < RESUME_S:
            if (server := self._place()) is not None:
                self.outcome.moved_s.append(self._env.now - cut_s)
                return server
            yield self._env.timeout(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return None

    def _place(self) -> Server | None:
        """Take a place on the emptier of two replicas, as Ray Serve routes; None where full."""
        up = [each for each in self._servers if each.is_up]
        if not up:
            return None
        chosen = min(self._chance.choices(up, k=2), key=lambda each: each.sessions)
        if chosen.sessions >= chosen.places:
            return None
        chosen.sessions += 1
        return chosen

    def _autoscaler(self) -> Generator[Any, Any, None]:
        raised_s, tight_s = float("-inf"), 0.0
        while True:
            yield self._env.timeout(1.0)
            now_s = self._env.now
            loads = [Load(s.sessions, self._late[s.sessions], s.places) for s in self._servers]
            self._count(loads)
            if not self._policy.suffices(loads, self._target - 1):
                tight_s = now_s
            wanted = self._policy.wanted(
                loads, self._target, raised_s=now_s - raised_s, quiet_s=now_s - tight_s
            )
            wanted = max(1, wanted)
            if wanted != self._target:
                self.outcome.changes += 1
                tight_s = now_s
                raised_s = now_s if wanted > self._target else raised_s
            self._target = wanted
            self._adjust()

    def _count(self, loads: Sequence[Load]) -> None:
        live = sum(load.sessions for load in loads)
        self.outcome.live_s += live
        self.outcome.late_s += sum(load.sessions * load.late_share for load in loads)
        self.outcome.replica_s += len(loads) + self._starting
        self.outcome.most = max(self.outcome.most, len(loads) + self._starting)
        self.outcome.peak = max(self.outcome.peak, round(live))

    def _adjust(self) -> None:
        """Start or drain replicas until there are as many as wanted."""
        for _ in range(self._target - len(self._servers) - self._starting):
            self._starting += 1
            self._env.process(self._start())
        for _ in range(len(self._servers) - self._target):
            self._end(min(self._servers, key=lambda each: each.sessions))

    def _start(self) -> Generator[Any, Any, None]:
        yield self._env.timeout(self._start_s)
        self._starting -= 1
        self._servers.append(Server(len(self._late) - 1))

    def _end(self, server: Server) -> None:
        """Drain or lose a replica: to its sessions it is one and the same."""
        self._servers.remove(server)
        server.is_up = False
        for cut in server.lost:
            cut.succeed()

    def _rack(self) -> Generator[Any, Any, None]:
        if self._loss is None:
            return
        when_s, share = self._loss
        yield self._env.timeout(when_s)
        for server in self._servers[: round(share * len(self._servers))]:
            self._end(server)


def _share(now_s: float) -> float:
    """The rate of arrivals at a time, as a share of the peak's."""
    for (from_s, low), (to_s, high) in itertools.pairwise(RAMP):
        if now_s <= to_s:
            return low + (high - low) * (now_s - from_s) / (to_s - from_s)
    return RAMP[-1][1]
