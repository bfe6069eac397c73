"""Live sessions against one GPU, through the server's own schedule and batching."""

import heapq
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu_models import Model, Precision, frames_of, slots_of
from model.backends.base import Step
from model.backends.batching import Batching
from model.backends.slots import Row, Slots
from model.state import MemoryState, StateSpec
from server.schedule import Lane, Schedule

FPS = 60.0
HOPELESS = 0.1
"""Above this share of lost frames no larger load is tried."""


@dataclass(frozen=True, slots=True)
class Load:
    """Sessions at 60 frames/s.

    Attributes:
        rows: batch sizes that a run could have.
        lost: share of frames that came while the session's last one was under way.
        mean_batch: frames a run.
    """

    model: str
    precision: str
    rows: str
    sessions: int
    p50_ms: float
    p99_ms: float
    p999_ms: float
    lost: float
    fps: float
    mean_batch: float


class Shared:
    """A backend of rows, as ``Batching`` wants one; counts its runs."""

    name = "torch"

    def __init__(self, slots: Slots, spec: StateSpec) -> None:
        self.spec = spec
        self.rows = slots.rows
        self.runs = 0
        self.frames = 0
        self._slots = slots

    def step(self, image_11HW: NDArray[np.float32], state: MemoryState) -> Step:
        """See ``Backend.step``."""
        return self.step_rows([(image_11HW, state)])[0]

    def step_rows(self, rows: Sequence[Row]) -> list[Step]:
        """See ``RowsBackend.step_rows``."""
        self.runs += 1
        self.frames += len(rows)
        return self._slots.run(rows)


class Crowd:
    """Sessions at a rate against one backend, through the server's schedule."""

    def __init__(self, shared: Batching, model: Model, sessions: int) -> None:
        self._shared = shared
        self._sessions = sessions
        self._images = frames_of(model, min(16, sessions))
        self._states = [MemoryState.zeros(shared.spec)] * sessions
        self._is_busy = [False] * sessions
        self._failure: Exception | None = None
        self.times_ms: list[float] = []
        self.lost = 0

    def run(self, workers: int, seconds: float) -> None:
        """Send frames when they are due, for a while, and wait for the last answer."""
        schedule = Schedule(workers)
        threads = [threading.Thread(target=_serve, args=(schedule,)) for _ in range(workers)]
        for thread in threads:
            thread.start()
        began_s = time.perf_counter() + 0.05
        due = [(began_s + n / FPS / self._sessions, n) for n in range(self._sessions)]
        ends_s = began_s + seconds
        while due[0][0] < ends_s and self._failure is None:
            due_s, session = due[0]
            time.sleep(max(0.0, due_s - time.perf_counter()))
            self._send(schedule, session, due_s)
            heapq.heapreplace(due, (due_s + 1 / FPS, session))
        while any(self._is_busy):
            time.sleep(0.001)
        schedule.close()
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure

    def _send(self, schedule: Schedule, session: int, due_s: float) -> None:
        if self._is_busy[session]:
            self.lost += 1
            return
        self._is_busy[session] = True
        work = partial(self._answer, session, due_s)
        schedule.put(work, lambda: None, lane=Lane.LIVE, due_s=due_s, owner=session)

    def _answer(self, session: int, due_s: float) -> None:
        image_11HW = self._images[session % len(self._images)]
        try:
            _, _, self._states[session] = self._shared.step(image_11HW, self._states[session])
            self.times_ms.append(1000 * (time.perf_counter() - due_s))
        except Exception as error:  # noqa: BLE001 (raised by run)
            self._failure = error
        finally:
            self._is_busy[session] = False


def _serve(schedule: Schedule) -> None:
    while (job := schedule.take()) is not None:
        job.work()
        schedule.done(job)


def loads_of(
    model: Model,
    device: torch.device,
    precision: Precision,
    sizes: Sequence[int],
    sessions: Sequence[int],
    seconds: float,
) -> list[Load]:
    """More and more sessions, until too many frames are lost."""
    slots = slots_of(model, device, precision, sizes, max(sessions))
    found = []
    for count in sessions:
        shared = Shared(slots, model.spec)
        crowd = Crowd(Batching(shared), model, count)
        crowd.run(workers=min(count, 2 * slots.rows), seconds=seconds)
        p50, p99, p999 = np.percentile(crowd.times_ms, (50, 99, 99.9))
        lost = crowd.lost / (crowd.lost + len(crowd.times_ms))
        found.append(
            Load(
                model.name,
                precision,
                "/".join(map(str, sizes)),
                count,
                float(p50),
                float(p99),
                float(p999),
                lost,
                len(crowd.times_ms) / seconds,
                shared.frames / shared.runs,
            )
        )
        print(found[-1], flush=True)
        if lost > HOPELESS:
            break
    return found
