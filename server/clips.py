"""One uploaded clip's life: received, queued, running, done or failed; its results."""

import asyncio
import fcntl
import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from model import EchoError, Predictor
from server.errors import (
    AdmissionError,
    EngineError,
    NotAvailableError,
    NotFinishedError,
    NotFoundError,
    WireCodes,
    storage_errors,
)
from server.ingest import IngestLimits
from server.metrics import Metrics
from server.settings import Settings
from server.study import (
    Study,
    analyse_clip,
    write_masks,
    write_study_overlay,
    write_study_pictures,
)

logger = logging.getLogger(__name__)

JobState = Literal["received", "queued", "running", "done", "failed"]


@dataclass(slots=True, eq=False)
class Job:
    """One clip on its way.

    Attributes:
        folder: holds the upload and what was made of it.
        progress: share done, 0 to 1, None where unknown.
        document: the result, None unless done.
        error: why it failed, None unless it did.
        finished: set once it is done or failed.
    """

    id: str
    folder: Path
    view: str | None
    created_s: float
    state: JobState = "received"
    progress: float | None = None
    document: dict[str, Any] | None = None
    error: EchoError | None = None
    is_deleted: bool = False
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    making: dict[str, asyncio.Task[Path]] = field(default_factory=dict)

    @property
    def upload(self) -> Path:
        """The file as it came."""
        return self.folder / "upload"

    def result(self) -> dict[str, Any]:
        """What was found.

        Raises:
            NotFinishedError: not yet.
            EchoError: why it failed.
        """
        if self.error is not None:
            raise self.error
        if self.document is None:
            raise NotFinishedError(f"the clip is {self.state}; ask again when it is done")
        return self.document

    def to_json(self) -> dict[str, Any]:
        """What ``/v1/clips/{id}`` says."""
        refusal = self.error and {
            "code": self.error.code,
            "message": self.error.message,
            "status": WireCodes.http_status(self.error),
        }
        return {
            "id": self.id,
            "state": self.state,
            "progress": self.progress,
            "view": self.view,
            "error": refusal,
        }


class Room:
    """This run's own folder among those of other servers of this machine."""

    def __init__(self, parent: Path) -> None:
        """Make it, and remove what runs that have ended left behind."""
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for lock in parent.glob("*.lock"):
            with lock.open("r+b") as file:
                if _try_lock(file):
                    _remove(lock)
        self.folder = Path(tempfile.mkdtemp(prefix="run-", dir=parent))
        self._lock = self.folder.with_suffix(".lock").open("wb")
        _try_lock(self._lock)

    def close(self) -> None:
        """Remove it with all that is in it."""
        _remove(self.folder.with_suffix(".lock"))
        self._lock.close()


def _try_lock(file: IO[bytes]) -> bool:
    """Lock a file for as long as this process has it open; False where another one has."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(lock: Path) -> None:
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)


class _DeletedError(NotAvailableError):
    """Nobody wants the result any more."""


class ClipStore:
    """Every clip of this server; used from the event loop, works on one thread of its own."""

    def __init__(self, settings: Settings, predictor: Predictor, metrics: Metrics) -> None:
        """Make an empty store; nothing outlives a run.

        Args:
            settings: where clips are, how many and how large.
            predictor: the network.
            metrics: counts clips.
        """
        self._settings = settings
        self._predictor = predictor
        self._metrics = metrics
        self._limits = IngestLimits(file_bytes=settings.upload_max_bytes)
        self._jobs: dict[str, Job] = {}
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="clips")
        self._room = Room(settings.clip_dir)

    def open(self, view: str | None) -> Job:
        """Begin to receive one clip.

        Raises:
            AdmissionError: as many clips as are kept are still being worked on.
            StorageError: the disk is full.
        """
        waiting = sum(not job.finished.is_set() for job in self._jobs.values())
        if waiting >= self._settings.max_clips:
            raise AdmissionError(f"{waiting} clips are waiting; try again later")
        identifier = "c_" + secrets.token_urlsafe(12)
        job = Job(identifier, self._room.folder / identifier, view, time.time())
        with storage_errors():
            job.folder.mkdir(mode=0o700)
        self._jobs[identifier] = job
        return job

    def submit(self, job: Job) -> None:
        """Queue a clip whose upload is complete.

        Raises:
            NotAvailableError: it was deleted while it came.
        """
        if job.is_deleted:
            raise _DeletedError("this clip was deleted")
        job.state = "queued"
        self._metrics.jobs_waiting.labels("clip").inc()
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._worker, self._analyse, job)
        future.add_done_callback(lambda _: self._finish(job))

    def _analyse(self, job: Job) -> None:
        """Work on one clip; runs on the worker, which is where all its errors end."""
        self._metrics.jobs_waiting.labels("clip").dec()
        try:
            self._check_wanted(job)
            job.document = self._study(job, None).document
        except EchoError as error:
            job.error = error
        except Exception:
            logger.exception("a clip failed")
            job.error = EngineError("this clip could not be worked on; the fault is ours")

    def _study(self, job: Job, labels: list[bytes] | None) -> Study:
        if job.state == "queued":
            job.state = "running"
        watch = self._watch(job)
        return analyse_clip(
            job.upload, self._predictor, view=job.view, limits=self._limits, progress=watch,
            labels=labels,
        )  # fmt: skip

    @staticmethod
    def _check_wanted(job: Job) -> None:
        if job.is_deleted:
            raise _DeletedError("this clip was deleted")

    def _watch(self, job: Job) -> Callable[[int, int | None], None]:
        def show(done: int, total: int | None) -> None:
            self._check_wanted(job)
            if job.state == "running" and total:
                job.progress = round(done / total, 3)

        return show

    def _finish(self, job: Job) -> None:
        job.state = "failed" if job.error else "done"
        job.progress = None if job.error else 1.0
        job.finished.set()
        self._metrics.clips.labels(job.state).inc()
        code = job.error.code if job.error else None
        logger.info("clip ends", extra={"clip": job.id, "state": job.state, "code": code})
        if job.error or job.is_deleted:
            shutil.rmtree(job.folder, ignore_errors=True)
        self._make_room(job)

    def _make_room(self, job: Job) -> None:
        """Forget the oldest of those that ended alike: no refused file drives out a result."""
        others = [each for each in self._jobs.values() if each.state == job.state]
        others = [each for each in others if each is not job]
        for each in others[: max(0, len(others) + 1 - self._settings.max_clips)]:
            self.delete(each.id)

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

    async def artefact(
        self, identifier: str, name: Literal["masks.npz", "overlay.mp4", "pictures.zip"]
    ) -> Path:
        """A file made from a clip, made when first asked for.

        Raises:
            NotFoundError: no such clip.
            NotFinishedError: its result is not there yet.
            NotAvailableError: the clip was deleted meanwhile.
            StorageError: the disk is full.
        """
        job = self.job(identifier)
        job.result()
        path = job.folder / name
        if not path.exists():
            if name not in job.making:
                job.making[name] = asyncio.create_task(self._make(job, name))
            await asyncio.shield(job.making[name])
        if job.is_deleted:
            raise NotAvailableError("the clip was deleted")
        return path

    async def _make(self, job: Job, name: str) -> Path:
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._worker, self._write, job, name)
        finally:
            del job.making[name]
            if job.is_deleted:
                shutil.rmtree(job.folder, ignore_errors=True)

    def _write(self, job: Job, name: str) -> Path:
        """Make a file whole, or none: analysed again, since results keep no pixel and no mask."""
        path, part = job.folder / name, job.folder / f"part-{name}"
        labels: list[bytes] = []
        study = self._study(job, labels if name == "masks.npz" else None)
        try:
            with storage_errors():
                if name == "masks.npz":
                    write_masks(part, study, labels)
                elif name == "pictures.zip":
                    write_study_pictures(part, job.upload, study, self._limits)
                else:
                    write_study_overlay(part, job.upload, study, self._limits)
            return part.rename(path)
        finally:
            part.unlink(missing_ok=True)

    def delete(self, identifier: str) -> None:
        """Forget a clip and remove its files; work under way stops at its next frame.

        Raises:
            NotFoundError: no such clip.
        """
        job = self.job(identifier)
        del self._jobs[identifier]
        job.is_deleted = True
        # Whoever writes to the folder at the moment removes it afterwards.
        if job.finished.is_set() and not job.making:
            shutil.rmtree(job.folder, ignore_errors=True)

    def discard(self, job: Job) -> None:
        """Forget a clip whose upload was refused or broke off, also one deleted meanwhile."""
        self._jobs.pop(job.id, None)
        job.is_deleted = True
        shutil.rmtree(job.folder, ignore_errors=True)

    def close(self) -> None:
        """Stop working and remove every file."""
        for identifier in list(self._jobs):
            self.delete(identifier)
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._room.close()
