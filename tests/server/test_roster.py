"""Sessions outlive their sockets for a while, one socket at a time, and never longer."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode
from websockets.uri import parse_uri

from tests.server.live import (
    PATIENCE_S,
    SIDE,
    Live,
    beating,
    disc,
    expected_labels,
    labels_of,
    live_server,
    packed,
    until,
)

FRAMES = 16
SOON_S = 0.5


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Room for two sessions, which stay parked as long as any test here takes."""
    with live_server(tmp_path_factory.mktemp("clips"), max_sessions=2, resume_s=600) as live:
        yield live


@pytest.fixture
async def empty(live: Live) -> Live:
    """The same, with nobody left of the test before."""
    await live.forget_all()
    return live


async def streamed(live: Live, seqs: range, **hello: Any) -> tuple[str, list[dict[str, Any]]]:
    """Stream frames, read every answer, and lose the line; the token and the answers."""
    async with live.talk(**hello) as talk:
        heard = []
        for seq in seqs:
            await talk.say(beating(seq))
            heard.append(await talk.hear())
        talk.abort()
    await live.until_parked(talk.ready["session"])
    return talk.ready["resume"], heard


@pytest.mark.parametrize("repeated", [0, 1, 5])
async def test_a_resumed_session_goes_on_as_if_never_cut(empty: Live, repeated: int) -> None:
    token, heard = await streamed(empty, range(7))
    async with empty.talk(resume=token) as talk:
        assert (talk.ready["resumed"], talk.ready["last_seq"]) == (True, 6)
        for seq in range(7 - repeated, FRAMES):
            await talk.say(beating(seq))
            answer = await talk.hear()
            if seq <= 6:
                assert answer == heard[seq]
            else:
                heard.append(answer)
        summary = (await talk.end())[-1]
    images = [disc(seq) for seq in range(FRAMES)]
    results = [each for each in heard if each["type"] == "result"]
    assert [each["seq"] for each in results] == list(range(FRAMES))
    for seq, result in enumerate(results):
        np.testing.assert_array_equal(labels_of(result["mask"]), expected_labels(images[: seq + 1]))
        assert result["areas_px"]["atrium"] == seq + 1
    assert (summary["results"], summary["dropped"]) == (FRAMES, 0)


async def test_a_cut_while_a_frame_is_worked_on_loses_and_doubles_nothing(empty: Live) -> None:
    async with empty.talk() as talk:
        empty.backend.gate.clear()
        for seq in range(4):
            await talk.say(beating(seq))
        await talk.settle()
        talk.abort()
    empty.backend.gate.set()
    await empty.until_parked(talk.ready["session"])
    async with empty.talk(resume=talk.ready["resume"]) as talk:
        last_seq = talk.ready["last_seq"]
        assert last_seq in (None, 0)
        for seq in range(4):
            await talk.say(beating(seq))
        answers = [await talk.hear() for _ in range(4)]
        summary = (await talk.end())[-1]
    assert [(each["type"], each["seq"]) for each in answers] == [("result", n) for n in range(4)]
    assert answers[-1]["areas_px"]["atrium"] == 4
    assert summary["results"] == 4


async def test_answers_older_than_the_record_are_told_as_repeated(empty: Live) -> None:
    token, heard = await streamed(empty, range(66))
    async with empty.talk(resume=token) as talk:
        for seq in (1, 2, 65):
            await talk.say(beating(seq))
        forgotten, kept, newest = [await talk.hear() for _ in range(3)]
        await talk.end()
    assert (forgotten["type"], forgotten["reason"]) == ("dropped", "repeated")
    assert kept == heard[2]
    assert newest == heard[65]


async def test_a_resuming_client_may_choose_encoding_and_policy_anew(empty: Live) -> None:
    token, _ = await streamed(empty, range(1))
    async with empty.talk(resume=token, mask_encoding="none", policy="latest") as talk:
        assert (talk.ready["mask_encoding"], talk.ready["policy"]) == ("none", "latest")
        await talk.say(beating(1))
        assert (await talk.hear())["mask"] is None
        await talk.end()


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_resuming_socket_fences_the_one_that_still_lives(
    empty: Live, is_busy: bool
) -> None:
    async with empty.talk() as old:
        await old.say(beating(0))
        assert (await old.hear())["seq"] == 0
        if is_busy:
            empty.backend.gate.clear()
            empty.backend.entered.clear()
            await old.say(beating(1))
            await asyncio.to_thread(empty.backend.entered.wait)
            asyncio.get_running_loop().call_later(0.1, empty.backend.gate.set)
        async with empty.talk(resume=old.ready["resume"]) as new:
            heard, close = await old.hear_all()
            assert heard[-1]["type"] == "error"
            assert (heard[-1]["code"], close) == ("fenced", 4001)
            assert [each["seq"] for each in heard[:-1]] == ([1] if is_busy else [])
            assert new.ready["last_seq"] == int(is_busy)
            await new.say(beating(2))
            assert (await new.hear())["areas_px"]["atrium"] == 2 + is_busy
            await new.end()


@pytest.mark.parametrize(
    "other",
    [
        {"size": [SIDE, SIDE + 1]},
        {"codec": "jpeg"},
        {"region": [0, 0, 40, 40]},
        {"spacing_mm": [0.3, 0.3]},
        {"model": "other"},
    ],
)
async def test_a_hello_of_other_frames_resumes_nothing(empty: Live, other: dict[str, Any]) -> None:
    token, _ = await streamed(empty, range(1))
    async with empty.socket() as talk:
        await talk.say_hello(resume=token, **other)
        heard, close = await talk.hear_all()
    assert (heard[0]["code"], close) == ("cannot_resume", 4004)
    async with empty.talk(resume=token) as talk:
        await talk.end()


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_session_that_was_left_resumes_nothing(empty: Live, is_busy: bool) -> None:
    async with empty.talk() as talk:
        if is_busy:
            empty.backend.gate.clear()
            empty.backend.entered.clear()
            await talk.say(beating(0))
            await asyncio.to_thread(empty.backend.entered.wait)
        await talk.connection.close(1000)
    empty.backend.gate.set()
    await empty.assert_all_is_freed()
    async with empty.socket() as late:
        await late.say_hello(resume=talk.ready["resume"])
        heard, close = await late.hear_all()
    assert (heard[0]["code"], close) == ("cannot_resume", 4004)


async def test_one_session_too_many_is_told_that_the_server_is_full(empty: Live) -> None:
    async with empty.talk() as first, empty.talk() as second:
        async with empty.socket() as third:
            await third.say_hello()
            heard, close = await third.hear_all()
        assert (heard[0]["code"], heard[0]["retryable"], close) == ("full", True, 1013)
        await first.end()
        async with empty.talk() as third:
            await third.end()
        await second.end()


async def test_the_session_parked_longest_makes_room_and_is_kept_in_the_store(empty: Live) -> None:
    async with empty.talk() as opened_first:
        longest, _ = await streamed(empty, range(1))
        opened_first.abort()
    await empty.until_parked(opened_first.ready["session"])
    async with empty.talk() as talk:
        async with empty.talk(resume=longest) as evicted:
            assert evicted.ready["last_seq"] == 0
            await evicted.say(beating(1))
            assert (await evicted.hear())["areas_px"]["atrium"] == 2
            await evicted.end()
        async with empty.talk(resume=opened_first.ready["resume"]) as resumed:
            await resumed.end()
        await talk.end()


async def test_an_operator_sees_sessions_and_no_secret(empty: Live) -> None:
    token, _ = await streamed(empty, range(3))
    answer = await empty.get("/v1/sessions")
    (shown,) = answer.json()
    assert shown.pop("age_s") >= 0
    assert shown.pop("session").startswith("s_")
    assert shown == {
        "phase": "parked",
        "codec": "gray8",
        "policy": "every",
        "model": "counting",
        "results": 3,
        "dropped": 0,
    }
    assert token not in answer.text
    assert await empty.shown_sessions() == {"live": 0, "parked": 1}


class RawClient:
    """A websocket client that can stop in the middle of a frame."""

    def __init__(self, live: Live) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_S)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(("127.0.0.1", live.port))
        self._protocol = ClientProtocol(parse_uri(live.url))
        self._protocol.send_request(self._protocol.connect())
        self.flush()
        while not self._protocol.events_received():
            self._protocol.receive_data(self.socket.recv(4096))

    def say(self, message: str | bytes) -> bytes:
        """What would go over the line for a message."""
        if isinstance(message, str):
            self._protocol.send_text(message.encode())
        else:
            self._protocol.send_binary(message)
        return b"".join(self._protocol.data_to_send())

    def flush(self) -> None:
        self.socket.sendall(b"".join(self._protocol.data_to_send()))

    def read_to_end(self) -> tuple[list[dict[str, Any]], int | None]:
        """Everything that is still to come, and the close code."""
        while data := self.socket.recv(65536):
            self._protocol.receive_data(data)
            self.flush()
        events = self._protocol.events_received()
        texts = [e.data for e in events if isinstance(e, WireFrame) and e.opcode is Opcode.TEXT]
        close = self._protocol.close_rcvd
        return [json.loads(bytes(text)) for text in texts], None if close is None else close.code

    def reset(self) -> None:
        """Vanish with RST, as a machine that lost its power and came back does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


HELLO_TEXT = f'{{"type": "hello", "size": [{SIDE}, {SIDE}], "policy": "every"}}'


async def test_a_client_that_vanishes_inside_a_frame_is_parked_and_then_freed(
    tmp_path: Path,
) -> None:
    with live_server(tmp_path, resume_s=SOON_S) as live:
        client = await asyncio.to_thread(RawClient, live)
        client.socket.sendall(client.say(HELLO_TEXT))
        client.socket.sendall(client.say(beating(0)))
        await until(lambda: [s["results"] for s in live.server.parts.roster.listing()] == [1])
        client.socket.sendall(client.say(beating(1))[:1000])
        await live.until_sessions(1)
        async with live.talk() as neighbour:
            client.reset()
            await live.until_sessions(1, parked=1)
            assert await live.shown_sessions() == {"live": 1, "parked": 1}
            await live.until_sessions(1)
            await neighbour.say(beating(0))
            assert (await neighbour.hear())["areas_px"]["atrium"] == 1
            await neighbour.end()
        await live.assert_all_is_freed()


async def test_a_client_that_vanishes_before_it_is_accepted_leaves_nothing(
    empty: Live, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        client = socket.create_connection(("127.0.0.1", empty.port))
        client.sendall(
            b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    async with empty.talk() as talk:
        await talk.end()
    await empty.assert_all_is_freed()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


async def test_without_a_time_to_resume_in_a_cut_session_is_freed_at_once(tmp_path: Path) -> None:
    with live_server(tmp_path, resume_s=0) as live:
        async with live.talk() as talk:
            assert talk.ready["resume_within_s"] == 0
            talk.abort()
        await live.assert_all_is_freed()


async def test_silence_parks_a_session_which_can_then_be_resumed(tmp_path: Path) -> None:
    with live_server(tmp_path, idle_timeout_s=SOON_S) as live:
        async with live.talk() as talk:
            await talk.say(beating(0))
            assert (await talk.hear())["seq"] == 0
            heard, close = await talk.hear_all()
        assert [each["code"] for each in heard] == ["idle_timeout"]
        assert heard[0]["retryable"]
        assert close == 4002
        async with live.talk(resume=talk.ready["resume"]) as again:
            assert again.ready["last_seq"] == 0
            await again.end()
        async with live.socket() as mute:
            heard, close = await mute.hear_all()
        assert (heard[0]["code"], close) == ("idle_timeout", 4002)
        await live.assert_all_is_freed()


async def test_a_client_that_reads_no_answers_is_parked_and_a_neighbour_is_served(
    tmp_path: Path,
) -> None:
    # One piece, or it would be drawn in part; with many runs, so that its answers are long.
    comb = bytes([0, 255]) * (SIDE * (SIDE - 1) // 2) + bytes([255]) * SIDE
    settings: dict[str, Any] = {"send_timeout_s": 2.0, "inbox_frames": 256}
    with live_server(tmp_path, send_buffer_bytes=4096, **settings) as live:
        client = await asyncio.to_thread(RawClient, live)
        client.socket.sendall(client.say(HELLO_TEXT.replace("}", ', "region": [0, 0, 48, 48]}')))
        async with live.talk() as neighbour:
            for seq in range(40):
                client.socket.sendall(client.say(packed(seq, comb)))
            await live.until_sessions(1, parked=1)
            await neighbour.say(beating(0))
            heard, close = await asyncio.to_thread(client.read_to_end)
            assert (heard[-1]["code"], heard[-1]["retryable"]) == ("slow_reader", True)
            assert close == 4003
            assert [each["seq"] for each in heard[1:-1]] == list(range(len(heard) - 2))
            assert (await neighbour.hear())["areas_px"]["atrium"] == 1
            await neighbour.end()
        client.socket.close()


async def test_a_server_that_goes_away_says_where_each_session_stands(tmp_path: Path) -> None:
    with live_server(tmp_path, resume_s=60, drain_s=PATIENCE_S) as live:
        async with live.talk() as idle, live.talk() as busy, live.socket() as mute:
            await busy.say(beating(0))
            await busy.hear()
            live.backend.gate.clear()
            live.backend.entered.clear()
            await busy.say(beating(1))
            await asyncio.to_thread(live.backend.entered.wait)
            live.server.should_exit = True
            heard, close = await idle.hear_all()
            assert heard == [
                {
                    "type": "drain",
                    "resume": idle.ready["resume"],
                    "resume_within_s": 60,
                    "last_seq": None,
                }
            ]
            assert close == 1012
            ready = await live.get("/readyz")
            assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
            await mute.say_hello()
            assert await mute.hear_all() == ([], 1012)
            live.backend.gate.set()
            heard, close = await busy.hear_all()
            assert [each["type"] for each in heard] == ["result", "drain"]
            assert heard[-1]["last_seq"] == 1
            assert close == 1012
    assert len(live.server.parts.roster) == 0
    assert live.backend.kept_memories() == 0
