"""Every clip of a server, through crashes and restarts: received, queued, worked on, kept, deleted.

What clients were told is written down first: the ledger says how a clip is and keeps its files,
and what is in memory follows.
"""

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from model import EchoError, Predictor
from server.clips.desk import Desk
from server.clips.editing import Wanted
from server.clips.job import Job, read_result
from server.clips.opening import open_ledger
from server.clips.retention import Sweeper
from server.clips.room import CLIP_PREFIX, seal
from server.clips.work import FILES_GONE, DeletedError, Works
from server.errors import (
    DrainingError,
    EngineError,
    NotAvailableError,
    NotFoundError,
    storage_errors,
)
from server.metrics import Metrics
from server.settings import Settings

if TYPE_CHECKING:
    from server.tracing import Tracing

logger = logging.getLogger(__name__)

T = TypeVar("T")

ASKERS = 4
"""Threads that wait for a ledger that is far away."""


class ClipStore:
    """Used from the event loop; works on threads of its own."""

    def __init__(
        self,
        settings: Settings,
        predictor: Predictor,
        metrics: Metrics,
        tracing: "Tracing | None" = None,
    ) -> None:
        """Open the folder of clips; work begins with `start`.

        Args:
            settings: where clips are, how many, how large and for how long.
            predictor: the network.
            metrics: counts clips.
            tracing: follows the work on each, None where nobody does.

        Raises:
            SettingsError: the folder cannot be used, or another server uses it.
        """
        self._settings = settings
        self._metrics = metrics
        self._ledger = open_ledger(settings)
        self.room = self._ledger.room
        self._jobs = self._ledger.jobs
        self._leaving = threading.Event()
        self._works = Works(self._ledger, predictor, metrics, settings, self._leaving)
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="clip-files")
        self._asker = ThreadPoolExecutor(ASKERS, thread_name_prefix="clip-ledger")
        self._left = asyncio.Event()
        if self._ledger.is_remote:
            waiting = metrics.jobs_waiting.labels("clip")
            waiting.set_function(lambda: sum(job.state == "queued" for job in self.jobs()))
        self._sweeper = Sweeper(self._ledger, settings, metrics, self._ledger.remove, self._leaving)
        self._desk = Desk(self._ledger, self._works, self._sweeper, metrics, self._leaving, tracing)

    def start(self) -> None:
        """Take up what an earlier run left, in the order of its arrival."""
        waiting = sum(not job.is_over for job in self.jobs())
        self._loop = asyncio.get_running_loop()
        # A ledger that waits for no network calls on the loop itself.
        self._ledger.start(self._take if self._ledger.is_remote else self._desk.queue, self._tell)
        self._sweeper.start()
        kept = len(self._jobs) - waiting
        logger.info("clips taken up", extra={"waiting": waiting, "kept": kept})

    def _take(self, job: Job) -> None:
        self._on_loop(self._desk.queue, job)

    def _tell(self, job: Job) -> None:
        self._on_loop(job.finished.set)

    def _on_loop(self, work: Callable[..., object], *arguments: object) -> None:
        # A loop that is closed has nobody to tell; the ledger gives back what it took.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work, *arguments)

    async def _ask(self, work: Callable[..., T], *arguments: object) -> T:
        """Let the ledger work, off the event loop where it waits for a network."""
        if not self._ledger.is_remote:
            return work(*arguments)
        return await self._loop.run_in_executor(self._asker, work, *arguments)

    async def refresh(self) -> None:
        """See every clip as it is now, whichever server wrote it last.

        Raises:
            StoreError: what several servers share cannot be reached.
        """
        await self._ask(self._ledger.refresh)

    async def open(
        self, view: str | None, *, study: str | None = None, declared_bytes: int = 0
    ) -> Job:
        """Begin to receive one clip.

        Args:
            view: what the sender says it is.
            study: the name of the request, where that brings several.
            declared_bytes: how long the upload is, as far as is known.

        Raises:
            AdmissionError: as many clips as are kept are still being worked on.
            StorageError: the disk is full, or the store is.
            StoreError: what several servers share cannot be reached.
            DrainingError: the server stops.
        """
        if self._leaving.is_set():
            raise DrainingError("the server is stopping")
        identifier = CLIP_PREFIX + secrets.token_urlsafe(12)
        job = Job(identifier, self.room.folder / identifier, view, time.time(), study)
        await self._ask(self._ledger.reserve, job, declared_bytes)
        try:
            self.room.check(declared_bytes)
            self.room.make(identifier)
        except BaseException:
            self.discard(job)
            raise
        return job

    async def submit(self, job: Job, door: str) -> None:
        """Queue a clip whose upload is complete; from here on it survives a crash.

        The same bytes for the same view, found in the store by the same weights in the same
        precision, are answered from there at once.

        Args:
            job: the clip.
            door: how it came in, for the metrics.

        Raises:
            NotAvailableError: it was deleted while it came.
            StorageError: the disk is full.
        """
        # Shielded: a client that leaves at this moment must not leave a row without a worker.
        await asyncio.shield(asyncio.create_task(self._submit(job)))
        self._metrics.clips_received.labels(door).inc()

    async def submit_once(self, job: Job, door: str) -> Job:
        """Queue a clip unless the same bytes for the same view are here already.

        Returns:
            The clip that was here, else the one given.

        Raises:
            EchoError: as `submit`.
        """
        job.sha256, job.size_bytes = await asyncio.to_thread(self._seal, job)
        await self.refresh()
        twin = self._works.twin(job, is_done=False)
        if twin is not None:
            self._metrics.clip_duplicates.inc()
            self.discard(job)
            return twin
        await self.submit(job, door)
        return job

    async def _submit(self, job: Job) -> None:
        await asyncio.to_thread(self._register, job)
        if job.is_over:
            self._desk.announce(job)
            self._ledger.release(job)
        else:
            await self._ask(self._ledger.queue, job)

    @staticmethod
    def _seal(job: Job) -> tuple[str, int]:
        if job.is_deleted:
            raise DeletedError("this clip was deleted")
        with storage_errors():
            return seal(job.upload)

    def _register(self, job: Job) -> None:
        if not job.sha256:
            job.sha256, job.size_bytes = self._seal(job)
        job.maker, job.state = self._works.name, "queued"
        self._ledger.add(job)
        if job.is_deleted:
            self._ledger.remove(job)
            raise DeletedError("this clip was deleted")
        self._ledger.refresh()
        if self._works.answer_from_store(job):
            self._works.settle(job, None)
            self._sweeper.tidy()

    def job(self, identifier: str) -> Job:
        """One clip by its name.

        Raises:
            NotFoundError: no such clip.
        """
        if identifier not in self._jobs:
            raise NotFoundError("no such clip is kept here")
        return self._jobs[identifier]

    def jobs(self) -> list[Job]:
        """All clips, oldest first."""
        return sorted(self._jobs.values(), key=lambda job: job.number)

    async def result(self, identifier: str) -> dict[str, Any]:
        """A clip's result as it is now.

        Raises:
            NotFoundError: no such clip.
            NotFinishedError: not yet.
            EchoError: why the clip failed.
        """
        await self.refresh()
        return await self.result_of(self.job(identifier))

    async def result_of(self, job: Job) -> dict[str, Any]:
        """A clip's result as this server last saw it.

        Raises:
            NotFinishedError: not yet.
            EchoError: why the clip failed.
        """
        path = await self.result_file(job)
        try:
            return await asyncio.to_thread(read_result, path)
        except FileNotFoundError as error:
            raise NotAvailableError("the clip was deleted") from error

    async def result_file(self, job: Job) -> Path:
        """A clip's result as a file of this server.

        Raises:
            NotFinishedError: not yet.
            EchoError: why the clip failed.
        """
        path = job.result_file()
        if not await self._ask(self._ledger.fetch, job, path.name):
            if job.is_deleted:
                raise NotAvailableError("the clip was deleted")
            raise EngineError(FILES_GONE)
        return path

    async def wait(self, job: Job, wait_s: float) -> bool:
        """Wait for a clip's end; returns whether it was there in time."""
        waits = [asyncio.create_task(event.wait()) for event in (job.finished, self._left)]
        await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()
        return job.finished.is_set()

    async def artefact(self, identifier: str, name: str) -> Path:
        """A file made from a clip, made when first asked for.

        Args:
            identifier: of the clip.
            name: of the file, one of ``MAKERS``.

        Raises:
            NotFoundError: no such clip.
            NotFinishedError: its result is not there yet.
            NotAvailableError: the clip was deleted meanwhile, or what found it is gone.
            StorageError: the disk is full.
        """
        await self.refresh()
        job = self.job(identifier)
        job.result_file()
        path = job.file(name)
        if not await self._ask(self._ledger.fetch, job, path.name):
            if path.name not in job.making:
                job.making[path.name] = asyncio.create_task(self._make(job, name, path.name))
            path = await asyncio.shield(job.making[path.name])
        if job.is_deleted:
            raise NotAvailableError("the clip was deleted")
        return path

    async def _make(self, job: Job, name: str, key: str) -> Path:
        try:
            return await self._loop.run_in_executor(self._maker, self._works.write, job, name)
        finally:
            del job.making[key]

    async def edit(self, identifier: str, wanted: Wanted) -> dict[str, Any]:
        """Correct the outlines of one frame; all that follows from them is measured anew.

        Corrections come one after the other, and never while a file is made.

        Returns:
            The result as it is now.

        Raises:
            NotFoundError: no such clip.
            NotFinishedError: its result is not there yet.
            StaleError: the result was corrected meanwhile.
            EditError: the frame is not there, or the outlines are none.
            MeasurementError: an outline cannot be measured.
            NotAvailableError: the clip was deleted meanwhile, or what found it is gone.
            StorageError: the disk is full.
        """
        await self.refresh()
        job = self.job(identifier)
        job.result_file()
        return await self._loop.run_in_executor(self._maker, self._works.edit, job, wanted)

    async def delete(self, identifier: str) -> None:
        """Forget a clip and remove its files; work under way stops at its next frame.

        Raises:
            NotFoundError: no such clip.
        """
        await self.refresh()
        await asyncio.to_thread(self._ledger.remove, self.job(identifier))

    def discard(self, job: Job) -> None:
        """Forget a clip whose upload was refused or broke off, also one deleted meanwhile."""
        if self._ledger.is_remote:
            self._asker.submit(self._give_up, job)
        else:
            self._ledger.remove(job)

    def _give_up(self, job: Job) -> None:
        try:
            self._ledger.remove(job)
        except EchoError as error:
            logger.warning("a refused clip is left to its time", extra={"why": error.code})
            self._ledger.release(job)

    def leave(self) -> None:
        """Stop working, and let everybody go who waits; called on the event loop."""
        self._leaving.set()
        self._ledger.leave()
        self._left.set()

    @property
    def is_leaving(self) -> bool:
        """Whether nothing will change any more."""
        return self._leaving.is_set()

    def close(self) -> None:
        """Stop working; what is stored and what waits is there for the next run."""
        self._leaving.set()
        self._desk.close()
        for executor in (self._maker, self._asker):
            executor.shutdown(wait=True, cancel_futures=True)
        self._sweeper.join()
        self._ledger.close()
