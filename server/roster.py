"""Who is here: admission, parking, resuming, and leaving."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from server.engine import Engine
from server.errors import (
    DrainingError,
    EngineDeadError,
    FencedError,
    IdleError,
    ResumeError,
    SlowReaderError,
    SocketGoneError,
)
from server.keys import ApiKey
from server.log import session_name
from server.metrics import Metrics
from server.places import Places
from server.protocol import Drain, Hello, Ready
from server.recording import Recorder
from server.saver import Saver
from server.session import Owner, Session
from server.settings import Settings
from server.snapshots import Keeper

if TYPE_CHECKING:
    from server.tracing import Tracing

logger = logging.getLogger(__name__)

RELEASE_TIMEOUT_S = 15.0
"""How long a resuming client waits for the socket before it to let go; a store may hang twice."""

SURVIVED = (IdleError, SlowReaderError, FencedError, DrainingError, SocketGoneError)
"""Ways to lose a socket that a session outlives."""


class Roster:
    """Every session of this server, live or parked; used from the event loop alone."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        metrics: Metrics,
        keeper: Keeper | None = None,
        recorder: Recorder | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        """Begin empty.

        Args:
            settings: limits.
            engine: whose models the sessions use.
            metrics: counts sessions.
            keeper: of sessions beyond this process, None where a cut ends them.
            recorder: writes down what sessions do, None where nobody does.
            tracing: follows sessions while they have a socket, None where nobody does.
        """
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._saver = Saver(settings, keeper)
        self._recorder = recorder
        self._tracing = tracing
        self._sessions: dict[str, Session] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._released: dict[str, asyncio.Event] = {}
        self._claimed: dict[str, asyncio.Event] = {}
        self._counting: set[asyncio.Task[None]] = set()
        self._places = Places(settings, engine, self._sessions, self._claimed)
        self.is_draining = False
        self.held_elsewhere: Callable[[str], int] = lambda _: 0

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def live(self) -> int:
        """Sessions with a socket."""
        return sum(each.phase == "live" for each in self._sessions.values())

    def holders(self) -> dict[str, int]:
        """Live sessions by the name of their key."""
        named = (each.holder for each in self._sessions.values() if each.phase == "live")
        return dict(Counter(name for name in named if name is not None))

    def share_of(self, name: str) -> float:
        """Which part of a key's live sessions is here, in (0, 1]; a session begins with one."""
        here = max(self.holders().get(name, 0), 1)
        return here / (here + self.held_elsewhere(name))

    @property
    def places(self) -> int:
        """Sessions that would be admitted together, at least one; see Places."""
        return self._places.count

    @asynccontextmanager
    async def admit(self, hello: Hello, owner: Owner) -> AsyncIterator[tuple[Session, bool]]:
        """Open or resume a session; it is parked or freed on every way out.

        Yields:
            The session, and whether an earlier one goes on.

        Raises:
            AdmissionError: full, too slow for one more, or going away.
            EngineDeadError: nothing works here any more.
            ResumeError: nothing to go on with.
            StoreError: whether there is something cannot be found out.
            UnknownModelError: no such model here.
        """
        session = await self._begin(hello, owner)
        resumed = hello.resume is not None
        released = self._released[session.token] = asyncio.Event()
        name = session_name.set(session.name)
        with self._traced(session, resumed):
            self._count("resumed" if resumed else "new")
            logger.info("session begins", extra={"resumed": resumed, "codec": hello.codec})
            try:
                if not resumed:
                    await self._saver.begin(session)
                if self._recorder is not None:
                    await self._recorder.begin(session, self._engine.predictor(hello.model))
                yield session, resumed
            except asyncio.CancelledError:
                await self._park(session, why="cancelled")
                raise
            except SURVIVED as error:
                if isinstance(error, SocketGoneError) and error.is_farewell:
                    await self._end(session)
                else:
                    await self._park(session, why=error.code)
                raise
            except EngineDeadError:
                # Another server can go on from the last snapshot; this one can make no other.
                self._forget(session)
                raise
            except BaseException:
                await self._end(session)
                raise
            else:
                # Who lost the line before the summary came may ask for it once more.
                await self._saver.save(session)
                self._forget(session)
            finally:
                session.owner = None
                released.set()
                session_name.reset(name)
                self._show()

    def _traced(self, session: Session, resumed: bool) -> AbstractContextManager[None]:
        tracing = self._tracing
        return nullcontext() if tracing is None else tracing.session(session, resumed=resumed)

    async def _begin(self, hello: Hello, owner: Owner) -> Session:
        """Open or claim a session, and give it its owner."""
        if self.is_draining:
            raise DrainingError("this server is going away; try another one")
        if not self._engine.is_alive:
            raise EngineDeadError("the server's network no longer answers; try another server")
        if hello.resume not in self._sessions:
            # What went elsewhere takes no place of one that comes.
            await self.release_moved()
        if hello.resume is None:
            session = self._open(hello, owner.key)
        else:
            session = await self._claim(hello, hello.resume, _name(owner.key))
        session.owner = owner
        session.phase = "live"
        if self.is_draining:
            # It began to, while the session was looked for.
            owner.drain()
        return session

    def _open(self, hello: Hello, key: ApiKey | None) -> Session:
        self._places.check_quota(key, self.held_elsewhere(key.name) if key else 0)
        self._places.check_rate(hello.fps)
        session = Session(hello, self._engine.predictor(hello.model))
        # Nobody makes room for one who is refused for another reason.
        self._make_room(session.token)
        session.holder = _name(key)
        self._sessions[session.token] = session
        return session

    def _make_room(self, token: str) -> None:
        """Let go of the session parked longest where there are too many; the store keeps it.

        Raises:
            AdmissionError: all are live.
        """
        parked = self._places.in_the_way(token)
        if parked is not None:
            self._forget(parked)

    async def _claim(self, hello: Hello, token: str, holder: str | None) -> Session:
        """Take over a session: from this process, a socket that still lives, or the store."""
        while token in self._claimed:  # the newest socket wins
            await _wait_for(self._claimed[token])
        claimed = self._claimed[token] = asyncio.Event()
        try:
            here = await self._claim_here(hello, token, holder)
            if here is None:
                # Asked first: a session that is refused stays with the server that has it.
                self._places.in_the_way(token)

            def check(restored: Session) -> None:
                _check_fit(restored, hello, holder)
                if here is None:
                    self._places.in_the_way(token)

            predictor = self._engine.predictor(hello.model)
            stored = await self._saver.claim(token, here, predictor, check)
            if here is None:
                self._make_room(token)
            elif stored is not here:
                self._forget(here)
        finally:
            del self._claimed[token]
            claimed.set()
        self._stop_timer(token)
        self._sessions[token] = stored
        stored.resume(hello)
        return stored

    async def _claim_here(self, hello: Hello, token: str, holder: str | None) -> Session | None:
        """The session in this process's memory, its socket gone; None where it is not here."""
        session = self._sessions.get(token)
        if session is None:
            return None
        _check_fit(session, hello, holder)
        if session.owner is not None:
            session.owner.fence()
            await _wait_for(self._released[token])
        return self._sessions.get(token)

    async def _park(self, session: Session, why: str) -> None:
        """Keep a session without a socket for a while; the longest parked stands first."""
        if self._settings.resume_s == 0:
            await self._end(session)
            return
        session.phase = "parked"
        if self._is_here(session):
            self._sessions[session.token] = self._sessions.pop(session.token)
        self._show()
        is_ours = await self._saver.save(session)
        if not (is_ours and self._is_here(session)):
            # Another process goes on with it, or it had to make room meanwhile.
            self._forget(session)
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._settings.resume_s, self._expire, session)
        self._timers[session.token] = timer
        logger.info("session parked", extra={"why": why, "results": session.results})

    def _expire(self, session: Session) -> None:
        """Let go of a parked session that nobody came back for."""
        self._forget(session)
        task = asyncio.create_task(self._count_unless_moved(session))
        self._counting.add(task)
        task.add_done_callback(self._counting.discard)

    async def _count_unless_moved(self, session: Session) -> None:
        if not await self._saver.find_moved([session]):
            self._count_end(session)

    def count_ef(self, session: Session) -> None:
        """Count the EF that a session ended with; one that saw no frame has none to tell."""
        if session.results:
            self._metrics.count_ef(session.ef.state, session.ef.reasons)

    def _count_end(self, session: Session) -> None:
        """Count the EF of a session that ends without a summary."""
        if not session.is_over:
            self.count_ef(session)

    async def _end(self, session: Session) -> None:
        """End a session for good, in the store too."""
        self._count_end(session)
        self._forget(session)
        await self._saver.end(session)

    def _forget(self, session: Session) -> None:
        """Free all that a session holds here; what the store has of it stays there."""
        if session.witness is not None:
            session.witness.close()
            session.witness = None
        if not self._is_here(session):
            # It was let go of before, and may be here anew, from the store.
            return
        self._stop_timer(session.token)
        del self._sessions[session.token]
        self._released.pop(session.token, None)
        facts = {"session": session.name, "results": session.results, "dropped": session.dropped}
        logger.info("session ends", extra=facts)
        self._show()

    async def release_moved(self) -> None:
        """Let go of the sessions that other servers took up."""
        held = [each for each in self._sessions.values() if each.token not in self._claimed]
        for each in await self._saver.find_moved(held):
            if each.owner is None:
                self._forget(each)

    def _is_here(self, session: Session) -> bool:
        return self._sessions.get(session.token) is session

    def _stop_timer(self, token: str) -> None:
        timer = self._timers.pop(token, None)
        if timer is not None:
            timer.cancel()

    def _count(self, start: str) -> None:
        self._metrics.sessions_opened.labels(start).inc()
        self._show()

    def _show(self) -> None:
        for phase in ("live", "parked"):
            count = sum(each.phase == phase for each in self._sessions.values())
            self._metrics.sessions.labels(phase).set(count)

    async def checkpoint(self, session: Session) -> None:
        """Take a snapshot between two frames, where one is due."""
        await self._saver.checkpoint(session)

    def ready(self, session: Session, is_resumed: bool) -> Ready:
        """The answer to hello."""
        limits = self._settings
        return session.ready(limits.inbox_frames, limits.resume_s, resumed=is_resumed)

    async def drain_message(self, session: Session) -> Drain:
        """What a session is told when the server goes away, once others can go on with it."""
        await self._saver.save(session)
        return Drain(
            resume=session.token,
            resume_within_s=self._settings.resume_s,
            last_seq=session.last_seq,
        )

    async def drain(self) -> None:
        """Admit nobody more, and ask every live session's socket to leave."""
        self.is_draining = True
        waits = []
        for each in self._sessions.values():
            if each.owner is not None:
                each.owner.drain()
                waits.append(self._released[each.token].wait())
        try:
            await asyncio.wait_for(asyncio.gather(*waits), self._settings.drain_s)
        except TimeoutError:
            logger.warning("sessions did not leave in time")

    def close(self) -> None:
        """Free every session; what is kept of them elsewhere stays."""
        for session in list(self._sessions.values()):
            self._forget(session)

    def listing(self) -> list[dict[str, Any]]:
        """What an operator may know of the sessions."""
        return [each.listing() for each in self._sessions.values()]


def _name(key: ApiKey | None) -> str | None:
    return None if key is None else key.name


async def _wait_for(released: asyncio.Event) -> None:
    """Wait until the socket before this one lets go of a session.

    Raises:
        ResumeError: it does not.
    """
    try:
        await asyncio.wait_for(released.wait(), RELEASE_TIMEOUT_S)
    except TimeoutError as error:
        raise ResumeError("the session's other socket does not let go") from error


def _check_fit(session: Session, hello: Hello, holder: str | None) -> None:
    """Refuse to go on with frames of another kind, or for another key.

    Raises:
        ResumeError: hello describes such, or it came with such.
    """
    if session.holder != holder:
        raise ResumeError("no session of this token is kept here; begin a new one")
    if not session.fits(hello):
        raise ResumeError("hello describes other frames than the session that it resumes")
