import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing, suppress

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection

from gdkvm_client import (
    BusyError,
    ConnectionLostError,
    Dropped,
    Event,
    Frame,
    GdkvmError,
    Hello,
    InputError,
    Result,
    RleMask,
    SessionLostError,
    StreamClient,
    Summary,
    stream,
    stream_blocking,
)
from gdkvm_client.stream import Pace
from server.protocol import Codec, Drain, ErrorMessage, parse_frame
from tests.clients.conftest import ScriptedServer, mask_of
from tests.server.live import until

SIZE = (16, 24)


def frames(count: int, period_us: int = 33_333) -> Iterator[Frame]:
    for seq in range(count):
        yield Frame.of_pixels(seq, seq * period_us, np.full(SIZE, seq % 256, np.uint8))


async def collect(scripted: ScriptedServer, count: int, hello: Hello | None = None) -> list[Event]:
    events = stream(scripted.url, frames(count), hello or Hello(SIZE))
    return [event async for event in events]


def seqs(events: list[Event]) -> list[int]:
    return [event.seq for event in events if isinstance(event, Result | Dropped)]


async def test_every_frame_is_answered_in_order_and_the_summary_comes_last(
    scripted: ScriptedServer,
) -> None:
    events = await collect(scripted, 30)
    assert seqs(events) == list(range(30))
    assert isinstance(events[-1], Summary)
    assert events[-1].beats[0].ef_percent == 50.0
    assert events[-1].ef.reasons == ("no_complete_beat",)


async def test_frames_arrive_as_they_were_sent(scripted: ScriptedServer) -> None:
    await collect(scripted, 3)
    assert scripted.received[2] == (2, 66_666, bytes([2]) * 16 * 24)


async def test_masks_become_the_arrays_that_the_server_encoded(scripted: ScriptedServer) -> None:
    for event in await collect(scripted, 5):
        if isinstance(event, Result):
            assert isinstance(event.mask, RleMask)
            np.testing.assert_array_equal(event.mask.of("lv"), mask_of(event.seq, SIZE))
            labels = event.mask.labels(("lv", "myocardium", "atrium"))
            np.testing.assert_array_equal(labels == 1, mask_of(event.seq, SIZE))


async def test_a_dropped_frame_is_told_apart(scripted: ScriptedServer) -> None:
    scripted.drop = {1}
    events = await collect(scripted, 3)
    assert [type(event) for event in events[:3]] == [Result, Dropped, Result]


async def test_no_more_frames_are_under_way_than_there_are_credits(
    scripted: ScriptedServer,
) -> None:
    scripted.is_silent = True
    async with StreamClient(scripted.url, Hello(SIZE)) as client:
        for frame in frames(scripted.credits):
            await client.send(frame)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.send(next(frames(1))), 0.3)
    assert len(scripted.received) == scripted.credits


@pytest.mark.parametrize("answers_lost", [0, 2])
async def test_after_a_cut_the_session_goes_on_and_no_answer_is_missing(
    scripted: ScriptedServer, answers_lost: int
) -> None:
    scripted.cut_after, scripted.answers_lost = [7, 5], answers_lost
    events = await collect(scripted, 30)
    assert seqs(events) == list(range(30))
    assert [hello.resume for hello in scripted.hellos] == [None, "token", "token"]


async def test_what_a_killed_server_forgot_goes_again_one_by_one_where_newer_frames_replace(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    accompanied = []

    async def answer(socket: ServerConnection, hello: Hello) -> None:
        is_first = len(scripted.hellos) == 1
        async for message in socket:
            if isinstance(message, str):
                await socket.send(scripted.summary().to_json())
                return
            header, _ = parse_frame(message)
            if is_first and header.seq == 5:
                socket.transport.abort()
                return
            if not is_first and header.seq < 5:
                with suppress(TimeoutError):
                    await asyncio.wait_for(socket.recv(), 0.1)
                    accompanied.append(header.seq)
            await socket.send(scripted.result(header.seq, header.time_us, hello.size))

    monkeypatch.setattr(scripted, "answer", answer)
    events = await collect(scripted, 12, Hello(SIZE, policy="latest"))
    assert seqs(events) == list(range(12))
    assert accompanied == []


@pytest.mark.parametrize(("codec", "is_sent_again"), [("h264", True), ("jpeg", False)])
async def test_a_killed_server_is_sent_the_dropped_packets_too_where_later_ones_build_on_them(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch, codec: Codec, is_sent_again: bool
) -> None:
    came: list[list[int]] = []
    scripted.drop = {2}

    async def answer(socket: ServerConnection, hello: Hello) -> None:
        came.append([])
        async for message in socket:
            if isinstance(message, str):
                await socket.send(scripted.summary().to_json())
                return
            header, _ = parse_frame(message)
            came[-1].append(header.seq)
            if len(came) == 1 and header.seq == 5:
                socket.transport.abort()
                return
            await socket.send(scripted.result(header.seq, header.time_us, hello.size))

    monkeypatch.setattr(scripted, "answer", answer)
    hello = Hello(SIZE, codec=codec, policy="latest")
    events = await collect(scripted, 8, hello)
    assert seqs(events) == list(range(8))
    assert came[1] == [seq for seq in range(8) if seq != 2 or is_sent_again]


async def test_what_a_killed_server_forgot_leaves_no_more_under_way_than_there_are_credits(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    async def answer(socket: ServerConnection, hello: Hello) -> None:
        if len(scripted.hellos) == 1:
            async for message in socket:
                assert isinstance(message, bytes)
                header, _ = parse_frame(message)
                if header.seq == 11:
                    socket.transport.abort()
                    return
                await socket.send(scripted.result(header.seq, header.time_us, hello.size))
        while True:  # as many as come before the first answer
            batch: list[bytes] = []
            with suppress(TimeoutError):
                while len(batch) <= scripted.credits:
                    batch.append(await asyncio.wait_for(socket.recv(decode=False), 0.2))
            batches.append(len(batch))
            for each in batch:
                header, _ = parse_frame(each)
                await socket.send(scripted.result(header.seq, header.time_us, hello.size))

    monkeypatch.setattr(scripted, "answer", answer)
    async with StreamClient(scripted.url, Hello(SIZE)) as client:
        sent = list(frames(13))
        for frame in sent[:11]:
            await client.send(frame)
            await anext(client)
        scripted.refusals = [ErrorMessage(code="full", message="16 of 16", retryable=True)]
        await client.send(sent[11])
        await until(lambda: not scripted.refusals)  # the client is about to come back
        await client.send(sent[12])
        assert seqs([await anext(client) for _ in range(2)]) == [11, 12]
    # 12 frames come again, and the one that waited: in full windows of 4.
    assert max(batches) == scripted.credits


async def test_a_server_with_fewer_credits_is_sent_no_more_than_it_gives(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = []

    async def answer(socket: ServerConnection, _: Hello) -> None:
        async for message in socket:
            if len(scripted.hellos) == 1:
                scripted.credits = 2
                return socket.transport.abort()
            assert isinstance(message, bytes)
            received.append(parse_frame(message)[0].seq)
        return None

    monkeypatch.setattr(scripted, "answer", answer)
    async with StreamClient(scripted.url, Hello(SIZE)) as client:
        first, *others = frames(3)
        await client.send(first)
        await until(lambda: len(scripted.hellos) == 2)
        await client.send(others[0])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.send(others[1]), 0.3)
    assert received == [0, 1]


async def test_a_draining_server_is_left_and_the_session_goes_on(scripted: ScriptedServer) -> None:
    scripted.cut_after = [7]
    scripted.dying_words = Drain(resume="token", resume_within_s=1.0, last_seq=6)
    assert seqs(await collect(scripted, 20)) == list(range(20))


async def test_an_error_that_cannot_be_retried_ends_the_stream_after_the_answers_before_it(
    scripted: ScriptedServer,
) -> None:
    scripted.cut_after = [3]
    scripted.dying_words = ErrorMessage(
        code="wrong_size", message="frame 3 is 1x1", retryable=False
    )
    events = stream(scripted.url, frames(30), Hello(SIZE))
    assert seqs([await anext(events) for _ in range(3)]) == [0, 1, 2]
    with pytest.raises(InputError, match="frame 3 is 1x1") as caught:
        await anext(events)
    assert caught.value.code == "wrong_size"


async def test_a_session_that_cannot_be_resumed_is_lost(scripted: ScriptedServer) -> None:
    scripted.cut_after = [3]
    client = StreamClient(scripted.url, Hello(SIZE))
    async with client:
        scripted.refusals = [
            ErrorMessage(code="cannot_resume", message="no such session", retryable=False)
        ]
        for frame in frames(4):
            await client.send(frame)
        with pytest.raises(SessionLostError):
            [event async for event in client]


async def test_a_full_server_refuses_and_says_that_it_may_work_later(
    scripted: ScriptedServer,
) -> None:
    scripted.refusals = [ErrorMessage(code="full", message="16 of 16", retryable=True)]
    with pytest.raises(BusyError) as caught:
        await collect(scripted, 3)
    assert caught.value.retryable


async def test_a_server_that_is_full_at_a_resume_is_asked_again(scripted: ScriptedServer) -> None:
    scripted.cut_after = [3]
    async with StreamClient(scripted.url, Hello(SIZE)) as client:
        scripted.refusals = [ErrorMessage(code="full", message="16 of 16", retryable=True)] * 2
        for frame in frames(4):
            await client.send(frame)
        await client.finish()
        assert seqs([event async for event in client]) == [0, 1, 2, 3]


async def test_a_session_that_is_cut_again_and_again_without_an_answer_is_given_up(
    scripted: ScriptedServer,
) -> None:
    scripted.cut_after = [0] * 100
    with pytest.raises(ConnectionLostError):
        await asyncio.wait_for(collect(scripted, 3), 5)


async def test_without_resume_a_cut_is_an_error(scripted: ScriptedServer) -> None:
    scripted.cut_after = [1]
    async with StreamClient(scripted.url, Hello(SIZE), will_resume=False) as client:
        for frame in frames(2):
            await client.send(frame)
        assert isinstance(await anext(client), Result)
        with pytest.raises(ConnectionLostError):
            await anext(client)


async def test_where_no_server_is_the_connection_is_lost() -> None:
    with pytest.raises(ConnectionLostError, match="no server answers"):
        [event async for event in stream("ws://127.0.0.1:1/v1/stream", frames(1), Hello(SIZE))]


async def test_a_server_that_hangs_up_before_it_answers_may_be_asked_again() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionLostError) as lost:
            await anext(stream(f"ws://127.0.0.1:{port}/", frames(1), Hello(SIZE)))
    assert lost.value.retryable


async def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InputError):
        [event async for event in stream("not an address", frames(1), Hello(SIZE))]


async def test_the_key_goes_with_the_upgrade(scripted: ScriptedServer) -> None:
    events = stream(scripted.url, frames(1), Hello(SIZE), key="secret")
    assert [event async for event in events]
    assert scripted.keys == ["Bearer secret"]


async def test_an_error_of_the_frames_reaches_the_reader(scripted: ScriptedServer) -> None:
    def broken() -> Iterator[Frame]:
        yield from frames(3)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="went away"):
        [event async for event in stream(scripted.url, broken(), Hello(SIZE))]


async def test_a_reader_that_leaves_early_closes_the_session(scripted: ScriptedServer) -> None:
    async with aclosing(stream(scripted.url, frames(1000), Hello(SIZE))) as events:
        async for event in events:
            if isinstance(event, Result) and event.seq == 5:
                break
    before = len(scripted.received)
    await asyncio.sleep(0.05)
    assert len(scripted.received) == before < 1000


async def test_frames_are_sent_at_the_time_they_were_acquired(scripted: ScriptedServer) -> None:
    started = time.monotonic()
    events = stream(scripted.url, frames(6, period_us=40_000), Hello(SIZE), realtime=True)
    assert len([event async for event in events]) == 7
    assert 0.2 <= time.monotonic() - started < 0.6


def test_a_late_frame_is_not_waited_for_and_does_not_delay_the_next() -> None:
    pace = Pace(fps=30)
    assert pace.wait_s(Frame(0, 1_000_000, b""), now_s=50.0) == 0
    assert pace.wait_s(Frame(1, 1_040_000, b""), now_s=50.5) == 0
    assert pace.wait_s(Frame(2, 1_600_000, b""), now_s=50.5) == pytest.approx(0.1)


def test_frames_without_times_are_paced_at_the_nominal_rate() -> None:
    pace = Pace(fps=25)
    waits = [pace.wait_s(Frame(seq, None, b""), now_s=7.0) for seq in range(3)]
    assert waits == pytest.approx([0.0, 0.04, 0.08])


async def test_programs_without_an_event_loop_get_the_same_events(
    scripted: ScriptedServer,
) -> None:
    def run() -> list[Event]:
        return list(stream_blocking(scripted.url, frames(10), Hello(SIZE)))

    events = await asyncio.to_thread(run)
    assert seqs(events) == list(range(10))
    assert isinstance(events[-1], Summary)


async def test_an_error_reaches_programs_without_an_event_loop(scripted: ScriptedServer) -> None:
    scripted.refusals = [ErrorMessage(code="unknown_model", message="no such", retryable=False)]

    def run() -> list[Event]:
        return list(stream_blocking(scripted.url, frames(10), Hello(SIZE, model="x")))

    with pytest.raises(GdkvmError) as caught:
        await asyncio.to_thread(run)
    assert caught.value.code == "unknown_model"
