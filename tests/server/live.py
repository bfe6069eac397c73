"""A server in this process around a network that can be followed by hand, and a bare client."""

import asyncio
import gc
import json
import socket
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from model import Predictor
from model.config import ModelConfig
from model.predictor import self_test_answer
from model.state import MemoryState, StateSpec
from model.weights import ModelInfo
from server.commands.serving import DrainingServer
from server.protocol import SUBPROTOCOL, Codec, FrameHeader
from server.settings import Settings

SIDE = 48
HELLO: dict[str, Any] = {
    "type": "hello",
    "size": [SIDE, SIDE],
    "region": [0, 0, SIDE, SIDE],
    "policy": "every",
}
PATIENCE_S = 90.0
"""How long a slow machine may take for anything; nothing here measures time."""

SPEC = StateSpec(("memory", "count"), ((1, SIDE, SIDE), (1, 1)))

CRASH, NAN = 255, 254
"""Frames all of this grey level make the network raise, or answer with NaN."""


@dataclass
class CountingBackend:
    """A network of plain numpy whose masks show what it remembers.

    The atrium is as many pixels as frames were stepped, in reading order from the top left. The
    ventricle is where the running mean of "bright" is above one half, so it depends on the order.

    Attributes:
        gate: a step waits for it.
        entered: set when a step begins.
        is_broken: every step fails, the self-test's too.
        steps: how many were done.
        memories: of every step, for as long as somebody keeps them.
    """

    name: str = "numpy"
    spec: StateSpec = SPEC
    gate: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    is_broken: bool = False
    steps: int = 0
    memories: list[weakref.ref[NDArray[np.float32]]] = field(default_factory=list)

    def step(
        self, image_11HW: NDArray[np.float32], state: MemoryState
    ) -> tuple[NDArray[np.float32], float, MemoryState]:
        self.entered.set()
        assert self.gate.wait(PATIENCE_S)
        self.steps += 1
        image_HW = image_11HW[0, 0]
        if self.is_broken or image_HW.min() * 255 > CRASH - 0.5:
            raise RuntimeError("the device is gone")
        memory_1HW = 0.5 * state.arrays[0] + 0.5 * (image_HW[None] > 0.5)
        count_11 = state.arrays[1] + 1
        if image_HW.min() * 255 > NAN - 0.5:
            memory_1HW = memory_1HW * np.float32(np.nan)
        probabilities_NHW = np.zeros((3, SIDE, SIDE), np.float32)
        probabilities_NHW[0] = memory_1HW[0] > 0.5
        probabilities_NHW[:, np.arange(SIDE * SIDE).reshape(SIDE, SIDE) < count_11[0, 0]] = 0
        probabilities_NHW[2].ravel()[: int(count_11[0, 0])] = 1
        arrays = (memory_1HW.astype(np.float32), count_11.astype(np.float32))
        self.memories.append(weakref.ref(arrays[0]))
        return probabilities_NHW, 0.9, MemoryState(SPEC, arrays)

    def kept_memories(self) -> int:
        """States that somebody still holds; the last one of a session that lives, else none."""
        gc.collect()
        self.memories = [each for each in self.memories if each() is not None]
        return len(self.memories)


def counting_predictor(backend: CountingBackend) -> Predictor:
    """The network behind the door that every network has, self-test included."""
    config = ModelConfig(network_size=SIDE)
    info = ModelInfo("counting", "1", "00" * 32, "none", config, Path("none"), self_test=())
    backend.gate.set()
    answer = self_test_answer(Predictor(info, backend))
    backend.entered.clear()
    backend.steps = 0
    return Predictor(replace(info, self_test=tuple(map(tuple, answer))), backend)


def disc(seq: int) -> NDArray[np.uint8]:
    """A bright disc that beats, on dark ground: 8 frames a beat."""
    rows, cols = np.mgrid[0:SIDE, 0:SIDE]
    radius = 12 + 4 * np.cos(2 * np.pi * seq / 8)
    return np.where(np.hypot(rows - 26, cols - 24) < radius, 200, 30).astype(np.uint8)


def expected_labels(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """What the network says after these frames, written without its code."""
    mean_HW = np.zeros((SIDE, SIDE))
    for image_HW in images:
        mean_HW = (mean_HW + (image_HW > 127)) / 2
    labels_HW = (mean_HW > 0.5).astype(np.uint8)
    labels_HW.ravel()[: len(images)] = 3
    return labels_HW


def labels_of(mask: dict[str, Any]) -> NDArray[np.uint8]:
    """Decode run lengths as a slow reader of the documentation would."""
    labels = np.zeros(mask["size"], np.uint8)
    flat = labels.ravel()
    for index, name in enumerate(("lv", "myocardium", "atrium")):
        place, inside = 0, False
        for length in mask["counts"][name]:
            if inside:
                flat[place : place + length] = index + 1
            place, inside = place + length, not inside
        assert place == flat.size
    return labels


def packed(seq: int, payload: bytes, codec: Codec = "gray8", time_us: int | None = None) -> bytes:
    return FrameHeader(codec, seq, time_us, len(payload)).to_bytes() + payload


def beating(seq: int) -> bytes:
    """One frame of the beating disc, 33 ms after the one before."""
    return packed(seq, disc(seq).tobytes(), time_us=33_333 * seq)


def flat(seq: int, level: int) -> bytes:
    """A frame of one grey level."""
    return packed(seq, bytes([level]) * (SIDE * SIDE))


@dataclass
class Live:
    """A running server.

    Attributes:
        server: runs in a thread of its own.
    """

    server: DrainingServer
    backend: CountingBackend
    port: int
    http: httpx.Client
    loop: asyncio.AbstractEventLoop

    async def until_parked(self, session: str) -> None:
        """Wait until the server has noticed that a session's socket is gone."""
        roster = self.server.parts.roster
        await until(
            lambda: (session, "parked") in {(s["session"], s["phase"]) for s in roster.listing()}
        )

    async def forget_all(self) -> None:
        """Free every session that a test left parked."""
        self.backend.gate.set()
        self.loop.call_soon_threadsafe(self.server.parts.roster.close)
        await self.until_sessions(0)

    async def get(self, path: str) -> httpx.Response:
        return await asyncio.to_thread(self.http.get, path)

    async def shown_sessions(self) -> dict[str, float]:
        """The gauge of sessions at /metrics, by phase."""
        families = text_string_to_metric_families((await self.get("/metrics")).text)
        samples = [sample for family in families for sample in family.samples]
        return {s.labels["phase"]: s.value for s in samples if s.name == "gdkvm_sessions"}

    async def assert_all_is_freed(self) -> None:
        """Neither the roster, nor an operator, nor the collector finds a session."""
        await self.until_sessions(0)
        assert len(self.server.parts.roster) == 0
        assert (await self.get("/v1/sessions")).json() == []
        assert await self.shown_sessions() == {"live": 0, "parked": 0}
        assert self.backend.kept_memories() == 0

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/stream"

    @asynccontextmanager
    async def talk(self, **hello: Any) -> AsyncIterator["Talk"]:
        """A socket on which hello was answered with ready."""
        async with self.socket() as talk:
            await talk.say_hello(**hello)
            talk.ready = await talk.hear()
            assert talk.ready["type"] == "ready", talk.ready
            yield talk

    @asynccontextmanager
    async def socket(self, **headers: str) -> AsyncIterator["Talk"]:
        """A socket on which nothing was said."""
        async with connect(
            self.url,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            max_size=None,
            additional_headers=headers,
        ) as connection:
            yield Talk(connection)

    async def until_sessions(self, live: int, parked: int = 0) -> None:
        """Wait until the server holds so many sessions."""

        def found() -> list[str]:
            return sorted(each["phase"] for each in self.server.parts.roster.listing())

        await until(lambda: found() == ["live"] * live + ["parked"] * parked)


@dataclass
class Talk:
    """One socket, seen from the client."""

    connection: ClientConnection
    ready: dict[str, Any] = field(default_factory=dict)

    async def say(self, message: dict[str, Any] | bytes | str) -> None:
        await self.connection.send(json.dumps(message) if isinstance(message, dict) else message)

    async def say_hello(self, **hello: Any) -> None:
        await self.say({**HELLO, **hello})

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            message: dict[str, Any] = json.loads(await self.connection.recv())
        return message

    async def hear_all(self) -> tuple[list[dict[str, Any]], int | None]:
        """Every message up to the close, and the close code."""
        heard = []
        try:
            while True:
                heard.append(await self.hear())
        except ConnectionClosed as closed:
            return heard, None if closed.rcvd is None else closed.rcvd.code

    async def end(self) -> list[dict[str, Any]]:
        """Say bye; everything up to the summary, after which the socket closes with 1000."""
        await self.say({"type": "bye"})
        heard, code = await self.hear_all()
        assert code == 1000
        assert heard[-1]["type"] == "summary"
        return heard

    async def settle(self) -> None:
        """Wait until the server has taken in all that was sent, or has closed the socket."""
        with suppress(ConnectionClosed):
            async with asyncio.timeout(PATIENCE_S):
                await (await self.connection.ping())

    def abort(self) -> None:
        """Cut the line without a word, as a lost network does."""
        self.connection.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens on its own."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


@contextmanager
def live_server(
    folder: Path, *, send_buffer_bytes: int | None = None, **settings: Any
) -> Iterator[Live]:
    """Serve from a thread, with the settings given, until the block ends."""
    backend = CountingBackend()
    predictor = counting_predictor(backend)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("server.app.load_predictor", lambda *_, **__: predictor)
        server = DrainingServer(
            Settings(
                **{
                    "port": 0,
                    "clip_dir": folder,
                    "snapshot_store": str(folder / "sessions.sqlite"),
                    "threads": 1,
                    **settings,
                }
            )
        )
    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer_bytes is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    thread = threading.Thread(target=server.run, args=([listener],))
    # What is there already is left out of the search for sessions that are still held.
    gc.freeze()
    thread.start()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        port = listener.getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
            yield Live(server, backend, port, http, server.servers[0].get_loop())
    finally:
        backend.gate.set()
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        gc.unfreeze()
    assert not thread.is_alive()
