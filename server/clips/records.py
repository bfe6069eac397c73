"""Records of clips in Redis, which several servers read and write. Needs the extra ``redis``.

A clip that waits is in the queue; one that comes or is worked on has a lease, which ends with the
server that let it go. Every record has an epoch, which rises when a clip changes hands: who writes
says which one was seen last, and is refused where that is no longer the one there is.
"""

import json
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import LockError
from redis.retry import Retry

from model import counted
from server.clips.depot import Kept
from server.clips.ledger import OvertakenError
from server.clips.scripts import BEAT, CHANGES, CLAIM, KEEP, REMOVE, RESERVE, SAVE
from server.errors import AdmissionError, StorageError, StoreError

PREFIX = "gdkvm:{clips}:"
"""Of every key; what is in braces keeps them together in a cluster."""

ANSWER_S = 3.0
AWAY_S = 1.0
"""How long nobody is asked again after no answer came."""

SWEEP_S, SWEEP_WAIT_S = 60.0, 5.0
_FILE = "file:"


@dataclass(frozen=True, slots=True)
class Record:
    """A clip as it is written down.

    Attributes:
        epoch: rises when it changes hands, and with its outcome.
        changed: place in the order of all changes.
        row: what servers tell each other of it.
        files: by their names, which ones count.
    """

    id: str
    epoch: int
    changed: int
    number: int
    state: str
    progress: float | None
    row: dict[str, Any]
    files: dict[str, Kept]


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since somebody looked.

    Attributes:
        last: place of the last change of all.
        count: how many clips there are.
    """

    last: int
    count: int
    records: list[Record]


@dataclass(frozen=True, slots=True)
class Draft:
    """A clip as somebody wants it to be written down.

    Attributes:
        epoch: that was seen last.
        is_leased: whether the writer goes on with it.
        added: files that count from now on.
        dropped: names of files that no longer do.
    """

    id: str
    epoch: int
    state: str
    progress: float | None
    row: dict[str, Any]
    size_bytes: int
    is_leased: bool
    added: dict[str, Kept]
    dropped: Sequence[str]


class Records:
    """All clips of several servers; safe to call from several threads, each call waits."""

    def __init__(self, url: str, lease_s: float) -> None:
        """Connect.

        Args:
            url: such as ``redis://host:6379/0``.
            lease_s: how long a server may be silent.

        Raises:
            StoreError: no Redis answers there.
        """
        self._lease_ms = max(1, round(1000 * lease_s))
        self._away_until_s = 0.0
        with self._answering():
            # A question is never sent twice by itself: it may have been understood the first time.
            self._redis = redis.Redis.from_url(
                url,
                socket_timeout=ANSWER_S,
                socket_connect_timeout=ANSWER_S,
                retry=Retry(NoBackoff(), 0),
                decode_responses=True,
            )
            self._redis.ping()
            self._scripts = {
                name: self._redis.register_script(text)
                for name, text in {
                    "reserve": RESERVE, "save": SAVE, "keep": KEEP, "claim": CLAIM, "beat": BEAT,
                    "changes": CHANGES, "remove": REMOVE,
                }.items()
            }  # fmt: skip

    def reserve(
        self, clip: str, row: dict[str, Any], declared_bytes: int, most: int, store_bytes: int
    ) -> tuple[int, int]:
        """Take up a clip that begins to come.

        Returns:
            Its number, and the place of the change.

        Raises:
            AdmissionError: so many clips wait already.
            StorageError: those that wait have so many bytes already.
            StoreError: Redis does not answer.
        """
        told, first, second = self._run(
            "reserve", clip, json.dumps(row), self._lease_ms, most, declared_bytes, store_bytes
        )
        if told == "full":
            raise AdmissionError(f"{counted(first, 'clip')} waiting already; try again later")
        if told == "large":
            raise StorageError("the clips that wait fill the store; try again later")
        return int(first), int(second)

    def save(self, draft: Draft) -> tuple[int, int] | None:
        """Write a clip down, and let it go or keep the lease.

        Returns:
            Its epoch from now on, and the place of the change; None where it was removed.

        Raises:
            OvertakenError: somebody wrote it since.
            StoreError: no answer came; it may be written or not.
        """
        added = [
            text for name, kept in draft.added.items() for text in (_FILE + name, _kept_text(kept))
        ]
        told, *rest = self._run(
            "save",
            draft.id, draft.epoch, draft.state, _number_text(draft.progress),
            json.dumps(draft.row), draft.size_bytes, self._lease_ms if draft.is_leased else 0,
            len(added), *added, *(_FILE + name for name in draft.dropped),
        )  # fmt: skip
        if told == "overtaken":
            raise OvertakenError("another server has written this clip since")
        return None if told == "gone" else (int(rest[0]), int(rest[1]))

    def keep(self, clip: str, name: str, kept: Kept, gone: Kept | None = None) -> Kept | None:
        """Let a file count, unless another one of the same name does.

        Args:
            clip: whose it is.
            name: of the file.
            kept: where it is.
            gone: one that counts no more, since it is not where it was.

        Returns:
            The one that counts; None where the clip was removed.
        """
        told = self._run(
            "keep", clip, _FILE + name, _kept_text(kept), "" if gone is None else _kept_text(gone)
        )
        return None if told is None else _kept_of(told)

    def claim(self, *, is_idle: bool) -> tuple[str, int, int] | None:
        """Give back what servers let go of, and take the clip that waits longest where idle.

        Returns:
            Its name, its epoch from now on, and the place of the change.
        """
        found = self._run("claim", self._lease_ms, int(is_idle))
        return None if found is None else (found[0], int(found[1]), int(found[2]))

    def beat(self, held: Iterable[tuple[str, int, float | None]]) -> set[str]:
        """Say that this server still works on clips; returns those that are no longer its own.

        Args:
            held: names, epochs and shares done.
        """
        words = [
            word for clip, epoch, progress in held for word in (clip, epoch, _number_text(progress))
        ]
        return set(self._run("beat", self._lease_ms, *words)) if words else set()

    def changes(self, seen: int, also: Iterable[str] = ()) -> Changes:
        """What changed since.

        Args:
            seen: the last change that is known.
            also: clips that are wanted whether they changed or not.
        """
        last, count, found = self._run("changes", seen, *also)
        return Changes(int(last), count, [_record_of(*each) for each in found])

    def names(self) -> tuple[set[str], int]:
        """All clips, and the last change at that time."""
        with self._answering():
            asked = self._redis.pipeline()
            asked.zrange(PREFIX + "changed", 0, -1)
            asked.get(PREFIX + "changes")
            names, last = asked.execute()
        return set(names), int(last or 0)

    def remove(self, clip: str) -> None:
        """Forget a clip; its files are to be removed."""
        self._run("remove", clip)

    def to_clear(self) -> set[str]:
        """Clips that are forgotten while their files may still be there."""
        with self._answering():
            return {str(name) for name in self._redis.smembers(PREFIX + "trash")}

    def cleared(self, clip: str) -> None:
        """Note that a forgotten clip's files are gone."""
        with self._answering():
            self._redis.srem(PREFIX + "trash", clip)

    def share(self, name: str) -> str:
        """The name of the place that all files are in: the first one that is ever given."""
        with self._answering():
            self._redis.set(PREFIX + "share", name, nx=True)
            return str(self._redis.get(PREFIX + "share"))

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Be the only one that makes room; yields whether this one is."""
        lock = self._redis.lock(PREFIX + "sweep", timeout=SWEEP_S, sleep=0.02)
        with self._answering():
            is_ours = lock.acquire(blocking_timeout=SWEEP_WAIT_S)
        try:
            yield is_ours
        finally:
            if is_ours:
                # Gone by itself, where this took too long.
                with suppress(LockError), self._answering():
                    lock.release()

    def _run(self, name: str, *words: str | int | float) -> Any:
        with self._answering():
            return self._scripts[name](keys=[PREFIX], args=list(words))

    @contextmanager
    def _answering(self) -> Iterator[None]:
        if time.monotonic() < self._away_until_s:
            raise StoreError("Redis, where clips are written down, does not answer; try again")
        try:
            yield
        except LockError:
            raise
        except (redis.RedisError, OSError, ValueError) as error:
            self._away_until_s = time.monotonic() + AWAY_S
            # The URL may hold a password, so it is not repeated.
            raise StoreError(
                f"clips cannot be written down in Redis ({type(error).__name__}); try again"
            ) from error

    def close(self) -> None:
        """Let go of the sockets."""
        self._redis.close()


def _kept_text(kept: Kept) -> str:
    return f"{kept.size_bytes} {kept.name}"


def _kept_of(text: str) -> Kept:
    size, _, name = text.partition(" ")
    return Kept(name, int(size))


def _number_text(number: float | None) -> str:
    return "" if number is None else repr(number)


def _record_of(clip: str, changed: str, flat: list[str]) -> Record:
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    files = {
        name.removeprefix(_FILE): _kept_of(text)
        for name, text in fields.items()
        if name.startswith(_FILE)
    }
    progress = float(fields["progress"]) if fields["progress"] else None
    return Record(
        clip, int(fields["epoch"]), int(changed), int(fields["number"]), fields["state"], progress,
        json.loads(fields["row"]), files,
    )  # fmt: skip
