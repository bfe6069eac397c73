"""Servers that stop, are killed, cut off or read slowly under load, and sessions that go on."""

import asyncio
import random
import signal
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Literal, get_args

import httpx

from gdkvm_client import Beat, Event, Frame, Hello, Result, RleMask, Summary, stream
from server.ingest import SampleClip
from tests.e2e.serving import PATIENCE_S, Serving, serving

STRUCTURES = ("lv", "myocardium", "atrium")
AHEAD = 16
"""Frames that a session may be ahead of the next blow: each is under way when it falls."""

STANDBY = 2
"""Servers that are started before they are needed."""

SILENCE_S = 1.0
"""After which a server parks a session whose line is stalled."""

Blow = Literal["cut", "slow", "stall", "term", "kill"]
BLOWS: tuple[Blow, ...] = get_args(Blow)
ENDS: tuple[Blow, ...] = ("term", "kill")
"""Blows after which another server must go on."""

Print = list[object]


@dataclass
class Front:
    """An address that stays, in front of whichever server lives.

    Attributes:
        port: of the server, None while none lives.
        is_slow: bytes trickle through.
        flows: nothing passes while it is not set.
    """

    port: int | None = None
    is_slow: bool = False
    flows: asyncio.Event = field(default_factory=asyncio.Event)
    lines: set[asyncio.WriteTransport] = field(default_factory=set)

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection both ways until either end is gone."""
        self.lines.add(writer.transport)
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port or 1)
        except OSError:
            writer.transport.abort()
            return
        self.lines.add(up_writer.transport)
        await asyncio.gather(self._copy(reader, up_writer), self._copy(up_reader, writer))
        self.lines -= {writer.transport, up_writer.transport}

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1024 if self.is_slow else 65536):
                await self.flows.wait()
                if self.is_slow:
                    await asyncio.sleep(0.002)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()

    def cut(self) -> None:
        """Lose every line at once, in the middle of whatever is under way."""
        for line in list(self.lines):
            line.abort()


class Gate:
    """Lets frames through up to a number, and says when answers have come as far."""

    def __init__(self) -> None:
        self._sent_below = 0
        self._answered = -1
        self._changed = asyncio.Condition()

    async def open(self, below: int) -> None:
        """Let frames of a lower number through."""
        await self._set(below, self._answered)

    async def note(self, seq: int) -> None:
        """A session has the answer to a frame."""
        await self._set(self._sent_below, max(seq, self._answered))

    async def _set(self, sent_below: int, answered: int) -> None:
        async with self._changed:
            self._sent_below, self._answered = sent_below, answered
            self._changed.notify_all()

    async def until_sendable(self, seq: int) -> None:
        """Wait until a frame may be sent."""
        await self._until(lambda: seq < self._sent_below)

    async def until_answered(self, seq: int) -> None:
        """Wait until some session has the answer to a frame."""
        await self._until(lambda: seq <= self._answered)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(condition)


class Fleet:
    """Servers that come and go on one store; the next ones are always being started."""

    def __init__(self, folder: Path, stack: ExitStack, **settings: object) -> None:
        self._folder = folder
        self._stack = stack
        self._settings: dict[str, object] = {
            "snapshot_store": folder / "sessions.sqlite",
            "snapshot_key": "5a" * 32,
            "checkpoint_frames": 5,
            "idle_timeout_s": SILENCE_S,
            # What is measured at the start would only take time.
            "streams": 2,
            "capacity_fps": 10_000,
            **settings,
        }
        self._pool = stack.enter_context(ThreadPoolExecutor(1 + STANDBY))
        self._numbers = count()
        self._wanted = 0
        self._next: deque[Future[Serving]] = deque()
        self.living: Serving | None = None

    def want(self, servers: int) -> None:
        """Begin to start the first of so many servers, which will serve one after the other."""
        self._wanted = servers
        for _ in range(min(servers, 1 + STANDBY)):
            self._prepare()

    def _prepare(self) -> None:
        self._wanted -= 1
        self._next.append(self._pool.submit(self._start))

    def _start(self) -> Serving:
        folder = self._folder / str(next(self._numbers))
        folder.mkdir()
        return self._stack.enter_context(serving(folder, **self._settings))

    async def replace(self, how: signal.Signals, front: Front) -> None:
        """End the living server under load and put another in its place."""
        before = self.living
        assert before is not None
        front.port = None
        before.process.send_signal(how)
        status = await asyncio.to_thread(before.process.wait, PATIENCE_S)
        assert status == (0 if how is signal.SIGTERM else -signal.SIGKILL), before.errors
        await self.step_in(front)

    async def step_in(self, front: Front) -> None:
        """Let the next one serve."""
        self.living = await asyncio.wrap_future(self._next.popleft())
        front.port = self.living.port
        if self._wanted:
            self._prepare()

    async def until_parked(self) -> None:
        """Wait until the living server has given up a silent socket."""
        assert self.living is not None
        async with httpx.AsyncClient(base_url=self.living.http) as http:
            while True:
                sessions = (await http.get("/v1/sessions")).json()
                if any(session["phase"] == "parked" for session in sessions):
                    return
                await asyncio.sleep(0.05)


def frames_of(clip: SampleClip, count: int) -> list[Frame]:
    """The sample clip in a loop."""
    period_us = 1000 * clip.frame_time_ms
    return [Frame(n, round(n * period_us), clip.jpegs[n % len(clip.jpegs)]) for n in range(count)]


def fingerprint(event: Event) -> object:
    """All that an answer says but how long it took and what is stored, the mask as a hash."""
    if isinstance(event, Result):
        assert isinstance(event.mask, RleMask)
        mask = sha256(event.mask.labels(STRUCTURES).tobytes()).hexdigest()
        said = (event.areas_px, event.lv, event.presence, event.quality, event.ef)
        return (event.seq, event.time_us, mask, *said)
    if isinstance(event, Beat):
        return event
    assert isinstance(event, Summary), event
    return (event.results, event.dropped, event.beats, event.ef)


async def play(url: str, clip: SampleClip, count: int, gate: Gate) -> Print:
    """One session from hello to summary."""

    async def gated() -> AsyncIterator[Frame]:
        for frame in frames_of(clip, count):
            await gate.until_sendable(frame.seq)
            yield frame

    hello = Hello(clip.size, "jpeg", policy="every")
    prints: Print = []
    async for event in stream(url, gated(), hello):
        prints.append(fingerprint(event))
        if isinstance(event, Result):
            await gate.note(event.seq)
    return prints


def script(chance: random.Random, blows: list[Blow], count: int) -> list[tuple[int, Blow]]:
    """Which blow falls after which answer."""
    places = sorted(chance.sample(range(2, count - 2 * AHEAD), len(blows)))
    return list(zip(places, chance.sample(blows, len(blows)), strict=True))


async def strike(blow: Blow, front: Front, fleet: Fleet) -> None:
    """Let one blow fall; a slow line stays slow until the next blow."""
    front.is_slow = blow == "slow"
    if blow == "cut":
        front.cut()
    elif blow == "stall":
        front.flows.clear()
        await fleet.until_parked()
        front.flows.set()
    elif blow in ENDS:
        await fleet.replace(signal.SIGTERM if blow == "term" else signal.SIGKILL, front)


async def survive(
    clip: SampleClip,
    fleet: Fleet,
    blows: list[tuple[int, Blow]],
    *,
    sessions: int,
    count: int,
) -> tuple[Print, list[Print]]:
    """Play one session undisturbed, then several under blows.

    Returns:
        The undisturbed session, and the others.
    """
    front = Front()
    front.flows.set()
    fleet.want(1 + sum(blow in ENDS for _, blow in blows))
    await fleet.step_in(front)
    listener = await asyncio.start_server(front.relay, "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/stream"
    async with listener:
        gate = Gate()
        await gate.open(count)
        undisturbed = await play(url, clip, count, gate)
        gate = Gate()
        async with asyncio.TaskGroup() as group:
            players = [group.create_task(play(url, clip, count, gate)) for _ in range(sessions)]
            for place, blow in blows:
                await gate.open(place + AHEAD)
                await gate.until_answered(place)
                assert not any(player.done() for player in players)
                await strike(blow, front, fleet)
            await gate.open(count)
        return undisturbed, [player.result() for player in players]
