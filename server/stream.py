"""One live socket: a bounded inbox, and the loop that answers every frame once and in order."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from model import EchoError
from server.answers import Answer
from server.engine import Engine
from server.errors import (
    AdmissionError,
    CreditError,
    DrainingError,
    FencedError,
    HelloExpectedError,
    IdleError,
    MalformedMessageError,
    MessageTooBigError,
    SlowReaderError,
    SocketGoneError,
    WireCodes,
)
from server.keys import KEY_SLOT, ApiKey
from server.metrics import STAGES, Metrics
from server.payload import PREDICTED
from server.protocol import (
    SUBPROTOCOL,
    Bye,
    ErrorMessage,
    FrameHeader,
    Hello,
    Policy,
    parse_frame,
    parse_message,
)
from server.roster import Roster
from server.session import Arrival, Packet, Session
from server.settings import Settings

PARTING_S = 1.0
"""How long it may take to hear how a client left that is no longer there."""

MOST_NOTES = 1024
"""Replaced and repeated frames that may wait for their answer; then the socket is not read."""

MOST_PACKETS = 64
"""The same of video, of which replaced frames are kept until they are decoded."""


@dataclass(frozen=True, slots=True)
class Note:
    """A frame that is answered without being looked at."""

    header: FrameHeader
    is_repeated: bool
    packet: Packet = None


Item = Arrival | Note | Bye


class FrameSocket:
    """A client's websocket as frames in and messages out."""

    def __init__(self, websocket: WebSocket, settings: Settings, metrics: Metrics) -> None:
        self.key: ApiKey | None = websocket.scope.get(KEY_SLOT)
        self._websocket = websocket
        self._settings = settings
        self._metrics = metrics
        self._inbox: deque[Item] = deque()
        self._stop: EchoError | None = None
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._unanswered = 0
        self._newest_seq = -1
        self._reader: asyncio.Task[None] | None = None

    async def hello(self) -> Hello:
        """Accept the connection and wait for the first message.

        Raises:
            ProtocolError: it is not hello.
            SocketGoneError: the client left.
        """
        offered = self._websocket.scope["subprotocols"]
        try:
            await self._websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        except (OSError, RuntimeError) as error:
            raise SocketGoneError() from error
        message = await self._receive()
        if not isinstance(message, str):
            raise HelloExpectedError("the first message must be hello, got a frame")
        hello = parse_message(message)
        if not isinstance(hello, Hello):
            raise HelloExpectedError("the first message must be hello, got bye")
        return hello

    async def frames(self, session: Session) -> AsyncIterator[Arrival | Note]:
        """Iterate over frames until the client says bye.

        Raises:
            EchoError: the socket cannot go on.
        """
        self._newest_seq = -1 if session.last_seq is None else session.last_seq
        self._reader = asyncio.create_task(self._read(session.hello))
        while True:
            await self._wake.wait()
            if self._stop is not None:
                raise self._stop
            item = self._inbox.popleft()
            self._has_room.set()
            if not self._inbox:
                self._wake.clear()
            if isinstance(item, Bye):
                return
            yield item

    async def send(self, messages: Iterable[str]) -> None:
        """Write messages; a client that does not read makes this fail.

        Raises:
            SlowReaderError: they could not be written in time.
            SocketGoneError: the client left.
        """
        try:
            async with asyncio.timeout(self._settings.send_timeout_s):
                for message in messages:
                    await self._websocket.send_text(message)
        except TimeoutError as error:
            limit_s = self._settings.send_timeout_s
            raise SlowReaderError(f"answers were not read for {limit_s:g} s") from error
        except (WebSocketDisconnect, RuntimeError) as error:
            if self._reader is not None:
                # It hears how the client left, later where its key makes it slow.
                await asyncio.wait([self._reader], timeout=PARTING_S)
            if isinstance(self._stop, SocketGoneError):
                raise self._stop from error
            raise SocketGoneError() from error

    async def answer(self, answer: Answer, received_s: float | None = None) -> None:
        """Send what answers one frame, and count it."""
        self._unanswered -= 1
        await self.send(answer.messages)
        self._metrics.answers[answer.kind].inc()
        if answer.reason is not None:
            self._metrics.drops.labels(answer.reason).inc()
        if answer.stages is not None and received_s is not None:
            for stage in STAGES[:-1]:
                self._metrics.observe_stage(stage, getattr(answer.stages, stage))
            self._metrics.observe_stage("total", time.perf_counter() - received_s)

    def frame_under_way(self) -> AbstractContextManager[None]:
        """Let operators see how old a frame is while it is worked on."""
        return self._metrics.frame_under_way()

    def fence(self) -> None:
        """Stop after the present frame: another socket goes on."""
        self._halt(FencedError("another socket resumed this session"))

    def drain(self) -> None:
        """Stop after the present frame: the server is going away."""
        self._halt(DrainingError("this server is going away; resume elsewhere"))

    def _halt(self, cause: EchoError) -> None:
        self._stop = self._stop or cause
        self._wake.set()

    async def close(self, code: int = 1000) -> None:
        """Close the socket, if it is still open, and stop reading it."""
        await self.stop_reading()
        if self._websocket.application_state is WebSocketState.CONNECTED:
            try:
                async with asyncio.timeout(self._settings.send_timeout_s):
                    await self._websocket.close(code)
            except (TimeoutError, WebSocketDisconnect, RuntimeError):
                return

    async def stop_reading(self) -> None:
        """End the reader on every way out."""
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader])

    async def refuse(self, error: EchoError) -> None:
        """Say why the session ends, and close with the code that belongs to it."""
        message = ErrorMessage(
            code=error.code,
            message=error.message,
            retryable=error.retryable,
            retry_after_s=error.retry_after_s if isinstance(error, AdmissionError) else None,
        )
        try:
            await self.send([message.to_json()])
        except (SlowReaderError, SocketGoneError):
            return
        await self.close(WireCodes.close_code(error))

    async def _read(self, hello: Hello) -> None:
        """Fill the inbox until the socket ends or breaks the protocol."""
        most = MOST_PACKETS if hello.codec in PREDICTED else MOST_NOTES
        try:
            while True:
                self._put(await self._receive(), hello.policy)
                if len(self._inbox) > most:
                    self._has_room.clear()
                    await self._has_room.wait()
        except EchoError as error:
            self._halt(error)

    async def _receive(self) -> str | bytes:
        """Wait for one message.

        Raises:
            IdleError: none came in time.
            SocketGoneError: the client left.
            MessageTooBigError: it is above the limit.
        """
        limit_s = self._settings.idle_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                event = await self._websocket.receive()
        except TimeoutError as error:
            raise IdleError(f"nothing came for {limit_s:g} s") from error
        except RuntimeError as error:
            raise SocketGoneError() from error
        if event["type"] == "websocket.disconnect":
            raise SocketGoneError(event.get("code"))
        message: str | bytes = event["bytes"] if event.get("bytes") is not None else event["text"]
        if len(message) > self._settings.frame_max_bytes:
            limit = self._settings.frame_max_bytes
            raise MessageTooBigError(f"a message has {len(message)} bytes, {limit} are allowed")
        return message

    def _put(self, message: str | bytes, policy: Policy) -> None:
        """Put one message into the inbox.

        Raises:
            ProtocolError: it is not one that may come now.
        """
        if isinstance(message, str):
            if isinstance(parse_message(message), Hello):
                raise HelloExpectedError("hello comes once, this is the second")
            self._add(Bye())
            return
        if self._inbox and isinstance(self._inbox[-1], Bye):
            raise MalformedMessageError("no frame may follow bye")
        received_s = time.perf_counter()
        header, payload = parse_frame(message)
        self._unanswered += 1
        if policy == "every" and self._unanswered > self._settings.inbox_frames:
            raise CreditError(
                f"{self._unanswered} frames are unanswered, {self._settings.inbox_frames} may be"
            )
        if header.seq <= self._newest_seq:
            self._add(Note(header, is_repeated=True))
            return
        self._newest_seq = header.seq
        if policy == "latest":
            self._replace_waiting()
        self._add(Arrival(header, payload, received_s))

    def _replace_waiting(self) -> None:
        """Let go of the frame that waits, if one does; its answer keeps its place."""
        for place in reversed(range(len(self._inbox))):
            if isinstance(waiting := self._inbox[place], Arrival):
                packet = waiting.payload if waiting.header.codec in PREDICTED else None
                self._inbox[place] = Note(waiting.header, is_repeated=False, packet=packet)
                return

    def _add(self, item: Item) -> None:
        self._inbox.append(item)
        self._wake.set()


async def serve(socket: FrameSocket, hello: Hello, roster: Roster, engine: Engine) -> None:
    """Answer one client's frames, in order, until it leaves."""
    async with roster.admit(hello, socket) as (session, is_resumed):
        await socket.send([roster.ready(session, is_resumed).to_json()])
        try:
            async for frame in socket.frames(session):
                if isinstance(frame, Note):
                    await socket.answer(answer_note(session, frame))
                else:
                    work = partial(session.answer, frame)
                    due_s = frame.received_s + session.period_s
                    with socket.frame_under_way():
                        answer = await engine.run(work, owner=session, due_s=due_s)
                    await socket.answer(answer, frame.received_s)
                    if session.trace is not None:
                        session.trace.note_frame(frame, answer)
                await roster.checkpoint(session)
        except DrainingError:
            await socket.send([(await roster.drain_message(session)).to_json()])
            raise
        if not session.is_over:
            session.summary()
            roster.count_ef(session)
        await socket.send(session.summary())


def answer_note(session: Session, note: Note) -> Answer:
    """Answer a frame that is not looked at."""
    if note.is_repeated:
        return session.repeat(note.header)
    return session.drop(note.header, "replaced", note.packet)
