"""How long an event loop is blocked: a coroutine that asks to run every millisecond."""

import asyncio
import time

import numpy as np

PERIOD_S = 0.001
BAR_MS = 5.0


class LoopWatch:
    """Notes by how much every wake-up was late."""

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Watch the running loop from here on."""
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            due_s = time.perf_counter() + PERIOD_S
            await asyncio.sleep(PERIOD_S)
            self.late_ms.append(1000 * (time.perf_counter() - due_s))

    def __str__(self) -> str:
        """The longest block, and how often one was above the bar."""
        p99, p999 = np.percentile(self.late_ms, (99, 99.9))
        above = sum(late > BAR_MS for late in self.late_ms)
        return (
            f"event loop late by p99 {p99:.2f} ms, p99.9 {p999:.2f} ms, at most "
            f"{max(self.late_ms):.2f} ms; above {BAR_MS:g} ms {above} of {len(self.late_ms)} times"
        )
