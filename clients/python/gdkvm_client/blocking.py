"""The stream for programs without an event loop."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import contextmanager

from gdkvm_client.messages import Frame, Hello
from gdkvm_client.stream import Event, stream


def stream_blocking(
    url: str,
    frames: Iterable[Frame],
    hello: Hello,
    *,
    realtime: bool = False,
    key: str | None = None,
) -> Iterator[Event]:
    """Do what ``stream`` does; frames are sent and answers received in a thread meanwhile.

    Args:
        url: of ``/v1/stream``, beginning ``ws://`` or ``wss://``.
        frames: what to send.
        hello: what will be sent, and how it shall be answered.
        realtime: send each frame at its acquisition time, not as fast as the server takes them.
        key: API key, None where the server wants none.

    Yields:
        What ``stream`` yields.

    Raises:
        GdkvmError: what went wrong; errors of ``frames`` pass through.
    """
    with _event_loop() as loop:
        events = _Events(stream(url, frames, hello, realtime=realtime, key=key))
        try:
            while (event := _wait(loop, events)) is not None:
                yield event
        finally:
            # A generator is closed in its own loop, else its socket would stay open.
            asyncio.run_coroutine_threadsafe(events.close(), loop).result()


class _Events:
    """A generator that is closed only once nobody waits for it."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events
        self._in_use = asyncio.Lock()

    async def following(self) -> Event | None:
        async with self._in_use:
            return await anext(self._events, None)

    async def close(self) -> None:
        async with self._in_use:
            await self._events.aclose()


def _wait(loop: asyncio.AbstractEventLoop, events: _Events) -> Event | None:
    waiting = asyncio.run_coroutine_threadsafe(events.following(), loop)
    try:
        return waiting.result()
    finally:
        waiting.cancel()  # of no effect, unless Ctrl+C ended the wait


@contextmanager
def _event_loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Run an event loop in a thread of its own."""
    # The runner ends what is left over: tasks, generators, threads.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=loop.run_forever, name="gdkvm-stream", daemon=True)
        thread.start()
        try:
            yield loop
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
