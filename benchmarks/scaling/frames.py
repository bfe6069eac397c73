"""Frames of several sessions on one replica, one by one: which share of them is late."""

import random
from collections.abc import Generator
from typing import Any

import simpy

PERIOD_MS = 1000 / 30

FRAME_MS = (
    6.27, 6.88, 7.13, 7.31, 7.42, 7.59, 7.78, 7.93, 8.02, 8.10, 8.21, 8.33, 8.46, 8.58, 8.71, 8.89,
    9.07, 9.35, 9.70, 10.36, 11.97,
)  # fmt: skip
"""Processor time of a frame, every 5th percentile from the least to the longest.

Source:
    `python -m benchmarks.scaling costs` on 29 November 2026: 600 frames on one thread of an
    Intel Xeon with AMX.
"""

AROUND_MS = 2.2
"""Processor time of a frame beside it: sockets, messages, the event loop.

Source:
    All of the server's process at 30 frames/s, 10.5 ms a frame (docs/fleet.md), less the mean of
    FRAME_MS.
"""


def service_ms(chance: random.Random) -> float:
    """Draw a frame's whole time from the measured distribution."""
    place = chance.random() * (len(FRAME_MS) - 1)
    low = int(place)
    return AROUND_MS + FRAME_MS[low] + (place - low) * (FRAME_MS[low + 1] - FRAME_MS[low])


def late_share(sessions: int, cores: int, *, seconds: float = 30.0, seed: int = 1) -> float:
    """Share of frames answered later than their period.

    Args:
        sessions: live ones at 30 frames/s, each beginning at a moment of its own; a frame that
            waits is replaced by the next one, as under the policy ``latest``.
        cores: frames worked on at once.
        seconds: simulated.
        seed: of what is drawn.
    """
    env = simpy.Environment()
    workers = simpy.Resource(env, cores)
    chance = random.Random(seed)
    counts = {"all": 0, "late": 0}

    def session() -> Generator[Any, Any, None]:
        waiting: list[simpy.Event] = []
        yield env.timeout(chance.random() * PERIOD_MS)
        while env.now < 1000 * seconds:
            if waiting and not waiting[0].triggered:
                counts["late"] += 1
            else:
                waiting[:] = [env.process(frame())]
            counts["all"] += 1
            yield env.timeout(PERIOD_MS)

    def frame() -> Generator[Any, Any, None]:
        came_ms = env.now
        with workers.request() as turn:
            yield turn
            yield env.timeout(service_ms(chance))
        counts["late"] += env.now - came_ms > PERIOD_MS

    for _ in range(sessions):
        env.process(session())
    env.run()
    return counts["late"] / counts["all"]
