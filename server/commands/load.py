"""Many live sessions at once against one server, each at its pace, seen from the client."""

import asyncio
import json
import time
from dataclasses import dataclass, field

from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from server.protocol import SUBPROTOCOL, FrameHeader

_ANSWERS = ('{"type":"result"', '{"type":"dropped"')


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of a server.

    Attributes:
        size: rows and columns of the frames.
        images: JPEG frames, sent over and over.
    """

    url: str
    size: tuple[int, int]
    images: list[bytes]
    sessions: int
    fps: float
    seconds: float


@dataclass(slots=True)
class Answers:
    """What came back.

    Attributes:
        times_ms: from before a frame was sent to after its result was read.
        elapsed_s: of the whole run.
        refused: sessions that were not admitted.
    """

    times_ms: list[float] = field(default_factory=list)
    dropped: int = 0
    refused: int = 0
    elapsed_s: float = 0.0


async def run_load(load: Load) -> Answers:
    """Open the sessions, their frames spread evenly over a period, and stream for a while."""
    answers = Answers()
    started_s = time.perf_counter()
    offsets_s = [number / load.fps / load.sessions for number in range(load.sessions)]
    await asyncio.gather(*(_session(load, offset_s, answers) for offset_s in offsets_s))
    answers.elapsed_s = time.perf_counter() - started_s
    return answers


async def _session(load: Load, offset_s: float, answers: Answers) -> None:
    hello = {"type": "hello", "size": load.size, "codec": "jpeg", "fps": load.fps}
    try:
        async with connect(
            load.url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, max_size=None
        ) as socket:
            await socket.send(json.dumps(hello))
            if json.loads(await socket.recv())["type"] != "ready":
                answers.refused += 1
                return
            sent_s: dict[int, float] = {}
            count = round(load.seconds * load.fps)

            async def send() -> None:
                begun_s = time.perf_counter() + offset_s
                for seq in range(count):
                    await asyncio.sleep(begun_s + seq / load.fps - time.perf_counter())
                    payload = load.images[seq % len(load.images)]
                    header = FrameHeader("jpeg", seq, round(seq * 1e6 / load.fps), len(payload))
                    sent_s[seq] = time.perf_counter()
                    await socket.send(header.to_bytes() + payload)

            sender = asyncio.create_task(send())
            answered = 0
            while answered < count:
                text = str(await socket.recv())
                if text.startswith(_ANSWERS[0]):
                    answers.times_ms.append(1000 * (time.perf_counter() - sent_s[answered]))
                answers.dropped += text.startswith(_ANSWERS[1])
                answered += text.startswith(_ANSWERS)
            await sender
    except (OSError, WebSocketException):
        answers.refused += 1
