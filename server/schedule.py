"""Whose turn it is: live before clips before bulk, and among equals the oldest deadline first."""

import heapq
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import chain, count


class Lane(IntEnum):
    """What gives way to what; a lower number goes first."""

    LIVE = 0
    CLIP = 1
    BULK = 2


@dataclass(order=True, slots=True)
class Job:
    """One piece of work; jobs compare as they take turns.

    Attributes:
        due_s: when it should be done, on the clock of ``time.perf_counter``.
        number: rises from job to job, so that equals go in the order in which they came.
        owner: of whose jobs no two are done at once, and all in the order in which they came.
        work: what is to be done; raises nothing.
        give_up: called instead where it will never be done.
    """

    lane: Lane
    due_s: float
    number: int
    owner: Hashable = field(compare=False)
    work: Callable[[], None] = field(compare=False)
    give_up: Callable[[], None] = field(compare=False)


class Schedule:
    """Jobs that wait, shared by the workers that take them; nobody waits for a batch to fill."""

    def __init__(self, workers: int) -> None:
        """Begin empty.

        Args:
            workers: how many take jobs. All but one, at least one, may have other than live ones
                at a time, so that a live frame finds a worker free.
        """
        self._others_at_most = max(1, workers - 1)
        self._others = 0
        self._ready: list[Job] = []
        self._behind: dict[Hashable, deque[Job]] = {}
        self._numbers = count()
        self._changed = threading.Condition()
        self._is_closed = False

    def put(
        self,
        work: Callable[[], None],
        give_up: Callable[[], None],
        *,
        lane: Lane,
        due_s: float,
        owner: Hashable,
    ) -> None:
        """Let a job wait for its turn; see Job."""
        with self._changed:
            job = Job(lane, due_s, next(self._numbers), owner, work, give_up)
            if self._is_closed:
                give_up()
            elif owner in self._behind:
                self._behind[owner].append(job)
            else:
                self._behind[owner] = deque()
                self._make_ready(job)

    def take(self) -> Job | None:
        """Wait for the next job; None once the schedule is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._can_take())
            if self._is_closed:
                return None
            job = heapq.heappop(self._ready)
            self._others += job.lane is not Lane.LIVE
            return job

    def done(self, job: Job) -> None:
        """Say that a job which was taken has ended; its owner's next one gets ready."""
        with self._changed:
            if job.lane is not Lane.LIVE:
                self._others -= 1
                self._changed.notify()
            behind = self._behind[job.owner]
            if behind:
                self._make_ready(behind.popleft())
            else:
                del self._behind[job.owner]

    def waiting(self, lane: Lane) -> int:
        """How many jobs of a lane wait for their turn."""
        with self._changed:
            return sum(job.lane is lane for job in self._all())

    def close(self) -> None:
        """Give up what waits, and let every worker go."""
        with self._changed:
            self._is_closed = True
            waiting = list(self._all())
            self._ready.clear()
            for jobs in self._behind.values():
                jobs.clear()
            self._changed.notify_all()
        for job in waiting:
            job.give_up()

    def _all(self) -> Iterator[Job]:
        return chain(self._ready, *self._behind.values())

    def _can_take(self) -> bool:
        if not self._ready:
            return False
        return self._ready[0].lane is Lane.LIVE or self._others < self._others_at_most

    def _make_ready(self, job: Job) -> None:
        heapq.heappush(self._ready, job)
        self._changed.notify()
