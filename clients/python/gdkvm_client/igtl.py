"""Bridge to OpenIGTLink: images of PLUS, 3D Slicer or a scanner in, label maps and EF back.

    python -m gdkvm_client.igtl --source 127.0.0.1:18944 --server ws://127.0.0.1:8000/v1/stream

Needs the extra ``igtl``. For research use only.

Source:
    OpenIGTLink protocol version 3, messages IMAGE and STRING, packed and unpacked by pyigtl.
"""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pyigtl.messages import ImageMessage, MessageBase, StringMessage

from gdkvm_client.errors import GdkvmError
from gdkvm_client.igtl_wire import LABELS_DEVICE, Address, Picture, Wire, open_wire
from gdkvm_client.masks import RleMask
from gdkvm_client.messages import Dropped, EjectionFraction, Frame, Hello, Result, Summary
from gdkvm_client.stream import StreamClient

logger = logging.getLogger(__name__)

EF_DEVICE = "gdkvm_ef"
SUMMARY_TIMEOUT_S = 5.0
PAUSE_S = 1.0
"""Between two attempts to reach whoever is not there."""

MOST_WAITING = 16
"""Pictures kept while a session is opened, or resumed after a cut."""

View = Literal["A4C", "A2C"]


@dataclass(frozen=True, slots=True)
class Route:
    """From where to where.

    Attributes:
        source: an OpenIGTLink server that sends images.
        server: of ``/v1/stream``.
        target: an OpenIGTLink server that gets label maps and EF; the source where None.
        device: name of the images to take; those of the first that comes where None.
        spacing_mm: row and column size of a pixel, in place of what the images say.
        key: API key, None where the server wants none.
    """

    source: Address
    server: str
    target: Address | None = None
    device: str | None = None
    view: View | None = None
    spacing_mm: tuple[float, float] | None = None
    key: str | None = None


def ef_text(ef: EjectionFraction) -> str:
    """Say the EF, or why there is none, in one line."""
    if ef.percent is None or ef.interval is None:
        return f"EF {ef.state}: {', '.join(ef.reasons)}; research use only"
    low, high = ef.interval
    beats = "1 beat" if ef.beats == 1 else f"{ef.beats} beats"
    return f"EF {ef.percent:.0f} % ({low:.0f} to {high:.0f}), {beats}; research use only"


class _Session:
    """One stream of pictures of a kind, and what comes back of it."""

    def __init__(
        self, client: StreamClient, tell: Callable[[MessageBase], Awaitable[None]]
    ) -> None:
        self._client = client
        self._tell = tell
        self._waiting: dict[int, Picture] = {}
        self._seq = 0
        self._last: Picture | None = None
        self._said = ""
        self._reader = asyncio.create_task(self._read())

    @property
    def has_failed(self) -> bool:
        """Whether no more is answered."""
        return self._reader.done()

    def takes(self, picture: Picture) -> bool:
        """Whether a picture may follow those before."""
        return self._last is None or picture.continues(self._last)

    async def send(self, picture: Picture) -> None:
        """Send a picture; one that cannot be sent any more is lost."""
        seq, self._seq, self._last = self._seq, self._seq + 1, picture
        self._waiting[seq] = picture
        with contextlib.suppress(GdkvmError):
            await self._client.send(Frame(seq, picture.time_us, picture.payload))

    async def close(self) -> None:
        """Let what is under way be answered, and leave."""
        if not self.has_failed:
            await self._client.finish()
            await asyncio.wait([self._reader], timeout=SUMMARY_TIMEOUT_S)
        self._reader.cancel()
        await self._client.__aexit__(None, None, None)

    async def _read(self) -> None:
        try:
            async for event in self._client:
                match event:
                    case Result(seq=seq, mask=RleMask() as mask, ef=ef):
                        labels_HW = mask.labels(self._client.ready.structures)
                        await self._tell(self._waiting.pop(seq).labels(labels_HW))
                        await self._say(ef)
                    case Dropped(seq=seq):
                        self._waiting.pop(seq)
                    case Summary(ef=ef):
                        await self._say(ef)
        except GdkvmError as error:
            logger.warning("the session ended: %s (%s)", error.message, error.code)

    async def _say(self, ef: EjectionFraction) -> None:
        text = ef_text(ef)
        if text != self._said:
            self._said = text
            await self._tell(StringMessage(text, device_name=EF_DEVICE))


class Bridge:
    """Streams images to a server and label maps back, over cuts of either side."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._device = route.device
        self._target: Wire | None = None
        self._session: _Session | None = None
        # Who sends images is never made to wait: while the server is away the oldest are lost.
        self._pictures: deque[Picture] = deque(maxlen=MOST_WAITING)
        self._has_pictures = asyncio.Event()
        self._not_before_s = 0.0
        self._complaint = ""

    async def run(self) -> None:
        """Relay until cancelled.

        Raises:
            GdkvmError: the server refuses, and will do so again.
        """
        try:
            await _until_one_ends(self._receive_all(), self._send_all())
        finally:
            await self._leave()

    async def _receive_all(self) -> None:
        """Stay connected to both OpenIGTLink servers."""
        while True:
            try:
                await self._receive()
            except (OSError, EOFError) as error:
                self._complain(f"not connected: {error or type(error).__name__}")
            self._target = None
            await asyncio.sleep(PAUSE_S)

    async def _receive(self) -> None:
        """Receive over one connection to each, until one of them ends."""
        async with contextlib.AsyncExitStack() as stack:
            source = await stack.enter_async_context(open_wire(self._route.source))
            jobs = [self._take_all(source)]
            self._target = source
            if self._route.target is not None:
                self._target = await stack.enter_async_context(open_wire(self._route.target))
                jobs.append(self._target.ignore())
            self._complain("connected")
            await _until_one_ends(*jobs)

    async def _take_all(self, source: Wire) -> None:
        while True:
            message = await source.read()
            if isinstance(message, ImageMessage) and message.device_name != LABELS_DEVICE:
                self._take(message)

    def _take(self, message: ImageMessage) -> None:
        self._device = self._device or message.device_name
        if message.device_name != self._device:
            return
        try:
            self._pictures.append(Picture.of(message, self._route.spacing_mm))
        except ValueError as error:
            self._complain(str(error))
        self._has_pictures.set()

    async def _send_all(self) -> None:
        while True:
            await self._has_pictures.wait()
            self._has_pictures.clear()
            while self._pictures:
                await self._send(self._pictures.popleft())

    async def _send(self, picture: Picture) -> None:
        if self._session is not None and self._session.has_failed:
            self._not_before_s = time.monotonic() + PAUSE_S
            await self._leave()
        if self._session is not None and not self._session.takes(picture):
            await self._leave()
        if self._session is None:
            await self._begin(picture)
        if self._session is not None:
            await self._session.send(picture)

    async def _begin(self, picture: Picture) -> None:
        """Open a session, unless one was refused or failed a moment ago."""
        if time.monotonic() < self._not_before_s:
            return
        route = self._route
        hello = Hello(
            size=picture.size,
            codec=picture.codec,
            view=route.view,
            spacing_mm=picture.spacing_mm,
            policy="latest",
        )
        client = StreamClient(route.server, hello, key=route.key)
        try:
            await client.__aenter__()
        except GdkvmError as error:
            if not error.retryable:
                raise
            self._not_before_s = time.monotonic() + PAUSE_S
            self._complain(f"no session: {error.message}")
            return
        self._complain(f"session {client.ready.session}: {picture.size}, {picture.spacing_mm} mm")
        self._session = _Session(client, self._tell)

    async def _leave(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _tell(self, message: MessageBase) -> None:
        if self._target is not None:
            await self._target.write(message)

    def _complain(self, words: str) -> None:
        """Say what happens, once as long as nothing else does."""
        if words != self._complaint:
            self._complaint = words
            logger.info("%s", words)


async def _until_one_ends(*jobs: Coroutine[None, None, None]) -> None:
    """Run jobs side by side until one of them ends, with whatever it raises."""
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def parse_address(text: str) -> Address:
    """Read ``host:port``; the port that OpenIGTLink has by custom where none is given."""
    host, _, port = text.partition(":")
    return host, int(port or 18944)


def parse_route(words: Sequence[str]) -> Route:
    """Read the command line."""
    parser = argparse.ArgumentParser("gdkvm_client.igtl", description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=parse_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--server", required=True, metavar="URL", help="ws://…/v1/stream")
    parser.add_argument("--target", type=parse_address, metavar="HOST:PORT", help="or the source")
    parser.add_argument("--device", help="name of the images; the first that comes if unset")
    parser.add_argument("--view", choices=["A4C", "A2C"])
    parser.add_argument("--spacing", type=float, nargs=2, metavar=("ROW_MM", "COLUMN_MM"))
    parser.add_argument("--key-file", type=Path, help="file that holds the server's API key")
    given = parser.parse_args(words)
    return Route(
        source=given.source,
        server=given.server,
        target=given.target,
        device=given.device,
        view=given.view,
        spacing_mm=None if given.spacing is None else tuple(given.spacing),
        key=None if given.key_file is None else given.key_file.read_text("utf-8-sig").strip(),
    )


async def _relay(route: Route) -> None:
    """Run a bridge until SIGINT or SIGTERM; background jobs of a shell are born deaf to SIGINT."""
    relaying = asyncio.create_task(Bridge(route).run())
    for number in (signal.SIGINT, signal.SIGTERM):
        # Windows has no such handlers: there Ctrl+C raises KeyboardInterrupt.
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, relaying.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await relaying


def main() -> None:
    """Relay until interrupted or terminated."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    route = parse_route(sys.argv[1:])
    try:
        asyncio.run(_relay(route))
    except GdkvmError as error:
        sys.exit(f"{error.message} ({error.code})")
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
