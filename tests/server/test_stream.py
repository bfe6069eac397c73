"""Every illegal move of docs/protocol.md on a real socket, and who else notices (nobody)."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from server.errors import SocketGoneError, WireCodes
from server.metrics import Metrics
from server.protocol import Codec
from server.settings import Settings
from server.stream import FrameSocket
from tests.server.live import (
    CRASH,
    HELLO,
    NAN,
    SIDE,
    Live,
    Talk,
    beating,
    disc,
    expected_labels,
    flat,
    labels_of,
    live_server,
    packed,
)
from tests.server.packets import encoded

CREDITS = 8
FRAME_MAX_BYTES = 64 << 10


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(
        tmp_path_factory.mktemp("clips"),
        inbox_frames=CREDITS,
        frame_max_bytes=FRAME_MAX_BYTES,
        streams=2,
    ) as live:
        yield live


def jpeg(image_HW: np.ndarray[Any, np.dtype[np.uint8]]) -> bytes:
    return cv2.imencode(".jpg", image_HW)[1].tobytes()


async def no_hello(talk: Talk, *messages: dict[str, Any] | bytes | str) -> None:
    for message in messages:
        await talk.say(message)


async def after_hello(talk: Talk, *messages: dict[str, Any] | bytes | str, **hello: Any) -> None:
    await talk.say({**HELLO, **hello})
    assert (await talk.hear())["type"] == "ready"
    await no_hello(talk, *messages)


def move(
    name: str, play: Callable[..., Awaitable[None]], *messages: Any, code: str, **hello: Any
) -> Any:
    async def illegal(talk: Talk) -> None:
        await play(talk, *messages, **hello)

    return pytest.param(illegal, code, id=name)


HALF_JPEG = jpeg(disc(0))[: len(jpeg(disc(0))) // 2]
HALF_PNG = cv2.imencode(".png", disc(0))[1].tobytes()[:200]

MOVES = [
    move("rubbish text", no_hello, "}{", code="malformed_message"),
    move("rubbish text later", after_hello, "}{", code="malformed_message"),
    move("a list", no_hello, "[1]", code="malformed_message"),
    move("a type that is none", after_hello, '{"type": "pause"}', code="unknown_message"),
    move("rubbish bytes", after_hello, bytes(range(200)), code="malformed_message"),
    move("no bytes", after_hello, b"", code="malformed_message"),
    move("half a header", after_hello, beating(0)[:17], code="malformed_message"),
    move("half a payload", after_hello, beating(0)[:-9], code="malformed_message"),
    move("frame first", no_hello, beating(0), code="hello_expected"),
    move("bye first", no_hello, '{"type": "bye"}', code="hello_expected"),
    move("hello twice", after_hello, '{"type": "hello", "size": [48, 48]}', code="hello_expected"),
    move("a row too few", after_hello, packed(0, bytes(SIDE * (SIDE - 1))), code="wrong_size"),
    move("one byte too many", after_hello, packed(0, bytes(SIDE**2 + 1)), code="wrong_size"),
    move(
        "jpeg of another size", after_hello, packed(0, jpeg(np.zeros((48, 64), np.uint8)), "jpeg"),
        code="wrong_size", codec="jpeg",
    ),
    move(
        "the frame that is half there", after_hello, packed(0, HALF_JPEG, "jpeg"),
        code="undecodable_frame", codec="jpeg",
    ),
    move("half a png", after_hello, packed(0, HALF_PNG, "png"), code="undecodable_frame",
         codec="png"),
    move(
        "rubbish for h264", after_hello, packed(0, b"\0\0\0\1" + bytes(range(256)), "h264"),
        code="undecodable_frame", codec="h264",
    ),
    move("codec of no hello", after_hello, packed(0, bytes(9), "png"), code="unsupported_codec"),
    move("model of no server", no_hello, '{"type": "hello", "size": [48, 48], "model": "gpt"}',
         code="unknown_model"),
    move("unknown field", no_hello, '{"type": "hello", "size": [48, 48], "sise": 1}',
         code="malformed_message"),
    move("hello without size", no_hello, '{"type": "hello"}', code="malformed_message"),
    move("size of a thumbnail", no_hello, '{"type": "hello", "size": [15, 48]}',
         code="malformed_message"),
    move("spacing that is none", no_hello,
         '{"type": "hello", "size": [48, 48], "spacing_mm": [0.3, NaN]}', code="malformed_message"),
    move("region beside the frame", after_hello, beating(0), code="bad_frame",
         region=[100, 100, 48, 48]),
    move("too big", after_hello, bytes(FRAME_MAX_BYTES + 1), code="message_too_big"),
    move("too big before hello", no_hello, "x" * (FRAME_MAX_BYTES + 1), code="message_too_big"),
    move("a token of nothing", no_hello, '{"type": "hello", "size": [48, 48], "resume": "x"}',
         code="cannot_resume"),
    move("network answers NaN", after_hello, flat(0, NAN), code="bad_state"),
    move("network raises", after_hello, flat(0, CRASH), code="engine_failed"),
]  # fmt: skip


@asynccontextmanager
async def neighbour(live: Live) -> AsyncIterator[None]:
    """A session that streams before, during and after the block, and must notice nothing."""
    images = [disc(seq) for seq in range(12)]
    async with live.talk() as talk:
        for seq in range(4):
            await talk.say(beating(seq))
        yield
        heard = [await talk.hear() for _ in range(4)]
        for seq in range(4, 12):
            await talk.say(beating(seq))
        heard += await talk.end()
    results = [each for each in heard if each["type"] == "result"]
    assert [each["seq"] for each in results] == list(range(12))
    for seq, result in enumerate(results):
        np.testing.assert_array_equal(labels_of(result["mask"]), expected_labels(images[: seq + 1]))
    assert heard[-1]["results"] == 12


@pytest.mark.parametrize(("illegal", "code"), MOVES)
async def test_an_illegal_move_is_told_by_its_code_and_a_neighbour_notices_nothing(
    live: Live, illegal: Callable[[Talk], Awaitable[None]], code: str
) -> None:
    async with neighbour(live):
        async with live.socket() as talk:
            await illegal(talk)
            heard, close = await talk.hear_all()
        assert [(each["type"], each["code"]) for each in heard] == [("error", code)]
        assert heard[0]["message"]
        assert close == documented_closes()[code]
    await live.assert_all_is_freed()


async def test_more_unanswered_frames_than_credits_are_told(live: Live) -> None:
    async with live.talk() as talk:
        assert talk.ready["credits"] == CREDITS
        live.backend.gate.clear()
        for seq in range(CREDITS + 1):
            await talk.say(beating(seq))
        await talk.settle()
        live.backend.gate.set()
        heard, close = await talk.hear_all()
    assert {each["type"] for each in heard[:-1]} <= {"result"}
    assert heard[-1]["code"] == "credit_overrun"
    assert close == 1008
    await live.assert_all_is_freed()


async def test_as_many_unanswered_frames_as_credits_are_all_answered(live: Live) -> None:
    async with live.talk() as talk:
        for start in (0, CREDITS):
            live.backend.gate.clear()
            for seq in range(start, start + CREDITS):
                await talk.say(beating(seq))
            await talk.settle()
            live.backend.gate.set()
            heard = [await talk.hear() for _ in range(CREDITS)]
            assert [(each["type"], each["seq"]) for each in heard] == [
                ("result", seq) for seq in range(start, start + CREDITS)
            ]
        assert (await talk.end())[-1]["results"] == 2 * CREDITS


async def test_no_frame_may_follow_bye(live: Live) -> None:
    async with live.talk() as talk:
        live.backend.gate.clear()
        await no_hello(talk, beating(0), '{"type": "bye"}', beating(1))
        await talk.settle()
        live.backend.gate.set()
        heard, close = await talk.hear_all()
    assert {each["type"] for each in heard[:-1]} <= {"result"}
    assert heard[-1]["code"] == "malformed_message"
    assert close == 1007
    await live.assert_all_is_freed()


async def test_frames_sent_before_bye_are_answered_before_the_summary(live: Live) -> None:
    async with live.talk() as talk:
        live.backend.gate.clear()
        await no_hello(talk, *map(beating, range(5)), '{"type": "bye"}')
        await talk.settle()
        live.backend.gate.set()
        heard, close = await talk.hear_all()
    assert [each["seq"] for each in heard if each["type"] == "result"] == [0, 1, 2, 3, 4]
    assert heard[-1]["type"] == "summary"
    assert close == 1000
    await live.assert_all_is_freed()


async def test_the_newest_frame_replaces_the_one_that_waits(live: Live) -> None:
    async with live.talk(policy="latest") as talk:
        live.backend.gate.clear()
        live.backend.entered.clear()
        await talk.say(beating(0))
        await asyncio.to_thread(live.backend.entered.wait)
        await no_hello(talk, *map(beating, (1, 2, 2, 5)))
        await talk.settle()
        live.backend.gate.set()
        heard = [await talk.hear() for _ in range(5)]
        summary = (await talk.end())[-1]
    told = [(each["type"], each["seq"], each.get("reason")) for each in heard]
    assert told == [
        ("result", 0, None),
        ("dropped", 1, "replaced"),
        ("dropped", 2, "replaced"),
        ("dropped", 2, "replaced"),
        ("result", 5, None),
    ]
    assert heard[1]["time_us"] == 33_333
    assert heard[-1]["dropped"] == 2
    assert (summary["results"], summary["dropped"]) == (2, 2)
    labels = expected_labels([disc(0), disc(5)])
    np.testing.assert_array_equal(labels_of(heard[-1]["mask"]), labels)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
async def test_the_picture_after_a_replaced_packet_is_the_one_that_was_sent(
    live: Live, codec: Codec
) -> None:
    packets = list(encoded(codec, [disc(seq) for seq in range(4)]))
    async with live.talk(policy="latest", codec=codec) as talk:
        live.backend.gate.clear()
        live.backend.entered.clear()
        await talk.say(packed(0, packets[0], codec))
        await asyncio.to_thread(live.backend.entered.wait)
        for seq in (1, 2, 3):
            await talk.say(packed(seq, packets[seq], codec))
        await talk.settle()
        live.backend.gate.set()
        heard = [await talk.hear() for _ in range(4)]
        await talk.end()
    assert [each["type"] for each in heard] == ["result", "dropped", "dropped", "result"]
    labels = expected_labels([disc(0), disc(3)])
    np.testing.assert_array_equal(labels_of(heard[-1]["mask"]), labels)


async def test_a_flood_under_latest_is_answered_frame_by_frame_in_order(live: Live) -> None:
    async with live.talk(policy="latest") as talk:
        await no_hello(talk, *map(beating, range(100)))
        heard = await talk.end()
    answers = [each for each in heard if each["type"] in ("result", "dropped")]
    assert [each["seq"] for each in answers] == list(range(100))
    results = [each for each in answers if each["type"] == "result"]
    assert results[-1]["seq"] == 99
    assert heard[-1]["results"] == len(results)
    assert heard[-1]["dropped"] == 100 - len(results)
    assert results[-1]["areas_px"]["atrium"] == len(results)


async def test_a_frame_sent_twice_is_answered_from_the_record(live: Live) -> None:
    async with live.talk() as talk:
        await no_hello(talk, beating(4), beating(4), beating(3))
        first, again, older = [await talk.hear() for _ in range(3)]
        summary = (await talk.end())[-1]
    assert first["type"] == "result"
    assert again == first
    assert (older["type"], older["seq"], older["reason"]) == ("dropped", 3, "repeated")
    assert (summary["results"], summary["dropped"]) == (1, 0)


@pytest.mark.parametrize("size", [[16, 16], [16, 200], [331, 77]])
async def test_a_frame_of_any_size_is_answered_on_its_own_grid(live: Live, size: list[int]) -> None:
    rows, cols = size
    async with live.talk(size=size, region=None) as talk:
        await talk.say(packed(0, bytes([90]) * (rows * cols)))
        result = await talk.hear()
        await talk.end()
    assert result["mask"]["size"] == size
    assert labels_of(result["mask"]).shape == (rows, cols)


async def test_stage_times_add_up_to_no_more_than_the_whole(live: Live) -> None:
    async with live.talk() as talk:
        await talk.say(beating(0))
        stages = (await talk.hear())["stages_ms"]
        await talk.end()
    parts = [stages[name] for name in ("queue", "decode", "infer", "measure")]
    assert min(parts) >= 0
    assert sum(parts) == pytest.approx(stages["total"], abs=0.01)


async def test_a_client_that_is_gone_before_it_is_accepted_is_no_error_of_ours() -> None:
    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(_: Message) -> None:
        raise OSError("the line is lost")

    websocket = WebSocket({"type": "websocket", "subprotocols": []}, receive, send)
    with pytest.raises(SocketGoneError):
        await FrameSocket(websocket, Settings(), Metrics()).hello()


def documented_closes() -> dict[str, int]:
    """The table of docs/protocol.md."""
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (\d{4}) \|", page, re.MULTILINE)
    return {code: int(close) for codes, close in rows for code in re.findall(r"\w+", codes)}


def test_every_close_code_is_documented() -> None:
    ours = {"engine_failed": 1011, "engine_dead": 1011, "bad_state": 1011}
    assert documented_closes() == WireCodes.CLOSE | ours
