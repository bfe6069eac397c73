"""Which clips have been kept long enough, and their end."""

import logging
import threading
import time
from collections.abc import Callable, Iterable

from server.clips.job import Job
from server.clips.ledger import Ledger
from server.errors import StorageError, StoreError
from server.metrics import Metrics
from server.settings import Settings

logger = logging.getLogger(__name__)

DAY_S = 86_400.0

SWEEP_S = 60.0
"""How often to look for clips that have been kept long enough."""

LEAP_S = DAY_S
"""A clock that went so much further than the time that passed was set anew, rightly or not."""

AWAY_S = 7 * DAY_S
"""No server was away for so long, and for longer than clips are kept, unless the clock is wrong."""

HOLD_S = DAY_S
"""How long no clip is forgotten by its age then: somebody may set the clock right."""


class Sweeper:
    """Forgets what has been kept long enough, now and then and when asked to."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        metrics: Metrics,
        forget: Callable[[Job], None],
        leaving: threading.Event,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._metrics = metrics
        self._forget = forget
        self._leaving = leaving
        now_s, run_s = time.time(), time.monotonic()
        self._seen_s, self._held_until_s = (now_s, run_s), run_s
        away_s = now_s - (ledger.room.last_used_s or now_s)
        if away_s > max(AWAY_S, settings.clip_keep_days * DAY_S):
            self._hold(away_s)
        self._thread = threading.Thread(target=self._sweep, name="clip-sweeper", daemon=True)

    def start(self) -> None:
        """Sweep from now on, until the server leaves."""
        self._thread.start()

    def tidy(self) -> None:
        """Make room, unless another server is at it, or nothing can be removed now."""
        now_s = self._now_s()
        try:
            with self._ledger.sweeping() as is_ours:
                for job in surplus(self._jobs(), self._settings, now_s) if is_ours else ():
                    logger.info("clip makes room", extra={"clip": job.id})
                    self._forget(job)
        except (StorageError, StoreError) as error:
            logger.error("old clips stay for now", extra={"why": error.code})
        self._metrics.clip_store_bytes.set(sum(job.size_bytes for job in self._jobs()))

    def _now_s(self) -> float:
        """The time; 0, when nothing is old, while the clock is not to be relied on."""
        (before_s, begun_s), self._seen_s = self._seen_s, (time.time(), time.monotonic())
        now_s, run_s = self._seen_s
        leap_s = (now_s - before_s) - (run_s - begun_s)
        if leap_s > LEAP_S:
            self._hold(leap_s)
        self._ledger.room.note_use()
        return now_s if run_s >= self._held_until_s else 0.0

    def _hold(self, leap_s: float) -> None:
        logger.error(
            "the clock is far ahead of when it was last looked at: no clip is forgotten by its age "
            "for a day",
            extra={"days": round(leap_s / DAY_S, 1)},
        )
        self._held_until_s = time.monotonic() + HOLD_S

    def _jobs(self) -> list[Job]:
        return sorted(self._ledger.jobs.values(), key=lambda job: job.number)

    def _sweep(self) -> None:
        while True:
            try:
                self.tidy()
            except Exception:
                logger.exception("old clips could not be removed")
            if self._leaving.wait(SWEEP_S):
                return

    def join(self) -> None:
        """Wait until it has stopped."""
        if self._thread.is_alive():
            self._thread.join()


def surplus(jobs: Iterable[Job], settings: Settings, now_s: float) -> list[Job]:
    """The clips to forget: too old, too many, too large together; of these the oldest go first.

    Results and refusals are counted apart, so that no refused file drives out a result; what still
    waits or is worked on stays, and so does the newest result.

    Args:
        jobs: all clips, oldest first.
        settings: how many, how large and how long.
        now_s: the time, in seconds since 1970.
    """
    over = [job for job in jobs if job.is_over and job.finished_s is not None]
    until_s = now_s - settings.clip_keep_days * DAY_S
    gone = [job for job in over if (job.finished_s or 0.0) < until_s]
    left = [job for job in over if job not in gone]
    for state in ("done", "failed"):
        alike = [job for job in left if job.state == state]
        gone += alike[: max(0, len(alike) - settings.max_clips)]
    results = [job for job in left if job.state == "done" and job not in gone]
    total_bytes = sum(job.size_bytes for job in results)
    for job in results[:-1]:
        if total_bytes <= settings.clip_store_bytes:
            break
        total_bytes -= job.size_bytes
        gone.append(job)
    return gone
