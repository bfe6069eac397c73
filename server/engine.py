"""The sole owner of the device: workers that do one piece of work at a time, in due order."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from model import EchoError, Predictor
from server.errors import AdmissionError, EngineDeadError, EngineError, UnknownModelError
from server.metrics import Metrics
from server.pace import Pace
from server.schedule import Lane, Schedule

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class Engine:
    """Runs work on the device, off the event loop."""

    def __init__(
        self,
        predictors: Mapping[str, Predictor],
        workers: int,
        metrics: Metrics,
        capacity_fps: float = math.inf,
    ) -> None:
        """Start the workers.

        Args:
            predictors: by name, the default one first.
            workers: frames of different sessions worked on at once.
            metrics: counts what waits.
            capacity_fps: frames a second that all sessions together can have, as far as it is
                known before the first frame; see Pace.
        """
        self.predictors = dict(predictors)
        self.is_alive = True
        self.pace = Pace(workers, capacity_fps)
        self._schedule = Schedule(workers)
        metrics.jobs_waiting.labels("frame").set_function(
            partial(self._schedule.waiting, Lane.LIVE)
        )
        self._workers = [
            threading.Thread(target=self._serve, name=f"engine-{number}", daemon=True)
            for number in range(workers)
        ]
        for worker in self._workers:
            worker.start()

    def predictor(self, name: str | None, lane: Lane = Lane.LIVE) -> Predictor:
        """The model of a name, the default one where it is None.

        Args:
            name: of a model.
            lane: its steps are called from a worker where this is LIVE; from any thread of the
                caller's own else, and then take their turn behind live ones.

        Raises:
            UnknownModelError: it is not served here.
        """
        chosen = next(iter(self.predictors)) if name is None else name
        if chosen not in self.predictors:
            served = ", ".join(self.predictors)
            raise UnknownModelError(f"no model {chosen!r} is served here; there are: {served}")
        predictor = self.predictors[chosen]
        return predictor if lane is Lane.LIVE else predictor.by_way_of(partial(self.wait, lane))

    def self_test(self) -> bool:
        """Whether every model answers as its manifest says; if not, the engine is dead."""
        try:
            self.is_alive = all(each.self_test() for each in self.predictors.values())
        except Exception:
            logger.exception("self-test failed")
            self.is_alive = False
        return self.is_alive

    def check_rate(self, fps: float | None, held_fps: float) -> None:
        """Refuse a session that could not be held at its rate beside those that are.

        Where nothing is held it is taken in any case: it has the machine to itself, and what it
        cannot have is dropped by its policy.

        Args:
            fps: the rate that it declares, None where it declares none.
            held_fps: what the live sessions declared, together.

        Raises:
            AdmissionError: the machine is too slow for one more.
        """
        if fps is None or held_fps == 0 or held_fps + fps <= self.pace.promised_fps:
            return
        raise AdmissionError(
            f"this server can promise {self.pace.promised_fps:.0f} frames/s, sessions hold "
            f"{held_fps:g} of them, and this one wants {fps:g}"
        )

    async def run(
        self, work: Callable[[], Answer], *, owner: Hashable = None, due_s: float | None = None
    ) -> Answer:
        """Do one piece of live work on a worker, and wait for it even when cancelled.

        Args:
            work: what is to be done.
            owner: no two of one owner's are done at once; None for work that stands alone.
            due_s: when it should be done, on the clock of ``time.perf_counter``; now if None.

        Raises:
            EchoError: what the work raises.
            EngineError: the work failed for a reason of ours.
            EngineDeadError: the device is gone, or the server is stopping.
        """
        future = self._submit(partial(self._timed, work), Lane.LIVE, owner, due_s)
        try:
            await _ended(future)
        except asyncio.CancelledError:
            # Whoever parks the session next must find it between two frames.
            await _ended(future)
            raise
        return future.result()

    def wait(self, lane: Lane, work: Callable[[], Answer]) -> Answer:
        """Do one piece of work from a thread that is no worker, and wait for it; see ``run``."""
        return self._submit(work, lane, None, None).result()

    def _submit(
        self, work: Callable[[], Answer], lane: Lane, owner: Hashable, due_s: float | None
    ) -> "Future[Answer]":
        if not self.is_alive:
            raise EngineDeadError("the server's network no longer answers; try another server")
        future: Future[Answer] = Future()
        # A copied context lets a worker's log lines name the session.
        guarded = partial(copy_context().run, self._guarded, work)
        self._schedule.put(
            partial(_fulfil, future, guarded),
            partial(_give_up, future),
            lane=lane,
            due_s=time.perf_counter() if due_s is None else due_s,
            owner=object() if owner is None else owner,
        )
        return future

    def _serve(self) -> None:
        """Take jobs for ever; runs on a worker."""
        while (job := self._schedule.take()) is not None:
            job.work()
            self._schedule.done(job)
            # A worker that waits keeps nothing of a session alive.
            del job

    def _timed(self, work: Callable[[], Answer]) -> Answer:
        with self.pace.frame():
            return work()

    def _guarded(self, work: Callable[[], Answer]) -> Answer:
        try:
            return work()
        except EchoError:
            raise
        except Exception as error:
            logger.exception("a step failed")
            if not self.self_test():
                raise EngineDeadError("the server's network no longer answers") from error
            raise EngineError("this frame could not be answered; the fault is ours") from error

    def close(self) -> None:
        """Let running work end, and stop the workers."""
        self._schedule.close()
        for worker in self._workers:
            worker.join()


async def _ended(future: "Future[Answer]") -> None:
    """Wait until a worker has ended its work, whatever came of it.

    ``asyncio.wrap_future`` carries the result over as well, for which it takes more turns of the
    event loop.
    """
    loop, told = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: object) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(told.set)

    future.add_done_callback(tell)
    await told.wait()


def _give_up(future: "Future[Answer]") -> None:
    future.set_exception(EngineDeadError("this server is stopping"))


def _fulfil(future: "Future[Answer]", work: Callable[[], Answer]) -> None:
    """Do work for whoever waits for it; errors are the waiter's."""
    try:
        answer = work()
    except BaseException as error:  # noqa: BLE001 (raised in the waiter)
        future.set_exception(error)
    else:
        future.set_result(answer)
