"""The sole owner of the device: workers that answer one frame at a time for one session each."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import TypeVar

from model import EchoError, Predictor
from server.errors import EngineDeadError, EngineError, UnknownModelError
from server.metrics import Metrics

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class Engine:
    """Runs work on the device, off the event loop, first come first served."""

    def __init__(self, predictors: Mapping[str, Predictor], workers: int, metrics: Metrics) -> None:
        """Start the workers.

        Args:
            predictors: by name, the default one first.
            workers: frames of different sessions worked on at once.
            metrics: counts what waits.
        """
        self.predictors = dict(predictors)
        self.is_alive = True
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="engine")
        self._waiting = metrics.jobs_waiting.labels("frame")

    def predictor(self, name: str | None) -> Predictor:
        """The model of a name, the default one where it is None.

        Raises:
            UnknownModelError: it is not served here.
        """
        chosen = next(iter(self.predictors)) if name is None else name
        if chosen not in self.predictors:
            served = ", ".join(self.predictors)
            raise UnknownModelError(f"no model {chosen!r} is served here; there are: {served}")
        return self.predictors[chosen]

    def self_test(self) -> bool:
        """Whether every model answers as its manifest says; if not, the engine is dead."""
        try:
            self.is_alive = all(each.self_test() for each in self.predictors.values())
        except Exception:
            logger.exception("self-test failed")
            self.is_alive = False
        return self.is_alive

    async def run(self, work: Callable[[], Answer]) -> Answer:
        """Do one piece of work on a worker, and wait for it even when cancelled.

        Raises:
            EchoError: what the work raises.
            EngineError: the work failed for a reason of ours.
            EngineDeadError: the device is gone.
        """
        if not self.is_alive:
            raise EngineDeadError("the server's network no longer answers; try another server")
        self._waiting.inc()
        # A copied context lets a worker's log lines name the session.
        guarded = partial(copy_context().run, self._guarded, work)
        future = asyncio.get_running_loop().run_in_executor(self._workers, guarded)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # Whoever parks the session next must find it between two frames.
            await asyncio.wait([future])
            raise

    def _guarded(self, work: Callable[[], Answer]) -> Answer:
        self._waiting.dec()
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
        self._workers.shutdown(wait=True, cancel_futures=True)
