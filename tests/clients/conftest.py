"""A scripted server that speaks the real wire: it does on demand what a real one does rarely."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from server.protocol import (
    SUBPROTOCOL,
    BeatMessage,
    Bye,
    Drain,
    Dropped,
    EfMessage,
    ErrorMessage,
    Hello,
    ModelName,
    QualityMessage,
    Ready,
    Result,
    RleMask,
    StagesMs,
    Summary,
    parse_frame,
    parse_message,
)

STRUCTURES = ("lv", "myocardium", "atrium")
EF = EfMessage(
    state="withheld",
    percent=None,
    interval=None,
    method="none",
    beats=0,
    heart_rate_bpm=None,
    edv_ml=None,
    esv_ml=None,
    reasons=("no_complete_beat",),
)
BEAT = BeatMessage(
    number=0, revision=0, ed_seq=0, es_seq=2, ed_time_ms=0.0, es_time_ms=66.0, ed_volume_ml=None,
    es_volume_ml=None, ef_percent=50.0, fac_percent=40.0, is_complete=True, reasons=(),
)  # fmt: skip


def mask_of(seq: int, size: tuple[int, int]) -> NDArray[np.bool_]:
    """What the scripted server claims to see: one bit pattern per frame."""
    return np.random.default_rng(seq).random(size) < 0.3


def run_lengths(mask_HW: NDArray[np.bool_]) -> list[int]:
    flat = [False, *mask_HW.ravel().tolist()]
    edges = [0, *(i for i, (a, b) in enumerate(pairwise(flat)) if a != b), mask_HW.size]
    return [b - a for a, b in pairwise(edges)] if not flat[1] else [0, *np.diff(edges[1:]).tolist()]


@dataclass
class ScriptedServer:
    """Answers every frame, unless the script says otherwise.

    Attributes:
        cut_after: answers after which each socket in turn is cut; further sockets are not.
        dying_words: sent before a cut, instead of nothing.
        refusal: said instead of ready, while there is one.
        answers_lost: how many answers of a socket that is cut are counted but never sent.
        is_silent: frames are not answered.
    """

    credits: int = 4
    cut_after: list[int] = field(default_factory=list)
    dying_words: ErrorMessage | Drain | None = None
    refusals: list[ErrorMessage] = field(default_factory=list)
    answers_lost: int = 0
    is_silent: bool = False
    drop: set[int] = field(default_factory=set)

    url: str = ""
    hellos: list[Hello] = field(default_factory=list)
    received: list[tuple[int, int | None, bytes]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    most_unanswered: int = 0
    last_seq: int | None = None

    async def session(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.keys.append(socket.request.headers.get("Authorization"))
        hello = parse_message(await socket.recv(decode=True))
        assert isinstance(hello, Hello)
        self.hellos.append(hello)
        if self.refusals:
            await socket.send(self.refusals.pop(0).to_json())
            return
        await socket.send(self.ready(hello).to_json())
        await self.answer(socket, hello)

    async def answer(self, socket: ServerConnection, hello: Hello) -> None:
        left = self.cut_after.pop(0) if self.cut_after else 10**9
        async for message in socket:
            if isinstance(message, str):
                assert isinstance(parse_message(message), Bye)
                await socket.send(self.summary().to_json())
                return
            header, payload = parse_frame(message)
            self.received.append((header.seq, header.time_us, bytes(payload)))
            if self.is_silent:
                continue
            if left == 0:
                await self.cut(socket)
                return
            left -= 1
            self.last_seq = header.seq
            if left >= self.answers_lost:
                await socket.send(self.result(header.seq, header.time_us, hello.size))

    async def cut(self, socket: ServerConnection) -> None:
        if self.dying_words is not None:
            await socket.send(self.dying_words.to_json())
            await socket.close(1012)
        else:
            socket.transport.abort()

    def ready(self, hello: Hello) -> Ready:
        return Ready(
            session="s_1",
            resume="token",
            resume_within_s=1.0,
            resumed=hello.resume is not None,
            last_seq=self.last_seq,
            credits=self.credits,
            policy=hello.policy,
            mask_encoding=hello.mask_encoding,
            model=ModelName(name="scripted", version="1", sha256="00"),
            network_size=16,
            structures=STRUCTURES,
        )

    def result(self, seq: int, time_us: int | None, size: tuple[int, int]) -> str:
        if seq in self.drop:
            return Dropped(seq=seq, time_us=time_us, reason="replaced").to_json()
        counts = {name: [size[0] * size[1]] for name in STRUCTURES}
        counts["lv"] = run_lengths(mask_of(seq, size))
        return Result(
            seq=seq,
            time_us=time_us,
            mask=RleMask(size=size, counts=counts),
            areas_px=dict.fromkeys(STRUCTURES, 0.0),
            lv=None,
            presence=0.9,
            quality=QualityMessage(state="fail", reasons=("no_left_ventricle",)),
            ef=EF,
            dropped=0,
            stages_ms=StagesMs(queue=0, decode=0, infer=0, measure=0, total=0),
        ).to_json()

    def summary(self) -> Summary:
        return Summary(session="s_1", results=1, dropped=0, beats=(BEAT,), ef=EF)


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedServer]:
    """A server that a test may script before its client connects."""
    script = ScriptedServer()
    server: Server = await serve(
        script.session,
        "127.0.0.1",
        0,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
    )
    script.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream"
    yield script
    server.close()
    await asyncio.wait_for(server.wait_closed(), 5)
