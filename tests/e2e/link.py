"""A bad link between a browser and a server: late, lossy, cut, or dead without a word."""

import asyncio
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

DELAY_S = 0.05
"""Each way: 100 ms there and back."""

LOSS = 0.02
RETRANSMIT_S = 0.2
"""What a lost segment costs on TCP: its timeout, and everything behind it waits.

Source:
    RFC 6298, section 2; Linux's lower bound.
"""

CHUNK_BYTES = 1 << 14


class Link:
    """Relays connections to one port of this machine.

    Attributes:
        target: the port that it leads to, for connections to come.
        port: where it listens.
        is_dead: nothing is relayed any more, and nobody is told.
    """

    def __init__(self, target: int, delay_s: float, loss: float) -> None:
        self.target = target
        self._delay_s = delay_s
        self._loss = loss
        self._random = random.Random(7)
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._ready = threading.Event()
        self.port = 0
        self.is_dead = False

    def run(self) -> None:
        """Relay until stopped."""
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._relay, "127.0.0.1", 0, limit=CHUNK_BYTES)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def wait(self) -> None:
        """Wait until it listens."""
        assert self._ready.wait(10)

    def stop(self) -> None:
        """Let ``run`` return."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def cut(self) -> None:
        """Break every connection that there is."""
        self._loop.call_soon_threadsafe(self._abort)

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        was_dead = self.is_dead
        ways = (self._way(reader, back, was_dead), self._way(there, writer, was_dead))
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(*ways)
        for each in (writer, back):
            each.close()
            self._writers.discard(each)

    async def _way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, was_dead: bool
    ) -> None:
        """Carry one direction; what has left arrives later, and in order."""
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)

        async def deliver() -> None:
            while (item := await queue.get())[1]:
                await asyncio.sleep(item[0] - loop.time())
                if self.is_dead and not was_dead:
                    continue
                writer.write(item[1])
                await writer.drain()
            writer.close()

        async def collect() -> None:
            while chunk := await reader.read(CHUNK_BYTES):
                lost = self._random.random() < self._loss
                await queue.put((loop.time() + self._delay_s + lost * RETRANSMIT_S, chunk))
            await queue.put((loop.time(), b""))

        await asyncio.gather(deliver(), collect())


@contextmanager
def bad_link(target: int, *, delay_s: float = DELAY_S, loss: float = LOSS) -> Iterator[Link]:
    """Relay to a port of this machine as long as the block lasts."""
    link = Link(target, delay_s, loss)
    thread = threading.Thread(target=link.run)
    thread.start()
    try:
        link.wait()
        yield link
    finally:
        link.stop()
        thread.join(10)
