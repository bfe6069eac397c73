"""Snapshots in one SQLite file: for one machine, and as many processes on it as one likes."""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from server.errors import StoreError
from server.snapshots.store import Held, Lease

BUSY_S = 5.0
"""How long a write waits for another process's."""

PURGE_EVERY = 64
"""Writes between two searches for what nobody may resume any more."""

_TABLE = """
CREATE TABLE IF NOT EXISTS snapshots (
    name TEXT PRIMARY KEY, epoch INTEGER NOT NULL, expires_s REAL NOT NULL, stored BLOB
)
"""
_PUT = """
INSERT INTO snapshots (name, epoch, expires_s, stored) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (name) DO UPDATE SET
    epoch = excluded.epoch, expires_s = excluded.expires_s, stored = excluded.stored
WHERE snapshots.epoch = excluded.epoch OR snapshots.expires_s < ?5
"""
_CLAIM = """
UPDATE snapshots SET epoch = epoch + 1, expires_s = max(expires_s, ?2)
WHERE name = ?1 AND expires_s >= ?3 RETURNING epoch, stored
"""
_LOOK = "SELECT epoch, stored FROM snapshots WHERE name = ?1 AND expires_s >= ?2"
_MOVED = "SELECT 1 FROM snapshots WHERE name = ?1 AND epoch <> ?2 AND expires_s >= ?3"
_PURGE = "DELETE FROM snapshots WHERE expires_s < ?1"


class SqliteStore:
    """Write-ahead logging, so that writing waits for no disk; a killed process loses nothing."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it, readable by this user alone.

        Raises:
            StoreError: it cannot be opened, or its folder is another user's.
        """
        self._writes = 0
        self._path = path
        with _our_errors(path):
            self._open()

    def _open(self) -> None:
        path = self._path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.parent.stat().st_uid != os.getuid():
            raise StoreError(f"{path.parent} belongs to another user")
        path.touch(mode=0o600)
        self._inode = path.stat().st_ino
        self._connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(_TABLE)
        self._connection.execute(_PURGE, (time.time(),))

    def _open_anew_where_gone(self) -> None:
        """Leave a file that was removed, as temporary ones are in time: nobody else finds it."""
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                return
        self._connection.close()
        self._open()

    def put(self, lease: Lease, stored: bytes | None, ttl_s: float) -> bool:
        """Write a snapshot; see SnapshotStore."""
        now_s = time.time()
        values = (lease.name, lease.epoch, now_s + ttl_s, stored, now_s)
        with _our_errors(self._path):
            self._open_anew_where_gone()
            is_written = self._connection.execute(_PUT, values).rowcount == 1
            self._writes += 1
            if self._writes % PURGE_EVERY == 0:
                self._connection.execute(_PURGE, (now_s,))
        return is_written

    def look(self, name: str) -> Held | None:
        """Read what is kept; see SnapshotStore."""
        with _our_errors(self._path):
            self._open_anew_where_gone()
            found = self._connection.execute(_LOOK, (name, time.time())).fetchone()
        return Held(Lease(name, found[0]), found[1]) if found else None

    def claim(self, name: str, ttl_s: float) -> Held | None:
        """Take a session over; see SnapshotStore."""
        now_s = time.time()
        with _our_errors(self._path):
            self._open_anew_where_gone()
            found = self._connection.execute(_CLAIM, (name, now_s + ttl_s, now_s)).fetchall()
        return Held(Lease(name, found[0][0]), found[0][1]) if found else None

    def find_moved(self, leases: Sequence[Lease]) -> list[Lease]:
        """Those whose sessions somebody claimed; see SnapshotStore."""
        now_s = time.time()
        with _our_errors(self._path):
            self._open_anew_where_gone()
            ask = self._connection.execute
            return [
                each for each in leases if ask(_MOVED, (each.name, each.epoch, now_s)).fetchone()
            ]

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


@contextmanager
def _our_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise StoreError(f"snapshots cannot be kept in {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(
            f"snapshots in {path} cannot be read ({error}): move it away; the sessions in it begin "
            "anew"
        ) from error
    except sqlite3.Error as error:
        raise StoreError(f"snapshots cannot be kept in {path}: {error}") from error
