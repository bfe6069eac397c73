"""A live session: frames in, answers out, over as many sockets as it takes."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from gdkvm_client.errors import BadAnswerError, BusyError, ConnectionLostError, GdkvmError
from gdkvm_client.messages import (
    BYE,
    Beat,
    Drain,
    Dropped,
    Frame,
    Hello,
    Message,
    Ready,
    Result,
    Summary,
    parse_message,
)
from gdkvm_client.socket import Address, lost, open_socket

Event = Result | Dropped | Beat | Summary

WAITING_EVENTS = 256
"""Answers kept for a slow reader; beyond that the server is made to wait."""

LATEST_UNANSWERED = 64
"""Frames under way at most when the server itself drops what is too old."""

MOST_KEPT = 256
"""Answered frames kept at most, for a server that is killed and goes on from an older snapshot."""

MOST_RESUMES_IN_VAIN = 5
"""Cuts in a row without an answer in between after which a session is given up."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
_NOMINAL_FPS = 30.0
# A server must decode every packet of these, also one that it drops.
_PREDICTED = ("h264", "hevc")


@dataclass(frozen=True, slots=True)
class _Sent:
    """A frame as it was sent; is_again: it was answered before, by a server that forgot it."""

    seq: int
    message: bytes
    is_again: bool = False


class StreamClient:
    """One session, over cut connections and restarted servers.

    What was not answered is sent again, as is what a killed server forgot, whose twin is not told.
    """

    def __init__(
        self, url: str, hello: Hello, *, key: str | None = None, will_resume: bool = True
    ) -> None:
        """Prepare a session; entering the context opens it.

        Args:
            url: of ``/v1/stream``, beginning ``ws://`` or ``wss://``.
            hello: what will be sent, and how it shall be answered.
            key: API key, None where the server wants none.
            will_resume: whether to go on after a cut; else a cut is a ConnectionLostError.
        """
        self.hello = hello
        self._address = Address(url, key)
        self._will_resume = will_resume
        self._sending = asyncio.Lock()
        # Set when what follows has changed; waited on for room, an event, or a failure.
        self._changed = asyncio.Event()
        self._unanswered: deque[_Sent] = deque()
        # Answered, needed by a server that forgot them, and not yet in any snapshot.
        self._kept: deque[_Sent] = deque(maxlen=MOST_KEPT)
        self._under_way = 0
        self._told_seq = -1
        self._told_beats: dict[int, int] = {}
        self._catching_up: asyncio.Task[None] | None = None
        self._events: deque[Event] = deque()
        self._failure: Exception | None = None
        self._resumes_in_vain = 0
        self._is_finishing = False
        self._has_ended = False

    async def __aenter__(self) -> Self:
        """Connect and say hello.

        Raises:
            GdkvmError: no server there, or its refusal.
        """
        self._socket, self.ready = await open_socket(self._address, self.hello)
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave; a session that was not finished is over for this client."""
        await _stop(self._reader)
        await _stop(self._catching_up)
        await self._socket.close()

    async def send(self, frame: Frame) -> None:
        """Send a frame as soon as there is room for one more unanswered.

        Events must be read meanwhile, in another task: after WAITING_EVENTS unread ones the server
        is made to wait, and so is this.

        Raises:
            GdkvmError: the session failed.
        """
        while True:
            await self._until(lambda: self._failure or len(self._unanswered) < self._limit)
            self._raise_failure()
            async with self._sending:
                # While it waited for the lock, a cut may have put others before it.
                if len(self._unanswered) < self._limit:
                    message = frame.to_bytes(self.hello.codec)
                    self._unanswered.append(_Sent(frame.seq, message))
                    self._under_way += 1
                    return await self._put(message)

    async def finish(self) -> None:
        """Say that no frame follows; the summary is the last event."""
        async with self._sending:
            self._is_finishing = True
            await self._put(BYE)

    async def fail(self, error: Exception) -> None:
        """Make everybody who waits for this session raise an error."""
        self._failure = self._failure or error
        self._changed.set()

    async def _until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds; it is looked at again after every change."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    @property
    def _limit(self) -> int:
        """Frames under way at most; another server may give other credits."""
        return self.ready.credits if self.hello.policy == "every" else LATEST_UNANSWERED

    def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate over answers and beats, in order, until the summary."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event.

        Raises:
            GdkvmError: the session failed.
        """
        if self._has_ended:
            raise StopAsyncIteration
        await self._until(lambda: self._events or self._failure)
        if not self._events:
            self._raise_failure()
        event = self._events.popleft()
        self._changed.set()
        self._has_ended = isinstance(event, Summary)
        return event

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _put(self, message: bytes | str) -> None:
        """Write to the socket; after a cut the reader sends it again, so a cut is no error here."""
        with contextlib.suppress(ConnectionClosed):
            await self._socket.send(message)

    async def _read(self) -> None:
        """Read answers until the summary, over as many sockets as it takes."""
        try:
            while not await self._read_socket():
                await self._resume()
        except GdkvmError as error:
            await self.fail(error)

    async def _read_socket(self) -> bool:
        """Read one socket.

        Returns:
            Whether the session has ended; False where it was cut and can go on.

        Raises:
            GdkvmError: it cannot go on.
        """
        cause: GdkvmError
        try:
            while True:
                message = parse_message(await self._socket.recv())
                if isinstance(message, GdkvmError):
                    cause = message
                    break
                if await self._take(message):
                    return True
        except ConnectionClosed as error:
            cause = lost(error)
        self._resumes_in_vain += 1
        is_hopeless = self._resumes_in_vain > MOST_RESUMES_IN_VAIN
        if is_hopeless or not (self._will_resume and cause.retryable):
            raise cause
        return False

    async def _take(self, message: Message | None) -> bool:
        """Pass one message on; returns whether it is the last."""
        if message is None or isinstance(message, Drain):
            return False
        if isinstance(message, Ready):
            raise BadAnswerError("ready came twice")
        await self._until(lambda: len(self._events) < WAITING_EVENTS)
        if self._is_news(message):
            self._events.append(message)
        if isinstance(message, Result | Dropped):
            self._settle(message)
        self._resumes_in_vain = 0
        self._changed.set()
        return isinstance(message, Summary)

    def _is_news(self, event: Event) -> bool:
        """Whether an event was not passed on before a server forgot it."""
        if isinstance(event, Result | Dropped):
            seq, self._told_seq = self._told_seq, max(self._told_seq, event.seq)
            return event.seq > seq
        if isinstance(event, Beat):
            told = self._told_beats.get(event.number, -1)
            self._told_beats[event.number] = max(event.revision, told)
            return event.revision > told
        return True

    def _settle(self, answer: Result | Dropped) -> None:
        """Let go of a frame that was answered, or keep it until a snapshot holds it."""
        self._under_way -= 1
        is_needed = isinstance(answer, Result) or self.hello.codec in _PREDICTED
        while self._unanswered and self._unanswered[0].seq <= answer.seq:
            sent = self._unanswered.popleft()
            if is_needed and self.ready.resume_within_s > 0:
                self._kept.append(_Sent(sent.seq, sent.message, is_again=True))
        if isinstance(answer, Result) and answer.saved_seq is not None:
            while self._kept and self._kept[0].seq <= answer.saved_seq:
                self._kept.popleft()

    async def _resume(self) -> None:
        """Connect again with the token, and begin to send again what is not in the session.

        Raises:
            GdkvmError: the session is lost, or no server answered in time.
        """
        await _stop(self._catching_up)
        await self._sending.acquire()
        try:
            await self._socket.close()
            self._socket, self.ready = await self._reconnect()
        except BaseException:
            self._sending.release()
            raise
        last_seq = -1 if self.ready.last_seq is None else self.ready.last_seq
        forgotten = [sent for sent in self._kept if sent.seq > last_seq]
        for sent in forgotten:
            self._kept.remove(sent)
        self._unanswered.extendleft(reversed(forgotten))
        self._under_way = 0
        # Nobody sends a new frame before the old ones: the lock goes over to the task.
        self._catching_up = asyncio.create_task(self._catch_up())
        self._catching_up.add_done_callback(lambda _: self._sending.release())

    async def _catch_up(self) -> None:
        """Send again, no more at a time than the server takes without dropping any."""
        for sent in list(self._unanswered):
            await self._until(self._has_room)
            self._under_way += 1
            await self._put(sent.message)
        # The next frame is a new one, and could replace the last of them.
        await self._until(lambda: not self._is_alone())
        if self._is_finishing:
            await self._put(BYE)

    def _has_room(self) -> bool:
        return self._under_way < (1 if self._is_alone() else self._limit)

    def _is_alone(self) -> bool:
        """Whether one answered before is under way, which a newer one would replace."""
        return self.hello.policy == "latest" and any(sent.is_again for sent in self._unanswered)

    async def _reconnect(self) -> tuple[ClientConnection, Ready]:
        deadline = time.monotonic() + self.ready.resume_within_s
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await open_socket(self._address, self.hello, self.ready.resume)
            except (ConnectionLostError, BusyError):
                if time.monotonic() + pause_s > deadline:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


async def stream(
    url: str,
    frames: AsyncIterable[Frame] | Iterable[Frame],
    hello: Hello,
    *,
    realtime: bool = False,
    key: str | None = None,
) -> AsyncGenerator[Event, None]:
    """Stream frames and iterate over the answers.

    Args:
        url: of ``/v1/stream``, beginning ``ws://`` or ``wss://``.
        frames: read in a thread where they come from a plain iterable.
        hello: what will be sent, and how it shall be answered.
        realtime: send each frame at its acquisition time, not as fast as the server takes them.
        key: API key, None where the server wants none.

    Yields:
        Results and dropped frames in order, beats after the result that closed them, and the
        summary last.

    Raises:
        GdkvmError: what went wrong; errors of ``frames`` pass through.
    """
    async with StreamClient(url, hello, key=key) as client:
        sender = asyncio.create_task(_send_all(client, _in_order(frames), realtime))
        try:
            async for event in client:
                yield event
        finally:
            sender.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await sender


async def _send_all(client: StreamClient, frames: AsyncIterable[Frame], realtime: bool) -> None:
    pace = Pace(client.hello.fps or _NOMINAL_FPS)
    try:
        async for frame in frames:
            if realtime:
                await asyncio.sleep(pace.wait_s(frame, time.monotonic()))
            await client.send(frame)
        await client.finish()
    except Exception as error:
        await client.fail(error)
        raise


class Pace:
    """When to send each frame so that they arrive as they were acquired."""

    def __init__(self, fps: float) -> None:
        """Fall back on a nominal rate for frames without a time."""
        self._period_s = 1 / fps
        self._first: tuple[float, int | None] | None = None
        self._count = 0

    def wait_s(self, frame: Frame, now_s: float) -> float:
        """How long to wait before a frame; a late one is not waited for."""
        if self._first is None:
            self._first = (now_s, frame.time_us)
        start_s, first_us = self._first
        if frame.time_us is None or first_us is None:
            due_s = start_s + self._count * self._period_s
        else:
            due_s = start_s + (frame.time_us - first_us) / 1e6
        self._count += 1
        return max(0.0, due_s - now_s)


async def _in_order(frames: AsyncIterable[Frame] | Iterable[Frame]) -> AsyncIterator[Frame]:
    """Iterate over frames without holding up the event loop."""
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
        return
    plain = iter(frames)
    while (following := await asyncio.to_thread(next, plain, None)) is not None:
        yield following


async def _stop(task: "asyncio.Task[None] | None") -> None:
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
