"""Every clip of a server, through crashes and restarts: received, queued, worked on, kept, deleted.

What clients were told is written down first: a clip's row in the ledger says how it is, its folder
holds its files, and what is in memory follows.
"""

import asyncio
import logging
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model import Predictor
from server.clips.editing import Wanted
from server.clips.job import RESULT, Job
from server.clips.ledger import Ledger
from server.clips.retention import surplus
from server.clips.room import CLIP_PREFIX, Room, remove, seal
from server.clips.work import DeletedError, Works
from server.errors import (
    AdmissionError,
    DrainingError,
    NotAvailableError,
    NotFoundError,
    StorageError,
    storage_errors,
)
from server.metrics import Metrics
from server.settings import Settings

if TYPE_CHECKING:
    from server.tracing import Tracing

logger = logging.getLogger(__name__)

RETRY_S = 5.0
"""How long to wait for room on a full disk before a result is tried again."""

SWEEP_S = 60.0
"""How often to look for clips that have been kept long enough."""


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
        self._tracing = tracing
        self.room = Room(settings.clip_dir)
        self._ledger = Ledger(self.room.ledger)
        self._jobs = {job.id: job for job in self._ledger.load(self.room.folder)}
        self._leaving = threading.Event()
        self._works = Works(
            self._jobs, self.room, self._ledger, predictor, metrics, settings, self._leaving
        )
        self._drop_what_lost_its_files()
        self.room.keep_only(set(self._jobs))
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="clips")
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="clip-files")
        self._left = asyncio.Event()
        self._sweeper = threading.Thread(target=self._sweep, name="clip-sweeper", daemon=True)

    def _drop_what_lost_its_files(self) -> None:
        for job in self.jobs():
            wanted = job.folder / RESULT if job.state == "done" else job.upload
            if job.state != "failed" and not wanted.is_file():
                logger.error("a clip's files are gone", extra={"clip": job.id})
                self._forget(job)

    def start(self) -> None:
        """Take up what an earlier run left, in the order of its arrival."""
        waiting = [job for job in self.jobs() if not job.is_over]
        for job in waiting:
            self._queue(job)
        self._sweeper.start()
        kept = len(self._jobs) - len(waiting)
        logger.info("clips taken up", extra={"waiting": len(waiting), "kept": kept})

    def open(self, view: str | None, *, study: str | None = None, declared_bytes: int = 0) -> Job:
        """Begin to receive one clip.

        Args:
            view: what the sender says it is.
            study: the name of the request, where that brings several.
            declared_bytes: how long the upload is, as far as is known.

        Raises:
            AdmissionError: as many clips as are kept are still being worked on.
            StorageError: the disk is full, or the store is.
            DrainingError: the server stops.
        """
        if self._leaving.is_set():
            raise DrainingError("the server is stopping")
        waiting = [job for job in self.jobs() if not job.is_over]
        if len(waiting) >= self._settings.max_clips:
            raise AdmissionError(f"{len(waiting)} clips are waiting; try again later")
        wanted_bytes = sum(job.size_bytes for job in waiting) + declared_bytes
        if wanted_bytes > self._settings.clip_store_bytes:
            raise StorageError("the clips that wait fill the store; try again later")
        self.room.check(declared_bytes)
        identifier = CLIP_PREFIX + secrets.token_urlsafe(12)
        job = Job(identifier, self.room.make(identifier), view, time.time(), study)
        self._jobs[identifier] = job
        return job

    async def submit(self, job: Job, door: str) -> None:
        """Queue a clip whose upload is complete; from here on it survives a crash.

        The same bytes for the same view, found in the store by the same weights, are answered from
        there at once.

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
            self._announce(job)
        else:
            self._queue(job)

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
            self._ledger.remove(job.id)
            raise DeletedError("this clip was deleted")
        if self._works.answer_from_store(job):
            self._ledger.save(job)
            self._tidy()

    def _queue(self, job: Job) -> None:
        self._metrics.jobs_waiting.labels("clip").inc()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._worker, self._work, job)
        future.add_done_callback(lambda _: self._announce(job))

    def _announce(self, job: Job) -> None:
        if not job.is_over:
            return  # the server stops; the next run takes it up
        self._metrics.clips.labels(job.state).inc()
        code = job.error.code if job.error else None
        if code is not None:
            self._metrics.clip_failures.labels(code).inc()
        logger.info("clip ends", extra={"clip": job.id, "state": job.state, "code": code})
        job.finished.set()

    def _work(self, job: Job) -> None:
        """Bring one clip to its end; runs on the worker, which is where all its errors end."""
        self._metrics.jobs_waiting.labels("clip").dec()
        try:
            with nullcontext() if self._tracing is None else self._tracing.clip(job):
                while not self._works.attempt(job):
                    if self._leaving.wait(RETRY_S):
                        return
        except Exception:
            logger.exception("a clip's end could not be written down")
            return
        self._tidy()

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
        return list(self._jobs.values())

    def result(self, identifier: str) -> dict[str, Any]:
        """A clip's result.

        Raises:
            NotFoundError: no such clip.
            NotFinishedError: not yet.
            EchoError: why the clip failed.
        """
        return self.job(identifier).result()

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
            NotAvailableError: the clip was deleted meanwhile, or its weights are gone.
            StorageError: the disk is full.
        """
        job = self.job(identifier)
        job.result_file()
        path = job.file(name)
        if not path.exists():
            if path.name not in job.making:
                job.making[path.name] = asyncio.create_task(self._make(job, name, path.name))
            path = await asyncio.shield(job.making[path.name])
        if job.is_deleted:
            raise NotAvailableError("the clip was deleted")
        return path

    async def _make(self, job: Job, name: str, key: str) -> Path:
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._maker, self._works.write, job, name)
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
            NotAvailableError: the clip was deleted meanwhile, or its weights are gone.
            StorageError: the disk is full.
        """
        job = self.job(identifier)
        job.result_file()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._maker, self._works.edit, job, wanted)

    async def delete(self, identifier: str) -> None:
        """Forget a clip and remove its files; work under way stops at its next frame.

        Raises:
            NotFoundError: no such clip.
        """
        await asyncio.to_thread(self._forget, self.job(identifier))

    def discard(self, job: Job) -> None:
        """Forget a clip whose upload was refused or broke off, also one deleted meanwhile."""
        self._forget(job)

    def _forget(self, job: Job) -> None:
        job.is_deleted = True
        self._jobs.pop(job.id, None)
        self._ledger.remove(job.id)
        # Whoever is at work on it finds no file any more, and removes what it wrote meanwhile.
        remove(job.folder)

    def _tidy(self) -> None:
        for job in surplus(self.jobs(), self._settings, time.time()):
            logger.info("clip makes room", extra={"clip": job.id})
            self._forget(job)
        self._metrics.clip_store_bytes.set(sum(job.size_bytes for job in self.jobs()))

    def _sweep(self) -> None:
        while True:
            try:
                self._tidy()
            except Exception:
                logger.exception("old clips could not be removed")
            if self._leaving.wait(SWEEP_S):
                return

    def leave(self) -> None:
        """Stop working, and let everybody go who waits; called on the event loop."""
        self._leaving.set()
        self._left.set()

    @property
    def is_leaving(self) -> bool:
        """Whether nothing will change any more."""
        return self._leaving.is_set()

    def close(self) -> None:
        """Stop working; what is stored and what waits is there for the next run."""
        self._leaving.set()
        for executor in (self._worker, self._maker):
            executor.shutdown(wait=True, cancel_futures=True)
        if self._sweeper.is_alive():
            self._sweeper.join()
        for job in self.jobs():
            if job.state == "received":
                self._forget(job)
        self._ledger.close()
        self.room.close()
