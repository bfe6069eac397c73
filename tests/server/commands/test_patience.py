"""What becomes of connections that say nothing, go on slowly, or take nothing."""

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from server.commands.patience import BoundedHttp, end_where_unread
from tests.server.live import PATIENCE_S, live_server

HEAD = b"POST /v1/clips HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n"
FORM = (
    b"POST /v1/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n"
    b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
)


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        (b"", b""),
        (b"GET /livez HTT", b"HTTP/1.1 408 Request Timeout"),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"HTTP/1.1 408 Request Timeout"),
        (HEAD, b"HTTP/1.1 408 Request Timeout"),
        (HEAD + b"\0", b"HTTP/1.1 408 Request Timeout"),
        (FORM + b"\0", b"HTTP/1.1 408 Request Timeout"),
    ],
)
def test_who_does_not_go_on_is_told_so_and_leaves_nothing(
    tmp_path: Path, said: bytes, heard: bytes
) -> None:
    with (
        live_server(tmp_path, idle_timeout_s=0.3) as live,
        socket.create_connection(("127.0.0.1", live.port), PATIENCE_S) as line,
    ):
        line.sendall(said)
        told = b""
        while piece := line.recv(4096):
            told += piece
        # RFC 9110 section 15.5.9
        assert told.partition(b"\r\n")[0] == heard
        assert not said or b'"code": "idle_timeout"' in told
        until_s = time.monotonic() + PATIENCE_S
        store = live.server.parts.store
        while store is not None and store.jobs():
            assert time.monotonic() < until_s
            time.sleep(0.01)
        assert not list(tmp_path.glob("c_*"))


class Line(asyncio.Transport):
    """What a server writes to, in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_protocol(self) -> Any:
        return self.protocol

    def pause_reading(self) -> None:
        """Nothing is read by itself."""

    resume_reading = pause_reading


class Clock:
    """A loop whose timers ring when a test says so."""

    def __init__(self) -> None:
        self.timers: list[tuple[asyncio.TimerHandle, Callable[[], None]]] = []
        self.create_task = asyncio.get_running_loop().create_task

    def call_later(self, delay_s: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        loop = asyncio.get_running_loop()
        handle = asyncio.TimerHandle(delay_s, call, (), loop)
        self.timers.append((handle, call))
        return handle

    def ring(self) -> None:
        """Let all the time pass that somebody waits for."""
        timers, self.timers = self.timers, []
        for handle, call in timers:
            if not handle.cancelled():
                call()


@asynccontextmanager
async def _connected() -> AsyncIterator[tuple[BoundedHttp, Line, Clock]]:
    """A connection to an application that neither reads nor answers."""
    is_over = asyncio.Event()

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await is_over.wait()

    config = uvicorn.Config(silent, log_config=None)
    config.load()
    clock, line = Clock(), Line()
    spoken = BoundedHttp(config, ServerState(), {}, clock)  # type: ignore[arg-type]
    line.protocol = spoken
    spoken.connection_made(line)
    try:
        yield spoken, line, clock
    finally:
        spoken.connection_lost(None)
        is_over.set()
        await asyncio.gather(*spoken.tasks)


def test_a_body_may_be_slow_but_not_endlessly() -> None:
    """MinRate of Apache's mod_reqtimeout is 500 bytes a second."""

    async def spoken_to() -> None:
        async with _connected() as (spoken, line, clock):
            spoken.data_received(HEAD)
            for _ in range(3):
                for _ in range(30):
                    spoken.data_received(b"\0" * 500)
                clock.ring()
                assert not line.is_closed
            for _ in range(29):
                spoken.data_received(b"\0" * 500)
            clock.ring()
            assert line.is_closed
            assert b" 408 " in line.written

    asyncio.run(spoken_to())


def test_nobody_is_blamed_while_the_server_itself_reads_no_further() -> None:
    async def spoken_to() -> None:
        async with _connected() as (spoken, line, clock):
            spoken.data_received(HEAD + b"\0" * 70_000)
            clock.ring()
            clock.ring()
            assert spoken.flow.read_paused
            assert not line.is_closed

    asyncio.run(spoken_to())


def test_who_waits_for_an_answer_may_wait() -> None:
    async def spoken_to() -> None:
        async with _connected() as (spoken, line, clock):
            spoken.data_received(b"GET /v1/clips HTTP/1.1\r\nHost: localhost\r\n\r\n")
            clock.ring()
            spoken.data_received(b"GET /v1/cl")
            clock.ring()
            assert not line.is_closed

    asyncio.run(spoken_to())


@pytest.mark.skipif(sys.platform != "linux", reason="the system's own limit is Linux's")
def test_connections_end_whose_peers_take_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        end_where_unread(listener)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000


PROGRAM = """
import resource
from server.commands.patience import allow_many_sockets
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
allow_many_sockets()
assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most)
"""


def test_as_many_sockets_may_be_open_as_the_system_lets_the_process_have() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
