"""The sample clip through real sockets, with the shipped weights and the real client."""

import asyncio
import json
import signal
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from gdkvm_client import (
    Beat,
    Dropped,
    Event,
    Frame,
    Hello,
    InputError,
    Result,
    RleMask,
    Summary,
    stream,
)
from server.ingest import SampleClip, read_sample
from tests.e2e.serving import PATIENCE_S, Serving, serving

STRUCTURES = ("lv", "myocardium", "atrium")
RESUME_S = 3
Labels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with serving(tmp_path_factory.mktemp("server"), resume_s=RESUME_S) as server:
        yield server


@pytest.fixture(scope="module")
def clip() -> SampleClip:
    return read_sample()


def frames_of(clip: SampleClip) -> list[Frame]:
    period_us = 1000 * clip.frame_time_ms
    return [Frame(n, round(n * period_us), jpeg) for n, jpeg in enumerate(clip.jpegs)]


async def play(url: str, clip: SampleClip) -> list[Event]:
    hello = Hello(clip.size, "jpeg", view="A4C")
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in stream(url, frames_of(clip), hello)]


def masks_of(events: list[Event]) -> list[Labels]:
    masks = [event.mask for event in events if isinstance(event, Result)]
    return [mask.labels(STRUCTURES) for mask in masks if isinstance(mask, RleMask)]


@pytest.fixture(scope="module")
def undisturbed(server: Serving, clip: SampleClip) -> list[Event]:
    """The clip on a server that does nothing else."""
    return asyncio.run(play(server.url, clip))


def assert_same_answers(found: list[Event], wanted: list[Event]) -> None:
    def numbers(events: list[Event]) -> list[object]:
        results = [event for event in events if isinstance(event, Result)]
        return [(r.seq, r.time_us, r.areas_px, r.lv, r.presence, r.quality, r.ef) for r in results]

    assert numbers(found) == numbers(wanted)
    for mine, other in zip(masks_of(found), masks_of(wanted), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert isinstance(found[-1], Summary)
    assert isinstance(wanted[-1], Summary)
    assert (found[-1].beats, found[-1].ef) == (wanted[-1].beats, wanted[-1].ef)
    assert found[-1].results == wanted[-1].results


async def until_nobody_is_there(server: Serving) -> None:
    """Wait until every session is freed, then ask an operator's eyes too."""
    async with httpx.AsyncClient(base_url=server.http) as http, asyncio.timeout(PATIENCE_S):
        while True:
            if (await http.get("/v1/sessions")).json() == []:
                break
            await asyncio.sleep(0.1)
        text = (await http.get("/metrics")).text
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    held = {s.labels["phase"]: s.value for s in samples if s.name == "gdkvm_sessions"}
    assert held == {"live": 0, "parked": 0}


def test_every_frame_of_the_sample_is_segmented_in_order(
    undisturbed: list[Event], clip: SampleClip
) -> None:
    results = [event for event in undisturbed if isinstance(event, Result)]
    assert [result.seq for result in results] == list(range(len(clip.jpegs)))
    for result, labels_HW in zip(results, masks_of(undisturbed), strict=True):
        assert labels_HW.shape == clip.size
        for index, name in enumerate(STRUCTURES):
            assert result.areas_px[name] == np.count_nonzero(labels_HW == index + 1)
        # A ventricle in an apical view of this depth; loose, since it is no reference.
        assert 0.01 < result.areas_px["lv"] / labels_HW.size < 0.35
    summary = undisturbed[-1]
    assert isinstance(summary, Summary)
    assert (summary.results, summary.dropped) == (len(clip.jpegs), 0)
    told = {event.number: event for event in undisturbed if isinstance(event, Beat)}
    assert list(told.values()) == list(summary.beats)
    assert summary.ef.state in ("measured", "withheld")


async def test_streams_side_by_side_answer_as_alone(
    server: Serving, clip: SampleClip, undisturbed: list[Event]
) -> None:
    for events in await asyncio.gather(*(play(server.url, clip) for _ in range(3))):
        assert_same_answers(events, undisturbed)


async def test_at_the_pace_of_acquisition_every_frame_is_answered_once(
    server: Serving, clip: SampleClip
) -> None:
    hello = Hello(clip.size, "jpeg", policy="latest", mask_encoding="none")
    answers = [
        event
        async for event in stream(server.url, frames_of(clip), hello, realtime=True)
        if isinstance(event, Result | Dropped)
    ]
    assert [answer.seq for answer in answers] == list(range(len(clip.jpegs)))
    assert isinstance(answers[-1], Result)
    assert all(isinstance(a, Result) or a.reason == "replaced" for a in answers)


async def test_the_client_raises_what_the_server_says(server: Serving, clip: SampleClip) -> None:
    with pytest.raises(InputError, match="gdkvm-live") as caught:
        async for _ in stream(server.url, [], Hello(clip.size, model="gpt")):
            pass
    assert caught.value.code == "unknown_model"


@dataclass
class CuttingRelay:
    """A network between client and server that loses the line when it is told to.

    Attributes:
        cuts: bytes from the client after which each connection in turn is lost.
    """

    port: int
    cuts: list[int]
    url: str = ""
    connections: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        left = self.cuts.pop(0) if self.cuts else 1 << 62
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        back = asyncio.create_task(self.copy(up_reader, writer))
        self.tasks.add(back)
        while left > 0 and (data := await reader.read(min(left, 4096))):
            left -= len(data)
            up_writer.write(data)
            await up_writer.drain()
        if left == 0:
            await self.tear(up_writer)
            writer.transport.abort()
        up_writer.close()

    async def copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.close()

    async def tear(self, writer: asyncio.StreamWriter) -> None:
        """RST, in the middle of whatever was being sent."""
        await writer.drain()
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


@asynccontextmanager
async def relay_to(port: int, cuts: list[int]) -> AsyncIterator[CuttingRelay]:
    relay = CuttingRelay(port, cuts)
    server = await asyncio.start_server(relay.relay, "127.0.0.1", 0)
    relay.url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/stream"
    async with server:
        yield relay
    await asyncio.gather(*relay.tasks, return_exceptions=True)


async def test_a_session_cut_inside_frames_again_and_again_answers_as_one_never_cut(
    server: Serving, clip: SampleClip, undisturbed: list[Event]
) -> None:
    frame_bytes = len(clip.jpegs[0])
    cuts = [int(frame_bytes * share) for share in (7.4, 9.5, 3.7)]
    async with relay_to(server.port, cuts) as relay:
        events = await play(relay.url, clip)
        assert relay.connections == 4
    assert_same_answers(events, undisturbed)
    await until_nobody_is_there(server)


HELLO = '{"type": "hello", "size": [48, 48], "policy": "every"}'
HELLO_JPEG = '{"type": "hello", "size": [240, 320], "codec": "jpeg"}'


def gray(seq: int, length: int = 48 * 48) -> bytes:
    return Frame(seq, None, bytes(length)).to_bytes("gray8")


async def break_off(url: str, *messages: str | bytes) -> tuple[str, int | None]:
    """Say what is not allowed; the code of the error and of the close."""
    async with connect(url, compression=None, max_size=None) as talk:
        for message in messages:
            await talk.send(message)
        heard = []
        with suppress(ConnectionClosed):
            while True:
                heard.append(json.loads(await talk.recv()))
        return heard[-1]["code"], talk.close_code


async def vanish(url: str) -> None:
    """Send half a frame and reset the connection."""
    async with connect(url, compression=None) as talk:
        await talk.send(HELLO)
        await talk.recv()
        message = gray(0)
        # A whole message's header (RFC 6455 section 5.2), masked with zeros, and half its body.
        talk.transport.write(
            struct.pack(">BBH4x", 0x82, 0x80 | 126, len(message)) + message[: len(message) // 2]
        )
        await reset(talk)


async def reset(talk: ClientConnection) -> None:
    raw: socket.socket = talk.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    talk.transport.abort()
    await talk.wait_closed()


async def test_a_neighbour_of_everything_illegal_gets_the_same_answers_as_alone(
    server: Serving, clip: SampleClip, undisturbed: list[Event]
) -> None:
    half = clip.jpegs[0][: len(clip.jpegs[0]) // 2]
    illegal = {
        ("}{",): ("malformed_message", 1007),
        (HELLO, bytes(range(256))): ("malformed_message", 1007),
        (HELLO, gray(0)[:-7]): ("malformed_message", 1007),
        (HELLO, HELLO): ("hello_expected", 1008),
        (gray(0),): ("hello_expected", 1008),
        (HELLO, gray(0, 48 * 47)): ("wrong_size", 1007),
        (HELLO_JPEG, Frame(0, None, half).to_bytes("jpeg")): ("undecodable_frame", 1007),
        (HELLO, Frame(0, None, half).to_bytes("jpeg")): ("unsupported_codec", 1003),
        (HELLO, bytes((16 << 20) + 1)): ("message_too_big", 1009),
    }
    is_over = asyncio.Event()

    async def neighbour() -> None:
        while not is_over.is_set():
            assert_same_answers(await play(server.url, clip), undisturbed)

    streaming = asyncio.create_task(neighbour())
    for messages, wanted in illegal.items():
        assert await break_off(server.url, *messages) == wanted
        await vanish(server.url)
    is_over.set()
    await streaming
    await until_nobody_is_there(server)
    logged = [json.loads(line) for line in server.errors.read_text().splitlines()]
    assert [line for line in logged if line["level"] == "ERROR"] == []


async def test_a_terminated_server_says_where_the_session_stands_and_ends_well(
    tmp_path_factory: pytest.TempPathFactory, clip: SampleClip
) -> None:
    with serving(tmp_path_factory.mktemp("terminated")) as server:
        async with connect(server.url, compression=None) as talk, asyncio.timeout(PATIENCE_S):
            await talk.send(HELLO_JPEG)
            ready = json.loads(await talk.recv())
            await talk.send(Frame(5, None, clip.jpegs[0]).to_bytes("jpeg"))
            assert json.loads(await talk.recv())["seq"] == 5
            server.process.send_signal(signal.SIGTERM)
            drain = json.loads(await talk.recv())
            with pytest.raises(ConnectionClosed):
                await talk.recv()
        assert talk.close_code == 1012
        assert drain["type"] == "drain"
        assert (drain["resume"], drain["last_seq"]) == (ready["resume"], 5)
        assert await asyncio.to_thread(server.process.wait, PATIENCE_S) == 0
        lines = server.errors.read_text()
    logged = [json.loads(line) for line in lines.splitlines()]
    assert logged[0]["precision"] in {"int8", "bf16", "f16", "f32"}
    assert [line["event"] for line in logged] == [
        "model loaded", "clips taken up", "session begins", "session parked", "session ends",
    ]  # fmt: skip
    assert ready["resume"] not in lines
