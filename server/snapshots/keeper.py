"""Snapshots in and out of a store, off the event loop."""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias, TypeVar

from server.errors import StoreError
from server.metrics import Metrics
from server.snapshots.seal import Seal, name_of
from server.snapshots.sqlite import SqliteStore
from server.snapshots.store import Held, Lease, SnapshotStore

T = TypeVar("T")

Found: TypeAlias = tuple[Lease, bytes | None]
"""A lease and a snapshot, None where the session has ended."""

SHARED_S = 1.0
"""Whoever waited so long for others' work to fail is told that it failed: a store that does not
answer takes seconds to say so, and each session in turn would wait for all before it."""


def open_store(place: str) -> SnapshotStore:
    """Open what a setting names: a Redis URL, or else a file.

    Raises:
        StoreError: it cannot be opened, or the library for it is not installed.
    """
    if place.startswith(("redis://", "rediss://")):
        try:
            from server.snapshots.redis_store import RedisStore
        except ModuleNotFoundError as error:
            raise StoreError("Redis needs: pip install 'gdkvm-live[redis]'") from error
        return RedisStore(place)
    return SqliteStore(Path(place))


class Keeper:
    """Seals what goes into a store and opens what comes out; one piece of work at a time."""

    def __init__(self, store: SnapshotStore, seal: Seal, metrics: Metrics) -> None:
        self._store = store
        self._seal = seal
        self._metrics = metrics
        self._thread = ThreadPoolExecutor(1, "snapshots")
        self._failed_s = -math.inf
        self._why = ""

    def first_lease(self, token: str) -> Lease:
        """The lease of a session that begins."""
        return Lease(name_of(token), 1)

    async def look(self, token: str) -> Found | None:
        """Read what is kept of a session, and leave it to whoever has it.

        Returns:
            The last lease, and the snapshot or None where the session has ended; None where
            nothing is kept of it.

        Raises:
            StoreError: the store cannot be asked.
            SnapshotError: what is there is not ours to read, or was tampered with.
        """
        return self._open(await self._run(self._store.look, name_of(token)))

    async def claim(self, token: str, ttl_s: float) -> Found | None:
        """Take a session over; returns and raises as ``look`` does, with a lease of our own."""
        return self._open(await self._run(self._store.claim, name_of(token), ttl_s))

    def _open(self, held: Held | None) -> Found | None:
        if held is None:
            return None
        name, stored = held.lease.name, held.stored
        return held.lease, None if stored is None else self._seal.open(name, stored)

    async def save(self, lease: Lease, blob: bytes | None, ttl_s: float) -> bool:
        """Write a snapshot, or None to say that the session has ended.

        Returns:
            False where somebody else took the session over.

        Raises:
            StoreError: it could not be written.
        """
        try:
            is_ours = await self._run(self._write, lease, blob, ttl_s)
        except StoreError:
            self._metrics.snapshots.labels("failed").inc()
            raise
        self._metrics.snapshots.labels("saved" if is_ours else "fenced").inc()
        return is_ours

    async def find_moved(self, leases: Sequence[Lease]) -> list[Lease]:
        """Those leases whose sessions somebody else took over.

        Raises:
            StoreError: the store cannot be asked.
        """
        return await self._run(self._store.find_moved, leases)

    def _write(self, lease: Lease, blob: bytes | None, ttl_s: float) -> bool:
        started_s = time.perf_counter()
        stored = None if blob is None else self._seal.close(lease.name, blob)
        is_ours = self._store.put(lease, stored, ttl_s)
        self._metrics.snapshot_s.observe(time.perf_counter() - started_s)
        return is_ours

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        loop, asked_s = asyncio.get_running_loop(), time.monotonic()
        return await loop.run_in_executor(self._thread, self._work, asked_s, work, *arguments)

    def _work(self, asked_s: float, work: Callable[..., T], *arguments: object) -> T:
        if self._failed_s >= asked_s + SHARED_S:
            raise StoreError(self._why)
        try:
            return work(*arguments)
        except StoreError as error:
            self._failed_s, self._why = time.monotonic(), error.message
            raise

    def close(self) -> None:
        """Let what was begun end, and close the store; blocks."""
        self._thread.shutdown()
        self._store.close()
