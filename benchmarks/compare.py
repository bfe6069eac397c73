"""This server against what a user would write instead, on the same frames, one after the other.

    python -m benchmarks.compare [--litserve PYTHON] [--sessions 1 4 8] [--fps 30] [--seconds 8]

`benchmarks/compare_eager.py` and `compare_litserve.py` are the others. LitServe is no dependency:
make an environment that has this one's packages too (`python -m venv V`, a `.pth` file that names
this environment's site-packages, `V/bin/pip install litserve`) and give its python. Every session
is a client that sends a frame when it is due and skips one where the answer before has not come;
the table counts those as missed. All answer with the mask; this server measures and keeps its
answers besides.
"""

import argparse
import asyncio
import base64
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from server.commands.bench import jpegs_of, machine, size_of
from server.commands.local import local_server
from server.protocol import SUBPROTOCOL, FrameHeader

READY_WITHIN_S = 90.0
WARM_UP_FRAMES = 20


class Line(Protocol):
    """One session's way to a server."""

    async def open(self) -> None:
        """Connect."""

    async def ask(self, seq: int, jpeg: bytes) -> None:
        """Send a frame and wait for its mask."""

    async def close(self) -> None:
        """Leave."""


class Ours:
    """``GET /v1/stream``; without a rate, since the others let everybody in too."""

    def __init__(self, port: int, size: tuple[int, int]) -> None:
        self._url = f"ws://127.0.0.1:{port}/v1/stream"
        self._hello = {"type": "hello", "size": size, "codec": "jpeg"}
        self._socket: ClientConnection

    async def open(self) -> None:
        """Connect and say hello."""
        self._socket = await connect(
            self._url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=None
        )
        await self._socket.send(json.dumps(self._hello))
        ready = json.loads(await self._socket.recv())
        assert ready["type"] == "ready", ready

    async def ask(self, seq: int, jpeg: bytes) -> None:
        """Send a frame and wait for its result; a beat may come after it."""
        await self._socket.send(FrameHeader("jpeg", seq, seq * 33_333, len(jpeg)).to_bytes() + jpeg)
        while not str(await self._socket.recv()).startswith('{"type":"result"'):
            pass

    async def close(self) -> None:
        """Leave."""
        await self._socket.close()


class Eager:
    """JPEG in, PNG out."""

    def __init__(self, port: int) -> None:
        self._url = f"ws://127.0.0.1:{port}/stream"
        self._socket: ClientConnection

    async def open(self) -> None:
        """Connect."""
        self._socket = await connect(self._url, compression=None, max_size=None)

    async def ask(self, seq: int, jpeg: bytes) -> None:
        """Send a frame and wait for its mask."""
        del seq
        await self._socket.send(jpeg)
        await self._socket.recv()

    async def close(self) -> None:
        """Leave."""
        await self._socket.close()


class Http:
    """One POST a frame on a connection that stays open."""

    _names = itertools.count()

    def __init__(self, port: int) -> None:
        self._port = port
        self._name = f"s{next(self._names)}"

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def ask(self, seq: int, jpeg: bytes) -> None:
        """Send a frame and wait for its mask."""
        del seq
        asked = {"session": self._name, "image": base64.b64encode(jpeg).decode()}
        body = json.dumps(asked).encode()
        head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert " 200 " in answer.splitlines()[0], answer
        await self._reader.readexactly(int(answer.split("content-length: ")[1].split("\r\n")[0]))

    async def close(self) -> None:
        """Leave."""
        self._writer.close()


@dataclass(slots=True)
class Seen:
    """What the sessions saw.

    Attributes:
        times_ms: from sent to answered.
        missed: frames skipped, since the answer before had not come.
    """

    times_ms: list[float] = field(default_factory=list)
    missed: int = 0


async def play(line: Line, images: Sequence[bytes], fps: float, seconds: float, seen: Seen) -> None:
    """One session; as fast as it goes where ``fps`` is infinite."""
    await line.open()
    for seq in range(WARM_UP_FRAMES):
        await line.ask(seq, images[seq % len(images)])
    begun_s = time.perf_counter()
    number = 0
    while (spent_s := time.perf_counter() - begun_s) < seconds:
        if np.isfinite(fps):
            next_number = max(number, int(np.ceil(spent_s * fps)))
            seen.missed += next_number - number
            number = next_number
            await asyncio.sleep(number / fps - spent_s)
        sent_s = time.perf_counter()
        await line.ask(WARM_UP_FRAMES + number, images[number % len(images)])
        seen.times_ms.append(1000 * (time.perf_counter() - sent_s))
        number += 1
    await line.close()


async def play_all(lines: list[Line], images: Sequence[bytes], fps: float, seconds: float) -> Seen:
    """All sessions at once."""
    seen = Seen()
    await asyncio.gather(*(play(line, images, fps, seconds, seen) for line in lines))
    return seen


@contextmanager
def other(python: str, name: str) -> Iterator[int]:
    """One of the other servers, on a free port, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [python, "-m", f"benchmarks.compare_{name}", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            deadline = time.monotonic() + READY_WITHIN_S
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline or server.poll() is not None:
                        raise
                    time.sleep(0.2)
            yield port
        finally:
            # LitServe does not leave when it is asked to, nor does it take its workers along.
            os.killpg(server.pid, signal.SIGKILL)


def rows(name: str, lines: list[Line], images: Sequence[bytes], given: argparse.Namespace) -> None:
    """Measure one server: one session as fast as it goes, then more and more at a rate."""
    fastest = asyncio.run(play_all(lines[:1], images, np.inf, given.seconds))
    cells = [f"{len(fastest.times_ms) / given.seconds:.0f}"]
    for sessions in given.sessions:
        seen = asyncio.run(play_all(lines[1:][:sessions], images, given.fps, given.seconds))
        lines = lines[:1] + lines[1 + sessions :]
        p50, p99 = np.percentile(seen.times_ms, (50, 99))
        missed = seen.missed / (seen.missed + len(seen.times_ms))
        cells.append(f"{p50:.1f} / {p99:.1f} / {100 * missed:.1f} %")
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--litserve", metavar="PYTHON")
    parser.add_argument("--sessions", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--seconds", type=float, default=8.0)
    given = parser.parse_args()
    images, count = jpegs_of(None), 1 + sum(given.sessions)
    print(machine())
    heads = [f"{each} at {given.fps:g} frames/s: p50 / p99 ms / missed" for each in given.sessions]
    print("| server | one session, frames/s | " + " | ".join(heads) + " |")
    print("| --- " * (2 + len(heads)) + "|")
    free = {"GDKVM_CAPACITY_FPS": "1000000", "GDKVM_MAX_SESSIONS": str(2 * count)}
    with local_server(free) as address:
        port = int(address.rsplit(":", 1)[1])
        ours: list[Line] = [Ours(port, size_of(images)) for _ in range(count)]
        rows("GDKVM Live", ours, images, given)
    with other(sys.executable, "eager") as port:
        rows("FastAPI, torch eagerly", [Eager(port) for _ in range(count)], images, given)
    if given.litserve:
        with other(given.litserve, "litserve") as port:
            rows("LitServe, the exported step", [Http(port) for _ in range(count)], images, given)


if __name__ == "__main__":
    main()
