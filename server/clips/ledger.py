"""The queue and the results' states on disk: one SQLite file, one row a clip.

A row exists from the moment that an upload is complete, and until it is deleted; whatever a crash
leaves without a row was never promised to anybody. It holds made-up names, checksums and times, and
nothing that a file says of a patient.
"""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.clips.job import Job, restored_error
from server.errors import SettingsError, StorageError

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

_COLUMNS = (
    "id", "state", "view", "study", "seen_view", "error", "sha256", "maker", "attempts",
    "size_bytes", "created_s", "finished_s",
)  # fmt: skip


class Ledger:
    """The rows; safe to call from several threads."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            SettingsError: it is no ledger, or one of a newer server.
            StorageError: the disk is full.
        """
        self._lock = threading.Lock()
        try:
            with _full_disk():
                self._rows = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
                self._prepare()
        except sqlite3.DatabaseError as error:
            raise SettingsError(
                f"{path.name} in GDKVM_CLIP_DIR cannot be read ({error}): move it away"
            ) from error

    def _prepare(self) -> None:
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

    def load(self, folder: Path) -> list[Job]:
        """Every clip, oldest first; one that was running is queued again."""
        found = self._run(f"SELECT {', '.join(_COLUMNS)} FROM clip ORDER BY number")
        return [_job_of(dict(zip(_COLUMNS, row, strict=True)), folder) for row in found]

    def add(self, job: Job) -> None:
        """Write down a clip whose upload is complete.

        Raises:
            StorageError: the disk is full.
        """
        marks = ", ".join("?" * len(_COLUMNS))
        self._run(f"INSERT INTO clip ({', '.join(_COLUMNS)}) VALUES ({marks})", _values_of(job))

    def save(self, job: Job) -> None:
        """Write down how a clip is now; one that was removed stays so.

        Raises:
            StorageError: the disk is full.
        """
        changes = ", ".join(f"{name} = ?" for name in _COLUMNS)
        self._run(f"UPDATE clip SET {changes} WHERE id = ?", (*_values_of(job), job.id))

    def remove(self, identifier: str) -> None:
        """Forget a clip."""
        self._run("DELETE FROM clip WHERE id = ?", (identifier,))

    def _run(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._lock, _full_disk():
            return self._rows.execute(statement, values).fetchall()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._rows.close()


@contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise StorageError("no room is left on the disk; make some, or try later") from error
        raise


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
