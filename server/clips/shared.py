"""Clips that several servers keep together: records in Redis, files where all of them see them.

What is in memory mirrors the records, and the folder has copies of the files that are needed here.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from model import EchoError
from server.clips.depot import Depot, Kept
from server.clips.job import RESULT, UPLOAD, Job
from server.clips.ledger import OvertakenError, Take
from server.clips.mirror import Entry, Mirror, row_of
from server.clips.records import Draft, Records
from server.clips.room import Room, remove
from server.errors import SettingsError, StoreError
from server.settings import Settings

logger = logging.getLogger(__name__)

FORMAT = "1"
"""Of what is written down; servers that write another one are not to meet."""

PULSE_S = 0.2
"""Between two looks at what other servers did."""

IDLE_S = 600.0
"""How long copies of a clip's files stay here that nobody asks for."""


class SharedLedger:
    """One server's part in it; see Ledger."""

    is_remote = True

    def __init__(self, settings: Settings, place: str) -> None:
        """Look at what there is.

        Raises:
            SettingsError: the place cannot be used, or is not the one that others use.
            StoreError: no Redis answers.
        """
        self._settings = settings
        self._depot = Depot(place)
        self._records = Records(settings.snapshot_store, settings.clip_lease_s)
        check_share(self._depot, self._records)
        self.room = Room.passing(settings.clip_dir)
        self._mirror = Mirror(self._records, self.room.folder)
        self.jobs = self._mirror.jobs
        self._working: Job | None = None
        self._is_leaving = False
        self._woken, self._closing = threading.Event(), threading.Event()
        self._take: Take | None = None
        self._thread = threading.Thread(target=self._pulse, name="clip-pulse", daemon=True)
        self.refresh()

    def start(self, take: Take, ended: Take) -> None:
        """Begin to hand out clips that wait; see Ledger."""
        self._take, self._mirror.ended = take, ended
        self._thread.start()

    def _pulse(self) -> None:
        is_away = False
        while not self._closing.is_set():
            try:
                self._beat()
                self._claim()
                self.refresh()
                is_away = False
            except StoreError as error:
                if not is_away:
                    logger.error("clips wait for what they are kept in", extra={"why": error.code})
                is_away = True
            except Exception:
                logger.exception("clips of other servers could not be followed")
            self._woken.wait(PULSE_S)
            self._woken.clear()

    def _beat(self) -> None:
        with self._mirror.guard:
            held = [entry for entry in self._mirror.entries.values() if entry.is_leased]
            known = [
                (entry.job.id, entry.epoch, entry.job.progress)
                for entry in held
                if entry.changed is not None
            ]
        for name in self._records.beat(known):
            entry = self._entry(name)
            if entry is not None and entry.is_leased:
                entry.is_lost = True

    def _claim(self) -> None:
        is_idle = self._working is None and not self._is_leaving
        claimed = self._records.claim(is_idle=is_idle)
        if claimed is None:
            return
        name, epoch, changed = claimed
        self.refresh()
        with self._mirror.guard:
            entry = self._entry(name)
            if entry is None:
                return
            if changed > (entry.changed or 0):  # it came in here, and is still held for that
                entry.epoch, entry.changed = epoch, changed
            entry.is_leased, entry.is_lost = True, False
            entry.holds += 1
            entry.job.folder.mkdir(mode=0o700, exist_ok=True)
            self._working = entry.job
        assert self._take is not None
        self._take(entry.job)

    def _entry(self, name: str) -> Entry | None:
        return self._mirror.entries.get(name)

    def refresh(self) -> None:
        """Bring `jobs` up to date; see Ledger."""
        self._mirror.refresh()

    def reserve(self, job: Job, declared_bytes: int) -> None:
        """Take up a clip that begins to come; see Ledger."""
        self._depot.check(declared_bytes)
        entry = self._mirror.arrive(job)
        try:
            job.number, entry.changed = self._records.reserve(
                job.id, row_of(job), declared_bytes,
                self._settings.max_clips, self._settings.clip_store_bytes,
            )  # fmt: skip
        except EchoError:
            self._mirror.forget(job)
            raise

    def add(self, job: Job) -> None:
        """Keep the upload, and write the clip down; see Ledger."""
        kept = self._depot.put(job.id, job.upload)
        job.size_bytes = kept.size_bytes
        self._write(job, {UPLOAD: kept}, is_leased=True)

    def queue(self, job: Job) -> None:
        """Let somebody work on it."""
        self._write(job, {}, is_leased=False)
        entry = self._entry(job.id)
        if entry is not None and entry.is_arriving:
            entry.is_arriving = False
            self._mirror.let_go(entry)
        self._woken.set()

    def save(self, job: Job) -> None:
        """Write down how a clip is now, and keep its result; see Ledger."""
        entry, added = self._entry(job.id), {}
        path = job.file(RESULT)
        if entry is not None and job.state == "done" and path.name not in entry.files:
            added[path.name] = self._depot.put(job.id, path)
        self._write(job, added, is_leased=job.state == "running")

    def _write(self, job: Job, added: dict[str, Kept], *, is_leased: bool) -> None:
        entry = self._entry(job.id)
        told = None
        if entry is not None:
            files = entry.files | added
            gone = [name for name in files if job.state == "failed" or job.is_old(name)]
            size = sum(kept.size_bytes for name, kept in files.items() if name not in gone)
            draft = Draft(
                job.id, entry.epoch, job.state, job.progress, row_of(job), size, is_leased,
                added, gone,
            )  # fmt: skip
            try:
                told = self._records.save(draft)
            except OvertakenError:
                self._discard(job, added.values())
                raise
        if entry is None or told is None:
            job.is_deleted = True
            self._clear(job)
            return
        with self._mirror.guard:
            # A clip that is let go may be taken again, here too, before this is noted.
            if told[1] > (entry.changed or 0):
                entry.epoch, entry.changed = told
                entry.is_leased, entry.is_lost = is_leased, False
            entry.copies |= added
            entry.files = {name: kept for name, kept in files.items() if name not in gone}
        job.size_bytes = size
        if job.state == "failed":
            self._clear(job)
        else:
            self._discard(job, [files[name] for name in gone])

    def _discard(self, job: Job, files: Iterable[Kept]) -> None:
        # What stays behind goes with the clip.
        with suppress(StoreError):
            for kept in files:
                self._depot.drop(job.id, kept)

    def _clear(self, job: Job) -> None:
        with suppress(StoreError):
            self._depot.clear(job.id)
            self._records.cleared(job.id)

    def keep(self, job: Job, name: str) -> None:
        """Keep a file that was made in its folder; see Ledger."""
        kept = self._depot.put(job.id, job.folder / name)
        winner = self._records.keep(job.id, name, kept)
        entry = self._entry(job.id)
        if entry is not None and winner is not None and winner != kept:
            entry.files[name] = winner
            if self.fetch(job, name):
                self._discard(job, [kept])
                return
            # The one that counts is gone from the place, and this one takes its part.
            winner = self._records.keep(job.id, name, kept, gone=winner)
        if entry is None or winner is None:
            job.is_deleted = True
            self._clear(job)
            return
        with self._mirror.guard:
            entry.files[name], entry.copies[name] = winner, kept
        if winner != kept:
            self._discard(job, [kept])

    def fetch(self, job: Job, name: str) -> bool:
        """See that one of its files is in its folder; see Ledger."""
        entry = self._entry(job.id)
        kept = None if entry is None else entry.files.get(name)
        if entry is None or kept is None:
            return False
        path = job.folder / name
        if entry.copies.get(name) != kept or not path.exists():
            try:
                self._depot.get(job.id, kept, path)
            except FileNotFoundError:
                self.refresh()
                return False
            entry.copies[name] = kept
        with suppress(FileNotFoundError):
            os.utime(job.folder)
        return True

    def is_ours(self, job: Job) -> bool:
        """Whether another server has not taken it over."""
        entry = self._entry(job.id)
        return entry is None or not entry.is_lost

    def changing(self, job: Job) -> AbstractContextManager[None]:
        """Leave a clip in memory as it is while it is being changed here."""
        return self._mirror.changing(job)

    def release(self, job: Job) -> None:
        """Let a clip go that was taken, or that began to come; see Ledger."""
        with self._mirror.guard:
            entry = self._entry(job.id)
            if self._working is job:
                self._working = None
            elif entry is None or not entry.is_arriving:
                return
            if entry is not None and entry.job is job:
                entry.is_arriving = entry.is_leased = entry.is_lost = False
                self._mirror.let_go(entry)
        self._woken.set()

    def abandon(self, job: Job) -> None:
        """See it as others left it; see Ledger."""
        self._mirror.distrust(job)

    def remove(self, job: Job) -> None:
        """Forget a clip and its files."""
        self._records.remove(job.id)
        entry = self._entry(job.id)
        if entry is not None:
            self._mirror.drop(entry)
        self._clear(job)
        remove(job.folder)

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Be the only server that makes room; see Ledger."""
        self._forget_copies()
        with self._records.sweeping() as is_ours:
            if is_ours:
                self.refresh()
                for name in self._records.to_clear():
                    with suppress(StoreError):
                        self._depot.clear(name)
                        self._records.cleared(name)
            yield is_ours

    def _forget_copies(self) -> None:
        until_s = time.time() - IDLE_S
        for entry in list(self._mirror.entries.values()):
            with self._mirror.guard, suppress(FileNotFoundError):
                if not entry.holds and entry.job.folder.stat().st_mtime < until_s:
                    entry.copies.clear()
                    remove(entry.job.folder)

    def leave(self) -> None:
        """Take nothing more."""
        self._is_leaving = True

    def close(self) -> None:
        """Give back what this server holds, and remove its copies."""
        self._closing.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()
        for entry in [each for each in self._mirror.entries.values() if each.is_leased]:
            with suppress(EchoError):
                if entry.job.state == "received":
                    self.remove(entry.job)
                else:
                    entry.job.state, entry.job.progress = "queued", None
                    self.queue(entry.job)
        self._records.close()
        self.room.close()


def check_share(depot: Depot, records: Records) -> None:
    """See that the place is the one that all servers of one Redis keep files in.

    Raises:
        SettingsError: it is another one.
        StoreError: it cannot be reached, or Redis cannot.
    """
    ours = f"{FORMAT}-{secrets.token_hex(8)}"
    # The mark first: once Redis names a place, its mark is there.
    depot.mark(ours)
    name = records.share(ours)
    if name != ours:
        depot.unmark(ours)
    if name.partition("-")[0] != FORMAT:
        raise SettingsError("clips in this Redis are written down by another version of the server")
    if not depot.is_marked(name):
        raise SettingsError(
            "other servers of this Redis keep their clips in another place: GDKVM_CLIP_SHARE must "
            "lead all of them to one, or GDKVM_SNAPSHOT_STORE to another database"
        )
    depot.expect(name)
