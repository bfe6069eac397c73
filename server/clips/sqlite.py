"""One server's clips on its own disk: one SQLite file with a row for each, one folder for each.

A row exists from the moment that an upload is complete, and until it is deleted; whatever a crash
leaves without a row was never promised to anybody. It holds made-up names, checksums and times, and
nothing that a file says of a patient.
"""

import json
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from model import EchoError, counted
from server.clips.job import RESULT, UPLOAD, Job, read_result, restored_error
from server.clips.ledger import Take
from server.clips.room import Room, remove, size_of
from server.errors import AdmissionError, SettingsError, StorageError
from server.settings import Settings

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE clip (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
    view TEXT,
    study TEXT,
    seen_view TEXT,
    error TEXT,
    sha256 TEXT NOT NULL,
    maker TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_s REAL NOT NULL,
    finished_s REAL
) STRICT
"""

_NO_MORE = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY)
"""What a disk that is full, or can only be read by now, is to SQLite."""

_COLUMNS = (
    "id", "state", "view", "study", "seen_view", "error", "sha256", "maker", "attempts",
    "size_bytes", "created_s", "finished_s",
)  # fmt: skip


class SqliteLedger:
    """The rows and folders of one server alone; see Ledger."""

    is_remote = False

    def __init__(self, settings: Settings) -> None:
        """Open the folder, or make it, and take up what is in it.

        Raises:
            SettingsError: it cannot be used, another server uses it, or a newer one wrote it.
            StorageError: the disk is full.
        """
        self._settings = settings
        self._lock = threading.Lock()
        self.room = Room(settings.clip_dir)
        try:
            is_new = self._open(self.room.folder / "clips.sqlite3")
        except EchoError:
            self.room.close()
            raise
        self._look_for_files()
        self._take_in(is_new=is_new)
        self.room.clear()

    def _open(self, path: Path) -> bool:
        """Read the ledger, or make it; returns whether it was made now."""
        with _usable(path):
            self._rows = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            with _usable(path):
                is_new = self._prepare()
                self.jobs = {job.id: job for job in self._load()}
        except EchoError:
            self._rows.close()
            raise
        return is_new

    def _prepare(self) -> bool:
        """Make the ledger, if need be; returns whether it was made now."""
        # FULL: what a client was told is there survives a power cut, not only a crash.
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"):
            self._rows.execute(f"PRAGMA {pragma}")
        (version,) = self._rows.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._rows.executescript(
                f"BEGIN; {_SCHEMA}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT"
            )
        elif version != SCHEMA_VERSION:
            raise SettingsError(
                f"GDKVM_CLIP_DIR was written by another version of this server (ledger {version}, "
                f"this one reads {SCHEMA_VERSION}): name another folder"
            )
        return bool(version == 0)

    def _load(self) -> list[Job]:
        """Every clip, oldest first; one that was running is queued again."""
        found = self._run(f"SELECT {', '.join(_COLUMNS)} FROM clip ORDER BY number")
        rows = [dict(zip(_COLUMNS, row, strict=True)) for row in found]
        return [_job_of(row, self.room.folder) for row in rows]

    def _look_for_files(self) -> None:
        """Work anew on clips that lost their result alone, and drop those that lost their files."""
        for job in list(self.jobs.values()):
            wanted = job.file(RESULT) if job.state == "done" else job.upload
            if job.state == "failed" or wanted.is_file():
                continue
            if job.upload.is_file():
                logger.error(
                    "a clip's result is gone; it is worked on anew", extra={"clip": job.id}
                )
                _begin_anew(job)
                self.save(job)
            else:
                logger.error("a clip's files are gone", extra={"clip": job.id})
                self.remove(job)

    def _take_in(self, *, is_new: bool) -> None:
        """Take up clips that the ledger does not know, as after a restore without all of it.

        Half an upload is removed; where all of the ledger was lost, it may be a clip that waits.
        """
        found = []
        for folder in self.room.clips():
            if folder.name in self.jobs:
                continue
            job = _job_in(folder)
            if job is not None and (job.is_over or is_new):
                found.append(job)
            elif _is_half(folder):
                remove(folder)
        for job in sorted(found, key=lambda job: job.created_s):
            self.jobs[job.id] = job
            self.add(job)
        if found:
            logger.error("clips are here that the ledger had lost", extra={"count": len(found)})

    def start(self, take: Take, ended: Take) -> None:
        """Take up what an earlier run left; see Ledger."""
        self._take = take
        for job in [job for job in self.jobs.values() if not job.is_over]:
            take(job)

    def refresh(self) -> None:
        """Nothing: nobody else writes."""

    def reserve(self, job: Job, declared_bytes: int) -> None:
        """Take up a clip that begins to come; see Ledger."""
        waiting = [each for each in list(self.jobs.values()) if not each.is_over]
        if len(waiting) >= self._settings.max_clips:
            raise AdmissionError(
                f"{counted(len(waiting), 'clip')} waiting already; try again later"
            )
        wanted_bytes = sum(each.size_bytes for each in waiting) + declared_bytes
        if wanted_bytes > self._settings.clip_store_bytes:
            raise StorageError("the clips that wait fill the store; try again later")
        self.jobs[job.id] = job

    def add(self, job: Job) -> None:
        """Write down a clip whose upload is complete; see Ledger."""
        marks = ", ".join("?" * len(_COLUMNS))
        self._run(f"INSERT INTO clip ({', '.join(_COLUMNS)}) VALUES ({marks})", _values_of(job))

    def queue(self, job: Job) -> None:
        """Let somebody work on it."""
        self._take(job)

    def save(self, job: Job) -> None:
        """Write down how a clip is now; see Ledger."""
        changes = ", ".join(f"{name} = ?" for name in _COLUMNS)
        self._run(f"UPDATE clip SET {changes} WHERE id = ?", (*_values_of(job), job.id))

    def keep(self, job: Job, name: str) -> None:
        """Count a file that was made in its folder; see Ledger."""
        job.size_bytes = size_of(job.folder)
        self.save(job)

    def fetch(self, job: Job, name: str) -> bool:
        """See whether one of its files is there."""
        return (job.folder / name).exists()

    def is_ours(self, job: Job) -> bool:
        """Always: there is no other server."""
        return True

    def changing(self, job: Job) -> AbstractContextManager[None]:
        """Nothing: nobody else changes it."""
        return nullcontext()

    def release(self, job: Job) -> None:
        """Nothing: what was taken stays with this server."""

    def abandon(self, job: Job) -> None:
        """Nothing: nobody else writes."""

    def remove(self, job: Job) -> None:
        """Forget a clip and its files."""
        job.is_deleted = True
        self.jobs.pop(job.id, None)
        # Whoever is at work on it finds no file any more, and removes what it wrote meanwhile.
        # The files go first: on a full disk there is room for the ledger only without them.
        remove(job.folder)
        self._run("DELETE FROM clip WHERE id = ?", (job.id,))

    def sweeping(self) -> AbstractContextManager[bool]:
        """Always: there is no other server."""
        return nullcontext(True)

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _full_disk():
            return self._rows.execute(statement, values).fetchall()

    def leave(self) -> None:
        """Nothing: what waits is there for the next run."""

    def close(self) -> None:
        """Drop half uploads, and let another server have the folder."""
        for job in list(self.jobs.values()):
            if job.state == "received":
                job.is_deleted = True
                remove(job.folder)
        with self._lock:
            self._rows.close()
        self.room.close()


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    """Say what becomes of clips whose ledger is not: none is lost with it."""
    try:
        with _full_disk():
            yield
    except sqlite3.OperationalError as error:
        raise SettingsError(f"{path.name} in GDKVM_CLIP_DIR cannot be used ({error})") from error
    except sqlite3.DatabaseError as error:
        raise SettingsError(
            f"{path.name} in GDKVM_CLIP_DIR cannot be read ({error}): bring it back from a "
            "backup, or move it away, and clips whose files are there are taken up without it"
        ) from error


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in _NO_MORE:
            raise StorageError(f"the disk takes no more ({error}); try later") from error
        raise


def _begin_anew(job: Job) -> None:
    """Forget all that was found in a clip."""
    for path in job.folder.iterdir():
        if path != job.upload:
            path.unlink()
    job.state, job.progress, job.finished_s, job.attempts, job.revision = "queued", None, None, 0, 0
    job.finished.clear()


def _is_half(folder: Path) -> bool:
    """Whether a folder named like a clip's holds what a broken upload leaves, and no more."""
    return {path.name for path in folder.iterdir()} <= {UPLOAD}


def _job_in(folder: Path) -> Job | None:
    """The clip in a folder, as far as its files tell; None where there is none.

    What one waits for that has no result is found anew, of a view that only its file says.
    """
    job = Job(folder.name, folder, None, 0.0)
    job.find_revision()
    path = next((each for each in (job.upload, job.file(RESULT)) if each.is_file()), None)
    if path is None:
        return None
    job.created_s, job.size_bytes = path.stat().st_mtime, size_of(folder)
    try:
        job.view = job.seen_view = read_result(job.file(RESULT))["clip"]["view"]
    except (EchoError, OSError, KeyError, TypeError):
        job.state = "queued"
        return job
    job.state, job.progress, job.finished_s = "done", 1.0, job.created_s
    job.finished.set()
    return job


def _values_of(job: Job) -> tuple[Any, ...]:
    error = job.error and json.dumps([job.error.code, job.error.message])
    return tuple(error if name == "error" else getattr(job, name) for name in _COLUMNS)


def _job_of(row: dict[str, Any], folder: Path) -> Job:
    error = row.pop("error")
    job = Job(folder=folder / row["id"], **row)
    job.error = restored_error(*json.loads(error)) if error is not None else None
    if job.state == "running":
        job.state = "queued"
    job.find_revision()
    if job.is_over:
        job.finished.set()
        job.progress = 1.0 if job.state == "done" else None
    return job
