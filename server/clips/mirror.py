"""What one server knows of the clips that several keep together: a mirror of their records.

A clip that is held is being changed here, and is left as it is until that is written down.
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from server.clips.depot import Kept
from server.clips.job import Job, restored_error
from server.clips.ledger import Take
from server.clips.records import Record, Records
from server.clips.room import remove
from server.errors import NotAvailableError, StoreError

logger = logging.getLogger(__name__)

_ROW = ("view", "study", "seen_view", "sha256", "maker", "attempts", "created_s", "finished_s")


@dataclass(slots=True)
class Entry:
    """What a server knows of a clip beside the clip itself.

    Attributes:
        epoch: that was seen last.
        changed: the last change that was seen; None until the clip is written down at all.
        files: by their names, those that count.
        copies: by their names, those that are in this server's folder.
        holds: how many are changing it here.
        is_arriving: whether one of them brings it in.
        is_leased: whether it comes in here, or is worked on here.
        is_lost: whether another server has taken it over.
    """

    job: Job
    epoch: int = 1
    changed: int | None = None
    files: dict[str, Kept] = field(default_factory=dict)
    copies: dict[str, Kept] = field(default_factory=dict)
    holds: int = 0
    is_arriving: bool = False
    is_leased: bool = False
    is_lost: bool = False


class Mirror:
    """Every clip, as it was when last looked at; safe to use from several threads.

    Attributes:
        jobs: by name.
        entries: by name, what else is known.
        guard: held while an entry changes.
        ended: told of each clip that is over; None while nobody listens.
    """

    def __init__(self, records: Records, folder: Path) -> None:
        self.jobs: dict[str, Job] = {}
        self.entries: dict[str, Entry] = {}
        self.guard = threading.RLock()
        self.ended: Take | None = None
        self._records = records
        self._folder = folder
        self._stale: set[str] = set()
        self._seen = 0
        self._looking = threading.Lock()

    def arrive(self, job: Job) -> Entry:
        """Take up a clip that begins to come here."""
        entry = Entry(job, holds=1, is_arriving=True, is_leased=True)
        with self.guard:
            self.entries[job.id], self.jobs[job.id] = entry, job
        return entry

    def forget(self, job: Job) -> None:
        """Drop a clip that was never written down."""
        with self.guard:
            del self.entries[job.id], self.jobs[job.id]

    def refresh(self) -> None:
        """See what changed.

        Raises:
            StoreError: Redis does not answer.
        """
        with self._looking:
            with self.guard:
                stale, self._stale = self._stale, set()
            try:
                self._look(stale)
            except StoreError:
                with self.guard:
                    self._stale |= stale
                raise

    def _look(self, stale: set[str]) -> None:
        found = self._records.changes(self._seen, stale)
        if has_lost := found.last < self._seen:
            logger.error("Redis has lost what it had", extra={"clips": len(self.entries)})
            self._seen = 0
            with self.guard:
                for entry in self._known():
                    entry.changed = 0
            found = self._records.changes(0)
        for record in found.records:
            self._merge(record)
        self._seen = found.last
        if has_lost or len(self._known()) != found.count:
            names, last = self._records.names()
            for entry in self._known():
                if entry.job.id not in names and (entry.changed or 0) <= last:
                    self.drop(entry)

    def _known(self) -> list[Entry]:
        return [entry for entry in list(self.entries.values()) if entry.changed is not None]

    def _merge(self, record: Record) -> None:
        with self.guard:
            entry = self.entries.get(record.id)
            if entry is None:
                job = Job(record.id, self._folder / record.id, None, 0.0)
                entry = self.entries[record.id] = Entry(job)
                self.jobs[record.id] = job
            elif entry.holds:
                self._stale.add(record.id)
                return
            elif record.changed < (entry.changed or 0):
                return  # a look that began before what was written here
            entry.epoch, entry.changed = record.epoch, record.changed
            entry.files = record.files
            _apply(record, entry.job)
            if entry.job.is_over:
                self._end(entry.job)

    def _end(self, job: Job) -> None:
        if self.ended is None:
            job.finished.set()
        elif not job.finished.is_set():
            self.ended(job)

    def drop(self, entry: Entry) -> None:
        """See that a clip is gone; whoever is at work on it here will notice."""
        job = entry.job
        with self.guard:
            self.entries.pop(job.id, None)
            self.jobs.pop(job.id, None)
            job.is_deleted = True
            if entry.holds:
                return
            if not job.is_over:
                job.state, job.error = "failed", NotAvailableError("the clip was deleted")
        self._end(job)
        remove(job.folder)

    @contextmanager
    def changing(self, job: Job) -> Iterator[None]:
        """Leave a clip as it is while it is being changed here.

        Raises:
            NotAvailableError: it was deleted.
        """
        entry = self.entries.get(job.id)
        if entry is None:
            raise NotAvailableError("the clip was deleted")
        with self.guard:
            entry.holds += 1
        try:
            job.folder.mkdir(mode=0o700, exist_ok=True)
            yield
        finally:
            self.let_go(entry)

    def let_go(self, entry: Entry) -> None:
        """End one hold of it, and look at it again."""
        with self.guard:
            entry.holds -= 1
            self._stale.add(entry.job.id)

    def distrust(self, job: Job) -> None:
        """See a clip as others left it, whatever was found here."""
        with self.guard:
            entry = self.entries.get(job.id)
            if entry is not None and entry.changed is not None:
                entry.changed = 0
                self._stale.add(job.id)


def row_of(job: Job) -> dict[str, Any]:
    """What servers tell each other of a clip."""
    error = job.error and [job.error.code, job.error.message]
    row = {name: getattr(job, name) for name in _ROW}
    return {**row, "error": error, "revision": job.revision}


def _apply(record: Record, job: Job) -> None:
    row = record.row
    for name in (*_ROW, "revision"):
        setattr(job, name, row[name])
    job.error = None if row["error"] is None else restored_error(*row["error"])
    job.state, job.number, job.progress = record.state, record.number, record.progress  # type: ignore[assignment]
    job.size_bytes = sum(kept.size_bytes for kept in record.files.values())
