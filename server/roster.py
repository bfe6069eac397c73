"""Who is here: admission, parking, resuming, and leaving."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from server.engine import Engine
from server.errors import (
    AdmissionError,
    DrainingError,
    FencedError,
    IdleError,
    ResumeError,
    SlowReaderError,
    SocketGoneError,
)
from server.log import session_name
from server.metrics import Metrics
from server.protocol import Drain, Hello, Ready
from server.session import Owner, Session
from server.settings import Settings

logger = logging.getLogger(__name__)

RELEASE_TIMEOUT_S = 10.0
"""How long a resuming client waits for the socket before it to let go."""

SURVIVED = (IdleError, SlowReaderError, FencedError, DrainingError, SocketGoneError)
"""Ways to lose a socket that a session outlives."""


class Roster:
    """Every session of this server, live or parked; used from the event loop alone."""

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics) -> None:
        self._settings = settings
        self._engine = engine
        self._metrics = metrics
        self._sessions: dict[str, Session] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._released: dict[str, asyncio.Event] = {}
        self.is_draining = False

    def __len__(self) -> int:
        return len(self._sessions)

    @asynccontextmanager
    async def admit(self, hello: Hello, owner: Owner) -> AsyncIterator[tuple[Session, bool]]:
        """Open or resume a session; it is parked or freed on every way out.

        Yields:
            The session, and whether an earlier one goes on.

        Raises:
            AdmissionError: full, too slow for one more, or going away.
            ResumeError: nothing to go on with.
            UnknownModelError: no such model here.
        """
        if self.is_draining:
            raise DrainingError("this server is going away; try another one")
        session = await self._claim(hello) if hello.resume else self._open(hello)
        resumed = hello.resume is not None
        session.owner = owner
        session.phase = "live"
        released = self._released[session.token] = asyncio.Event()
        name = session_name.set(session.name)
        self._count("resumed" if resumed else "new")
        logger.info("session begins", extra={"resumed": resumed, "codec": hello.codec})
        try:
            yield session, resumed
        except asyncio.CancelledError:
            self._park(session, why="cancelled")
            raise
        except SURVIVED as error:
            if isinstance(error, SocketGoneError) and error.is_farewell:
                self._end(session)
            else:
                self._park(session, why=error.code)
            raise
        except BaseException:
            self._end(session)
            raise
        else:
            self._end(session)
        finally:
            session.owner = None
            released.set()
            session_name.reset(name)
            self._show()

    def _open(self, hello: Hello) -> Session:
        self._make_room()
        self._engine.check_rate(hello.fps, self._held_fps())
        session = Session(hello, self._engine.predictor(hello.model))
        self._sessions[session.token] = session
        return session

    def _make_room(self) -> None:
        """Free the session parked longest where there are too many.

        Raises:
            AdmissionError: all are live.
        """
        if len(self._sessions) < self._settings.max_sessions:
            return
        parked = next((each for each in self._sessions.values() if each.phase == "parked"), None)
        if parked is None:
            raise AdmissionError(
                f"this server takes {self._settings.max_sessions} sessions and has as many"
            )
        self._end(parked)

    def _held_fps(self) -> float:
        """Frames a second that the live sessions declared, together."""
        live = [each for each in self._sessions.values() if each.phase == "live"]
        return sum(each.hello.fps or 0.0 for each in live)

    async def _claim(self, hello: Hello) -> Session:
        """Take over a session, from a socket that still lives if need be."""
        token = hello.resume or ""
        session = self._sessions.get(token)
        if session is None:
            raise ResumeError("no session of this token is kept here; begin a new one")
        if not session.fits(hello):
            raise ResumeError("hello describes other frames than the session that it resumes")
        if session.owner is not None:
            session.owner.fence()
            try:
                await asyncio.wait_for(self._released[token].wait(), RELEASE_TIMEOUT_S)
            except TimeoutError as error:
                raise ResumeError("the session's other socket does not let go") from error
        if token not in self._sessions or session.owner is not None:
            raise ResumeError("another socket was faster to resume this session")
        self._stop_timer(token)
        session.resume(hello)
        return session

    def _park(self, session: Session, why: str) -> None:
        """Keep a session without a socket for a while; the longest parked stands first."""
        if self._settings.resume_s == 0:
            self._end(session)
            return
        session.phase = "parked"
        self._sessions.pop(session.token)
        self._sessions[session.token] = session
        loop = asyncio.get_running_loop()
        timer = loop.call_later(self._settings.resume_s, self._end, session)
        self._timers[session.token] = timer
        logger.info("session parked", extra={"why": why, "results": session.results})

    def _end(self, session: Session) -> None:
        """Free all that a session holds."""
        self._stop_timer(session.token)
        self._sessions.pop(session.token, None)
        self._released.pop(session.token, None)
        facts = {"session": session.name, "results": session.results, "dropped": session.dropped}
        logger.info("session ends", extra=facts)
        self._show()

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

    def ready(self, session: Session, is_resumed: bool) -> Ready:
        """The answer to hello."""
        limits = self._settings
        return session.ready(limits.inbox_frames, limits.resume_s, resumed=is_resumed)

    def drain_message(self, session: Session) -> Drain:
        """What a session is told when the server goes away."""
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
        if waits:
            try:
                await asyncio.wait_for(asyncio.gather(*waits), self._settings.drain_s)
            except TimeoutError:
                logger.warning("sessions did not leave in time")

    def close(self) -> None:
        """Free every session."""
        for session in list(self._sessions.values()):
            self._end(session)

    def listing(self) -> list[dict[str, Any]]:
        """What an operator may know of the sessions: no token, nothing of a patient."""
        now_s = time.time()
        return [
            {
                "session": each.name,
                "phase": each.phase,
                "age_s": round(now_s - each.opened_s, 1),
                "codec": each.hello.codec,
                "policy": each.hello.policy,
                "model": each.model.name,
                "results": each.results,
                "dropped": each.dropped,
            }
            for each in self._sessions.values()
        ]
