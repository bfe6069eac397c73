"""Snapshots of sessions: when they are taken, who may write them, and how one goes on from them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from model import Predictor
from server.errors import ResumeError, StoreError
from server.session import Session
from server.settings import Settings
from server.snapshots import Found, Keeper

logger = logging.getLogger(__name__)

T = TypeVar("T")

THREADS = 2
"""Snapshots made or read at once; each takes a processor for a millisecond."""


class Saver:
    """Keeps this server's sessions beyond its process; used from the event loop alone.

    Where the store fails, a session goes on without it: its socket is no worse off.
    """

    def __init__(self, settings: Settings, keeper: Keeper | None) -> None:
        """Begin.

        Args:
            settings: how often and how long.
            keeper: of snapshots, None where a cut ends a session.
        """
        self._settings = settings
        self._keeper = keeper
        self._writes: dict[str, asyncio.Task[bool]] = {}
        # Of its own: uploads may keep the threads that all share for seconds.
        self._threads = ThreadPoolExecutor(THREADS, "sessions")

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    @property
    def _live_ttl_s(self) -> float:
        """How long a snapshot of a live session is kept: it may be silent before it is cut."""
        return self._settings.resume_s + self._settings.idle_timeout_s

    async def begin(self, session: Session) -> None:
        """Give a new session its lease, and store it: a token that was told can be resumed."""
        if self._keeper is not None:
            session.lease = self._keeper.first_lease(session.token)
            await self.save(session)

    async def claim(
        self,
        token: str,
        here: Session | None,
        predictor: Predictor,
        check: Callable[[Session], None],
    ) -> Session:
        """Take over a session; where that is refused, whoever has it goes on with it.

        Args:
            token: of the session.
            here: what this process has in memory of it.
            predictor: goes on with it, where it must be restored.
            check: raises where what was restored is not to be gone on with.

        Returns:
            What is here where nobody else has had it since, else what the store holds.

        Raises:
            ResumeError: nothing is kept, or it has ended, or cannot be read.
            StoreError: whether something is kept cannot be found out.
        """
        seen = await self._ask(here, lambda keeper: keeper.look(token))
        if seen is None:
            return _only(here)
        session = here if here is not None and here.lease == seen[0] else None
        is_ours = session is not None
        if session is None:
            session = await self._restore(seen[1], predictor, token, check)
        held = await self._ask(
            here if is_ours else None, lambda keeper: keeper.claim(token, self._live_ttl_s)
        )
        if held is None:
            return _only(here)
        lease, blob = held
        if lease.epoch != seen[0].epoch + 1 or not (is_ours or blob == seen[1]):
            # Somebody had it, or stored more of it, while it was looked at.
            session = await self._restore(blob, predictor, token, check)
        session.lease = lease
        return session

    async def _restore(
        self,
        blob: bytes | None,
        predictor: Predictor,
        token: str,
        check: Callable[[Session], None],
    ) -> Session:
        if blob is None:
            raise ResumeError("this session has ended; begin a new one")
        restored = await self._run(partial(Session.restore, blob, predictor, token))
        check(restored)
        return restored

    async def _ask(
        self, here: Session | None, ask: Callable[[Keeper], Awaitable[Found | None]]
    ) -> Found | None:
        if self._keeper is None:
            return None
        try:
            return await ask(self._keeper)
        except StoreError as error:
            if here is None:
                raise
            logger.error("a session goes on without its store", extra={"why": error.message})
            return None

    async def checkpoint(self, session: Session) -> None:
        """Take a snapshot between two frames where one is due; it is written while frames go on."""
        due = self._settings.checkpoint_frames
        if session.lease is None or not 0 < due <= session.unsaved:
            return
        if session.token in self._writes:
            return
        seq, blob = session.last_seq, await self._run(session.snapshot)
        if blob is None:
            return
        task = asyncio.create_task(self._write(session, seq, blob))
        self._writes[session.token] = task
        task.add_done_callback(lambda _: self._writes.pop(session.token, None))

    async def _write(self, session: Session, seq: int | None, blob: bytes) -> bool:
        """Store a snapshot.

        Returns:
            False where another process has taken the session over.
        """
        assert self._keeper is not None
        assert session.lease is not None
        try:
            is_ours = await self._keeper.save(session.lease, blob, self._live_ttl_s)
        except StoreError as error:
            logger.error("a snapshot could not be stored", extra={"why": error.message})
            return True
        if is_ours:
            session.saved_seq = seq
        else:
            self._note_moved(session)
        return is_ours

    async def save(self, session: Session) -> bool:
        """Take and store a snapshot, and wait for it; see ``_write``."""
        if session.token in self._writes:
            await asyncio.wait([self._writes[session.token]])
        if session.lease is None:
            return True
        if session.is_saved:
            return not await self.find_moved([session])
        seq, blob = session.last_seq, await self._run(session.snapshot)
        if blob is None:
            logger.warning("too much video since a key frame to keep a session elsewhere")
            return True
        return await self._write(session, seq, blob)

    async def find_moved(self, sessions: Iterable[Session]) -> list[Session]:
        """Those sessions of this server that another one has taken up since; their sockets end."""
        leases = {each.lease: each for each in sessions if each.lease is not None}
        if self._keeper is None or not leases:
            return []
        try:
            moved = [leases[lease] for lease in await self._keeper.find_moved(list(leases))]
        except StoreError as error:
            logger.error("sessions could not be looked up", extra={"why": error.message})
            return []
        for each in moved:
            self._note_moved(each)
        return moved

    @staticmethod
    def _note_moved(session: Session) -> None:
        session.has_moved = True
        if session.owner is not None:
            session.owner.fence()

    async def end(self, session: Session) -> None:
        """Say in the store that a session has ended: nobody goes on with it."""
        if self._keeper is None or session.lease is None:
            return
        try:
            await self._keeper.save(session.lease, None, self._live_ttl_s)
        except StoreError as error:
            logger.error("the end of a session could not be stored", extra={"why": error.message})


def _only(here: Session | None) -> Session:
    """What is in memory of a session, where the store has nothing of it."""
    if here is None:
        raise ResumeError("no session of this token is kept here; begin a new one")
    return here
