"""Snapshots in Redis: for several machines that share the load. Needs the extra ``redis``."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from server.errors import StoreError
from server.snapshots.store import Held, Lease

PREFIX = "gdkvm:session:"
ANSWER_S = 5.0
"""How long the store may take to answer."""

# Scripts run one after the other in Redis, so a lease is compared and written in one step.
_PUT = """
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if epoch and epoch ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'stored', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
_CLAIM = """
local stored = redis.call('HGET', KEYS[1], 'stored')
if not stored then return nil end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return {redis.call('HINCRBY', KEYS[1], 'epoch', 1), stored}
"""


class RedisStore:
    """One hash a session, which Redis itself lets expire."""

    def __init__(self, url: str) -> None:
        """Connect.

        Args:
            url: such as ``redis://host:6379/0``, or ``rediss://`` for TLS.

        Raises:
            StoreError: no Redis answers there.
        """
        with _our_errors():
            self._redis = redis.Redis.from_url(
                url, socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S
            )
            self._redis.ping()
            self._put = self._redis.register_script(_PUT)
            self._claim = self._redis.register_script(_CLAIM)

    def put(self, lease: Lease, stored: bytes | None, ttl_s: float) -> bool:
        """Write a snapshot; see SnapshotStore."""
        values: list[int | bytes] = [lease.epoch, stored or b"", _to_ms(ttl_s)]
        with _our_errors():
            return bool(self._put(keys=[PREFIX + lease.name], args=values))

    def look(self, name: str) -> Held | None:
        """Read what is kept; see SnapshotStore."""
        with _our_errors():
            found: list[Any] = self._redis.hmget(PREFIX + name, "epoch", "stored")
        epoch, stored = found
        return None if epoch is None else Held(Lease(name, int(epoch)), stored or None)

    def claim(self, name: str, ttl_s: float) -> Held | None:
        """Take a session over; see SnapshotStore."""
        with _our_errors():
            found = self._claim(keys=[PREFIX + name], args=[_to_ms(ttl_s)])
        return None if found is None else Held(Lease(name, found[0]), found[1] or None)

    def find_moved(self, leases: Sequence[Lease]) -> list[Lease]:
        """Those whose sessions somebody claimed; see SnapshotStore."""
        with _our_errors():
            asked = self._redis.pipeline(transaction=False)
            for lease in leases:
                asked.hget(PREFIX + lease.name, "epoch")
            epochs = asked.execute()
        pairs = zip(leases, epochs, strict=True)
        return [lease for lease, epoch in pairs if epoch is not None and int(epoch) != lease.epoch]

    def close(self) -> None:
        """Let go of the sockets."""
        self._redis.close()


def _to_ms(ttl_s: float) -> int:
    return max(1, round(1000 * ttl_s))


@contextmanager
def _our_errors() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError, ValueError) as error:
        # The URL may hold a password, so it is not repeated.
        raise StoreError(f"snapshots cannot be kept in Redis: {error}") from error
