"""The work on one clip, on threads: analyse it, write down how that ended, make files of it."""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model import EchoError, Predictor
from server.clips.editing import Wanted, edited
from server.clips.job import RESULT, UPLOAD, Job, read_result
from server.clips.ledger import Ledger, OvertakenError
from server.clips.making import MAKERS, OtherFindingsError, Source, source_of
from server.clips.room import PART_PREFIX, put, remove, size_of, write_whole
from server.errors import (
    DrainingError,
    EngineError,
    NotAvailableError,
    StorageError,
    StoreError,
    storage_errors,
)
from server.export.deidentify import Deidentifier
from server.ingest import IngestLimits
from server.metrics import Metrics
from server.settings import Settings
from server.study import analyse_clip

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
"""How often work on a clip may have been under way when a server died, before it gets the blame."""


FILES_GONE = "the files of this clip are gone; the fault is ours"


class DeletedError(NotAvailableError):
    """Nobody wants the result any more."""


class Works:
    """What a server's clips are worked on with; each method runs on whatever thread calls it."""

    def __init__(
        self,
        ledger: Ledger,
        predictor: Predictor,
        metrics: Metrics,
        settings: Settings,
        leaving: threading.Event,
    ) -> None:
        """Share a store's parts.

        Args:
            ledger: keeps the clips and their files.
            predictor: the network.
            metrics: counts duplicates, and EF by state.
            settings: bounds of what is read, and the key of made-up names.
            leaving: set once the server stops.
        """
        self._ledger = ledger
        self._predictor = predictor
        self._metrics = metrics
        self._leaving = leaving
        self._limits = IngestLimits(file_bytes=settings.upload_max_bytes)
        self._deidentifier = Deidentifier.of(settings.deidentify_key)
        self.name = f"{version('gdkvm-live')}/{predictor.model.sha256}/{predictor.precision}"

    def attempt(self, job: Job) -> bool:
        """Work on a clip; False where the disk is too full to go on.

        Raises:
            OvertakenError: another server has taken it over.
            StoreError: what several servers share cannot be reached; one of them will take it up.
        """
        begun, found = job.attempts, list[dict[str, Any]]()
        try:
            error = self._error(job, found)
            if isinstance(error, DrainingError):
                return self._put_back(job)
            self.settle(job, error)
        except StorageError:
            logger.error("a clip waits for room on the disk", extra={"clip": job.id})
            job.state, job.progress, job.error = "queued", None, None
            job.attempts = begun
            return False
        except (OvertakenError, StoreError) as error:
            if isinstance(error, StoreError):
                self._excuse(job, begun)
            self._ledger.abandon(job)
            raise
        for ef in found:  # what could not be written down counts for nothing
            self._metrics.count_ef(ef["state"], ef["reasons"])
        return True

    def _excuse(self, job: Job, attempts: int) -> None:
        """Take the blame off a clip that only its store hindered; its lease runs out by itself."""
        job.state, job.progress, job.error, job.finished_s = "running", None, None, None
        job.attempts = attempts
        with suppress(EchoError):
            self._ledger.save(job)

    def _error(self, job: Job, found: list[dict[str, Any]]) -> EchoError | None:
        """Analyse a clip and keep what was found, or return why there is nothing.

        Args:
            job: the clip.
            found: takes the EF, where it was not one like it that had been measured.

        Raises:
            StorageError: the disk is full.
            StoreError: what several servers share cannot be reached.
            OvertakenError: another server has taken the clip over.
        """
        try:
            self._check_wanted(job)
            if not self.answer_from_store(job):
                self._need(job, UPLOAD)
                self._begin(job)
                found.append(self._analyse(job))
        except (StorageError, StoreError, OvertakenError):
            raise
        except EchoError as error:
            return error
        except Exception:
            if job.is_deleted:
                return DeletedError("this clip was deleted")
            logger.exception("a clip failed")
            return EngineError("this clip could not be worked on; the fault is ours")
        return None

    def _begin(self, job: Job) -> None:
        if job.attempts >= MOST_ATTEMPTS:
            raise EngineError("the server broke down over this clip; the fault is ours")
        job.attempts += 1
        job.maker, job.state = self.name, "running"
        self._ledger.save(job)

    def _analyse(self, job: Job) -> dict[str, Any]:
        with storage_errors():
            study = analyse_clip(
                job.upload, self._predictor, view=job.view, limits=self._limits,
                progress=self._watch(job),
            )  # fmt: skip
        job.seen_view = study.document["clip"]["view"]
        write_whole(job.folder / RESULT, json.dumps(study.document).encode())
        job.is_found_here = True
        ef: dict[str, Any] = study.document["ef"]
        return ef

    def settle(self, job: Job, error: EchoError | None) -> None:
        """Write down how a clip ended, then say so.

        Raises:
            EchoError: why that could not be written down; the clip is as it was.
        """
        try:
            size_bytes = 0 if error else size_of(job.folder)
        except FileNotFoundError:
            if not job.is_deleted:
                raise
            error, size_bytes = DeletedError("this clip was deleted"), 0
        end = replace(
            job,
            error=error,
            state="failed" if error else "done",
            progress=None if error else 1.0,
            finished_s=time.time(),
            size_bytes=size_bytes,
        )
        self._ledger.save(end)
        job.is_deleted |= end.is_deleted
        job.error, job.progress, job.finished_s = error, end.progress, end.finished_s
        job.size_bytes, job.state = end.size_bytes, end.state
        if error or job.is_deleted:
            remove(job.folder)

    def _put_back(self, job: Job) -> bool:
        """Leave a clip to the next run, with no blame on it."""
        job.state, job.progress, job.attempts = "queued", None, job.attempts - 1
        self._ledger.save(job)
        return True

    def twin(self, job: Job, *, is_done: bool) -> Job | None:
        """The last clip of the same bytes and the same view that is worked on in the same way."""
        wanted = (job.sha256, job.view, self.name)
        jobs = sorted(self._ledger.jobs.values(), key=lambda each: each.number)
        twins = (each for each in reversed(jobs) if each is not job)
        twins = (each for each in twins if (each.sha256, each.view, each.maker) == wanted)
        states = ("done",) if is_done else ("done", "queued", "running")
        return next((each for each in twins if each.state in states), None)

    def answer_from_store(self, job: Job) -> bool:
        """Give a clip the files of one like it, if there is one; `settle` says that it has them."""
        twin = self.twin(job, is_done=True)
        if twin is None:
            return False
        try:
            if not self._ledger.fetch(twin, RESULT):
                return False
            document = read_result(twin.folder / RESULT)
        except FileNotFoundError:  # deleted at this moment
            return False
        except EngineError:  # damaged; nothing like it is to be answered with that
            twin.maker = ""
            return False
        write_whole(job.folder / RESULT, json.dumps(document).encode())
        _share(twin.upload, job.upload)
        job.maker, job.seen_view = self.name, twin.seen_view
        job.is_found_here = twin.is_found_here
        self._metrics.clip_duplicates.inc()
        return True

    def _check_wanted(self, job: Job) -> None:
        if job.is_deleted:
            raise DeletedError("this clip was deleted")
        if not self._ledger.is_ours(job):
            raise OvertakenError("another server has taken this clip over")

    def _need(self, job: Job, name: str) -> None:
        """See that one of a clip's files is here.

        Raises:
            DeletedError: nobody wants it any more.
            OvertakenError: another server has taken the clip over.
            StoreError: what several servers share cannot be reached.
            EngineError: the file is gone.
        """
        if not self._ledger.fetch(job, name):
            self._check_wanted(job)
            raise EngineError(FILES_GONE)

    def _watch(self, job: Job) -> Callable[[int, int | None], None]:
        def show(done: int, total: int | None) -> None:
            self._check_wanted(job)
            if self._leaving.is_set():
                raise DrainingError("the server is stopping; ask again when it is back")
            if job.state == "running" and total:
                job.progress = round(done / total, 3)

        return show

    def write(self, job: Job, name: str) -> Path:
        """Make a file whole, or none."""
        part = job.folder / f"{PART_PREFIX}{name}"
        try:
            with self._changing(job):
                path = job.file(name)
                if not self._ledger.fetch(job, path.name):
                    with self._finding(job):
                        MAKERS[name](part, self._source(job))
                    put(part, path)
                    self._ledger.keep(job, path.name)
        finally:
            part.unlink(missing_ok=True)
        return path

    def edit(self, job: Job, wanted: Wanted) -> dict[str, Any]:
        """Correct a clip whole, or not at all; files of it as it was are not handed out any more.

        Returns:
            Its result from now on.

        Raises:
            EchoError: why it stays as it was.
        """
        while True:
            try:
                return self._edit(job, wanted)
            except OvertakenError:  # corrected by another server meanwhile
                self._ledger.abandon(job)
                self._ledger.refresh()

    def _edit(self, job: Job, wanted: Wanted) -> dict[str, Any]:
        with self._changing(job):
            source = self._source(job)
            if not job.is_found_here:
                with self._finding(job):
                    source.analyse()
            study = edited(source, wanted)
            content = json.dumps(study.document).encode()
            self._check_wanted(job)
            later = replace(job, revision=job.revision + 1)
            # Left of one whose result was lost, they would be taken for this one's.
            for path in job.folder.glob(f"r{later.revision}-*"):
                path.unlink(missing_ok=True)
            with _undoing(later.file(RESULT)):
                write_whole(later.file(RESULT), content)
                later.size_bytes = later.size_to_keep()
                self._ledger.save(later)
            job.is_deleted |= later.is_deleted
            job.revision, job.size_bytes = later.revision, later.size_bytes
            job.drop_older()
        return study.document

    @contextmanager
    def _finding(self, job: Job) -> Iterator[None]:
        """Find a clip's figures again; where they are others, equal uploads are worked on anew."""
        try:
            yield
        except OtherFindingsError:
            job.maker = ""
            with suppress(EchoError):
                self._ledger.save(job)
            raise
        job.is_found_here = True

    @contextmanager
    def _changing(self, job: Job) -> Iterator[None]:
        """Add files to a clip that may be deleted at any moment."""
        try:
            self._ledger.room.check()
            with self._ledger.changing(job), storage_errors():
                yield
        except FileNotFoundError as error:
            self._check_wanted(job)
            raise EngineError(FILES_GONE) from error
        finally:
            if job.is_deleted:
                remove(job.folder)

    def _source(self, job: Job) -> Source:
        watch = self._watch(job)
        for name in (UPLOAD, job.file(RESULT).name):
            self._need(job, name)
        return source_of(job, self._predictor, self._limits, self._deidentifier, watch)


@contextmanager
def _undoing(path: Path) -> Iterator[None]:
    """Take a file back that cannot be written down: the client is told so."""
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _share(source: Path, target: Path) -> None:
    """Let two equal files take the room of one, where the disk can."""
    part = target.with_name(PART_PREFIX + target.name)
    with suppress(OSError):
        os.link(source, part)
        part.replace(target)
    part.unlink(missing_ok=True)
