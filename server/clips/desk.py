"""Where clips are worked on, one after the other, on a thread of its own."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TYPE_CHECKING

from server.clips.job import Job
from server.clips.ledger import Ledger, OvertakenError
from server.clips.retention import Sweeper
from server.clips.work import Works
from server.errors import EngineError, StoreError
from server.metrics import Metrics

if TYPE_CHECKING:
    from server.tracing import Tracing

logger = logging.getLogger(__name__)

RETRY_S = 5.0
"""How long to wait for room on a full disk before a result is tried again."""


class Desk:
    """Used from the event loop."""

    def __init__(
        self,
        ledger: Ledger,
        works: Works,
        sweeper: Sweeper,
        metrics: Metrics,
        leaving: threading.Event,
        tracing: "Tracing | None",
    ) -> None:
        self._ledger = ledger
        self._works = works
        self._sweeper = sweeper
        self._metrics = metrics
        self._leaving = leaving
        self._tracing = tracing
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="clips")

    def queue(self, job: Job) -> None:
        """Have a clip worked on when those before it are done."""
        self._metrics.jobs_waiting.labels("clip").inc()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._worker, self._work, job)
        future.add_done_callback(lambda done: self._ended(job, done))

    def _ended(self, job: Job, done: "asyncio.Future[bool]") -> None:
        if not done.cancelled() and done.result():
            self.announce(job)

    def announce(self, job: Job) -> None:
        """Say that a clip is over, if it is."""
        if not job.is_over:
            return  # the server stops; the next run takes it up
        self._metrics.clips.labels(job.state).inc()
        code = job.error.code if job.error else None
        if code is not None:
            self._metrics.clip_failures.labels(code).inc()
        logger.info("clip ends", extra={"clip": job.id, "state": job.state, "code": code})
        job.finished.set()

    def _work(self, job: Job) -> bool:
        """Bring one clip to its end; runs on the worker, which is where all its errors end.

        Returns:
            False where that is left to others.
        """
        self._metrics.jobs_waiting.labels("clip").dec()
        try:
            with nullcontext() if self._tracing is None else self._tracing.clip(job):
                while not self._works.attempt(job):
                    if self._leaving.wait(RETRY_S):
                        return False
            self._sweeper.tidy()
        except (OvertakenError, StoreError) as error:
            logger.warning("a clip is left to others", extra={"clip": job.id, "why": error.code})
            return False
        except Exception:
            logger.exception("a clip's end could not be written down, or old clips not removed")
            if not job.is_over:
                if self._ledger.is_remote:
                    return False
                job.error = EngineError("how this clip ended could not be kept; the fault is ours")
                job.state, job.progress = "failed", None
        finally:
            self._ledger.release(job)
        return True

    def close(self) -> None:
        """Wait for what is under way; what waits is there for the next run."""
        self._worker.shutdown(wait=True, cancel_futures=True)
