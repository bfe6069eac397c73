"""How long an event loop is blocked: a coroutine that asks to run every millisecond."""

import asyncio
import time

import numpy as np

PERIOD_S = 0.001
BAR_MS = 5.0


class LoopWatch:
    """Notes by how much every wake-up was late, and for how long the loop had worked meanwhile.

    A wake-up is also late where other programs have the processor; the loop's own work is what the
    program can be blamed for.
    """

    def __init__(self) -> None:
        self.late_ms: list[float] = []
        self.worked_ms: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Watch the running loop from here on."""
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            due_s, used_s = time.perf_counter() + PERIOD_S, time.thread_time()
            await asyncio.sleep(PERIOD_S)
            self.worked_ms.append(1000 * (time.thread_time() - used_s))
            self.late_ms.append(1000 * (time.perf_counter() - due_s))

    def __str__(self) -> str:
        """The longest blocks, and how often one was above the bar."""
        return f"event loop late by {_told(self.late_ms)}; at work for {_told(self.worked_ms)}"


def _told(spent_ms: list[float]) -> str:
    p99, p999 = np.percentile(spent_ms, (99, 99.9))
    above = sum(each > BAR_MS for each in spent_ms)
    return (
        f"p99 {p99:.2f}, p99.9 {p999:.2f}, at most {max(spent_ms):.2f} ms, above {BAR_MS:g} ms "
        f"{above} of {len(spent_ms)} times"
    )
